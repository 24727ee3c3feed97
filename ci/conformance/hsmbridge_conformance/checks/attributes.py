"""Attributes: what an unwrapped key is, compared with what was asked for and with the specification's defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsmbridge.codes import CKA, CKR, ckr_name, name_of
from hsmbridge.errors import Pkcs11Error
from hsmbridge.template import PackedTemplate
from hsmbridge_conformance.catalogue import check
from hsmbridge_conformance.checks._trial import Trial, families, trials
from hsmbridge_conformance.checks._unwrapping import Unwrapping, sealed
from hsmbridge_conformance.keymaking import USAGE, usage
from hsmbridge_conformance.verdict import Failed, Finding, Level, Subject, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hsmbridge.template import Template, Value
    from hsmbridge_conformance.rig import Rig
    from hsmbridge_conformance.wrapcases import WrapCase

__all__: list[str] = []

_BOTH = (True, False)


def _asked(rig: Rig, what: str) -> list[tuple[CKA, Value]]:
    if what == "usage":
        return [(kind, value) for kind in USAGE for value in _BOTH]
    if what == "names":
        return [(CKA.LABEL, "hsmbridge conformance \u00e9\u4e2d"), (CKA.ID, rig.new_id())]
    return [(CKA[what.removeprefix("CKA_")], value) for value in _BOTH]


def _requests(rig: Rig) -> Iterable[Trial]:
    return trials(
        families(rig), "CKA_SENSITIVE", "CKA_EXTRACTABLE", "CKA_PRIVATE", "CKA_MODIFIABLE", "usage", "names", "order"
    )


@check("HSB-ATTR-001", subject=Subject.MODULE, level=Level.MUST, clauses="U SK", cases=_requests)
def requested(rig: Rig, trial: Trial) -> str | None:
    """What the template of an unwrap asks for is what the key reads afterwards.

    Each attribute is asked for in both values, each usage flag alone; label and ID with new ones; ``order`` puts
    CKA_MODIFIABLE=false in front of the others. A module may refuse a value, with CKR_ATTRIBUTE_VALUE_INVALID, but
    neither ignore it nor call it read-only, the specification's default values included. A caller who asked for a
    sensitive key and got CKR_OK has no reason to look again.
    """
    opened = sealed(rig, trial.case)
    if trial.what == "order":
        _in_order(rig, opened)
        return None
    faults: list[str] = []
    policy: list[str] = []
    for kind, value in _asked(rig, trial.what):
        named = f"{name_of(CKA, kind)}={_shown(value)}"
        answer = opened({kind: value})
        if isinstance(answer, int):
            (policy if answer == CKR.ATTRIBUTE_VALUE_INVALID else faults).append(f"{named} refused: {ckr_name(answer)}")
            continue
        read = rig.attribute(answer, kind)
        if read != value:
            faults.append(f"{named} answered with CKR_OK, reads {_shown(read)}")
    if faults:
        raise Failed("; ".join(faults + policy))
    return "; ".join(policy) or None


def _shown(value: Value | None) -> str:
    return "nothing" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


class _ModifiableFirst(PackedTemplate):
    """A template with CKA_MODIFIABLE in front, which the toolkit never sends."""

    __slots__ = ()

    def __init__(self, template: Template) -> None:
        super().__init__({**template, CKA.MODIFIABLE: False})
        entries = [(entry.type, entry.pValue, entry.ulValueLen) for entry in self._array]
        for place, entry in zip(self._array, entries[-1:] + entries[:-1], strict=True):
            place.type, place.pValue, place.ulValueLen = entry


def _in_order(rig: Rig, opened: Unwrapping) -> None:
    last = opened({CKA.MODIFIABLE: False})
    if isinstance(last, int):
        raise Unsupported(f"CKA_MODIFIABLE=false is refused wherever it stands: {ckr_name(last)}")
    identity = last.read_identity()
    template = rig.named({CKA.CLASS: identity.cls, CKA.KEY_TYPE: identity.key_type or 0, **usage(CKA.ENCRYPT)})
    try:
        with rig.token.sessions as session:
            rig.adopt(
                rig.calls.unwrap_key(
                    session, opened.case.mechanism, opened.kek.handle, opened.wrapped, _ModifiableFirst(template)
                )
            )
    except Pkcs11Error as error:
        raise Failed(
            f"{error.function} refuses CKA_MODIFIABLE=false in front of other attributes, not behind them: "
            f"{ckr_name(error.ckr)}"
        ) from None


_HISTORY = (CKA.LOCAL, CKA.ALWAYS_SENSITIVE, CKA.NEVER_EXTRACTABLE)


def _mechanisms(rig: Rig) -> Iterable[WrapCase]:
    return families(rig)


@check("HSB-ATTR-002", subject=Subject.MODULE, level=Level.MUST, clauses="U SK", cases=_mechanisms)
def history(rig: Rig, case: WrapCase) -> None:
    """An unwrapped key is not CKA_LOCAL, not CKA_ALWAYS_SENSITIVE and not CKA_NEVER_EXTRACTABLE.

    A key is unwrapped as sensitive and not extractable, and those three are read: all must be false, for its bytes
    have been outside. A module that says otherwise vouches for a past that it cannot know.
    """
    opened = sealed(rig, case)
    key = opened.any_of({CKA.SENSITIVE: True, CKA.EXTRACTABLE: False}, {CKA.SENSITIVE: True}, {})
    read = {kind: rig.attribute(key, kind) for kind in _HISTORY}
    wrong = [f"{name_of(CKA, kind)} reads {_shown(value)}" for kind, value in read.items() if value is not False]
    if wrong:
        raise Failed("after an unwrap " + ", ".join(wrong))


_NOT_THE_CALLERS = ("CKA_LOCAL", "CKA_ALWAYS_SENSITIVE", "CKA_NEVER_EXTRACTABLE", "CKA_TRUSTED")
_CANNOT_SET = (
    CKR.ATTRIBUTE_READ_ONLY,
    CKR.ATTRIBUTE_TYPE_INVALID,
    CKR.ATTRIBUTE_VALUE_INVALID,
    CKR.TEMPLATE_INCONSISTENT,
)


def _forbidden(rig: Rig) -> Iterable[Trial]:
    return trials(families(rig), *_NOT_THE_CALLERS)


@check("HSB-ATTR-003", subject=Subject.MODULE, level=Level.MUST, clauses="CA SK U", cases=_forbidden)
def not_the_callers(rig: Rig, trial: Trial) -> None:
    """A user sets neither CKA_LOCAL nor CKA_TRUSTED, and not the two that speak of a key's past.

    Each is asked for as true in the template of an unwrap, and set on the unwrapped key afterwards. Both must be
    refused: whoever decides by these attributes believes the token, not its user. CKR_OK without effect is a finding.
    """
    kind = CKA[trial.what.removeprefix("CKA_")]
    opened = sealed(rig, trial.case)
    findings: list[str] = []
    answer = opened({kind: True})
    if isinstance(answer, int):
        findings += _unexpected("in the template", answer)
    else:
        if rig.attribute(answer, kind) is True:
            raise Failed(f"{trial.what}=true in the template of an unwrap is obeyed")
        findings.append("in the template it is answered with CKR_OK and ignored")
    key = opened.any_of({})
    try:
        key.set({kind: True})
    except Pkcs11Error as error:
        findings += _unexpected("C_SetAttributeValue", error.ckr)
    else:
        if rig.attribute(key, kind) is True:
            raise Failed(f"C_SetAttributeValue makes {trial.what} true")
        findings.append("C_SetAttributeValue answers CKR_OK and ignores it")
    if findings:
        raise Finding(f"{trial.what}=true: {'; '.join(findings)}; the specification has CKR_ATTRIBUTE_READ_ONLY")


def _unexpected(where: str, ckr: int) -> list[str]:
    return [] if ckr in _CANNOT_SET else [f"{where} it is refused with {ckr_name(ckr)}"]


_DEFAULTS: dict[CKA, Value] = {
    CKA.SENSITIVE: False,
    CKA.EXTRACTABLE: True,
    CKA.DERIVE: False,
    CKA.WRAP_WITH_TRUSTED: False,
    CKA.TRUSTED: False,
    CKA.MODIFIABLE: True,
    CKA.COPYABLE: True,
    CKA.DESTROYABLE: True,
    CKA.START_DATE: b"",
    CKA.END_DATE: b"",
}
"""Those that the specification fixes; CKA_PRIVATE and most usage flags are up to the token."""

_EVERY_MODULE = (CKA.SENSITIVE, CKA.EXTRACTABLE, CKA.DERIVE, CKA.MODIFIABLE)


@check("HSB-ATTR-006", subject=Subject.MODULE, level=Level.SHOULD, clauses="U SK ST KO", cases=_mechanisms)
def defaults(rig: Rig, case: WrapCase) -> None:
    """What the template leaves out gets the specification's default.

    A key is unwrapped with class and type only. C_UnwrapKey makes it CKA_EXTRACTABLE=true, the tables of the
    attributes say the rest. A caller who relies on another module's habits gets a key that is less, or more, than
    was meant: name every attribute. Attributes that the module does not have are left out here.
    """
    key = sealed(rig, case).any_of({})
    read = {kind: rig.attribute(key, kind) for kind in _DEFAULTS}
    wrong = [
        f"{name_of(CKA, kind)} is {_shown(value)}, not {_shown(_DEFAULTS[kind])}"
        for kind, value in read.items()
        if value != _DEFAULTS[kind] and (value is not None or kind in _EVERY_MODULE)
    ]
    if wrong:
        raise Failed("; ".join(wrong))


@check("HSB-ATTR-009", subject=Subject.MODULE, level=Level.INFO, clauses="CA", cases=_mechanisms)
def unique_id(rig: Rig, case: WrapCase) -> str:
    """Does an unwrapped key have a CKA_UNIQUE_ID?

    Two keys are unwrapped from the same bytes. Where the module knows the attribute (it came with version 3.0), their
    values must differ: it is then the one name of an object that nobody can choose.
    """
    opened = sealed(rig, case)
    names = [rig.attribute(opened.any_of({}), CKA.UNIQUE_ID) for _ in range(2)]
    if not any(names):
        return "no"
    if None in names or "" in names or names[0] == names[1]:
        raise Failed(f"two objects have the CKA_UNIQUE_ID {names[0]!r} and {names[1]!r}")
    return "yes"
