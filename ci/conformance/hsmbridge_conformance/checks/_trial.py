"""What a check is done with: a wrapping mechanism and a word.

A module that is wrong must fail here, so nothing is left out because it did not work: only what a module does not list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hsmbridge.codes import CKA, CKK, CKO
from hsmbridge_conformance.checks._unwrapping import Unwrapping, sealed
from hsmbridge_conformance.verdict import Unsupported
from hsmbridge_conformance.wrapcases import ALL_CASES, WrapCase

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hsmbridge.template import Template
    from hsmbridge_conformance.rig import Rig

__all__ = ["Trial", "conflicts", "families", "listed", "trials"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A wrapping mechanism and what is tried with it.

    Attributes:
        case: the mechanism.
        what: a key type (``aes:256``), an attribute (``CKA_SENSITIVE``) or another word without blanks.
    """

    case: WrapCase
    what: str

    def __str__(self) -> str:
        return f"{self.case}/{self.what}"


def trials(cases: Iterable[WrapCase], *what: str) -> list[Trial]:
    """Return each case with each word."""
    return [Trial(case=case, what=word) for case in cases for word in what]


def listed(rig: Rig, *numbers: int) -> list[WrapCase]:
    """Return the cases of these mechanisms that the module lists, whether they work or not.

    Raises:
        Unsupported: it lists none.
    """
    there = rig.token.mechanisms()
    found = [case for case in ALL_CASES if case.listed in numbers and case.listed in there]
    if not found:
        names = " or ".join(dict.fromkeys(str(case).partition("+")[0] for case in ALL_CASES if case.listed in numbers))
        raise Unsupported(f"the module does not list {names}")
    return found


def families(rig: Rig) -> list[WrapCase]:
    """Return the first usable mechanism with an AES KEK and the first with an RSA one.

    What a module makes of a template does not depend on the format of the wrapped key.
    """
    usable = rig.wrap_cases()
    firsts = [next((case for case in usable if case.rsa is rsa), None) for rsa in (False, True)]
    return [case for case in firsts if case is not None]


def conflicts(rig: Rig, trial: Trial) -> Iterator[tuple[str, Unwrapping, Template]]:
    """Wrap generic secrets of lengths that the type of *trial* (``aes``, ``des3``, ``rsa``) cannot have.

    Returns: what is wrong, the wrapped key, and the template that takes it for that type.
    """
    template, sizes = _OTHER_TYPES[trial.what]
    if trial.what == "aes" and trial.case.rsa:  # which keeps every length
        sizes = (*sizes, 20)
    for size in sizes:
        opened = sealed(rig, trial.case, f"generic:{size}")
        yield f"{size} bytes as {trial.what.upper()}", opened, template


_OTHER_TYPES: dict[str, tuple[Template, tuple[int, ...]]] = {
    "aes": ({CKA.CLASS: CKO.SECRET_KEY, CKA.KEY_TYPE: CKK.AES}, (40,)),
    "des3": ({CKA.CLASS: CKO.SECRET_KEY, CKA.KEY_TYPE: CKK.DES3}, (16, 32)),
    "rsa": ({CKA.CLASS: CKO.PRIVATE_KEY, CKA.KEY_TYPE: CKK.RSA}, (32,)),
}
"""How to call a type, the template for it, and lengths of secrets that are none."""
