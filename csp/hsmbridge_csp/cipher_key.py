"""Block cipher keys: AES and 3DES in every mode, stopped and resumed at any byte.

Source: CryptoAPI CryptEncrypt and CryptDecrypt; NIST SP 800-38A.
"""

from __future__ import annotations

from typing import Any

from hsmbridge_csp.engines import SoftwareEngine
from hsmbridge_csp.errors import BadLengthError, KeyStateError
from hsmbridge_csp.keys import Key, SoftwareKey
from hsmbridge_csp.modes import BLOCK_SIZE, Cipher, Direction, Mode
from hsmbridge_csp.permissions import DEFAULT, Permission
from hsmbridge_csp.state import cipher_state_map
from hsmbridge_csp.stream import CipherState, CipherStream

__all__ = ["CipherKey", "StreamingKey", "initial_state"]

_SIZES = {Cipher.AES: (16, 24, 32), Cipher.TDES: (24,)}


def initial_state(cipher: Cipher) -> CipherState:
    """CryptoAPI's defaults for a new session key: CBC, zero IV, PKCS5 padding."""
    return CipherState(mode=Mode.CBC, iv=bytes(BLOCK_SIZE[cipher]))


class StreamingKey(Key):
    """What every block cipher key can do, in this process or in a token.

    Attributes:
        stream: the running stream; None for a key of another kind.
    """

    stream: CipherStream | None

    def encrypt(self, data: bytes, *, final: bool = False) -> bytes:
        """Encrypt the next piece of a stream (CryptEncrypt).

        Args:
            data: any number of bytes.
            final: end the stream: pad, then go back to the IV.

        Raises:
            PermissionDeniedError: CRYPT_ENCRYPT is not among the permissions.
            KeyStateError: frozen by an export, in the middle of decrypting, or no block cipher key.
        """
        self.check_usable(Permission.ENCRYPT)
        return self._running().update(Direction.ENCRYPT, data, final=final)

    def decrypt(self, data: bytes, *, final: bool = False) -> bytes:
        """Decrypt the next piece of a stream (CryptDecrypt); as :meth:`encrypt`, and NTE_BAD_DATA for wrong padding."""
        self.check_usable(Permission.DECRYPT)
        return self._running().update(Direction.DECRYPT, data, final=final)

    @property
    def cipher_state(self) -> CipherState | None:
        """The stream's state, None for a key without one."""
        return None if self.stream is None else self.stream.state

    def set_cipher_state(self, state: CipherState) -> None:
        """Set mode, IV and padding between two streams (KP_MODE, KP_IV, KP_PADDING).

        Raises:
            KeyStateError: in the middle of a stream.
        """
        self.check_usable()
        stream = self._running()
        if stream.state.direction is not None:
            raise KeyStateError("the key is in the middle of a stream", hint="end it with final=True first")
        stream.state = state.check(Cipher(self.algorithm))

    def state_map(self) -> dict[int, Any]:
        """Return the stream's state."""
        return {} if self.stream is None else cipher_state_map(self.stream.state)

    @property
    def can_only_move(self) -> bool:
        """Whether it may encrypt in CTR or OFB, now or after the running stream: two holders would begin at one IV."""
        state = self.cipher_state
        return state is not None and state.mode.bears_nonce and Permission.ENCRYPT in self.permissions

    def _running(self) -> CipherStream:
        if self.stream is None:
            raise KeyStateError(f"{self.algorithm} keys do not encrypt streams", hint="use a key of a block cipher")
        return self.stream


class CipherKey(StreamingKey, SoftwareKey):
    """A block cipher key whose bytes this process holds.

    Args:
        cipher: AES or 3DES.
        value: the key's bytes; the caller hands them over, and they are overwritten at the end.
        state: where its stream stands; by default CryptoAPI's: CBC, zero IV, PKCS5 padding.
        permissions: KP_PERMISSIONS.

    Raises:
        BadLengthError: the cipher has no such key size.
    """

    def __init__(
        self, cipher: Cipher, value: bytearray, state: CipherState | None = None, permissions: Permission = DEFAULT
    ) -> None:
        if len(value) not in _SIZES[cipher]:
            raise BadLengthError(f"{cipher} has no key of {len(value)} bytes", hint=f"use one of {_SIZES[cipher]}")
        super().__init__(cipher.value, value, permissions)
        self.stream = CipherStream(SoftwareEngine(cipher, value), state or initial_state(cipher))

    def duplicate(self) -> CipherKey:
        """Copy key and state."""
        self._check_duplicable()
        return CipherKey(Cipher(self.algorithm), bytearray(self.value), self.cipher_state, self.permissions)
