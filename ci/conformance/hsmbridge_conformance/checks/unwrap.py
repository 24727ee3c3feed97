"""Unwrap: what C_UnwrapKey must refuse, and what it must leave behind then: nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsmbridge.codes import CKA, CKK, CKR, ckr_name
from hsmbridge.errors import Pkcs11Error
from hsmbridge_conformance.catalogue import check
from hsmbridge_conformance.checks._trial import Trial, conflicts, trials
from hsmbridge_conformance.checks._unwrapping import Unwrapping, attempt, demand_refusal, sealed
from hsmbridge_conformance.keymaking import usage
from hsmbridge_conformance.verdict import Failed, Level, Subject, Unsupported
from hsmbridge_conformance.wrapcases import arriving

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hsmbridge.template import Template
    from hsmbridge_conformance.rig import Rig
    from hsmbridge_conformance.wrapcases import WrapCase

__all__: list[str] = []

_REFUSED_TEMPLATES: dict[str, Template] = {
    "a wrong CKA_CHECK_VALUE": {CKA.CHECK_VALUE: b"\0\0\0"},
    "CKA_LOCAL=true": {CKA.LOCAL: True},
    "CKA_ALWAYS_SENSITIVE=true": {CKA.ALWAYS_SENSITIVE: True},
    "CKA_NEVER_EXTRACTABLE=true": {CKA.NEVER_EXTRACTABLE: True},
    "CKA_TRUSTED=true": {CKA.TRUSTED: True},
    "CKA_VALUE_LEN=5": {CKA.VALUE_LEN: 5},
    "CKA_VALUE": {CKA.VALUE: bytes(32)},
    "an RSA key's CKA_MODULUS": {CKA.MODULUS: b"\x01"},
    "a CKA_SENSITIVE of 8 bytes": {CKA.SENSITIVE: bytes(8)},
    "an unknown attribute": {0x7FFF_1234: b"\x01"},
    "key type DES3": {CKA.KEY_TYPE: CKK.DES3},
    "an unknown key type": {CKA.KEY_TYPE: 0x7FFF_1234},
}
"""Templates for 32 bytes of AES key, each with one mistake in it. Some modules take some of them."""

_WRONG_KEKS = 3


def _mechanisms(rig: Rig) -> Iterable[WrapCase]:
    return rig.wrap_cases()


def _with_integrity(rig: Rig) -> Iterable[WrapCase]:
    return [case for case in rig.wrap_cases() if case.integrity]


def _of_other_types(rig: Rig) -> Iterable[Trial]:
    return trials(rig.wrap_cases(), "aes", "des3", "rsa")


def _templates(rig: Rig) -> Iterable[Trial]:
    return trials([case for case in rig.wrap_cases() if not case.rsa], "conflict", "left-out")


@check("HSB-UNWRAP-001", subject=Subject.MODULE, level=Level.MUST, clauses="U", cases=_mechanisms)
def kek_without_unwrap(rig: Rig, case: WrapCase) -> None:
    """A KEK with CKA_UNWRAP=false does not unwrap.

    A key is wrapped under a KEK that was made with CKA_UNWRAP=false (its public half, for RSA) and offered to
    C_UnwrapKey with that KEK. A module that unwraps it lets every key that may only wrap bring keys in.
    """
    wrapping, unwrapping = case.make_kek(rig, UNWRAP=False)
    wrapped = rig.wrap(case, wrapping, rig.make("aes:256"))
    answer = attempt(rig, case, unwrapping, wrapped, arriving())
    demand_refusal(answer, (CKR.KEY_FUNCTION_NOT_PERMITTED,), "a KEK with CKA_UNWRAP=false unwrapped a key")


@check("HSB-UNWRAP-003", subject=Subject.MODULE, level=Level.MUST, clauses="KW ERR U", cases=_with_integrity)
def wrong_kek(rig: Rig, case: WrapCase) -> None:
    """A wrapped key does not open under another KEK.

    A key is wrapped under one KEK and unwrapped with others of the same type and size. What comes out can only be
    garbage; a module that takes it for a key has not looked at the integrity check.
    """
    wrapped = sealed(rig, case).wrapped
    for _ in range(1 if case.rsa else _WRONG_KEKS):
        other = case.make_kek(rig)[1]
        demand_refusal(attempt(rig, case, other, wrapped, arriving()), (), "a wrapped key was opened with a wrong KEK")


@check("HSB-UNWRAP-004", subject=Subject.MODULE, level=Level.MUST, clauses="U", cases=_of_other_types)
def type_conflict(rig: Rig, trial: Trial) -> None:
    """What is wrapped does not become a key of a type that it cannot be.

    ``aes``: 40 bytes (and where the mechanism keeps every length, 20) are unwrapped as an AES key; ``des3``: 16 and 32
    bytes as a DES3 key, which has 24; ``rsa``: 32 bytes as an RSA private key. An attacker who can choose the template
    turns one key into a weaker one this way.
    """
    accepted = []
    for description, opened, template in conflicts(rig, trial):
        answer = attempt(rig, trial.case, opened.kek, opened.wrapped, template)
        if not isinstance(answer, int):
            accepted.append(description)
    if accepted:
        raise Failed(f"accepted: {'; '.join(accepted)}")


@check("HSB-UNWRAP-005", subject=Subject.MODULE, level=Level.MUST, clauses="U", cases=_mechanisms)
def nothing_left(rig: Rig, case: WrapCase) -> str:
    """A failed C_UnwrapKey leaves no object.

    Unwraps are made to fail: by a wrapped key of a wrong length or with a flipped bit, by another KEK, and by templates
    with one mistake each. After every refusal all session objects are counted. An object that is left cannot be found
    again by its caller, may be readable, and with CKA_TOKEN=true stays in the token for ever.
    """
    opened = sealed(rig, case)
    flipped = bytes([opened.wrapped[0] ^ 1]) + opened.wrapped[1:]
    other = Unwrapping(rig=rig, case=case, kek=case.make_kek(rig)[1], wrapped=opened.wrapped)
    attempts = [
        ("a flipped bit", opened, None, flipped),
        ("a missing byte", opened, None, opened.wrapped[:-1]),
        ("another KEK", other, None, None),
        *((name, opened, template, None) for name, template in _REFUSED_TEMPLATES.items()),
    ]
    left: list[str] = []
    refused = 0
    for name, unwrapping, template, wrapped in attempts:
        before = rig.inventory()
        answer = unwrapping(template, wrapped)
        if not isinstance(answer, int):
            continue
        refused += 1
        if rig.inventory() - before:
            left.append(f"{name} ({ckr_name(answer)})")
    if left:
        raise Failed(f"an object is left after a refusal of {'; '.join(left)}")
    return f"{refused} refusals, nothing left"


@check("HSB-UNWRAP-006", subject=Subject.MODULE, level=Level.MUST, clauses="U", cases=_templates)
def unwrap_template(rig: Rig, trial: Trial) -> None:
    """CKA_UNWRAP_TEMPLATE, where it is accepted, is enforced.

    The KEK is made with a CKA_UNWRAP_TEMPLATE that says CKA_EXTRACTABLE=false. ``conflict``: a template that asks for
    true must get CKR_TEMPLATE_INCONSISTENT. ``left-out``: a template that does not speak of it gets what the KEK says.
    This attribute is what keeps a user from making an unwrapped key readable.
    """
    kek = rig.make_kek({CKA.UNWRAP_TEMPLATE: {CKA.EXTRACTABLE: False}})
    try:
        wrapped = rig.wrap(trial.case, kek, rig.make("aes:256"))
    except Pkcs11Error as error:
        raise Unsupported(f"such a KEK does not wrap: {ckr_name(error.ckr)}") from None
    opened = Unwrapping(rig=rig, case=trial.case, kek=kek, wrapped=wrapped)
    if trial.what == "conflict":
        answer = opened({CKA.EXTRACTABLE: True})
        if not isinstance(answer, int) and rig.attribute(answer, CKA.EXTRACTABLE) is False:
            raise Failed("the template asked for CKA_EXTRACTABLE=true and got CKR_OK and false")
        demand_refusal(
            answer,
            (CKR.TEMPLATE_INCONSISTENT,),
            "the KEK was made with a CKA_UNWRAP_TEMPLATE and unwrapped a key that contradicts it",
        )
        return
    answer = opened()
    if isinstance(answer, int):
        raise Failed(
            f"a template that leaves out what the KEK's CKA_UNWRAP_TEMPLATE sets was refused: {ckr_name(answer)}"
        )
    if rig.attribute(answer, CKA.EXTRACTABLE) is not False:
        raise Failed("the KEK's CKA_UNWRAP_TEMPLATE was not applied to the new key")


@check("HSB-UNWRAP-007", subject=Subject.MODULE, level=Level.INFO, clauses="U SK", cases=_mechanisms)
def value_length(rig: Rig, case: WrapCase) -> str:
    """Is CKA_VALUE_LEN accepted in the template of an unwrap?

    A wrapped AES-256 key is unwrapped with CKA_VALUE_LEN=32 and with 16. Some modules need the attribute, others refuse
    it; one that honours a smaller length makes a weaker key of a strong one. It fails where the attribute then says
    another length than the key has.
    """
    opened = sealed(rig, case)
    said = []
    for length in (32, 16):
        answer = opened({CKA.VALUE_LEN: length, **usage()})
        if isinstance(answer, int):
            said.append(f"{length} of 32 bytes: {ckr_name(answer)}")
            continue
        reads = rig.attribute(answer, CKA.VALUE_LEN)
        real = _real_length(opened, length)
        if real is not None and reads != real:
            raise Failed(f"CKA_VALUE_LEN={length} for 32 bytes is accepted, then reads {reads!r}; the key has {real}")
        known = f"the key has {real} bytes" if real is not None else f"CKA_VALUE_LEN reads {reads!r}"
        said.append(f"{length} of 32 bytes: accepted, {known}")
    return "; ".join(said)


def _real_length(opened: Unwrapping, length: int) -> int | None:
    """Return how many bytes a key has that was unwrapped with this CKA_VALUE_LEN; None where nothing tells."""
    readable: Template = {CKA.SENSITIVE: False, CKA.EXTRACTABLE: True}
    for asked in (readable, {}):
        answer = opened({CKA.VALUE_LEN: length, **asked})
        if isinstance(answer, int):
            continue
        try:
            return len(answer.read_value())
        except Pkcs11Error:
            continue
    return None
