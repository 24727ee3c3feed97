"""What is told about a key of the token: what it is, where it lives and why, what it may do, its check value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hsmbridge.attributes import AttributeQuery, Attributes
from hsmbridge.codes import CKA, CKK, CKM, CKO, UNAVAILABLE, ckr_name, name_of
from hsmbridge.errors import HsmbridgeError, Pkcs11Error, UriError
from hsmbridge.kek import strength
from hsmbridge.keyspec import KeySpec
from hsmbridge.mechanism import Mechanism
from hsmbridge.residency import classify
from hsmbridge.uri import Pkcs11Uri

if TYPE_CHECKING:
    from enum import IntEnum

    from hsmbridge.objects import Object
    from hsmbridge.template import Value

__all__ = ["check_value", "key_summary", "key_type_name", "may_wrap", "shown_attributes", "shown_value"]

_SUMMARY = AttributeQuery(
    (
        CKA.CLASS, CKA.KEY_TYPE, CKA.ID, CKA.LABEL, CKA.VALUE_LEN, CKA.MODULUS, CKA.EC_PARAMS, CKA.ENCRYPT, CKA.DECRYPT,
        CKA.SIGN, CKA.VERIFY, CKA.WRAP, CKA.UNWRAP, CKA.DERIVE,
    )
)  # fmt: skip
_SHOWN = AttributeQuery(
    (
        CKA.CLASS, CKA.KEY_TYPE, CKA.LABEL, CKA.ID, CKA.UNIQUE_ID, CKA.TOKEN, CKA.PRIVATE, CKA.SENSITIVE,
        CKA.EXTRACTABLE, CKA.MODIFIABLE, CKA.COPYABLE, CKA.DESTROYABLE, CKA.ENCRYPT, CKA.DECRYPT, CKA.SIGN, CKA.VERIFY,
        CKA.WRAP, CKA.UNWRAP, CKA.DERIVE, CKA.WRAP_WITH_TRUSTED, CKA.TRUSTED, CKA.LOCAL, CKA.ALWAYS_SENSITIVE,
        CKA.NEVER_EXTRACTABLE, CKA.KEY_GEN_MECHANISM, CKA.ALWAYS_AUTHENTICATE, CKA.START_DATE, CKA.END_DATE,
        CKA.WRAP_TEMPLATE, CKA.UNWRAP_TEMPLATE, CKA.ALLOWED_MECHANISMS,
    )
)  # fmt: skip
_USES = (CKA.ENCRYPT, CKA.DECRYPT, CKA.SIGN, CKA.VERIFY, CKA.WRAP, CKA.UNWRAP, CKA.DERIVE)
_CHECK_QUERY = AttributeQuery((CKA.KEY_TYPE, CKA.ENCRYPT, CKA.CHECK_VALUE))

_ECB = {CKK.AES: (CKM.AES_ECB, 16), CKK.DES3: (CKM.DES3_ECB, 8)}
_CHECK_BYTES = 3
"""PKCS#11 v3.1 section 4.10.2: the check value is the first three bytes of an encrypted zero block."""

_NUMBERS: dict[int, type[IntEnum]] = {CKA.CLASS: CKO, CKA.KEY_TYPE: CKK, CKA.KEY_GEN_MECHANISM: CKM}
_URI_TYPES: dict[int | None, str] = {CKO.SECRET_KEY: "secret-key", CKO.PRIVATE_KEY: "private", CKO.PUBLIC_KEY: "public"}
_CLASS_NAMES: dict[int | None, str] = {CKO.SECRET_KEY: "secret", CKO.PRIVATE_KEY: "private", CKO.PUBLIC_KEY: "public"}


def key_summary(key: Object) -> dict[str, object]:
    """Return what a key is, where it lives and what it may do, JSON-ready.

    Raises:
        Pkcs11Error: the key is gone.
    """
    found = key.read(_SUMMARY)
    classification = classify(key)
    return {
        "class": _CLASS_NAMES.get(found.number(CKA.CLASS)),
        "type": key_type_name(found),
        "label": found.text(CKA.LABEL),
        "id": found.data(CKA.ID).hex(),
        "strength": _strength(found),
        "uses": [kind.name.lower() for kind in _USES if found.flag(kind)],
        "residency": str(classification.residency),
        "reason": classification.reason,
        "evidence": list(classification.evidence),
        "uri": _uri(key, found),
    }


def key_type_name(found: Attributes) -> str:
    """Return type and size as --type takes them, ``aes:256``; the size is left out where the token does not tell it."""
    number = found.number(CKA.KEY_TYPE)
    if number not in (CKK.AES, CKK.DES3, CKK.GENERIC_SECRET, CKK.RSA, CKK.EC, CKK.EC_EDWARDS):
        return "without a type" if number is None else name_of(CKK, number)
    bits = 8 * (found.number(CKA.VALUE_LEN) or 0)
    if number == CKK.RSA:
        bits = int.from_bytes(found.data(CKA.MODULUS), "big").bit_length()
    return str(KeySpec(key_type=CKK(number), bits=bits, ec_params=found.data(CKA.EC_PARAMS)))


def shown_attributes(key: Object) -> tuple[dict[str, object], dict[str, str]]:
    """Read the attributes that are worth a look.

    Returns: name to JSON-ready value, and name to the return value of those that could not be read.
    """
    found = key.read(_SHOWN)
    values = {kind.name: shown_value(kind, found[kind]) for kind in CKA if kind in found}
    return values, {CKA(kind).name: ckr_name(ckr) for kind, ckr in found.unreadable.items()}


def check_value(key: Object) -> str | None:
    """Return the key check value in hexadecimal digits.

    Computed where the key may encrypt, else the token's own CKA_CHECK_VALUE; None where there is neither.
    """
    found = key.read(_CHECK_QUERY)
    number = found.number(CKA.KEY_TYPE)
    if found.flag(CKA.ENCRYPT) and number in _ECB:
        mechanism, block = _ECB[CKK(number)]
        try:
            with key.token.sessions as session:
                sealed = key.token.calls.encrypt(session, Mechanism(mechanism), key.handle, bytes(block))
            return sealed[:_CHECK_BYTES].hex()
        except Pkcs11Error:
            pass  # a token may have the key and not ECB; it may know the value all the same
    return found.data(CKA.CHECK_VALUE).hex() or None


def may_wrap(summary: Mapping[str, object]) -> bool:
    """Whether a key is a KEK: it may wrap or unwrap."""
    uses = summary["uses"]
    return isinstance(uses, list) and ("wrap" in uses or "unwrap" in uses)


def _strength(found: Attributes) -> int | None:
    try:
        if found.number(CKA.KEY_TYPE) == CKK.EC and not found.data(CKA.EC_PARAMS):
            return None
        return strength(found)
    except HsmbridgeError:
        return None  # a curve that is not known here


def shown_value(kind: int, value: Value) -> object:
    """Return an attribute's value JSON-ready: numbers by their names, bytes in hexadecimal digits."""
    if isinstance(value, Mapping):
        return {name_of(CKA, inner).removeprefix("CKA_"): shown_value(inner, item) for inner, item in value.items()}
    if isinstance(value, bytes):
        return value.hex() if kind not in (CKA.START_DATE, CKA.END_DATE) else value.decode("ascii", "backslashreplace")
    if isinstance(value, tuple):
        return [name_of(CKM, number) for number in value]
    if value == UNAVAILABLE:
        return None
    names = _NUMBERS.get(kind)
    return name_of(names, value) if names is not None and isinstance(value, int) else value


def _uri(key: Object, found: Attributes) -> str | None:
    """Name the key by a URI; None where its label has no UTF-8 form."""
    try:
        return str(
            Pkcs11Uri(
                token=key.token.label,
                object=found.text(CKA.LABEL) or None,
                id=found.data(CKA.ID) or None,
                type=_URI_TYPES.get(found.number(CKA.CLASS)),
            )
        )
    except UriError:
        return None
