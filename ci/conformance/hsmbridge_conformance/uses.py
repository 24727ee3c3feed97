"""What a key computes, by the token and by other software: so it is seen whether two keys are one.

Every use is one C_Encrypt or C_Sign over fixed data; ``cryptography`` says what must come out.

Source: PKCS#11 v3.1 sections 6.13 (AES), 6.16 (DES), 6.22 (HMAC), 6.1.9 (RSA), 6.3.12 (ECDSA), 6.3.16 (EdDSA).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from hsmbridge.codes import CKA, CKK, CKM
from hsmbridge.mechanism import Mechanism

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsmbridge.objects import Object
    from hsmbridge.publickeys import PublicKey

__all__ = ["PRIVATE_USES", "SECRETS", "SecretKind", "Use", "verifies"]

_TEXT = b"hsmbridge conformance: one text "
"""32 bytes: whole blocks of every cipher."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One operation with a key.

    Attributes:
        function: ``C_Encrypt`` or ``C_Sign``.
        mechanism: what is called; parameter: its bytes, None where it takes none.
        data: what goes in.
        flag: the usage attribute that the key needs.
    """

    function: str
    mechanism: CKM
    parameter: bytes | None
    data: bytes
    flag: CKA

    def run(self, key: Object) -> bytes:
        """Let the key's token do it, in this process."""
        calls = key.token.calls
        run = calls.sign if self.function == "C_Sign" else calls.encrypt
        with key.token.sessions as session:
            return run(session, Mechanism(self.mechanism, self.parameter), key.handle, self.data)

    def message(self) -> list[str | int | None]:
        """Return it as the second process takes it."""
        parameter = None if self.parameter is None else self.parameter.hex()
        return [self.function, int(self.mechanism), parameter, self.data.hex()]


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretKind:
    """A kind of secret key.

    Attributes:
        key_type: CKK_; size: bytes.
        use: what it is recognised by.
        software: computes the same from the key's bytes.
    """

    key_type: CKK
    size: int
    use: Use
    software: Callable[[bytes], bytes]

    def random(self) -> bytes:
        """Return the bytes of a new key; DES keys with the parity that some modules insist on."""
        value = secrets.token_bytes(self.size)
        return bytes(_with_parity(byte) for byte in value) if self.key_type == CKK.DES3 else value


def _with_parity(byte: int) -> int:
    """Set the lowest bit so that the number of ones is odd (FIPS 46-3)."""
    return byte & 0xFE | (byte >> 1).bit_count() & 1 ^ 1


def _cbc(cipher: algorithms.AES | TripleDES) -> bytes:
    encryptor = Cipher(cipher, modes.CBC(bytes(cipher.block_size // 8))).encryptor()
    return encryptor.update(_TEXT) + encryptor.finalize()


def _aes(size: int) -> SecretKind:
    use = Use(function="C_Encrypt", mechanism=CKM.AES_CBC, parameter=bytes(16), data=_TEXT, flag=CKA.ENCRYPT)
    return SecretKind(key_type=CKK.AES, size=size, use=use, software=lambda key: _cbc(algorithms.AES(key)))


def _generic(size: int, mechanism: CKM = CKM.SHA256_HMAC, name: str = "sha256") -> SecretKind:
    use = Use(function="C_Sign", mechanism=mechanism, parameter=None, data=_TEXT, flag=CKA.SIGN)
    return SecretKind(
        key_type=CKK.GENERIC_SECRET, size=size, use=use, software=lambda key: hmac.digest(key, _TEXT, name)
    )


SECRETS = {
    "aes:128": _aes(16),
    "aes:192": _aes(24),
    "aes:256": _aes(32),
    "des3": SecretKind(
        key_type=CKK.DES3,
        size=24,
        use=Use(function="C_Encrypt", mechanism=CKM.DES3_CBC, parameter=bytes(8), data=_TEXT, flag=CKA.ENCRYPT),
        software=lambda key: _cbc(TripleDES(key)),
    ),
    "generic:20": _generic(20, CKM.SHA_1_HMAC, "sha1"),
    "generic:32": _generic(32),
    "generic:64": _generic(64),
}
"""Secret keys by the names that people type (:mod:`hsmbridge.keyspec`)."""

_DIGEST = hashlib.sha256(_TEXT).digest()
_DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
"""What stands before a SHA-256 digest (RFC 8017 section 9.2, note 1): not every module hashes by itself."""


def _signature(mechanism: CKM, data: bytes) -> Use:
    return Use(function="C_Sign", mechanism=mechanism, parameter=None, data=data, flag=CKA.SIGN)


PRIVATE_USES = {
    "rsa:2048": _signature(CKM.RSA_PKCS, _DIGEST_INFO + _DIGEST),
    "ec:p-256": _signature(CKM.ECDSA, _DIGEST),
    "ed25519": _signature(CKM.EDDSA, _TEXT),
}
"""Private keys and how they sign."""


def verifies(public: PublicKey, signature: bytes) -> bool:
    """Whether ``cryptography`` takes *signature* for one that a use of :data:`PRIVATE_USES` has made."""
    try:
        if isinstance(public, rsa.RSAPublicKey):
            public.verify(signature, _TEXT, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(public, ec.EllipticCurvePublicKey):
            half = len(signature) // 2
            numbers = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
            public.verify(encode_dss_signature(*numbers), _DIGEST, ec.ECDSA(Prehashed(hashes.SHA256())))
        else:
            public.verify(signature, _TEXT)
    except InvalidSignature:
        return False
    return True
