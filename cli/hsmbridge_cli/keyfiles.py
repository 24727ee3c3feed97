"""Software keys between files and the provider: PKCS#8, JWK and bare bytes.

A file holds a key, and neither a running state nor permissions: a key that has more than a new one would have is not
written, since half of it would be lost.

Source: RFC 5958 (PKCS#8); RFC 7517, 7518 and 8037 (JWK); W3C Web Cryptography API, JWK mappings (``HS1``, ``A256CBC``).
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hsmbridge_csp.cipher_key import CipherKey
from hsmbridge_csp.errors import BadLengthError
from hsmbridge_csp.mac_key import Mac, MacKey
from hsmbridge_csp.modes import Cipher
from hsmbridge_csp.private_key import PrivateKey

from hsmbridge.errors import InputError, UsageError
from hsmbridge_cli.display import warn
from hsmbridge_cli.softkeys import from_base64url, read_key_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsmbridge_csp.keys import SoftwareKey

__all__ = ["SOFTWARE_TYPES", "load_private_key", "load_software_key", "render_software_key"]

AsymmetricKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

SOFTWARE_TYPES: dict[str, Cipher | Mac] = {
    "aes": Cipher.AES,
    "des3": Cipher.TDES,
    "3des": Cipher.TDES,
    "hmac-sha1": Mac.HMAC_SHA1,
    "hmac-sha256": Mac.HMAC_SHA256,
    "hmac-sha384": Mac.HMAC_SHA384,
    "hmac-sha512": Mac.HMAC_SHA512,
    "cmac-aes": Mac.CMAC_AES,
}
"""What --key-type may say of secret bytes in a file; ``aes`` and ``cmac-aes`` also with a size, ``aes:256``."""

_JWK_ALGORITHMS: dict[str, Cipher | Mac] = {
    "HS1": Mac.HMAC_SHA1,
    "HS256": Mac.HMAC_SHA256,
    "HS384": Mac.HMAC_SHA384,
    "HS512": Mac.HMAC_SHA512,
    **{f"A{bits}CBC": Cipher.AES for bits in (128, 192, 256)},
}
_JWK_CURVES: dict[str, ec.EllipticCurve] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
_OPEN_TO_OTHERS = 0o077
_SEQUENCE = 0x30
_NO_KEY = "give PKCS#8 (PEM or DER), a private or secret JWK, or raw bytes with --key-type"
_WHICH = f"say what they are with --key-type: {', '.join(SOFTWARE_TYPES)}"


def load_software_key(path: str, key_type: str | None = None) -> SoftwareKey:
    """Read a software key at rest, in the state that a new key of its kind has.

    Args:
        path: the file.
        key_type: what secret bytes are; a private key in PEM needs none.

    Raises:
        UsageError: the file cannot be read, or *key_type* is none or missing.
        InputError: it holds no such key.
    """
    data = _read(path)
    document = _document(data)
    if document is not None and document.get("kty") == "oct":
        secret = document.get("k")
        return _secret_key(from_base64url(secret if isinstance(secret, str) else ""), _kind_of(document, key_type))
    if key_type is not None and not data.startswith(b"-----BEGIN "):
        return _secret_key(data, key_type)
    return PrivateKey.from_key(_private_key(data, document, path))


def load_private_key(path: str) -> AsymmetricKey:
    """Read a private key: PKCS#8 or JWK.

    Raises:
        UsageError: the file cannot be read; InputError: it holds none, or a password protects it.
    """
    data = _read(path)
    return _private_key(data, _document(data), path)


def render_software_key(key: SoftwareKey, *, raw: bool = False) -> bytes:
    """Return the file of a software key: PKCS#8 PEM of a private key, a JWK or the bare bytes of a secret one.

    Raises:
        UsageError: bare bytes of a private key are asked for.
    """
    if not isinstance(key, PrivateKey):
        return bytes(key.value) if raw else _jwk(key)
    if raw:
        raise UsageError("--raw is for secret keys", hint="leave it out: a private key is written as PKCS#8 in PEM")
    private = serialization.load_der_private_key(bytes(key.value), password=None)
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _read(path: str) -> bytes:
    data, status = read_key_file(path)
    if status.st_mode & _OPEN_TO_OTHERS:
        warn(f"{path} is open to other users (mode {status.st_mode & 0o777:03o})")
    return data


def _document(data: bytes) -> dict[str, object] | None:
    """Return a JWK's members; None for anything else, a raw key that begins with a brace among it."""
    if not data.lstrip().startswith(b"{"):
        return None
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and "kty" in found else None


def _kind_of(document: Mapping[str, object], key_type: str | None) -> str:
    if key_type is not None:
        return key_type
    named = _JWK_ALGORITHMS.get(str(document.get("alg")))
    if named is None:
        raise UsageError("the JWK does not say what its key is for", hint=_WHICH)
    return next(name for name, algorithm in SOFTWARE_TYPES.items() if algorithm is named)


def _secret_key(value: bytes, key_type: str) -> SoftwareKey:
    name, _, size = key_type.strip().lower().partition(":")
    algorithm = SOFTWARE_TYPES.get(name)
    if algorithm is None or (size and not (size.isascii() and size.isdigit() and name.endswith("aes"))):
        raise UsageError(f"{key_type!r} is no type of a software key", hint=f"use one of: {', '.join(SOFTWARE_TYPES)}")
    if size and int(size) != 8 * len(value):
        raise InputError(f"{len(value)} bytes are no {key_type} key", hint="a raw file is the key and nothing else")
    try:
        made = CipherKey if isinstance(algorithm, Cipher) else MacKey
        return made(algorithm, bytearray(value))  # type: ignore[arg-type] # each class with its own enumeration
    except BadLengthError:
        raise InputError(
            f"{len(value)} bytes are no {key_type} key", hint="a raw file is the key and nothing else"
        ) from None


def _private_key(data: bytes, document: Mapping[str, object] | None, path: str) -> AsymmetricKey:
    try:
        if document is not None:
            return _from_jwk(document)
        if b"-----BEGIN " in data:
            key = serialization.load_pem_private_key(data, None)
        elif data[:1] == bytes((_SEQUENCE,)):
            key = serialization.load_der_private_key(data, None)
        else:
            raise UsageError(f"{path} holds no private key; secret bytes do not tell what they are", hint=_WHICH)
    except TypeError:
        # cryptography's way of asking for a password
        raise InputError(
            f"a password protects {path}", hint="decrypt it first: openssl pkey -in FILE -out NEW"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if isinstance(key, AsymmetricKey):
        return key
    raise InputError(f"{path} holds no RSA, EC or Ed25519 private key", hint=_NO_KEY)


def _from_jwk(document: Mapping[str, object]) -> AsymmetricKey:
    """Make the private key of a JWK; its public half must belong to it.

    Raises:
        ValueError: it is none.
        InputError: a member is missing or no number.
    """
    kind = document.get("kty")
    if kind == "RSA":
        numbers = {name: int.from_bytes(_member(document, name), "big") for name in ("n", "e", "d")}
        if "p" in document:
            p, q = (int.from_bytes(_member(document, name), "big") for name in ("p", "q"))
        else:
            p, q = rsa.rsa_recover_prime_factors(numbers["n"], numbers["e"], numbers["d"])
        d = numbers["d"]
        public = rsa.RSAPublicNumbers(numbers["e"], numbers["n"])
        return rsa.RSAPrivateNumbers(
            p, q, d, rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q), public
        ).private_key()
    if kind == "EC":
        curve = _JWK_CURVES[str(document.get("crv"))] if document.get("crv") in _JWK_CURVES else None
        if curve is None:
            raise InputError("the JWK's curve is not known here", hint="use P-256, P-384 or P-521")
        x, y = (int.from_bytes(_member(document, name), "big") for name in ("x", "y"))
        point = ec.EllipticCurvePublicNumbers(x, y, curve)
        return ec.EllipticCurvePrivateNumbers(int.from_bytes(_member(document, "d"), "big"), point).private_key()
    if kind == "OKP" and document.get("crv") == "Ed25519":
        key = ed25519.Ed25519PrivateKey.from_private_bytes(_member(document, "d"))
        if key.public_key().public_bytes_raw() != _member(document, "x"):
            raise ValueError(kind)
        return key
    raise ValueError(kind)


def _member(document: Mapping[str, object], name: str) -> bytes:
    value = document.get(name)
    return from_base64url(value if isinstance(value, str) else "")


def _jwk(key: SoftwareKey) -> bytes:
    """Return the JWK of a secret key; ``alg`` is left out where none is registered."""
    name = f"A{key.bits}CBC" if key.algorithm == Cipher.AES else key.algorithm
    registered = {str(algorithm): alg for alg, algorithm in _JWK_ALGORITHMS.items() if isinstance(algorithm, Mac)}
    alg = name if name in _JWK_ALGORITHMS else registered.get(key.algorithm)
    encoded = base64.urlsafe_b64encode(key.value).rstrip(b"=").decode()
    members = {"kty": "oct", **({"alg": alg} if alg is not None else {}), "k": encoded}
    return json.dumps(members).encode() + b"\n"
