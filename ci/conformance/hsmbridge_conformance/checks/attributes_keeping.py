"""Attributes, continued: what only goes one way, what tells a key's length and value, and what must survive."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from hsmbridge.attributes import AttributeQuery
from hsmbridge.codes import CKA, CKK, CKM, CKR, ckr_name, name_of
from hsmbridge.errors import Pkcs11Error
from hsmbridge.template import PackedTemplate
from hsmbridge_conformance.catalogue import check
from hsmbridge_conformance.checks._trial import Trial, families, trials
from hsmbridge_conformance.checks._unwrapping import sealed
from hsmbridge_conformance.keymaking import usage
from hsmbridge_conformance.verdict import Failed, Finding, Level, Subject, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hsmbridge.objects import Object
    from hsmbridge.template import Template, Value
    from hsmbridge_conformance.rig import Rig

__all__: list[str] = []

_GENERATED = "generated"
_ONE_WAY = (
    CKR.ATTRIBUTE_READ_ONLY,
    CKR.TEMPLATE_INCONSISTENT,
    CKR.ACTION_PROHIBITED,
    CKR.FUNCTION_NOT_SUPPORTED,
)
"""The last one for C_CopyObject, which a module need not have."""


def _keys(rig: Rig) -> Iterable[Trial | str]:
    return [_GENERATED, *trials(families(rig), "unwrapped")]


@check("HSB-ATTR-004", subject=Subject.MODULE, level=Level.MUST, clauses="SK", cases=_keys)
def sensitive(rig: Rig, where: Trial | str) -> None:
    """A sensitive key stays sensitive, and its value cannot be read.

    A key that was generated or unwrapped with CKA_SENSITIVE=true is asked for its CKA_VALUE, which must get
    CKR_ATTRIBUTE_SENSITIVE; then C_SetAttributeValue and C_CopyObject are asked to make it, or a copy, readable. All
    the protection of a key in a token rests on these three refusals.
    """
    _one_way(rig, _protected(rig, where, CKA.SENSITIVE, value=True), CKA.SENSITIVE, way=True)


@check("HSB-ATTR-005", subject=Subject.MODULE, level=Level.MUST, clauses="SK", cases=_keys)
def extractable(rig: Rig, where: Trial | str) -> None:
    """A key that is not extractable stays so, and its value cannot be read.

    As HSB-ATTR-004, with CKA_EXTRACTABLE=false, which alone keeps the value from being read too.
    """
    _one_way(rig, _protected(rig, where, CKA.EXTRACTABLE, value=False), CKA.EXTRACTABLE, way=False)


def _protected(rig: Rig, where: Trial | str, kind: CKA, *, value: bool) -> Object:
    """Make a key with a protection, if need be in two steps: HSB-ATTR-001 judges a template that is ignored."""
    if isinstance(where, str):
        return rig.make("aes:256", {kind: value})
    key = sealed(rig, where.case).any_of({kind: value}, {})
    if rig.attribute(key, kind) is not value:
        try:
            key.set({kind: value})
        except Pkcs11Error as error:
            raise Unsupported(f"no key with {kind.name}={value}: {error}") from None
    if rig.attribute(key, kind) is not value:
        raise Failed(f"CKA_{kind.name}={str(value).lower()} is answered with CKR_OK and ignored, in both calls")
    return key


def _one_way(rig: Rig, key: Object, kind: CKA, *, way: bool) -> None:
    """Ask for the value, then for the way back on the key itself and on a copy."""
    findings = _value_is_kept(key, f"{name_of(CKA, kind)}={str(way).lower()}")
    back = f"{name_of(CKA, kind)}={str(not way).lower()}"

    def changed() -> Object:
        key.set({kind: not way})
        return key

    def copied() -> Object:
        template = PackedTemplate(rig.named({kind: not way}))
        with rig.token.sessions as session:
            return rig.adopt(rig.calls.copy_object(session, key.handle, template))

    for function, call in (("C_SetAttributeValue", changed), ("C_CopyObject", copied)):
        try:
            result = call()
        except Pkcs11Error as error:
            if error.ckr not in _ONE_WAY:
                findings.append(f"{function} with {back}: {ckr_name(error.ckr)}")
            continue
        if rig.attribute(result, kind) is not way:
            raise Failed(f"{function} with {back} answers CKR_OK and does it")
        findings.append(f"{function} with {back}: CKR_OK, and nothing changes")
    if findings:
        raise Finding("; ".join(findings))


def _value_is_kept(key: Object, protection: str) -> list[str]:
    try:
        key.read_value()
    except Pkcs11Error as error:
        right = error.ckr == CKR.ATTRIBUTE_SENSITIVE
        return [] if right else [f"CKA_VALUE: {ckr_name(error.ckr)}, the specification has CKR_ATTRIBUTE_SENSITIVE"]
    raise Failed(f"CKA_VALUE of a key with {protection} can be read")


# ---- length and value

_CHECK_BYTES = 3


def _lengths(rig: Rig) -> Iterable[Trial]:
    return trials(families(rig), "aes:128", "aes:256", "generic:32", "wrong-check-value")


@check("HSB-ATTR-007", subject=Subject.MODULE, level=Level.SHOULD, clauses="SK", cases=_lengths)
def length_and_check_value(rig: Rig, trial: Trial) -> str:
    """CKA_VALUE_LEN and CKA_CHECK_VALUE of an unwrapped key are right.

    A key of known length, and of known bytes where the module takes them, is unwrapped, and CKA_VALUE_LEN must be its
    length. CKA_CHECK_VALUE, where there is one, must be the first three bytes of a block of zeros encrypted under an
    AES key. ``wrong-check-value`` names a wrong one in the template, which must be refused. Both are what a person has
    to compare two keys by.
    """
    if trial.what == "wrong-check-value":
        return _wrong_check_value(rig, trial)
    size, key_type = (32, CKK.GENERIC_SECRET) if trial.what == "generic:32" else (int(trial.what[4:]) // 8, CKK.AES)
    value = secrets.token_bytes(size)
    opened = sealed(rig, trial.case, trial.what, lambda: rig.enter(key_type, value))
    key = opened.any_of({CKA.KEY_TYPE: key_type})
    read, check_value = rig.attribute(key, CKA.VALUE_LEN), rig.attribute(key, CKA.CHECK_VALUE)
    if read != size:
        raise Failed(f"CKA_VALUE_LEN of a key of {size} bytes reads {'nothing' if read is None else repr(read)}")
    if not check_value or key_type != CKK.AES:
        return "no CKA_CHECK_VALUE" if not check_value else "CKA_CHECK_VALUE is there"
    if check_value != _check_value(value):
        raise Failed("CKA_CHECK_VALUE is not that of the key's bytes")
    return "CKA_CHECK_VALUE is right"


def _check_value(key: bytes) -> bytes:
    zeros = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - the definition of CKA_CHECK_VALUE
    return zeros.update(bytes(16))[:_CHECK_BYTES]


def _wrong_check_value(rig: Rig, trial: Trial) -> str:
    value = secrets.token_bytes(32)
    opened = sealed(rig, trial.case, "aes:256", lambda: rig.enter(CKK.AES, value))
    wrong = bytes(byte ^ 0xFF for byte in _check_value(value))
    answer = opened({CKA.CHECK_VALUE: wrong})
    if isinstance(answer, int):
        if answer == CKR.ATTRIBUTE_TYPE_INVALID:
            raise Unsupported("the module does not know CKA_CHECK_VALUE: CKR_ATTRIBUTE_TYPE_INVALID")
        if answer != CKR.ATTRIBUTE_VALUE_INVALID:
            raise Finding(f"refused with {ckr_name(answer)}, the specification has CKR_ATTRIBUTE_VALUE_INVALID")
        right = opened({CKA.CHECK_VALUE: _check_value(value)})
        return f"the right one: {ckr_name(right) if isinstance(right, int) else 'accepted'}"
    read = rig.attribute(answer, CKA.CHECK_VALUE)
    raise Failed(
        "a wrong CKA_CHECK_VALUE in the template is accepted" + (" and then shown" if read == wrong else " and ignored")
    )


# ---- what must survive


def _groups(rig: Rig) -> Iterable[Trial]:
    return trials(families(rig), "names", "dates", "usage", "CKA_ALLOWED_MECHANISMS")


@check("HSB-ATTR-008", subject=Subject.MODULE, level=Level.MUST, clauses="KO HSB U", cases=_groups)
def surviving(rig: Rig, trial: Trial) -> str | None:
    """ID, label, dates, usage and allowed mechanisms survive a wrap and an unwrap.

    A key is generated with them, read, wrapped, and unwrapped with a template of what was read. The new key must read
    the same: these attributes say what a key may be used for, and a handoff that loses them makes another key of it.
    Without effect on the verdict are attributes that the module does not have, as it says.
    """
    wanted = _group(rig, trial.what)
    source = rig.make("aes:256", {**usage(CKA.ENCRYPT, CKA.DECRYPT), **wanted})
    template: dict[int, Value] = {}
    for kind, value in wanted.items():
        read = _read(source, kind)
        if read != value:
            raise Failed(f"C_GenerateKey takes {name_of(CKA, kind)}, which then reads {read!r}")
        template[kind] = value
    opened = sealed(rig, trial.case, make=lambda: source)
    answer = opened({**usage(CKA.ENCRYPT, CKA.DECRYPT), **template})
    if isinstance(answer, int):
        if answer == CKR.ATTRIBUTE_TYPE_INVALID:
            raise Unsupported(f"C_UnwrapKey knows no such attribute: {ckr_name(answer)}")
        raise Failed(f"C_UnwrapKey refuses {trial.what} that C_GenerateKey takes: {ckr_name(answer)}")
    lost = [
        f"{name_of(CKA, kind)} reads {found!r}, not {value!r}"
        for kind, value in template.items()
        if (found := _read(answer, kind)) != value
    ]
    if lost:
        raise Failed(f"after the unwrap {'; '.join(lost)}")
    return None


def _read(key: Object, kind: int) -> Value:
    """Return an attribute, or the name of the return value that came in its place."""
    found = key.read(AttributeQuery((kind,)))
    return found.get(kind, found.why_not(kind))


def _group(rig: Rig, what: str) -> Template:
    groups: dict[str, Template] = {
        "names": {CKA.ID: rig.new_id(), CKA.LABEL: "hsmbridge conformance, survives"},
        "dates": {CKA.START_DATE: b"20260101", CKA.END_DATE: b"20391231"},
        "usage": usage(CKA.ENCRYPT, CKA.DECRYPT, CKA.SIGN, CKA.VERIFY, CKA.DERIVE),
        "CKA_ALLOWED_MECHANISMS": {CKA.ALLOWED_MECHANISMS: (int(CKM.AES_CBC), int(CKM.AES_CBC_PAD))},
    }
    return groups[what]
