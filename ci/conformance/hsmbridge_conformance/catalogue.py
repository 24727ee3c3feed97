"""The catalogue: every check with its ID, subject, level and source.

A check is a function of a chapter's module, registered by :func:`check`. Its docstring is what the documentation
publishes: the first line is the title, the rest says what is done and why it matters.
"""

from __future__ import annotations

import importlib
import inspect
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hsmbridge_conformance.rig import Rig
    from hsmbridge_conformance.verdict import Level, Subject

__all__ = ["CHAPTERS", "SPECIFICATIONS", "Check", "Needs", "all_checks", "chapter_checks", "check"]

CHAPTERS = {
    "wrap": "Wrap",
    "kat": "Known answers",
    "unwrap": "Unwrap",
    "attributes": "Attributes",
    "e2e": "End to end",
    "destroy": "Destroy",
    "blob": "Blob",
    "separation": "Separation",
    "access": "Access",
    "basics": "Basics",
    "fault": "Faults",
}
"""Name of the module below ``checks`` to the chapter's title, in the order of a run. Each runs in its own process."""

SPECIFICATIONS = {
    "W": "PKCS#11 v3.1 section 5.18.3, C_WrapKey",
    "U": "PKCS#11 v3.1 section 5.18.4, C_UnwrapKey",
    "D": "PKCS#11 v3.1 section 5.7.3, C_DestroyObject",
    "OUT": "PKCS#11 v3.1 section 5.2, conventions for functions returning output in a variable-length buffer",
    "SK": "PKCS#11 v3.1 section 4.10, secret key objects",
    "ST": "PKCS#11 v3.1 section 4.4, storage objects",
    "KO": "PKCS#11 v3.1 section 4.7, key objects",
    "CA": "PKCS#11 v3.1 section 4.2, common attributes",
    "KW": "PKCS#11 v3.1 section 6.13, AES key wrap; RFC 3394; RFC 5649",
    "PK": "PKCS#11 v3.1 section 6.7, wrapping and unwrapping private keys",
    "ERR": "PKCS#11 v3.1 section 5.1, function return values",
    "GP": "PKCS#11 v3.1 section 5.4, general-purpose functions",
    "SM": "PKCS#11 v3.1 section 5.5, slot and token management functions",
    "OS": "PKCS#11 v3.1 section 5.6, session management functions: C_GetOperationState, C_SetOperationState",
    "G": "PKCS#11 v3.1 section 5.7.5, C_GetAttributeValue",
    "GK": "PKCS#11 v3.1 section 5.18.1, C_GenerateKey",
    "GKP": "PKCS#11 v3.1 section 5.18.2, C_GenerateKeyPair",
    "T": "PKCS#11 v3.1 section 4.1, templates",
    "GCM": "PKCS#11 v3.1 section 6.13.3, AES-GCM",
    "HSB": "hsmbridge's own contract: docs/architecture.md, invariants",
}
"""What the short names of clauses stand for."""


class Needs(Protocol):
    """A check's function: it returns a remark or nothing on a pass, and raises an outcome otherwise."""

    def __call__(self, rig: Rig, case: Any, /) -> str | None: ...  # noqa: ANN401, D102 - what a chapter's cases are is its own affair


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One entry of the catalogue.

    Attributes:
        id: stable, ``HSB-WRAP-001``.
        chapter: key of :data:`CHAPTERS`.
        subject, level: who is judged and how much it weighs.
        clauses: keys of :data:`SPECIFICATIONS`.
        title: one line; text: one paragraph.
        cases: what it is done with; each has a ``str()`` without blanks. None: done once.
        run: the function.
        scratch: only with ``--scratch-token``, because it could hurt a token that is worth something.
    """

    id: str
    chapter: str
    subject: Subject
    level: Level
    clauses: tuple[str, ...]
    title: str
    text: str
    cases: Callable[[Rig], Iterable[Any]] | None
    run: Needs
    scratch: bool


_registry: dict[str, Check] = {}
_ID = re.compile(r"HSB-[A-Z0-9]+-[0-9]{3}")


def check(  # noqa: PLR0913 - each is a column of the catalogue
    check_id: str,
    *,
    subject: Subject,
    level: Level,
    clauses: str,
    cases: Callable[[Rig], Iterable[Any]] | None = None,
    scratch: bool = False,
) -> Callable[[Needs], Needs]:
    """Register a check.

    Args:
        check_id: ``HSB-`` and the catalogue's ID.
        subject: who is judged.
        level: how much it weighs.
        clauses: keys of :data:`SPECIFICATIONS`, separated by blanks.
        cases: gives the parameters; called in the worker with its rig.
        scratch: run it only on a token that may be lost.

    Raises:
        ValueError: a mistake in the entry itself.
    """

    def register(function: Needs) -> Needs:
        title, _, text = (inspect.getdoc(function) or "").partition("\n")
        sources = tuple(clauses.split())
        if not _ID.fullmatch(check_id) or check_id in _registry or not text.strip():
            raise ValueError(f"{check_id} is malformed, taken or undocumented")
        unknown = [source for source in sources if source not in SPECIFICATIONS]
        if unknown or not sources:
            raise ValueError(f"{check_id} cites {unknown or 'nothing'}")
        chapter = _home(getattr(function, "__module__", "").rsplit(".", 1)[-1])
        _registry[check_id] = Check(
            id=check_id,
            chapter=chapter,
            subject=subject,
            level=level,
            clauses=sources,
            title=title.rstrip("."),
            text=" ".join(text.split()),
            cases=cases,
            run=function,
            scratch=scratch,
        )
        return function

    return register


def chapter_checks(chapter: str) -> list[Check]:
    """Return the checks of one chapter, by ID."""
    for module in (chapter, *_CONTINUED.get(chapter, ())):
        importlib.import_module(f"hsmbridge_conformance.checks.{module}")
    return sorted((entry for entry in _registry.values() if entry.chapter == chapter), key=lambda entry: entry.id)


_CONTINUED: dict[str, tuple[str, ...]] = {
    "kat": ("kat_formats",),
    "unwrap": ("unwrap_damage",),
    "attributes": ("attributes_keeping",),
    "e2e": ("e2e_state",),
    "blob": ("blob_secrets",),
    "separation": ("separation_attacks", "separation_names"),
    "basics": ("basics_attributes", "basics_objects"),
    "fault": ("fault_processes",),
}
"""Chapters that are too long for one module, and the modules that they go on in."""


def _home(module: str) -> str:
    """Return the chapter that a module of ``checks`` belongs to."""
    return next((chapter for chapter, parts in _CONTINUED.items() if module in parts), module)


@cache
def all_checks() -> tuple[Check, ...]:
    """Return the whole catalogue, chapter by chapter."""
    return tuple(entry for chapter in CHAPTERS for entry in chapter_checks(chapter))
