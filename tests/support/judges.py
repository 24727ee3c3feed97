"""Wrapping formats by other people's code: the judges of what a token made and the makers of what it must open.

The project has software counterparts of its own for the probe; they are not used here, so that no test has our code
on both sides.

Source: RFC 3394; RFC 5649; RFC 8017 section 7.1; PKCS#11 v3.1 sections 6.1.20 and 6.13.
"""

from __future__ import annotations

import re
import secrets
import subprocess
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import keywrap, serialization
from cryptography.hazmat.primitives.padding import PKCS7

from hsmbridge.dialects import Dialect

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

__all__ = ["OAEP_HASH", "aes_unwrap", "aes_wrap", "listed", "openssl_open", "openssl_seal", "rsa_open", "rsa_seal"]

OAEP_HASH = {
    Dialect.RSA_OAEP_SHA256: "sha256",
    Dialect.RSA_OAEP_SHA1: "sha1",
    Dialect.RSA_AES_KWP: "sha256",
    Dialect.RSA_AES_KWP_SHA1: "sha1",
}
"""The OAEP hash of each RSA dialect, as openssl calls it."""

_COMPOSITE = (Dialect.RSA_AES_KWP, Dialect.RSA_AES_KWP_SHA1)
_SEMIBLOCK_BITS = 64


def aes_wrap(dialect: Dialect, kek: bytes, value: bytes) -> bytes:
    """Wrap with ``cryptography``."""
    if dialect is Dialect.AES_KWP:
        return keywrap.aes_key_wrap_with_padding(kek, value)
    if dialect is Dialect.AES_KW_PKCS7:
        padder = PKCS7(_SEMIBLOCK_BITS).padder()
        value = padder.update(value) + padder.finalize()
    return keywrap.aes_key_wrap(kek, value)


def aes_unwrap(dialect: Dialect, kek: bytes, wrapped: bytes) -> bytes:
    """Unwrap with ``cryptography``; raises its InvalidUnwrap or ValueError for what is no such wrap."""
    if dialect is Dialect.AES_KWP:
        return keywrap.aes_key_unwrap_with_padding(kek, wrapped)
    value = keywrap.aes_key_unwrap(kek, wrapped)
    if dialect is Dialect.AES_KW_PKCS7:
        unpadder = PKCS7(_SEMIBLOCK_BITS).unpadder()
        value = unpadder.update(value) + unpadder.finalize()
    return value


def openssl_seal(directory: Path, public: RSAPublicKey, value: bytes, digest: str) -> bytes:
    """Encrypt with ``openssl pkeyutl``, RSAES-OAEP with MGF1 over the same hash."""
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return _pkeyutl(directory, ["-encrypt", "-pubin"], pem, value, digest)


def openssl_open(directory: Path, private: RSAPrivateKey, sealed: bytes, digest: str) -> bytes:
    """Decrypt with ``openssl pkeyutl``; a refusal raises CalledProcessError."""
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return _pkeyutl(directory, ["-decrypt"], pem, sealed, digest)


def rsa_seal(directory: Path, dialect: Dialect, public: RSAPublicKey, value: bytes) -> bytes:
    """Make what a token's RSA private key shall open: OAEP, or OAEP of an AES-256 key and KWP under that."""
    digest = OAEP_HASH[dialect]
    if dialect not in _COMPOSITE:
        return openssl_seal(directory, public, value, digest)
    middle = secrets.token_bytes(32)
    return openssl_seal(directory, public, middle, digest) + aes_wrap(Dialect.AES_KWP, middle, value)


def rsa_open(directory: Path, dialect: Dialect, private: RSAPrivateKey, wrapped: bytes) -> bytes:
    """Open what a token wrapped under an RSA public key."""
    digest, size = OAEP_HASH[dialect], private.key_size // 8
    if dialect not in _COMPOSITE:
        return openssl_open(directory, private, wrapped, digest)
    middle = openssl_open(directory, private, wrapped[:size], digest)
    return aes_unwrap(Dialect.AES_KWP, middle, wrapped[size:])


def listed(shown: str, key_id: bytes) -> dict[str, str]:
    """Pick the object with one CKA_ID out of what ``pkcs11-tool --list-objects`` shows; its --id does not filter.

    Returns: label, ID, Usage, Access as they are shown; empty where there is no such object.
    """
    for block in re.split(r"^(?=\S)", shown, flags=re.MULTILINE):
        pairs = (line.partition(":") for line in block.splitlines()[1:])
        fields = {name.strip(): rest.strip() for name, _, rest in pairs}
        if fields.get("ID", "").split(" ")[0].replace(":", "").lower() == key_id.hex():
            return fields
    return {}


def _pkeyutl(directory: Path, action: list[str], pem: bytes, data: bytes, digest: str) -> bytes:
    key = directory / f"{secrets.token_hex(4)}.pem"
    key.write_bytes(pem)
    options = ["rsa_padding_mode:oaep", f"rsa_oaep_md:{digest}", f"rsa_mgf1_md:{digest}"]
    command = ["openssl", "pkeyutl", *action, "-inkey", str(key)]
    for option in options:
        command += ["-pkeyopt", option]
    return subprocess.run(command, input=data, capture_output=True, check=True, timeout=60).stdout
