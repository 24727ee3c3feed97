"""How a TLS connection ends other than by close_notify.

Source: RFC 8446 section 6; docs/tls.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsmbridge_csp.errors import NTE, CspError

if TYPE_CHECKING:
    from hsmbridge_csp.tls.alerts import AlertDescription

__all__ = [
    "TlsClosedError",
    "TlsConnectionError",
    "TlsHandshakeError",
    "TlsPeerAlertError",
    "TlsTimeoutError",
    "TlsTruncatedError",
]


class TlsConnectionError(CspError):
    """The connection cannot go on."""


class TlsTruncatedError(TlsConnectionError):
    """The stream ended without close_notify: what came may not be all that was sent.

    Args:
        alert: what the peer is told, who may have closed its sending side only; None where no RFC names an alert, which
            is between two records.

    Attributes:
        alert: as given.
    """

    nte = NTE.BAD_DATA

    def __init__(self, alert: AlertDescription | None) -> None:
        super().__init__(
            f"the stream ended {'within a record' if alert else 'without close_notify'}",
            hint="what came may not be all that was sent: discard it",
        )
        self.alert = alert


class TlsPeerAlertError(TlsConnectionError):
    """The peer ended the connection with a fatal alert.

    Attributes:
        description: the alert's number, as it came.
    """

    def __init__(self, description: int, name: str) -> None:
        super().__init__(f"the peer sent the fatal alert {name}", hint="the connection is closed; make a new one")
        self.description = description


class TlsClosedError(TlsConnectionError):
    """The connection was closed here, or handed over: this process can neither read nor write it."""

    nte = NTE.BAD_KEY_STATE


class TlsTimeoutError(TlsConnectionError):
    """The peer took or said nothing for too long. What was being written goes on with the next write."""


class TlsHandshakeError(TlsConnectionError):
    """The handshake failed; the client has been told why, as far as TLS has an alert for it."""
