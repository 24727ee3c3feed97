"""What a TLS record key is, apart from what it does: its secrets, its state, and whether it may go on.

Source: docs/tls.md; RFC 8446 section 5.5 (limits).
"""

from __future__ import annotations

import hmac
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from hsmbridge_csp.errors import BadKeyError, BadLengthError, KeyStateError
from hsmbridge_csp.keys import SoftwareKey
from hsmbridge_csp.modes import Direction
from hsmbridge_csp.permissions import DEFAULT, Permission
from hsmbridge_csp.tls.aead import aead_protection
from hsmbridge_csp.tls.etm import EncryptThenMac
from hsmbridge_csp.tls.schedule import traffic_key
from hsmbridge_csp.tls.state import TLS_RECORD, TlsRecordState
from hsmbridge_csp.tls.suites import Bulk

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsmbridge_csp.disposition import Disposition
    from hsmbridge_csp.tls.alerts import AlertDescription, ContentType
    from hsmbridge_csp.tls.protection import Protection, Room
    from hsmbridge_csp.tls.suites import CipherSuite, TlsVersion

__all__ = ["TlsKeyBase"]

_NEEDED = {Direction.ENCRYPT: Permission.ENCRYPT, Direction.DECRYPT: Permission.DECRYPT}


class TlsKeyBase(SoftwareKey):
    """Secrets and state of a record key.

    Whether it may go on is asked once, not for each record: the answer is a sequence at which to ask again, and
    whatever could change the answer sets that to 0.

    Args:
        value: bulk key, then the MAC key where the suite has one, then in TLS 1.3 the application traffic secret;
            without the secret the key works until somebody asks for a KeyUpdate.
        state: suite, direction, fixed IV, sequence.
        permissions: KP_PERMISSIONS; ENCRYPT seals, DECRYPT opens.

    Raises:
        BadLengthError: the suite has no key of that size.
        KeyStateError: key and IV are not those of the traffic secret.
    """

    def __init__(self, value: bytearray, state: TlsRecordState, permissions: Permission = DEFAULT) -> None:
        form = state.form
        if len(value) not in form.value_sizes:
            raise BadLengthError(
                f"{state.suite.name} has no record key of {len(value)} bytes",
                hint=f"give {' or '.join(map(str, form.value_sizes))}: bulk key, MAC key, traffic secret",
            )
        super().__init__(TLS_RECORD, value, permissions)
        self._failure: AlertDescription | None = None
        self._state, self._sequence = state, state.sequence
        if self.has_secret:
            self._check_secret()
        self._begin()

    @property
    def state(self) -> TlsRecordState:
        """The state as it is now."""
        return replace(self._state, sequence=self._sequence)

    @property
    def suite(self) -> CipherSuite:
        """The cipher suite."""
        return self._state.suite

    @property
    def version(self) -> TlsVersion:
        """The protocol version."""
        return self._state.form.version

    @property
    def direction(self) -> Direction:
        """Whether the key seals or opens."""
        return self._state.direction

    @property
    def sequence(self) -> int:
        """Number of the next record, which is how many this key has protected."""
        return self._sequence

    @property
    def remaining(self) -> int:
        """Records that the key may still protect: update it, or close, while there is one left to say so."""
        return self._state.records - self._sequence

    @property
    def has_secret(self) -> bool:
        """Whether a traffic secret came with the key, so that a KeyUpdate is possible."""
        return len(self._value) != self._state.form.value_sizes[0]

    @property
    def failure(self) -> AlertDescription | None:
        """The alert by which the peer's last record ended this key; None while it works."""
        return self._failure

    @property
    def prefix(self) -> int:
        """Where a fragment stands in a record, and in the buffer of the ways that work in place."""
        return self._prefix

    @property
    def permissions(self) -> Permission:
        """KP_PERMISSIONS."""
        return self._permissions

    @permissions.setter
    def permissions(self, permissions: Permission) -> None:
        self._permissions = permissions
        self._ask_again()

    def freeze(self) -> None:
        """Stop the key: it was exported for a move and must not go on here."""
        super().freeze()
        self._ask_again()

    def check_usable(self, needed: Permission | None = None) -> None:
        """Refuse a key that was destroyed, frozen, or ended by its peer, or may not do what is asked.

        Raises:
            BadKeyError: destroyed; KeyStateError: frozen or failed; PermissionDeniedError: not among its permissions.
        """
        super().check_usable(needed)
        if self._failure is not None:
            raise KeyStateError(
                f"the key has failed: its peer's record was answered with {self._failure.name.lower()}",
                hint="send that alert, close the connection, destroy the key",
            )

    def state_map(self) -> dict[int, Any]:
        """Return the state for a key record."""
        return self.state.to_map()

    @property
    def can_only_move(self) -> bool:
        """Whether it seals: a second holder would use a nonce twice."""
        return self._state.direction is Direction.ENCRYPT

    def dispose(self) -> Disposition:
        """Overwrite the bytes, the traffic secret too."""
        self._ask_again()
        return super().dispose()

    def _admit(self, wanted: Direction) -> None:
        """Ask whether the next record may be sealed or opened, and note until when the answer holds."""
        self.check_usable(_NEEDED[wanted])
        if self._state.direction is not wanted:
            raise KeyStateError(
                f"this record key is there to {self._state.direction}", hint="use the other direction's key"
            )
        if self._sequence >= self._state.records:
            raise KeyStateError(
                f"the key has protected {self._sequence} records, its limit",
                hint="agree on a new key: KeyUpdate in TLS 1.3, a new connection in TLS 1.2",
            )
        if wanted is Direction.ENCRYPT:
            self._seal_stop = self._state.records
        else:
            self._open_stop = self._state.records

    def _ask_again(self) -> None:
        self._seal_stop = self._open_stop = 0

    def _fail(self, alert: AlertDescription) -> None:
        self._failure = alert
        self._ask_again()

    def _begin(self) -> None:
        """Set up the ciphers for the secrets and the IV as they are now."""
        state, form = self._state, self._state.form
        keys = memoryview(self._value)
        key, mac_key = keys[: form.key_size], keys[form.key_size : form.key_size + form.mac_size]
        protection: Protection = (
            EncryptThenMac(form, key, mac_key) if form.bulk is Bulk.AES_CBC else aead_protection(form, key, state.iv)
        )
        self._prefix = protection.prefix
        self._seal: Callable[[Room, int, int, int], int] = protection.seal
        self._open: Callable[[Room, int, int], tuple[ContentType, int]] = protection.open
        self._size: Callable[[int], int] = protection.record_size
        self._ask_again()

    def _check_secret(self) -> None:
        form = self._state.form
        key, iv = traffic_key(form, self._value[form.key_size :])
        same = hmac.compare_digest(key + iv, self._value[: form.key_size] + self._state.iv)
        key[:] = bytes(len(key))
        if not same:
            raise KeyStateError(
                "key and IV are not those of the traffic secret", hint="hand over the secret that is in use now"
            )

    def _forget(self) -> None:
        self._seal = self._open = self._size = _gone


def _gone(*_: object) -> NoReturn:
    raise BadKeyError("the key was destroyed", hint="import the key again")
