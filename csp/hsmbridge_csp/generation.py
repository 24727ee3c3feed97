"""New software keys, each in the state that a new key of its kind has.

Source: CryptoAPI CryptGenKey (defaults of a session key); docs/cryptoapi.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from hsmbridge_csp.cipher_key import CipherKey
from hsmbridge_csp.errors import NTE, CspError
from hsmbridge_csp.mac_key import Mac, MacKey
from hsmbridge_csp.modes import Cipher, Direction
from hsmbridge_csp.private_key import PrivateKey
from hsmbridge_csp.randomness import random_bytearray
from hsmbridge_csp.record_key import NONCE_SIZE, Aead, RecordKey, RecordState

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsmbridge_csp.keys import SoftwareKey

__all__ = ["generate"]

_BLOCK_CIPHERS = {Cipher.AES: 256, Cipher.TDES: 192}
_CURVES: dict[int, Callable[[], ec.EllipticCurve]] = {
    0: ec.SECP256R1,
    256: ec.SECP256R1,
    384: ec.SECP384R1,
    521: ec.SECP521R1,
}
_RSA_BITS = range(2048, 16385)
_DEFAULT_RSA = 3072


def generate(algorithm: str, bits: int = 0) -> SoftwareKey:
    """Make a software key.

    Args:
        algorithm: by name; a record key is made for sealing, with a random fixed IV.
        bits: its size; 0 takes the usual one.

    Raises:
        CspError: NTE_BAD_ALGID for an unknown algorithm, NTE_BAD_LEN for a size that it does not have.
    """
    if algorithm in list(Cipher):
        return CipherKey(Cipher(algorithm), random_bytearray((bits or _BLOCK_CIPHERS[Cipher(algorithm)]) // 8))
    if algorithm in list(Aead):
        aead = Aead(algorithm)
        iv = bytes(random_bytearray(NONCE_SIZE))
        state = RecordState(iv=iv, direction=Direction.ENCRYPT, limit=aead.limit)
        return RecordKey(aead, random_bytearray((bits or 256) // 8), state)
    if algorithm in list(Mac):
        mac = Mac(algorithm)
        return MacKey(mac, random_bytearray((bits or (256 if mac is Mac.CMAC_AES else 8 * mac.size)) // 8))
    if algorithm == "RSA" and (bits or _DEFAULT_RSA) in _RSA_BITS:
        return PrivateKey.from_key(rsa.generate_private_key(65537, bits or _DEFAULT_RSA))
    if algorithm == "EC" and bits in _CURVES:
        return PrivateKey.from_key(ec.generate_private_key(_CURVES[bits]()))
    if algorithm == "Ed25519" and bits in (0, 256):
        return PrivateKey.from_key(ed25519.Ed25519PrivateKey.generate())
    known = algorithm in ("RSA", "EC", "Ed25519")
    raise CspError(
        f"{algorithm} has no key of {bits} bits" if known else f"{algorithm!r} is not an algorithm of this provider",
        nte=NTE.BAD_LEN if known else NTE.BAD_ALGID,
        hint=f"algorithms: {', '.join([*Cipher, *Aead, *Mac, 'RSA', 'EC', 'Ed25519'])}",
    )
