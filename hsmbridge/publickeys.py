"""Public keys out of a token's attributes, as ``cryptography`` objects.

Source: PKCS#11 v3.1 sections 6.1.2 (RSA) and 6.3.3 (EC: CKA_EC_PARAMS, CKA_EC_POINT); RFC 8410 (Ed25519).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, TypeAlias

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from hsmbridge.attributes import AttributeQuery, Attributes
from hsmbridge.codes import CKA, CKK, CKO, name_of
from hsmbridge.errors import InputError

if TYPE_CHECKING:
    from hsmbridge.objects import Object

__all__ = ["PublicKey", "ec_curve", "public_key", "public_key_of", "rsa_public_key", "spki_fingerprint"]

PublicKey: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

_QUERY = AttributeQuery(
    (CKA.KEY_TYPE, CKA.MODULUS, CKA.PUBLIC_EXPONENT, CKA.EC_PARAMS, CKA.EC_POINT, CKA.ID, CKA.LABEL)
)

# DER of the namedCurve OIDs (RFC 5480 section 2.1.1.1) and the two ways to name Ed25519 (PKCS#11 v3.1 section 6.3.3).
_CURVES: dict[bytes, type[ec.EllipticCurve]] = {
    bytes.fromhex("06082a8648ce3d030107"): ec.SECP256R1,
    bytes.fromhex("06052b81040022"): ec.SECP384R1,
    bytes.fromhex("06052b81040023"): ec.SECP521R1,
}
_ED25519 = (bytes.fromhex("06032b6570"), b"\x13\x0cedwards25519")

_OCTET_STRING = 0x04
_SHORT_FORM = 0x80


def ec_curve(params: bytes) -> ec.EllipticCurve:
    """Return the curve named by CKA_EC_PARAMS.

    Raises:
        InputError: not one of P-256, P-384, P-521.
    """
    try:
        return _CURVES[params]()
    except KeyError:
        raise InputError(
            f"elliptic curve {params.hex() or 'without parameters'} is not supported", hint="use P-256, P-384 or P-521"
        ) from None


def rsa_public_key(found: Attributes) -> rsa.RSAPublicKey:
    """Make an RSA public key of CKA_MODULUS and CKA_PUBLIC_EXPONENT.

    Raises:
        InputError: the token gave none, or numbers that are no RSA key.
    """
    modulus = int.from_bytes(found.data(CKA.MODULUS), "big")
    exponent = int.from_bytes(found.data(CKA.PUBLIC_EXPONENT), "big")
    try:
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError:
        raise InputError(
            "the token gave no usable RSA public key", hint="the key pair's public half is missing"
        ) from None


def public_key(found: Attributes) -> PublicKey:
    """Make a public key of a public object's attributes.

    Raises:
        InputError: the type or the curve is not supported, or the numbers are no key.
    """
    key_type = found.number(CKA.KEY_TYPE)
    if key_type == CKK.RSA:
        return rsa_public_key(found)
    params, point = found.data(CKA.EC_PARAMS), _octet_string(found.data(CKA.EC_POINT))
    try:
        if key_type == CKK.EC:
            return ec.EllipticCurvePublicKey.from_encoded_point(ec_curve(params), point)
        if key_type == CKK.EC_EDWARDS and params in _ED25519:
            return ed25519.Ed25519PublicKey.from_public_bytes(point)
    except ValueError:
        raise InputError("the token gave no point on its curve", hint="the public object is damaged") from None
    kind = "a key without a type" if key_type is None else name_of(CKK, key_type)
    raise InputError(f"{kind} is not a supported public key", hint="use RSA, P-256, P-384, P-521 or Ed25519")


def public_key_of(key: Object) -> PublicKey | None:
    """Return the public key that belongs to an object of any class.

    A public object answers for itself. A private RSA key carries its public numbers; for an EC key the public object
    with the same CKA_ID is looked up.

    Returns: None for a secret key, or where the token has no public half.
    """
    cls = key.identity.cls
    if cls not in (CKO.PUBLIC_KEY, CKO.PRIVATE_KEY):
        return None
    found = key.read(_QUERY)
    if cls == CKO.PUBLIC_KEY or (found.number(CKA.KEY_TYPE) == CKK.RSA and found.data(CKA.PUBLIC_EXPONENT)):
        return public_key(found)
    if not found.data(CKA.ID):
        return None
    halves = key.token.find({CKA.CLASS: CKO.PUBLIC_KEY, CKA.ID: found.data(CKA.ID)})
    return public_key(halves[0].read(_QUERY)) if len(halves) == 1 else None


def spki_fingerprint(key: PublicKey) -> bytes:
    """SHA-256 of the DER SubjectPublicKeyInfo, 32 bytes."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).digest()


def _octet_string(point: bytes) -> bytes:
    """Unpack CKA_EC_POINT's OCTET STRING; some modules give the raw point instead."""
    if len(point) > 2 and point[0] == _OCTET_STRING:  # noqa: PLR2004 - tag and length
        if point[1] < _SHORT_FORM and len(point) == 2 + point[1]:
            return point[2:]
        if point[1] == _SHORT_FORM + 1 and len(point) == 3 + point[2]:
            return point[3:]
    return point
