"""Everything that a key is besides its bytes: captured here, restored and read back there.

"The same state" is defined over what a token lets its caller set. Where a key came from (CKA_LOCAL and its kin)
cannot be set anywhere; it travels as a statement.

Source: PKCS#11 v3.1 sections 4.4, 4.7, 4.9, 4.10 (tables of common, storage and key attributes).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hsmbridge.attributes import AttributeQuery
from hsmbridge.codes import CKA, CKK, CKO, CKR, name_of
from hsmbridge.errors import InputError, NotExtractableError, NotFoundError
from hsmbridge.keyrequest import KeyRequest
from hsmbridge.values import is_default

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsmbridge.objects import Object
    from hsmbridge.template import Value

__all__ = ["PROVENANCE", "SETTABLE", "Capture", "capture", "request_for"]

_COMMON = (
    CKA.LABEL, CKA.ID, CKA.PRIVATE, CKA.MODIFIABLE, CKA.COPYABLE, CKA.DESTROYABLE, CKA.START_DATE, CKA.END_DATE,
    CKA.SENSITIVE, CKA.EXTRACTABLE, CKA.WRAP_WITH_TRUSTED, CKA.DECRYPT, CKA.SIGN, CKA.UNWRAP, CKA.DERIVE,
    CKA.UNWRAP_TEMPLATE, CKA.ALLOWED_MECHANISMS,
)  # fmt: skip
SETTABLE: Mapping[int, tuple[CKA, ...]] = {
    CKO.SECRET_KEY: (*_COMMON, CKA.ENCRYPT, CKA.VERIFY, CKA.WRAP, CKA.WRAP_TEMPLATE),
    CKO.PRIVATE_KEY: (*_COMMON, CKA.SIGN_RECOVER, CKA.SUBJECT, CKA.ALWAYS_AUTHENTICATE),
}
"""What is carried and restored, by class. CKA_TOKEN is not among it: the receiver says where the key shall live."""

PROVENANCE = (CKA.LOCAL, CKA.ALWAYS_SENSITIVE, CKA.NEVER_EXTRACTABLE, CKA.KEY_GEN_MECHANISM, CKA.UNIQUE_ID, CKA.TRUSTED)
"""What no token lets anybody set (CKA_TRUSTED: only the SO): a statement of the source."""

_QUERIES = {
    cls: AttributeQuery((CKA.CLASS, CKA.KEY_TYPE, CKA.TOKEN, CKA.VALUE_LEN, *kinds, *PROVENANCE))
    for cls, kinds in SETTABLE.items()
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """A key's attributes.

    Attributes:
        cls: CKO_SECRET_KEY or CKO_PRIVATE_KEY.
        key_type: CKK_.
        size: a secret's length in bytes, None where the token does not tell or for a private key.
        on_token: CKA_TOKEN at the source.
        settable: what will be restored.
        provenance: what can only be stated.
    """

    cls: CKO
    key_type: CKK
    size: int | None
    on_token: bool
    settable: Mapping[int, Value]
    provenance: Mapping[int, Value]


_FIXED_SIZE = {CKK.DES3: 24, CKK.DES2: 16, CKK.DES: 8}


def capture(key: Object) -> Capture:
    """Read everything about a key that can be restored or stated.

    Raises:
        NotExtractableError: an attribute that would have to be restored cannot be read.
        NotFoundError: not a secret or private key, or of a type without a name here.
        Pkcs11Error: the object or the session is gone.
    """
    cls = key.identity.cls
    if cls not in SETTABLE:
        raise NotFoundError(f"{key.identity} is no secret or private key", hint="only these can be handed over")
    found = key.read(_QUERIES[CKO(cls)])
    number = found.number(CKA.KEY_TYPE)
    if number is None or number not in list(CKK):
        raise NotFoundError(
            f"{key.identity} has an unknown key type", hint="vendor key types cannot be carried by value"
        )
    key_type = CKK(number)
    for kind in SETTABLE[cls]:
        if found.unreadable.get(kind, CKR.ATTRIBUTE_TYPE_INVALID) != CKR.ATTRIBUTE_TYPE_INVALID:
            raise NotExtractableError(
                f"{name_of(CKA, kind)} of {key.identity} cannot be read ({found.why_not(kind)}): it would be lost",
                hint="the token took the attribute but does not give it back; remove it at the source first",
            )
    size = None
    if cls == CKO.SECRET_KEY:
        size = _FIXED_SIZE.get(key_type) or found.number(CKA.VALUE_LEN) or None
    return Capture(
        cls=CKO(cls),
        key_type=key_type,
        size=size,
        on_token=found.flag(CKA.TOKEN) is not False,
        settable={kind: found[kind] for kind in SETTABLE[cls] if kind in found},
        provenance={kind: found[kind] for kind in PROVENANCE if kind in found},
    )


def request_for(captured: Capture, *, on_token: bool, ec_point: bytes = b"") -> KeyRequest:
    """Turn a capture into the template of an unwrap and what its read-back must show.

    Attributes that are at the specification's default are not named to the token: one that does not know them would
    refuse. They are compared all the same.

    Args:
        captured: from the source, by way of an authenticated record.
        on_token: whether the key shall be a token object here.
        ec_point: public point of an EC private key.

    Raises:
        InputError: the record holds an attribute that is never restored.
    """
    foreign = [name_of(CKA, kind) for kind in captured.settable if kind not in SETTABLE.get(captured.cls, ())]
    if foreign:
        raise InputError(
            f"{foreign[0]} is not an attribute that is restored", hint="the record was not made by hsmbridge"
        )
    named = {kind: value for kind, value in captured.settable.items() if not is_default(kind, value)}
    return KeyRequest(
        cls=captured.cls,
        key_type=captured.key_type,
        template={**named, CKA.TOKEN: on_token},
        expected={kind: value for kind, value in captured.settable.items() if kind not in named},
        size=captured.size,
        ec_point=ec_point,
    )
