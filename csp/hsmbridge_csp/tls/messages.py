"""What may come in an established connection beside application data: alerts and, in TLS 1.3, KeyUpdate.

Source: RFC 8446 sections 4.6.3, 5.1 and 6; RFC 5246 sections 7.2 and 7.4.1.1.
"""

from __future__ import annotations

from enum import IntEnum

from hsmbridge_csp.tls.alerts import AlertDescription, TlsAlertError
from hsmbridge_csp.tls.errors import TlsPeerAlertError
from hsmbridge_csp.tls.suites import TlsVersion

__all__ = ["HandshakeBuffer", "KeyUpdate", "alert_message", "key_update_message", "read_alert"]

_WARNING, _FATAL = 1, 2
_WARNINGS = (AlertDescription.CLOSE_NOTIFY, AlertDescription.NO_RENEGOTIATION)
_ALERT_SIZE = 2
_KEY_UPDATE = 24
_HEAD = 4
"""Handshake type and length (RFC 8446 section 4)."""


class KeyUpdate(IntEnum):
    """What the sender of a KeyUpdate asks for."""

    NOT_REQUESTED = 0
    REQUESTED = 1


def alert_message(description: AlertDescription) -> bytes:
    """Return an alert's bytes: fatal, unless the RFC has it as a warning only."""
    level = _WARNING if description in _WARNINGS else _FATAL
    return bytes([level, description])


def key_update_message(request: KeyUpdate) -> bytes:
    """Return a KeyUpdate's bytes."""
    return bytes([_KEY_UPDATE, 0, 0, 1, request])


def read_alert(fragment: bytes, version: TlsVersion) -> bool:
    """Read an alert.

    Returns: whether it was close_notify; a warning that says nothing is not.

    Raises:
        TlsPeerAlertError: the peer ended the connection.
        TlsAlertError: not an alert.
    """
    if len(fragment) != _ALERT_SIZE:
        raise TlsAlertError(AlertDescription.DECODE_ERROR, "an alert is two bytes long")
    level, description = fragment
    if description == AlertDescription.CLOSE_NOTIFY:
        return True
    # RFC 8446 section 6: in TLS 1.3 the level says nothing, and only these two do not end the connection.
    if description == AlertDescription.USER_CANCELED if version is TlsVersion.TLS13 else level == _WARNING:
        return False
    known = {int(each): each.name.lower() for each in AlertDescription}
    raise TlsPeerAlertError(description, known.get(description, str(description)))


class HandshakeBuffer:
    """Puts together handshake messages that come after the handshake; the only one that may is KeyUpdate in TLS 1.3.

    Args:
        version: of the connection.
    """

    def __init__(self, version: TlsVersion) -> None:
        self._version = version
        self._pending = b""

    @property
    def pending(self) -> bool:
        """Whether a message has begun and not ended; nothing else may come until it has (RFC 8446 section 5.1)."""
        return bool(self._pending)

    def add(self, fragment: bytes) -> KeyUpdate | None:
        """Take the fragment of one record.

        Returns: what a KeyUpdate that is now whole asks for; None while it is not.

        Raises:
            TlsAlertError: a message that may not come, or not like this.
        """
        if self._version is not TlsVersion.TLS13:
            raise TlsAlertError(AlertDescription.NO_RENEGOTIATION, "this connection is not negotiated anew")
        self._pending += fragment
        message = self._pending
        if message[0] != _KEY_UPDATE:
            raise TlsAlertError(
                AlertDescription.UNEXPECTED_MESSAGE, f"a handshake message of type {message[0]} cannot come now"
            )
        if len(message) < _HEAD:
            return None
        if int.from_bytes(message[1:_HEAD], "big") != 1:
            raise TlsAlertError(AlertDescription.DECODE_ERROR, "a KeyUpdate is one byte long")
        if len(message) == _HEAD:
            return None
        if len(message) > _HEAD + 1:  # RFC 8446 section 5.1: the keys change, so nothing may follow in the record
            raise TlsAlertError(AlertDescription.UNEXPECTED_MESSAGE, "something follows a KeyUpdate in its record")
        self._pending = b""
        if message[_HEAD] not in (KeyUpdate.NOT_REQUESTED, KeyUpdate.REQUESTED):
            raise TlsAlertError(AlertDescription.ILLEGAL_PARAMETER, "a KeyUpdate requests nothing or an update")
        return KeyUpdate(message[_HEAD])
