"""What TLS calls its records and its fatal alerts, and the one error of a record that cannot be taken.

Source: RFC 8446 sections 5.1 (content types) and 6 (alerts); RFC 5246 section 7.2.
"""

from __future__ import annotations

from enum import IntEnum

from hsmbridge_csp.errors import NTE, CspError

__all__ = ["AlertDescription", "ContentType", "TlsAlertError"]


class ContentType(IntEnum):
    """What a record holds."""

    CHANGE_CIPHER_SPEC = 20
    ALERT = 21
    HANDSHAKE = 22
    APPLICATION_DATA = 23


class AlertDescription(IntEnum):
    """Why a connection ends: the alerts that a record layer, or who takes over from one, has to send."""

    CLOSE_NOTIFY = 0
    UNEXPECTED_MESSAGE = 10
    BAD_RECORD_MAC = 20
    RECORD_OVERFLOW = 22
    HANDSHAKE_FAILURE = 40
    ILLEGAL_PARAMETER = 47
    DECODE_ERROR = 50
    DECRYPT_ERROR = 51
    PROTOCOL_VERSION = 70
    INTERNAL_ERROR = 80
    USER_CANCELED = 90
    NO_RENEGOTIATION = 100


class TlsAlertError(CspError):
    """The peer sent what ends the connection.

    Args:
        alert: the fatal alert that the RFC names for it: send it, then close.
        message: what was wrong, never more than the alert gives away.

    Attributes:
        alert: as given.
    """

    nte = NTE.BAD_DATA

    def __init__(self, alert: AlertDescription, message: str) -> None:
        super().__init__(message, hint=f"send the fatal alert {alert.name.lower()} and close the connection")
        self.alert = alert
