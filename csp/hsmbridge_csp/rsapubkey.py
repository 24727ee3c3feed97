"""RSAPUBKEY: the magic, size, exponent and modulus at the front of both kinds of RSA key blob."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsmbridge_csp.blobheader import AlgId
from hsmbridge_csp.errors import NTE, BlobError
from hsmbridge_csp.spki import rsa_spki_fingerprint

if TYPE_CHECKING:
    from hsmbridge_csp.bytecursor import ByteCursor

__all__ = [
    "DAMAGED_HINT",
    "MAX_RSA_BITS",
    "MIN_RSA_BITS",
    "PRIVATE_MAGIC",
    "PUBLIC_MAGIC",
    "check_public",
    "describe_public",
    "full_bytes",
    "half_bytes",
    "read_modulus",
    "read_rsapubkey",
    "write_rsapubkey",
]

PUBLIC_MAGIC = b"RSA1"
PRIVATE_MAGIC = b"RSA2"
DAMAGED_HINT = "the blob is damaged; export the key again"

MIN_RSA_BITS = 384
MAX_RSA_BITS = 16384
"""RSA modulus sizes of the Microsoft Enhanced Cryptographic Provider."""

_U32 = 1 << 32
_FOREIGN_MAGICS = {
    b"DSS1": "a DSA public key",
    b"DSS2": "a DSA private key",
    b"DSS3": "a DSA public key with its parameters",
    b"DSS4": "a DSA private key with its parameters",
    b"\0DH1": "a Diffie-Hellman public key",
    b"\0DH2": "a Diffie-Hellman private key",
    b"\0DH3": "a Diffie-Hellman public key with its parameters",
    b"\0DH4": "a Diffie-Hellman private key with its parameters",
}


def full_bytes(bits: int) -> int:
    """Return the bytes that hold a number of *bits* bits."""
    return (bits + 7) // 8


def half_bytes(bits: int) -> int:
    """Return the bytes that hold half a number of *bits* bits: a prime, or a CRT number."""
    return (bits + 15) // 16


def read_rsapubkey(magic: bytes, cursor: ByteCursor) -> tuple[int, int]:
    """Read the magic and the two numbers behind it.

    Args:
        magic: the four bytes that must come first.
        cursor: stands at the magic.

    Returns:
        The modulus length in bits, within the limits, and the public exponent.

    Raises:
        BlobError: another magic (NTE_BAD_TYPE, NTE_BAD_ALGID, NTE_BAD_DATA); a length outside the limits (NTE_BAD_LEN).

    Source: RSAPUBKEY structure, wincrypt.h.
    """
    found = cursor.take(len(magic), "magic")
    if found != magic:
        raise _wrong_magic(found, magic)
    bits = cursor.u32("modulus length")
    if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
        message = f"an RSA modulus of {bits} bits is outside {MIN_RSA_BITS} to {MAX_RSA_BITS}"
        raise BlobError(message, nte=NTE.BAD_LEN, hint=DAMAGED_HINT)
    return bits, cursor.u32("public exponent")


def _wrong_magic(found: bytes, wanted: bytes) -> BlobError:
    if found in (PUBLIC_MAGIC, PRIVATE_MAGIC):
        message = f"the blob's type wants {wanted.decode()} but its body is {found.decode()}"
        return BlobError(
            message, nte=NTE.BAD_TYPE, hint="public keys travel as PUBLICKEYBLOB, private keys as PRIVATEKEYBLOB"
        )
    kind = _FOREIGN_MAGICS.get(found)
    if kind is not None:
        name = found.decode().lstrip("\0")
        message = f"the blob holds {kind} ({name}), which is not supported"
        return BlobError(message, nte=NTE.BAD_ALGID, hint="only RSA keys (RSA1, RSA2) are taken in this format")
    message = f"the blob's magic is {found.hex()}, not {wanted.hex()} ({wanted.decode()})"
    return BlobError(message, nte=NTE.BAD_DATA, hint=DAMAGED_HINT)


def read_modulus(bits: int, cursor: ByteCursor) -> int:
    """Read a modulus that has exactly *bits* bits, so that there is one way only to write a key.

    Raises:
        BlobError: the blob ends (NTE_BAD_LEN), or the modulus is shorter or longer (NTE_BAD_DATA).
    """
    modulus = cursor.uint(full_bytes(bits), "modulus")
    if modulus.bit_length() != bits:
        message = f"the modulus has {modulus.bit_length()} bits where the blob says {bits}"
        raise BlobError(message, nte=NTE.BAD_DATA, hint=DAMAGED_HINT)
    return modulus


def write_rsapubkey(magic: bytes, modulus: int, exponent: int) -> bytes:
    """Return magic, modulus length, exponent and modulus, little-endian."""
    bits = modulus.bit_length()
    fields = bits.to_bytes(4, "little") + exponent.to_bytes(4, "little")
    return magic + fields + modulus.to_bytes(full_bytes(bits), "little")


def check_public(algorithm: AlgId, modulus: int, exponent: int) -> None:
    """Insist that the numbers can be an RSA public key and that the header calls it one.

    Raises:
        BlobError: not an RSA ALG_ID (NTE_BAD_ALGID), a size outside the limits (NTE_BAD_LEN), or a number that no RSA
            key has (NTE_BAD_DATA).
    """
    if algorithm not in (AlgId.RSA_KEYX, AlgId.RSA_SIGN):
        message = f"an RSA key cannot have the ALG_ID {algorithm.label}"
        raise BlobError(message, nte=NTE.BAD_ALGID, hint="the ALG_ID must be CALG_RSA_KEYX or CALG_RSA_SIGN")
    if not MIN_RSA_BITS <= modulus.bit_length() <= MAX_RSA_BITS:
        message = f"an RSA modulus of {modulus.bit_length()} bits is outside {MIN_RSA_BITS} to {MAX_RSA_BITS}"
        raise BlobError(message, nte=NTE.BAD_LEN, hint=f"use a key of {MIN_RSA_BITS} to {MAX_RSA_BITS} bits")
    if modulus % 2 == 0:
        message = "the RSA modulus is even"
        raise BlobError(message, nte=NTE.BAD_DATA, hint=DAMAGED_HINT)
    if exponent % 2 == 0 or not 1 < exponent < _U32:
        message = f"the RSA public exponent {exponent} is not an odd number between 3 and 2^32 - 1"
        raise BlobError(message, nte=NTE.BAD_DATA, hint="use a key with an ordinary exponent, such as 65537")


def describe_public(modulus: int, exponent: int) -> dict[str, object]:
    """Return size, exponent and fingerprint of a public key, JSON-ready."""
    return {
        "modulus_bits": modulus.bit_length(),
        "public_exponent": exponent,
        "spki_sha256": rsa_spki_fingerprint(modulus, exponent),
    }
