"""Software keys at rest: what a ``file:`` key is, and how it is destroyed.

Source: RFC 5958 (PKCS#8); RFC 7468 (PEM labels); RFC 7517 and 7518 (JWK).
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hsmbridge.codes import CKK
from hsmbridge.errors import InputError, UsageError
from hsmbridge.keyspec import KeySpec, parse_keyspec

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

__all__ = [
    "MAX_KEY_FILE_BYTES",
    "SoftwareKey",
    "describe_software_key",
    "destroy_key_file",
    "from_base64url",
    "read_key_file",
]

MAX_KEY_FILE_BYTES = 64 * 1024
"""Ours: an RSA-16384 key in PEM has some 13 KiB."""

_NOT_A_KEY = "a file: key is PKCS#8 (PEM or DER), a private or secret JWK, or raw bytes with --key-type"
_DER_SEQUENCE = 0x30


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareKey:
    """What a key file holds, without its secret.

    Attributes:
        path: the file.
        format: "PKCS#8 PEM", "PKCS#8 DER", "JWK" or "raw"; "encrypted PKCS#8 ..." where a password protects it.
        type: as --type takes it; None where a password hides it.
        size: the file's bytes.
        mode: its permission bits.
        links: its names in the file system.
    """

    path: str
    format: str
    type: str | None
    size: int
    mode: int
    links: int


def describe_software_key(path: str, key_type: str | None = None) -> SoftwareKey:
    """Look at a software key at rest.

    Args:
        path: the file.
        key_type: for raw bytes, what they are, for example ``aes:256``.

    Raises:
        UsageError: the file cannot be read, is no regular file, or is a link; or *key_type* is none.
        InputError: it holds no private or secret key.
    """
    data, status = read_key_file(path)
    form, name = _recognise(data, None if key_type is None else parse_keyspec(key_type))
    return SoftwareKey(
        path=path, format=form, type=name, size=len(data), mode=stat.S_IMODE(status.st_mode), links=status.st_nlink
    )


def read_key_file(path: str) -> tuple[bytes, os.stat_result]:
    """Read a key file: regular, and not through a symbolic link, since the file itself is what is meant.

    Raises:
        UsageError: it cannot be read; InputError: it is too large.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise _unusable(path, error) from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise UsageError(f"{path} is not a regular file", hint=_NOT_A_KEY)
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(MAX_KEY_FILE_BYTES + 1)
    if len(data) > MAX_KEY_FILE_BYTES:
        raise InputError(f"{path} is larger than {MAX_KEY_FILE_BYTES} bytes", hint=_NOT_A_KEY)
    return data, status


def destroy_key_file(path: str) -> None:
    """Overwrite a file, write that through, and remove its name.

    What this cannot reach: copies made by the file system (journals, snapshots, copy-on-write), by flash memory's wear
    levelling, by backups and by editors.

    Raises:
        UsageError: the file cannot be written or removed.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            left = os.fstat(descriptor).st_size
            while left > 0:
                left -= file.write(bytes(min(left, MAX_KEY_FILE_BYTES)))
            os.fsync(descriptor)
            file.truncate(0)
            os.fsync(descriptor)
        Path(path).unlink()
        directory = os.open(Path(path).parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _unusable(path, error) from None
    try:
        os.fsync(directory)
    except OSError:
        return  # not every file system can; the name is gone all the same
    finally:
        os.close(directory)


def _recognise(data: bytes, spec: KeySpec | None) -> tuple[str, str | None]:
    """Return format and type."""
    if spec is not None:
        return "raw", _raw(data, spec)
    if data.lstrip().startswith(b"{"):
        return "JWK", _jwk(data)
    form = "PEM" if b"-----BEGIN " in data else "DER" if data[:1] == bytes((_DER_SEQUENCE,)) else None
    if form is None:
        raise InputError("the file holds no key that is known here", hint=_NOT_A_KEY)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    load = serialization.load_pem_private_key if form == "PEM" else serialization.load_der_private_key
    try:
        return f"PKCS#8 {form}", _private_type(load(data, None))
    except TypeError:
        return f"encrypted PKCS#8 {form}", None  # cryptography's way of asking for a password
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(f"the {form} holds no private key that can be read", hint=_NOT_A_KEY) from None


def _private_type(key: PrivateKeyTypes) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, rsa.RSAPrivateKey):
        return str(KeySpec(key_type=CKK.RSA, bits=key.key_size))
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return _curve_name(key.curve.name)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    return type(key).__name__.removesuffix("PrivateKey").lower()


def _curve_name(curve: str) -> str:
    try:
        return str(parse_keyspec(f"ec:{curve}"))
    except UsageError:
        return f"ec:{curve.lower()}"  # one that tokens are not asked for here, but a key all the same


def _raw(data: bytes, spec: KeySpec) -> str:
    if spec.is_pair:
        raise UsageError(
            f"a raw file holds no {spec} key", hint="private keys come as PKCS#8 or JWK, without --key-type"
        )
    if (
        not data
        or (spec.bits and len(data) != spec.bits // 8)
        or (spec.key_type == CKK.AES and len(data) not in (16, 24, 32))
    ):
        raise InputError(
            f"{len(data)} bytes are no {spec} key", hint="check --key-type; a raw file is the key and nothing else"
        )
    return str(KeySpec(key_type=spec.key_type, bits=8 * len(data)))


def _jwk(data: bytes) -> str:
    import json

    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise InputError("the file begins like a JWK and is no JSON object", hint=_NOT_A_KEY)
    kind, secret = document.get("kty"), document.get("k" if document.get("kty") == "oct" else "d")
    if kind not in ("oct", "RSA", "EC", "OKP") or not isinstance(secret, str) or not secret:
        raise InputError("the JWK holds no secret or private key", hint=_NOT_A_KEY)
    if kind == "oct":
        return str(KeySpec(key_type=CKK.GENERIC_SECRET, bits=8 * len(from_base64url(secret))))
    if kind == "RSA":
        modulus = document.get("n")
        number = int.from_bytes(from_base64url(modulus if isinstance(modulus, str) else ""), "big")
        return str(KeySpec(key_type=CKK.RSA, bits=number.bit_length()))
    curve = document.get("crv")
    if not isinstance(curve, str):
        raise InputError("the JWK names no curve", hint=_NOT_A_KEY)
    from_base64url(secret)
    return _curve_name(curve) if kind == "EC" else curve.lower()


def from_base64url(text: str) -> bytes:
    """Decode a member of a JWK.

    Raises:
        InputError: not base64url, or nothing at all.
    """
    try:
        value = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        value = b""
    if not value:
        raise InputError("a number of the JWK is not base64url", hint="RFC 7518: base64url without padding")
    return value


def _unusable(path: str, error: Exception) -> UsageError:
    reason = (error.strerror or "error").lower() if isinstance(error, OSError) else "not a file name"
    return UsageError(f"{path} cannot be used: {reason}", hint="name the key file itself, not a link to it")
