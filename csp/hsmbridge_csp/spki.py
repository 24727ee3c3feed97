"""The SubjectPublicKeyInfo of an RSA key and its fingerprint, without loading a cryptographic library."""

from __future__ import annotations

__all__ = ["rsa_spki", "rsa_spki_fingerprint"]

_INTEGER = 0x02
_BIT_STRING = 0x03
_SEQUENCE = 0x30
_LONG_FORM = 0x80
_RSA_ENCRYPTION = bytes.fromhex("300d06092a864886f70d0101010500")
"""AlgorithmIdentifier {1.2.840.113549.1.1.1, NULL}, RFC 8017 appendix C."""


def rsa_spki(modulus: int, exponent: int) -> bytes:
    """Return the DER SubjectPublicKeyInfo of an RSA public key.

    Args:
        modulus: n, positive.
        exponent: e, positive.

    Source: RFC 5280 section 4.1; RFC 8017 appendix A.1.1 (RSAPublicKey).
    """
    rsa_public_key = _tlv(_SEQUENCE, _integer(modulus) + _integer(exponent))
    no_unused_bits = b"\0"
    return _tlv(_SEQUENCE, _RSA_ENCRYPTION + _tlv(_BIT_STRING, no_unused_bits + rsa_public_key))


def rsa_spki_fingerprint(modulus: int, exponent: int) -> str:
    """Return the SHA-256 of the SubjectPublicKeyInfo as 64 lower-case hex digits."""
    import hashlib  # noqa: PLC0415 -- it loads libcrypto, which most commands that look at a blob can do without

    return hashlib.sha256(rsa_spki(modulus, exponent)).hexdigest()


def _integer(value: int) -> bytes:
    # One bit more than the number has: DER integers are signed.
    return _tlv(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _tlv(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < _LONG_FORM:
        return bytes((tag, length)) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, _LONG_FORM | len(octets))) + octets + content
