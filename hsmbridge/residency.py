"""Where a key's only copy lives, and the evidence for it.

CKF_HW and CKF_HW_SLOT are not evidence: a TPM simulator sets both, and the specification says not to infer security
from them. What counts is what the object itself answers, and whatever is in doubt is hardware.

Source: PKCS#11 v3.1 sections 4.4 (CKA_TOKEN, CKA_DESTROYABLE), 4.9 and 4.10 (CKA_EXTRACTABLE); docs/residency.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from hsmbridge.attributes import AttributeQuery, Attributes
from hsmbridge.codes import CKA, CKO, CKR, ckr_name, name_of
from hsmbridge.errors import Pkcs11Error

if TYPE_CHECKING:
    from hsmbridge.objects import Object

__all__ = ["Classification", "Residency", "classify"]

_EVIDENCE = AttributeQuery((CKA.CLASS, CKA.TOKEN, CKA.EXTRACTABLE, CKA.DESTROYABLE))


class Residency(StrEnum):
    """Where a key's only copy lives."""

    SOFTWARE = "software"
    HARDWARE = "hardware"


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """A residency and what it rests on.

    Attributes:
        residency: software only where every piece of evidence says so.
        evidence: what was read, as ``CKA_TOKEN=false``; an attribute that could not be read names the return value.
        reason: the one piece that decided.
    """

    residency: Residency
    evidence: tuple[str, ...]
    reason: str

    @property
    def is_software(self) -> bool:
        """Whether the key may be destroyed at the end of a move."""
        return self.residency is Residency.SOFTWARE


def classify(key: Object) -> Classification:
    """Classify one object; never raises for what the token answers, since doubt has an answer of its own.

    Raises:
        StaleObjectError: the object was destroyed by this process.
        ForkError: the process may not use the module.
    """
    try:
        found = key.read(_EVIDENCE)
    except Pkcs11Error as error:
        text = f"attributes not readable: {error.function} answered {ckr_name(error.ckr)}"
        return Classification(residency=Residency.HARDWARE, evidence=(text,), reason=text)
    evidence = tuple(_say(found, kind) for kind in (CKA.TOKEN, CKA.EXTRACTABLE, CKA.DESTROYABLE))
    doubt = _why_hardware(found)
    if doubt is not None:
        return Classification(residency=Residency.HARDWARE, evidence=evidence, reason=doubt)
    return Classification(residency=Residency.SOFTWARE, evidence=evidence, reason="an extractable session object")


def _why_hardware(found: Attributes) -> str | None:
    """Return the first piece of evidence for hardware, or None where there is none at all."""
    cls = found.number(CKA.CLASS)
    if cls not in (CKO.SECRET_KEY, CKO.PRIVATE_KEY):
        return f"{name_of(CKO, cls) if cls is not None else 'an object without a class'} is always retained"
    if found.flag(CKA.TOKEN) is not False:
        return f"a token object: {_say(found, CKA.TOKEN)}" if found.flag(CKA.TOKEN) else _say(found, CKA.TOKEN)
    if found.flag(CKA.EXTRACTABLE) is not True:
        return _say(found, CKA.EXTRACTABLE)
    # NSS and openCryptoki do not know CKA_DESTROYABLE; only there does an unreadable one count as true.
    if found.flag(CKA.DESTROYABLE) is not True and found.unreadable.get(CKA.DESTROYABLE) != CKR.ATTRIBUTE_TYPE_INVALID:
        return _say(found, CKA.DESTROYABLE)
    return None


def _say(found: Attributes, kind: CKA) -> str:
    flag = found.flag(kind)
    if flag is not None:
        return f"CKA_{kind.name}={'true' if flag else 'false'}"
    if kind in found:
        return f"CKA_{kind.name} is not a boolean"
    return f"CKA_{kind.name} not readable: {found.why_not(kind)}"
