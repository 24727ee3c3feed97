"""MAC keys: HMAC and CMAC, with truncation and a record sequence.

A MAC that is running when the key is to be exported is a hash object in CryptoAPI's terms: it cannot be carried, and it
is never dropped silently.

Source: RFC 2104 (HMAC); NIST SP 800-38B (CMAC); RFC 5246 section 6.2.3.1 (the sequence number in front of a record).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import cmac, hashes
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.hmac import HMAC

from hsmbridge_csp.errors import NTE, BadLengthError, BlobError, CspError, KeyStateError
from hsmbridge_csp.keys import SoftwareKey
from hsmbridge_csp.permissions import DEFAULT, Permission

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Mac", "MacKey", "MacState", "RunningMac"]

_LAST_SEQUENCE = (1 << 64) - 1
_MINIMUM_TAG = 4
_MAX_KEY = 1024


class Mac(StrEnum):
    """A MAC algorithm."""

    HMAC_SHA1 = "HMAC-SHA1"
    HMAC_SHA256 = "HMAC-SHA256"
    HMAC_SHA384 = "HMAC-SHA384"
    HMAC_SHA512 = "HMAC-SHA512"
    CMAC_AES = "CMAC-AES"

    @property
    def size(self) -> int:
        """Bytes of a full tag."""
        return {"SHA1": 20, "SHA256": 32, "SHA384": 48, "SHA512": 64, "AES": 16}[self.value.split("-")[1]]


_HASHES: dict[Mac, Callable[[], hashes.HashAlgorithm]] = {
    Mac.HMAC_SHA1: hashes.SHA1,
    Mac.HMAC_SHA256: hashes.SHA256,
    Mac.HMAC_SHA384: hashes.SHA384,
    Mac.HMAC_SHA512: hashes.SHA512,
}


class Label(IntEnum):
    """Labels of a MAC state's map."""

    TAG_SIZE = 1
    SEQUENCE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class MacState:
    """The state of a MAC key.

    Attributes:
        tag_size: bytes that are kept of a tag.
        sequence: number of the next record, 64 bits.
    """

    tag_size: int
    sequence: int = 0

    def to_map(self) -> dict[int, Any]:
        """Return the state for a key record."""
        return {int(Label.TAG_SIZE): self.tag_size, int(Label.SEQUENCE): self.sequence}

    @classmethod
    def from_map(cls, fields: Mapping[int, Any], mac: Mac) -> MacState:
        """Read a state.

        Raises:
            BlobError: not one.
        """
        match dict(fields):
            case {Label.TAG_SIZE: int() as tag_size, Label.SEQUENCE: int() as sequence, **unknown} if (
                not unknown and _MINIMUM_TAG <= tag_size <= mac.size and 0 <= sequence <= _LAST_SEQUENCE
            ):
                return cls(tag_size=tag_size, sequence=sequence)
        raise BlobError(
            "the MAC state inside the blob is not usable", nte=NTE.BAD_DATA, hint="have the sender export the key again"
        )


class RunningMac:
    """A MAC being computed over data that come in pieces; ends with :meth:`sign` or :meth:`verify`."""

    def __init__(self, key: MacKey, context: HMAC | cmac.CMAC) -> None:
        self._key = key
        self._context: HMAC | cmac.CMAC | None = context

    def update(self, data: bytes) -> None:
        """Take the next piece."""
        self._running().update(data)

    def sign(self) -> bytes:
        """Return the tag and end."""
        tag = self._running().finalize()[: self._key.state.tag_size]
        self._end()
        return tag

    def verify(self, tag: bytes) -> None:
        """Compare with *tag* and end.

        Raises:
            CspError: NTE_BAD_SIGNATURE.
        """
        if not hmac.compare_digest(self.sign(), tag):
            raise CspError("the MAC does not verify", nte=NTE.BAD_SIGNATURE, hint="the data were changed")

    def _running(self) -> HMAC | cmac.CMAC:
        if self._context is None:
            raise KeyStateError("this MAC has ended", hint="begin another with begin()")
        return self._context

    def _end(self) -> None:
        self._context = None
        self._key.end(self)


class MacKey(SoftwareKey):
    """A MAC key.

    Args:
        mac: the algorithm.
        value: the key's bytes.
        state: truncation and sequence; by default full tags, sequence 0.
        permissions: KP_PERMISSIONS.

    Raises:
        BadLengthError: no such key or tag size.
    """

    def __init__(
        self, mac: Mac, value: bytearray, state: MacState | None = None, permissions: Permission = DEFAULT
    ) -> None:
        state = state or MacState(tag_size=mac.size)
        sizes = (16, 24, 32) if mac is Mac.CMAC_AES else range(1, _MAX_KEY + 1)
        if len(value) not in sizes or not _MINIMUM_TAG <= state.tag_size <= mac.size:
            raise BadLengthError(
                f"{mac} has no key of {len(value)} bytes with tags of {state.tag_size}",
                hint=f"tags: 4 to {mac.size} bytes",
            )
        super().__init__(mac.value, value, permissions)
        self.state = state
        self._open: list[RunningMac] = []

    def begin(self) -> RunningMac:
        """Begin a MAC over data that come in pieces (CryptCreateHash); until it ends the key cannot be exported."""
        self.check_usable(Permission.MAC)
        running = RunningMac(self, self._context())
        self._open.append(running)
        return running

    def sign(self, data: bytes) -> bytes:
        """Return the tag of *data*."""
        self.check_usable(Permission.MAC)
        context = self._context()
        context.update(data)
        return context.finalize()[: self.state.tag_size]

    def verify(self, data: bytes, tag: bytes) -> None:
        """Compare the tag of *data*.

        Raises:
            CspError: NTE_BAD_SIGNATURE.
        """
        if not hmac.compare_digest(self.sign(data), tag):
            raise CspError("the MAC does not verify", nte=NTE.BAD_SIGNATURE, hint="the data were changed")

    def sign_record(self, record: bytes) -> bytes:
        """Return the tag of the next record: over its 64-bit sequence number, then its bytes.

        Raises:
            KeyStateError: the sequence numbers are used up.
        """
        if self.state.sequence >= _LAST_SEQUENCE:
            raise KeyStateError("the sequence numbers are used up", hint="agree on a new key")
        tag = self.sign(self.state.sequence.to_bytes(8, "big") + record)
        self.state = MacState(tag_size=self.state.tag_size, sequence=self.state.sequence + 1)
        return tag

    def verify_record(self, record: bytes, tag: bytes) -> None:
        """Check the tag of the next record; one that does not verify leaves the sequence as it was.

        Raises:
            CspError: NTE_BAD_SIGNATURE.
        """
        before = self.state
        if not hmac.compare_digest(self.sign_record(record), tag):
            self.state = before
            raise CspError(
                f"record {before.sequence} does not verify", nte=NTE.BAD_SIGNATURE, hint="changed, or out of sequence"
            )

    def end(self, running: RunningMac) -> None:
        """Note that a MAC has ended."""
        self._open = [other for other in self._open if other is not running]

    def state_map(self) -> dict[int, Any]:
        """Return the state for a key record.

        Raises:
            KeyStateError: a MAC is running.
        """
        if self._open:
            raise KeyStateError(
                "a MAC with this key is running and cannot be carried", hint="end it with sign() or verify() first"
            )
        return self.state.to_map()

    def duplicate(self) -> MacKey:
        """Copy key and state."""
        self._check_duplicable()
        self.state_map()
        return MacKey(Mac(self.algorithm), bytearray(self.value), self.state, self.permissions)

    def _context(self) -> HMAC | cmac.CMAC:
        mac = Mac(self.algorithm)
        if mac is Mac.CMAC_AES:
            return cmac.CMAC(algorithms.AES(self._value))
        return HMAC(self._value, _HASHES[mac]())
