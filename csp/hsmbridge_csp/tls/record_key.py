"""One direction of a TLS connection: its keys, its IV and its sequence number, as one key.

It seals or opens records, goes to another process like any key of the provider, and goes on there with the next record.
An error of the peer ends it for good: there is no second try, and nothing to be learnt from one.

Source: RFC 8446 sections 5 and 7.2; RFC 5246 section 6; docs/tls.md.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hsmbridge_csp.errors import BadLengthError, CspError, KeyStateError
from hsmbridge_csp.modes import Direction
from hsmbridge_csp.permissions import Permission
from hsmbridge_csp.tls.alerts import ContentType, TlsAlertError
from hsmbridge_csp.tls.keybase import TlsKeyBase
from hsmbridge_csp.tls.ktls import crypto_info
from hsmbridge_csp.tls.schedule import next_traffic_secret, traffic_key
from hsmbridge_csp.tls.state import TlsRecordState
from hsmbridge_csp.tls.suites import TlsVersion

if TYPE_CHECKING:
    from hsmbridge_csp.tls.protection import Room
    from hsmbridge_csp.tls.suites import CipherSuite

__all__ = ["TlsRecordKey"]

_APPLICATION_DATA = int(ContentType.APPLICATION_DATA)  # an int is compared faster


class TlsRecordKey(TlsKeyBase):
    """One direction's record key; see :class:`~hsmbridge_csp.tls.keybase.TlsKeyBase` for what it is made of."""

    @classmethod
    def from_traffic_secret(
        cls, suite: CipherSuite, direction: Direction, secret: bytearray, *, sequence: int = 0
    ) -> TlsRecordKey:
        """Make a TLS 1.3 key of its application traffic secret, which is overwritten.

        Raises:
            BadLengthError: the secret is not as long as the suite's hash; CspError: not a suite of TLS 1.3.
        """
        form = suite.form
        if suite.version is not TlsVersion.TLS13 or len(secret) != form.hash_size:
            raise BadLengthError(
                f"{suite.name} has no traffic secret of {len(secret)} bytes",
                hint="it is as long as the suite's hash",
            )
        key, iv = traffic_key(form, secret)
        value = key + secret
        secret[:] = bytes(len(secret))
        key[:] = bytes(len(key))
        return cls(value, TlsRecordState(suite=suite, direction=direction, iv=iv, sequence=sequence))

    def record_size(self, length: int) -> int:
        """Return the size of the record of a fragment of *length* bytes."""
        return self._size(length)

    def seal(self, content_type: int, fragment: bytes | bytearray | memoryview) -> bytes:
        """Protect the next record.

        Args:
            content_type: of :class:`~hsmbridge_csp.tls.alerts.ContentType`.
            fragment: 16,384 bytes at most; only application data may be empty.

        Returns: the record as it goes to the wire, header and all.

        Raises:
            BadLengthError: too long, or empty; CspError: NTE_BAD_TYPE, no such type. The key is as it was.
            KeyStateError: the key opens records, was exported for a move, has failed, or is used up.
        """
        room = bytearray(self._size(len(fragment)))
        room[self._prefix : self._prefix + len(fragment)] = fragment
        size = self.seal_into(room, len(fragment), content_type)
        return bytes(room[:size])

    def open(self, record: bytes | bytearray | memoryview) -> tuple[ContentType, bytes]:
        """Open the next record.

        Args:
            record: one whole record, header and all.

        Returns: content type and fragment.

        Raises:
            TlsAlertError: it ends the connection; the key has failed and opens nothing any more.
            KeyStateError: the key seals records, was exported for a move, has failed, or is used up.
        """
        room = bytearray(record)
        kind, length = self.open_from(room, len(room))
        return kind, bytes(room[self._prefix : self._prefix + length])

    def seal_into(self, room: Room, length: int, content_type: int = _APPLICATION_DATA) -> int:
        """Protect the next record where its fragment stands.

        Args:
            room: the fragment at offset :attr:`prefix`, and space for :meth:`record_size`.
            length: of the fragment.
            content_type: as for :meth:`seal`.

        Returns: the record's size; it begins where *room* begins.

        Raises:
            As for :meth:`seal`, and BadLengthError where *room* is too small.
        """
        sequence = self._sequence
        if sequence >= self._seal_stop:
            self._admit(Direction.ENCRYPT)
        self._sequence = sequence + 1  # first: whatever interrupts us, no nonce comes twice
        try:
            return self._seal(room, length, content_type, sequence)
        except CspError:  # nothing was encrypted
            self._sequence = sequence
            raise

    def open_from(self, room: Room, size: int) -> tuple[ContentType, int]:
        """Open the next record where it stands.

        Args:
            room: the record, from its first byte on. Where it does not open, its fragment is overwritten.
            size: of the record, header and all.

        Returns: content type and length of the fragment, which is at offset :attr:`prefix`.

        Raises:
            As for :meth:`open`.
        """
        sequence = self._sequence
        if sequence >= self._open_stop:
            self._admit(Direction.DECRYPT)
        try:
            opened = self._open(room, size, sequence)
        except TlsAlertError as error:
            self._fail(error.alert)
            raise
        self._sequence = sequence + 1
        return opened

    def update(self) -> None:
        """Go over to the next traffic secret (KeyUpdate): new key, new IV, sequence 0.

        A sender does so after its KeyUpdate message, a receiver after it has opened its peer's.

        Raises:
            KeyStateError: not TLS 1.3, or the key came without its traffic secret.
        """
        self.check_usable()
        if not self.has_secret:
            raise KeyStateError(
                "the key has no traffic secret to go on from",
                hint="TLS 1.2 has no KeyUpdate: make a new connection; in TLS 1.3 hand the secret over with the key",
            )
        form = self._state.form
        old = self._value[form.key_size :]
        secret = next_traffic_secret(form, old)
        key, iv = traffic_key(form, secret)
        self._value[: form.key_size], self._value[form.key_size :] = key, secret
        for copy in (old, key, secret):
            copy[:] = bytes(len(copy))
        self._state = replace(self._state, iv=iv, sequence=0)
        self._sequence = 0
        self._begin()

    def ktls_info(self) -> bytes:
        """Return Linux's ``struct tls12_crypto_info_…`` for a socket's TLS_TX or TLS_RX, and freeze the key.

        The structure holds the key, and the kernel goes on where this one stopped: :meth:`thaw` only if it did not take
        it. :func:`hsmbridge_csp.tls.ktls.offload` does all that.

        Raises:
            PermissionDeniedError: CRYPT_EXPORT is not among its permissions.
            KeyStateError: the kernel does not know the suite; or the key was exported for a move, or has failed.
        """
        self.check_usable(Permission.EXPORT)
        info = crypto_info(self.state, self._value)
        self.freeze()
        return info

    def duplicate(self) -> TlsRecordKey:
        """Copy an opening key.

        Raises:
            KeyStateError: it seals.
        """
        self._check_duplicable()
        return TlsRecordKey(bytearray(self.value), self.state, self.permissions)
