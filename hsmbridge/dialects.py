"""Wrapping formats as they are on the wire, and their counterparts in software.

A mechanism number says little: three modules give CKM_AES_KEY_WRAP_PAD three meanings. So we speak of *dialects*, and
find out which mechanism of a token speaks which (:mod:`hsmbridge.probe`).

Source: RFC 3394; RFC 5649; RFC 8017 section 7.1; PKCS#11 v3.1 sections 6.1.8, 6.1.20 and 6.13.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.asymmetric import padding

from hsmbridge.codes import CKM
from hsmbridge.errors import InputError, MechanismError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

__all__ = ["AES_DIALECTS", "Dialect", "dialect_named", "oaep_padding", "software_unwrap", "software_wrap"]

_SEMIBLOCK = 8
_KW_MINIMUM = 16


class Dialect(StrEnum):
    """A wrapping format; the values are the names that the command line takes."""

    AES_KW = "aes-kw"
    AES_KWP = "aes-kwp"
    AES_KW_PKCS7 = "aes-kw-pkcs7"
    RSA_OAEP_SHA256 = "rsa-oaep-sha256"
    RSA_OAEP_SHA1 = "rsa-oaep-sha1"
    RSA_AES_KWP = "rsa-aes-kwp"
    RSA_AES_KWP_SHA1 = "rsa-aes-kwp-sha1"

    @property
    def source(self) -> str:
        """The specification that defines it."""
        return _SOURCES[self]

    @property
    def is_rsa(self) -> bool:
        """Whether the wrapping key is an RSA key, not an AES key."""
        return self.value.startswith("rsa")

    @property
    def oaep_hash(self) -> CKM:
        """The hash of the OAEP part.

        Raises:
            KeyError: the dialect has none.
        """
        return _OAEP_HASH[self]

    def takes_length(self, size: int) -> bool:
        """Whether the format can carry a secret of *size* bytes without changing it."""
        if self is Dialect.AES_KW:
            return size >= _KW_MINIMUM and size % _SEMIBLOCK == 0
        if self is Dialect.AES_KW_PKCS7:
            return size >= _SEMIBLOCK  # padded to at least the 16 bytes that RFC 3394 needs
        return size > 0


AES_DIALECTS = (Dialect.AES_KW, Dialect.AES_KWP, Dialect.AES_KW_PKCS7)
"""The dialects whose wrapping key is an AES key."""

_SOURCES = {
    Dialect.AES_KW: "RFC 3394",
    Dialect.AES_KWP: "RFC 5649",
    Dialect.AES_KW_PKCS7: "PKCS#7 padding to 8 bytes, then RFC 3394 (PKCS#11 v3.1 CKM_AES_KEY_WRAP_PKCS7)",
    Dialect.RSA_OAEP_SHA256: "RFC 8017 RSAES-OAEP, SHA-256 and MGF1-SHA-256",
    Dialect.RSA_OAEP_SHA1: "RFC 8017 RSAES-OAEP, SHA-1 and MGF1-SHA-1",
    Dialect.RSA_AES_KWP: "PKCS#11 v3.1 CKM_RSA_AES_KEY_WRAP, SHA-256",
    Dialect.RSA_AES_KWP_SHA1: "PKCS#11 v3.1 CKM_RSA_AES_KEY_WRAP, SHA-1",
}
_OAEP_HASH = {
    Dialect.RSA_OAEP_SHA256: CKM.SHA256,
    Dialect.RSA_AES_KWP: CKM.SHA256,
    Dialect.RSA_OAEP_SHA1: CKM.SHA_1,
    Dialect.RSA_AES_KWP_SHA1: CKM.SHA_1,
}


def dialect_named(name: str) -> Dialect:
    """Return the dialect that the allow-list has under *name*.

    Raises:
        MechanismError: not on the list; ECB, raw CBC and RSA PKCS#1 v1.5 never are.
    """
    try:
        return Dialect(name.lower())
    except ValueError:
        allowed = ", ".join(Dialect)
        raise MechanismError(
            f"{name!r} is not an allowed wrapping mechanism",
            hint=f"use one of: {allowed}; ECB, CBC and RSA PKCS#1 v1.5 wraps can be tampered with",
        ) from None


def oaep_padding(hash_mechanism: int) -> padding.OAEP:
    """Return OAEP for ``cryptography``, with MGF1 over the same hash and an empty label."""
    algorithm = hashes.SHA256() if hash_mechanism == CKM.SHA256 else hashes.SHA1()  # noqa: S303 - only where asked for by name
    return padding.OAEP(mgf=padding.MGF1(algorithm), algorithm=algorithm, label=None)


def software_wrap(dialect: Dialect, kek: bytes | RSAPublicKey, value: bytes) -> bytes:
    """Wrap *value* in software.

    Args:
        dialect: an AES dialect with AES key bytes, or an OAEP dialect with an RSA public key.
        kek: the wrapping key.
        value: the key's bytes.

    Raises:
        ValueError: the format does not take this length.
    """
    if isinstance(kek, bytes):
        if dialect is Dialect.AES_KW:
            return keywrap.aes_key_wrap(kek, value)
        if dialect is Dialect.AES_KWP:
            return keywrap.aes_key_wrap_with_padding(kek, value)
        if dialect is Dialect.AES_KW_PKCS7:
            gap = _SEMIBLOCK - len(value) % _SEMIBLOCK
            return keywrap.aes_key_wrap(kek, value + bytes([gap]) * gap)
        raise ValueError(f"{dialect} does not take an AES key")
    return kek.encrypt(value, oaep_padding(dialect.oaep_hash))


def software_unwrap(dialect: Dialect, kek: bytes | RSAPrivateKey, wrapped: bytes) -> bytes:
    """Open in software what a token wrapped.

    Raises:
        InputError: it is not of this dialect, or not under this key.
    """
    try:
        if not isinstance(kek, bytes):
            return kek.decrypt(wrapped, oaep_padding(dialect.oaep_hash))
        if dialect is Dialect.AES_KW:
            return keywrap.aes_key_unwrap(kek, wrapped)
        if dialect is Dialect.AES_KWP:
            return keywrap.aes_key_unwrap_with_padding(kek, wrapped)
        padded = keywrap.aes_key_unwrap(kek, wrapped)
    except (keywrap.InvalidUnwrap, ValueError):
        raise InputError(f"not a {dialect} wrap under this key", hint="check the mechanism and the KEK") from None
    gap = padded[-1]
    if not 1 <= gap <= _SEMIBLOCK or padded[-gap:] != bytes([gap]) * gap:
        raise InputError("the PKCS#7 padding inside the wrap is wrong", hint="check the mechanism and the KEK")
    return padded[:-gap]
