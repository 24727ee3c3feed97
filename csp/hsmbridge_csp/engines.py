"""Where a block cipher runs: in this process, or in the token.

An engine holds no state. It is told the register, transforms whole blocks or a run of a stream mode, and forgets. So
the state of a key in use is always the one that :mod:`hsmbridge_csp.stream` has, whoever computes.

Source: NIST SP 800-38A; PKCS#11 v3.1 sections 6.13 (AES) and 6.15 (DES3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from hsmbridge.codes import CKM
from hsmbridge.mechanism import Mechanism
from hsmbridge_csp.errors import KeyStateError
from hsmbridge_csp.modes import Cipher, Direction, Mode

if TYPE_CHECKING:
    from hsmbridge.objects import Object

__all__ = ["Engine", "SoftwareEngine", "TokenEngine"]


class Engine(Protocol):
    """What runs a block cipher."""

    cipher: Cipher

    def run(self, mode: Mode, direction: Direction, register: bytes, data: bytes) -> bytes:
        """Transform *data*, starting from *register* (IV, feedback register or counter block; ignored by ECB)."""
        ...


class SoftwareEngine:
    """A key whose bytes this process holds.

    Args:
        cipher: AES or 3DES.
        key: the key's bytes; read at each use, so that wiping them ends it.
    """

    def __init__(self, cipher: Cipher, key: bytearray) -> None:
        self.cipher = cipher
        self._key = key

    def run(self, mode: Mode, direction: Direction, register: bytes, data: bytes) -> bytes:
        """Transform *data* with ``cryptography``."""
        # Imported here: a provider that only works with tokens does without.
        from cryptography.hazmat.decrepit.ciphers import algorithms as old  # noqa: PLC0415
        from cryptography.hazmat.decrepit.ciphers import modes as old_modes  # noqa: PLC0415
        from cryptography.hazmat.primitives import ciphers  # noqa: PLC0415
        from cryptography.hazmat.primitives.ciphers import algorithms, modes  # noqa: PLC0415

        tdes = self.cipher is Cipher.TDES
        if tdes and mode is Mode.CTR:  # cryptography has CTR for AES only
            return _counter_mode(self, register, data)
        algorithm: ciphers.CipherAlgorithm = old.TripleDES(self._key) if tdes else algorithms.AES(self._key)  # type: ignore[arg-type]
        chosen: modes.Mode = {
            Mode.ECB: lambda _: modes.ECB(),  # noqa: S305 - one of the modes whose state we carry
            Mode.CBC: modes.CBC,
            Mode.CTR: modes.CTR,
            Mode.OFB: old_modes.OFB,
            Mode.CFB8: old_modes.CFB8,
            Mode.CFB128: old_modes.CFB,
        }[mode](register)
        both: ciphers.Cipher[Any] = ciphers.Cipher(algorithm, chosen)
        context = both.encryptor() if direction is Direction.ENCRYPT else both.decryptor()
        return context.update(data) + context.finalize()


_MECHANISMS = {
    (Cipher.AES, Mode.ECB): CKM.AES_ECB,
    (Cipher.AES, Mode.CBC): CKM.AES_CBC,
    (Cipher.TDES, Mode.ECB): CKM.DES3_ECB,
    (Cipher.TDES, Mode.CBC): CKM.DES3_CBC,
}


class TokenEngine:
    """A key in the token. ECB and CBC, what tokens agree on, and CTR made of ECB.

    Args:
        cipher: AES or 3DES.
        key: the token's key, with CKA_ENCRYPT or CKA_DECRYPT as needed.
    """

    def __init__(self, cipher: Cipher, key: Object) -> None:
        self.cipher = cipher
        self._key = key

    def run(self, mode: Mode, direction: Direction, register: bytes, data: bytes) -> bytes:
        """Transform *data* with C_Encrypt or C_Decrypt.

        Raises:
            KeyStateError: a mode that is not run in the token.
            Pkcs11Error: the token refuses.
        """
        if mode is Mode.CTR:
            return _counter_mode(self, register, data)
        number = _MECHANISMS.get((self.cipher, mode))
        if number is None:
            raise KeyStateError(
                f"{mode} with a token key is not supported", hint="use ECB, CBC or CTR with a key in a token"
            )
        mechanism = Mechanism(number, None if mode is Mode.ECB else register)
        calls = self._key.token.calls
        operation = calls.encrypt if direction is Direction.ENCRYPT else calls.decrypt
        with self._key.token.sessions as session:
            return operation(session, mechanism, self._key.handle, data)


def _counter_mode(engine: Engine, register: bytes, data: bytes) -> bytes:
    """CTR out of ECB: the counter block is one big-endian number (SP 800-38A section 6.5 and appendix B.1)."""
    block = len(register)
    first, count = int.from_bytes(register, "big"), -(-len(data) // block)
    counters = b"".join(((first + index) % (1 << 8 * block)).to_bytes(block, "big") for index in range(count))
    keystream = engine.run(Mode.ECB, Direction.ENCRYPT, b"", counters) if counters else b""
    return bytes(a ^ b for a, b in zip(data, keystream, strict=False))
