"""AEAD record keys: AES-GCM and ChaCha20-Poly1305 with a fixed IV and a sequence number.

The nonce of a record is the fixed IV exclusive-or the sequence number, as in TLS 1.3. The sequence is the state: two
holders would use a nonce twice, so an encryptor only moves.

Source: RFC 8446 sections 5.3 (per-record nonce) and 5.5 (limits); NIST SP 800-38D; RFC 8439.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from hsmbridge_csp.errors import NTE, BadLengthError, BlobError, CspError, KeyStateError
from hsmbridge_csp.keys import SoftwareKey
from hsmbridge_csp.modes import Direction
from hsmbridge_csp.permissions import DEFAULT, Permission

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Aead", "RecordKey", "RecordState"]

NONCE_SIZE = 12
_LAST_SEQUENCE = (1 << 64) - 1
"""Never used: the number after it would not fit, and a key that reaches it has done more than any key should."""

_AES_GCM_LIMIT = 23_726_566
"""Full-size records that one AES-GCM key may protect: 2^24.5, rounded down (RFC 8446 section 5.5)."""


class Aead(StrEnum):
    """An AEAD."""

    AES_GCM = "AES-GCM"
    CHACHA20_POLY1305 = "CHACHA20-POLY1305"

    @property
    def limit(self) -> int:
        """Records that one key may protect. For ChaCha20-Poly1305 the sequence number ends first."""
        return _LIMITS[self]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Key sizes in bytes."""
        return _SIZES[self]


_LIMITS = {Aead.AES_GCM: _AES_GCM_LIMIT, Aead.CHACHA20_POLY1305: _LAST_SEQUENCE}
_SIZES = {Aead.AES_GCM: (16, 32), Aead.CHACHA20_POLY1305: (32,)}


class Label:
    """Labels of a record state's map: plain numbers, as in the key record around it."""

    IV = 1
    SEQUENCE = 2
    DIRECTION = 3
    USED = 4
    LIMIT = 5


_LABELS = {Label.IV, Label.SEQUENCE, Label.DIRECTION, Label.USED, Label.LIMIT}
_DIRECTIONS = {direction.value: direction for direction in Direction}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordState:
    """The whole state of a record key.

    Attributes:
        iv: the fixed IV, 12 bytes.
        direction: whether it seals or opens.
        sequence: number of the next record, 64 bits.
        used: records that this key has protected, wherever it was.
        limit: records that it may protect.
    """

    iv: bytes
    direction: Direction
    sequence: int = 0
    used: int = 0
    limit: int

    def to_map(self) -> dict[int, Any]:
        """Return the state for a key record."""
        return {
            Label.IV: self.iv,
            Label.SEQUENCE: self.sequence,
            Label.DIRECTION: self.direction.value,
            Label.USED: self.used,
            Label.LIMIT: self.limit,
        }

    @classmethod
    def from_map(cls, fields: Mapping[int, Any]) -> RecordState:
        """Read a state.

        Raises:
            BlobError: not one.
        """
        if fields.keys() == _LABELS:
            iv, direction, limit = fields[Label.IV], fields[Label.DIRECTION], fields[Label.LIMIT]
            sequence, used = fields[Label.SEQUENCE], fields[Label.USED]
            if (
                type(iv) is bytes
                and type(direction) is str
                and type(sequence) is type(used) is type(limit) is int  # which true and false are not
                and len(iv) == NONCE_SIZE
                and direction in _DIRECTIONS
                and 0 <= sequence <= _LAST_SEQUENCE
                and 0 <= used <= limit
            ):
                return cls(iv=iv, direction=_DIRECTIONS[direction], sequence=sequence, used=used, limit=limit)
        raise BlobError(
            "the record state inside the blob is not usable",
            nte=NTE.BAD_DATA,
            hint="have the sender export the key again",
        )


class RecordKey(SoftwareKey):
    """One direction's AEAD key.

    Args:
        aead: the algorithm.
        value: the key's bytes.
        state: fixed IV, direction, sequence, usage.
        permissions: KP_PERMISSIONS.

    Raises:
        BadLengthError: no such key size.
        KeyStateError: the limit is above the algorithm's.
    """

    def __init__(self, aead: Aead, value: bytearray, state: RecordState, permissions: Permission = DEFAULT) -> None:
        if len(value) not in aead.sizes or len(state.iv) != NONCE_SIZE:
            raise BadLengthError(f"{aead} has no key of {len(value)} bytes", hint=f"use {aead.sizes} and a 12-byte IV")
        if state.limit > aead.limit:
            raise KeyStateError(f"{aead} may protect at most {aead.limit} records", hint="give a lower limit")
        super().__init__(aead.value, value, permissions)
        self._aead: AESGCM | ChaCha20Poly1305 | None = (
            AESGCM(value) if aead is Aead.AES_GCM else ChaCha20Poly1305(value)
        )
        self._fixed = int.from_bytes(state.iv, "big")
        self._state = state
        self._sequence, self._used = state.sequence, state.used

    @property
    def state(self) -> RecordState:
        """The state as it is now."""
        state = self._state
        return RecordState(
            iv=state.iv, direction=state.direction, sequence=self._sequence, used=self._used, limit=state.limit
        )

    def seal(self, plaintext: bytes, aad: bytes = b"") -> bytes:
        """Protect the next record; the tag is behind the ciphertext.

        Raises:
            KeyStateError: it opens records, or its limit or its sequence numbers are used up.
        """
        self._check(Permission.ENCRYPT, Direction.ENCRYPT)
        assert self._aead is not None  # noqa: S101 - only a destroyed key has none, and that was refused
        sealed = self._aead.encrypt(self._nonce(), plaintext, aad)
        self._advance()
        return sealed

    def open(self, ciphertext: bytes, aad: bytes = b"") -> bytes:
        """Open the next record. A record that does not open leaves the state as it was.

        Raises:
            KeyStateError: it seals records, or its limit or its sequence numbers are used up.
            CspError: NTE_BAD_DATA, not authentic or out of sequence.
        """
        self._check(Permission.DECRYPT, Direction.DECRYPT)
        assert self._aead is not None  # noqa: S101 - as above
        try:
            plaintext = self._aead.decrypt(self._nonce(), ciphertext, aad)
        except InvalidTag:
            raise CspError(
                f"record {self._sequence} is not authentic",
                nte=NTE.BAD_DATA,
                hint="it was changed, or is out of sequence",
            ) from None
        self._advance()
        return plaintext

    def state_map(self) -> dict[int, Any]:
        """Return the state for a key record."""
        # Where it began, with the two fields that go on.
        return self._state.to_map() | {Label.SEQUENCE: self._sequence, Label.USED: self._used}

    @property
    def can_only_move(self) -> bool:
        """Whether it seals: a second holder would use a nonce twice."""
        return self._state.direction is Direction.ENCRYPT

    def duplicate(self) -> RecordKey:
        """Copy an opening key."""
        self._check_duplicable()
        return RecordKey(Aead(self.algorithm), bytearray(self.value), self.state, self.permissions)

    def _check(self, needed: Permission, direction: Direction) -> None:
        self.check_usable(needed)
        if self._state.direction is not direction:
            raise KeyStateError(
                f"this record key is there to {self._state.direction}", hint="use the other direction's key"
            )
        if self._used >= self._state.limit or self._sequence >= _LAST_SEQUENCE:
            raise KeyStateError(
                f"the key has protected {self._used} records, its limit", hint="agree on a new key (TLS 1.3: KeyUpdate)"
            )

    def _nonce(self) -> bytes:
        return (self._fixed ^ self._sequence).to_bytes(NONCE_SIZE, "big")

    def _advance(self) -> None:
        self._sequence += 1
        self._used += 1

    def _forget(self) -> None:
        self._aead = None
