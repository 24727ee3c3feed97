"""Keys as the provider's callers hold them: in this process, or in a token.

A key carries its running state, whoever computes. Once exported for a move it is frozen; once destroyed it is nothing.

Source: CryptoAPI HCRYPTKEY, CryptEncrypt, CryptDecrypt, CryptDestroyKey; docs/residency.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from hsmbridge.codes import CKK, CKO, name_of
from hsmbridge.destruction import destroy_session_key
from hsmbridge.errors import HardwareKeyError
from hsmbridge.residency import Classification, Residency, classify
from hsmbridge_csp.disposition import Disposition, Outcome
from hsmbridge_csp.engines import Engine, SoftwareEngine, TokenEngine
from hsmbridge_csp.errors import NTE, BadKeyError, BadLengthError, KeyStateError, PermissionDeniedError
from hsmbridge_csp.modes import BLOCK_SIZE, Cipher, Direction, Mode
from hsmbridge_csp.permissions import DEFAULT, Permission
from hsmbridge_csp.stream import CipherState, CipherStream

if TYPE_CHECKING:
    from hsmbridge.objects import Object

__all__ = ["Key", "SoftwareKey", "TokenKey"]

_SIZES = {Cipher.AES: (16, 24, 32), Cipher.TDES: (24,)}
_CIPHERS = {CKK.AES: Cipher.AES, CKK.DES3: Cipher.TDES}


class Key(ABC):
    """A key with its running state.

    Attributes:
        algorithm: ``AES``, ``3DES``, …
        bits: its size, 0 where the token does not tell.
        permissions: KP_PERMISSIONS.
    """

    def __init__(self, algorithm: str, bits: int, permissions: Permission, stream: CipherStream | None) -> None:
        self.algorithm = algorithm
        self.bits = bits
        self.permissions = permissions
        self._stream = stream
        self._why_dead: str | None = None
        self._frozen = False

    def encrypt(self, data: bytes, *, final: bool = False) -> bytes:
        """Encrypt the next piece of a stream (CryptEncrypt).

        Args:
            data: any number of bytes.
            final: end the stream: pad, then go back to the IV.

        Raises:
            PermissionDeniedError: CRYPT_ENCRYPT is not among the permissions.
            KeyStateError: frozen by an export, or in the middle of decrypting.
        """
        return self._run(Permission.ENCRYPT, Direction.ENCRYPT, data, final=final)

    def decrypt(self, data: bytes, *, final: bool = False) -> bytes:
        """Decrypt the next piece of a stream (CryptDecrypt).

        Errors as :meth:`encrypt`, and NTE_BAD_DATA for wrong padding.
        """
        return self._run(Permission.DECRYPT, Direction.DECRYPT, data, final=final)

    def _run(self, needed: Permission, direction: Direction, data: bytes, *, final: bool) -> bytes:
        self.check_usable()
        if needed not in self.permissions:
            raise PermissionDeniedError(f"this key may not {direction}", hint="its KP_PERMISSIONS do not include it")
        return self.stream.update(direction, data, final=final)

    @property
    def stream(self) -> CipherStream:
        """The running block cipher stream.

        Raises:
            BadKeyError: this kind of key has none.
        """
        if self._stream is None:
            raise BadKeyError(f"{self.algorithm} keys do not encrypt streams", hint="use a key of a block cipher")
        return self._stream

    @property
    def cipher_state(self) -> CipherState | None:
        """The stream's state, None for a key without one."""
        return None if self._stream is None else self._stream.state

    def set_cipher_state(self, state: CipherState) -> None:
        """Set mode, IV and padding between two streams (KP_MODE, KP_IV, KP_PADDING).

        Raises:
            KeyStateError: in the middle of a stream.
        """
        self.check_usable()
        if self.stream.state.direction is not None:
            raise KeyStateError("the key is in the middle of a stream", hint="end it with final=True first")
        self.stream.state = state.check(Cipher(self.algorithm))

    @property
    def frozen(self) -> bool:
        """Whether an export for a move has stopped this key."""
        return self._frozen

    def freeze(self) -> None:
        """Stop the key: it was exported for a move and must not go on here."""
        self._frozen = True

    def check_usable(self) -> None:
        """Refuse a key that was destroyed or frozen.

        Raises:
            BadKeyError: destroyed; KeyStateError: frozen.
        """
        self.check_alive()
        if self._frozen:
            raise KeyStateError(
                "the key was exported for a move and is frozen here", hint="go on with it where it was imported"
            )

    def check_alive(self) -> None:
        """Refuse a key that was destroyed.

        Raises:
            BadKeyError: it was.
        """
        if self._why_dead is not None:
            raise BadKeyError(self._why_dead, hint="import or find the key again", nte=NTE.BAD_KEY)

    @abstractmethod
    def classify(self) -> Classification:
        """Say where the key's only copy lives."""

    @abstractmethod
    def destroy(self) -> Disposition:
        """Destroy the key if it lives in software; either way this object is dead afterwards."""


class SoftwareKey(Key):
    """A block cipher key whose bytes this process holds.

    Args:
        cipher: AES or 3DES.
        value: the key's bytes; the caller hands them over and they are overwritten at the end.
        state: where its stream stands; by default CryptoAPI's: CBC, zero IV, PKCS5 padding.
        permissions: KP_PERMISSIONS.

    Raises:
        BadLengthError: the cipher has no such key size.
    """

    def __init__(
        self, cipher: Cipher, value: bytearray, state: CipherState | None = None, permissions: Permission = DEFAULT
    ) -> None:
        if len(value) not in _SIZES[cipher]:
            raise BadLengthError(f"{cipher} has no key of {len(value)} bytes", hint=f"use {_SIZES[cipher]}")
        self._value = value
        stream = CipherStream(SoftwareEngine(cipher, value), state or initial_state(cipher))
        super().__init__(cipher.value, 8 * len(value), permissions, stream)

    @property
    def value(self) -> bytearray:
        """The key's bytes, for export."""
        self.check_alive()
        return self._value

    def classify(self) -> Classification:
        """Software, always."""
        reason = "its bytes are held by this process"
        return Classification(residency=Residency.SOFTWARE, evidence=(reason,), reason=reason)

    def destroy(self) -> Disposition:
        """Overwrite the bytes. Copies that the interpreter made are beyond reach (docs/limits.md)."""
        self.check_alive()
        found = self.classify()
        self._value[:] = bytes(len(self._value))
        self._stream = None
        self._why_dead = "the key was destroyed"
        return Disposition(outcome=Outcome.DESTROYED, residency=found.residency, evidence=found.evidence)

    def __repr__(self) -> str:
        return f"<SoftwareKey {self.algorithm}-{self.bits}>"


class TokenKey(Key):
    """A key in a token; the token computes, the running state is here.

    Args:
        key: the object.
        state: where its stream stands; by default as for a software key, where its type is a block cipher.
        permissions: KP_PERMISSIONS.
    """

    def __init__(self, key: Object, state: CipherState | None = None, permissions: Permission = DEFAULT) -> None:
        self.object = key
        identity = key.identity
        cipher = _CIPHERS.get(CKK(identity.key_type)) if identity.key_type in list(CKK) else None
        stream = None
        if cipher is not None and identity.cls == CKO.SECRET_KEY:
            engine: Engine = TokenEngine(cipher, key)
            stream = CipherStream(engine, state or initial_state(cipher))
        elif state is not None:
            raise KeyStateError(f"{identity} runs no block cipher", hint="the blob and the key do not belong together")
        algorithm = cipher.value if cipher else name_of(CKK, identity.key_type or 0).removeprefix("CKK_")
        super().__init__(algorithm, 0, permissions, stream)

    def classify(self) -> Classification:
        """Ask the token, now."""
        self.check_alive()
        return classify(self.object)

    def destroy(self) -> Disposition:
        """C_DestroyObject for an extractable session object; anything else is retained and only this object dies.

        Raises:
            Pkcs11Error: the token refused to destroy a session object; it may still be there.
        """
        self.check_alive()
        try:
            done = destroy_session_key(self.object)
        except HardwareKeyError:
            found = classify(self.object)
            self._why_dead = "the key was released; it stays in its token"
            return Disposition(outcome=Outcome.RETAINED, residency=Residency.HARDWARE, evidence=found.evidence)
        self._why_dead = "the key was destroyed"
        evidence = (*done.classification.evidence, "absent afterwards" if done.absent else "still listed afterwards")
        return Disposition(outcome=Outcome.DESTROYED, residency=Residency.SOFTWARE, evidence=evidence)

    def __repr__(self) -> str:
        return f"<TokenKey {self.object.identity}>"


def initial_state(cipher: Cipher) -> CipherState:
    """CryptoAPI's defaults for a new session key: CBC, zero IV, PKCS5 padding."""
    return CipherState(mode=Mode.CBC, iv=bytes(BLOCK_SIZE[cipher]))
