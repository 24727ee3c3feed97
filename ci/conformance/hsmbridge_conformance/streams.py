"""Streams that begin in one process and end in another, and what other software makes of the same bytes.

Source: NIST SP 800-38A and 800-38D; RFC 8439; RFC 8446 section 5.3 (nonces of records); RFC 2104.
"""

from __future__ import annotations

import hmac
import secrets
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.ciphers import Cipher as Judge
from cryptography.hazmat.primitives.ciphers import algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from hsmbridge_csp.cipher_key import CipherKey
from hsmbridge_csp.mac_key import Mac, MacKey, MacState
from hsmbridge_csp.modes import BLOCK_SIZE, Cipher, Direction, Mode
from hsmbridge_csp.record_key import Aead, RecordKey, RecordState
from hsmbridge_csp.stream import CipherState
from hsmbridge_csp.token_key import TokenKey

from hsmbridge.codes import CKA, CKK
from hsmbridge_conformance.keymaking import usage

if TYPE_CHECKING:
    from hsmbridge_csp.keys import Key

    from hsmbridge_conformance.rig import Rig

__all__ = ["STREAMS", "Stream"]

_PIECES = (bytes(range(21)), bytes(range(21, 58)), bytes(range(58, 101)))
"""What goes through: the first ends in the middle of a block, so does the second."""

_IV = bytes(range(0x40, 0x50))
_SEQUENCE = 7
_TAG = 12


class Stream(ABC):
    """A key with a running state.

    Args:
        name: as in reports.
        size: bytes of the key.
        verb: what the key is asked to do with each piece.
    """

    def __init__(self, name: str, size: int, verb: str) -> None:
        self.name = name
        self.size = size
        self.verb = verb

    def __str__(self) -> str:
        return self.name

    def random(self) -> bytes:
        """Return the bytes of a new key."""
        return secrets.token_bytes(self.size)

    @property
    def rest(self) -> tuple[bytes, ...]:
        """What is left for the second process."""
        return _PIECES[1:]

    def begin(self, key: Key) -> bytes:
        """Use the key for the first piece."""
        return bytes(getattr(key, self.verb)(_PIECES[0]))

    @abstractmethod
    def key(self, rig: Rig, value: bytes) -> Key:
        """Make the key, at the beginning of its stream."""

    @abstractmethod
    def software(self, value: bytes) -> bytes:
        """Compute the whole stream without hsmbridge and without a break."""


class _CipherStream(Stream):
    """A block cipher in one of its modes; *in_token* lets the token compute."""

    def __init__(self, cipher: Cipher, mode: Mode, size: int, *, in_token: bool = False) -> None:
        super().__init__(f"{'token:' if in_token else ''}{cipher}-{mode}", size, "encrypt")
        self._cipher, self._mode, self._in_token = cipher, mode, in_token
        self._iv = _IV[: BLOCK_SIZE[cipher]]

    def key(self, rig: Rig, value: bytes) -> Key:
        """Make the key, with the run's IV."""
        state = CipherState(mode=self._mode, iv=self._iv)
        if not self._in_token:
            return CipherKey(self._cipher, bytearray(value), state)
        return TokenKey(rig.enter(CKK.AES, value, usage(CKA.ENCRYPT, CKA.DECRYPT)), state)

    def software(self, value: bytes) -> bytes:
        """Compute it in one piece; of a mode that works in whole blocks, the blocks that are complete."""
        data = b"".join(_PIECES)
        if self._mode.is_blockwise:
            data = data[: len(data) - len(data) % BLOCK_SIZE[self._cipher]]
        mode: modes.CBC | modes.CTR | CFB = _JUDGED[self._mode](self._iv)
        cipher = algorithms.AES(value) if self._cipher is Cipher.AES else TripleDES(value)
        encryptor = Judge(cipher, mode).encryptor()
        return encryptor.update(data) + encryptor.finalize()


_JUDGED: dict[Mode, type[modes.CBC | modes.CTR | CFB]] = {
    Mode.CBC: modes.CBC,
    Mode.CTR: modes.CTR,
    Mode.CFB128: CFB,
}


class _RecordStream(Stream):
    """An AEAD with one nonce for each record."""

    def __init__(self, aead: Aead) -> None:
        super().__init__(str(aead), 32, "seal")
        self._aead = aead

    def key(self, rig: Rig, value: bytes) -> Key:
        """Make the key, in the middle of its sequence numbers."""
        del rig
        state = RecordState(
            iv=_IV[:12], direction=Direction.ENCRYPT, sequence=_SEQUENCE, used=_SEQUENCE, limit=self._aead.limit
        )
        return RecordKey(self._aead, bytearray(value), state)

    def software(self, value: bytes) -> bytes:
        """Seal every record with the nonce of its number."""
        judge = (AESGCM if self._aead is Aead.AES_GCM else ChaCha20Poly1305)(value)
        fixed = int.from_bytes(_IV[:12], "big")
        nonces = ((fixed ^ number).to_bytes(12, "big") for number in range(_SEQUENCE, _SEQUENCE + len(_PIECES)))
        return b"".join(judge.encrypt(nonce, piece, b"") for nonce, piece in zip(nonces, _PIECES, strict=True))


class _MacStream(Stream):
    """HMAC-SHA256 over numbered records, with short tags."""

    def __init__(self) -> None:
        super().__init__("HMAC-SHA256", 20, "sign_record")

    def key(self, rig: Rig, value: bytes) -> Key:
        """Make the key, in the middle of its sequence numbers."""
        del rig
        return MacKey(Mac.HMAC_SHA256, bytearray(value), MacState(tag_size=_TAG, sequence=_SEQUENCE))

    def software(self, value: bytes) -> bytes:
        """Compute the tag of every record."""
        return b"".join(
            hmac.digest(value, number.to_bytes(8, "big") + piece, "sha256")[:_TAG]
            for number, piece in enumerate(_PIECES, _SEQUENCE)
        )


STREAMS: tuple[Stream, ...] = (
    _CipherStream(Cipher.AES, Mode.CBC, 32),
    _CipherStream(Cipher.AES, Mode.CFB128, 16),
    _CipherStream(Cipher.AES, Mode.CTR, 32),
    _CipherStream(Cipher.TDES, Mode.CBC, 24),
    _RecordStream(Aead.AES_GCM),
    _RecordStream(Aead.CHACHA20_POLY1305),
    _MacStream(),
    _CipherStream(Cipher.AES, Mode.CBC, 32, in_token=True),
    _CipherStream(Cipher.AES, Mode.CTR, 32, in_token=True),
)
"""Keys that this process holds, and at the end keys in the token."""
