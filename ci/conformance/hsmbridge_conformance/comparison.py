"""Two runs of one module compared, such as before and after a firmware upgrade: what got worse is a regression."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from hsmbridge_conformance.catalogue import all_checks
from hsmbridge_conformance.verdict import Level, Verdict

if TYPE_CHECKING:
    from hsmbridge_conformance.report import Report
    from hsmbridge_conformance.verdict import Result

__all__ = ["Change", "Comparison", "Kind", "compare"]

_RANK = {
    Verdict.PASS: 0,
    Verdict.FINDING: 1,
    Verdict.UNSUPPORTED: 2,
    Verdict.WAIVED: 3,
    Verdict.FAIL: 4,
    Verdict.ERROR: 4,
}
"""The higher, the worse. A waived result is a fail or a finding that is known: one that has become a plain fail got
worse, and so did one whose check has passed before."""

_LEVELS = list(Level)


class Kind(StrEnum):
    """What has become of a result."""

    REGRESSION = "regression"
    IMPROVEMENT = "improvement"
    CHANGED = "changed"
    NEW = "new"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One result that is not what it was.

    Attributes:
        kind: see :class:`Kind`.
        name: ID and parameter; empty for the run as a whole.
        old, new: verdicts; None where there was, or is, no result.
        reason: of the new result; of the old one where there is no new one.
    """

    kind: Kind
    name: str
    old: Verdict | None
    new: Verdict | None
    reason: str

    def document(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {"kind": self.kind, "name": self.name, "old": self.old, "new": self.new, "reason": self.reason}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What differs.

    Attributes:
        changes: regressions first.
        remarks: what makes the two runs less alike than they should be: another token, module, suite, choice.
        unchanged: how many results are what they were.
    """

    changes: tuple[Change, ...]
    remarks: tuple[str, ...]
    unchanged: int

    @property
    def ok(self) -> bool:
        """Whether nothing got worse."""
        return all(change.kind is not Kind.REGRESSION for change in self.changes)

    def document(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {
            "ok": self.ok,
            "remarks": list(self.remarks),
            "unchanged": self.unchanged,
            "changes": [change.document() for change in self.changes],
        }


def compare(old: Report, new: Report) -> Comparison:
    """Compare two runs.

    A result that the new run should have and has not, such as a mechanism that is gone, is a regression, unless the
    check could not be done before either. One that the new run was not asked for is told as gone.
    """
    before = {result.name: result for result in old.results}
    after = {result.name: result for result in new.results}
    changes = [_run_change(old, new)]
    changes += [_change(result, after.get(name), new) for name, result in before.items()]
    changes += [
        Change(kind=Kind.NEW, name=name, old=None, new=result.verdict, reason=result.reason)
        for name, result in after.items()
        if name not in before
    ]
    found = sorted(
        (change for change in changes if change is not None), key=lambda change: list(Kind).index(change.kind)
    )
    alike = sum(name in after and after[name].verdict is result.verdict for name, result in before.items())
    return Comparison(changes=tuple(found), remarks=tuple(_remarks(old, new)), unchanged=alike)


def _change(old: Result, new: Result | None, run: Report) -> Change | None:
    if new is None:
        lost = old.verdict not in (Verdict.UNSUPPORTED, Verdict.ERROR) and _was_asked(old, run)
        kind = Kind.REGRESSION if lost else Kind.GONE
        return Change(kind=kind, name=old.name, old=old.verdict, new=None, reason=old.reason)
    if new.verdict is old.verdict:
        return None
    step = _RANK[new.verdict] - _RANK[old.verdict]
    kind = Kind.REGRESSION if step > 0 else Kind.IMPROVEMENT if step < 0 else Kind.CHANGED
    return Change(kind=kind, name=old.name, old=old.verdict, new=new.verdict, reason=new.reason)


def _was_asked(old: Result, run: Report) -> bool:
    """Whether *run* was asked for this check, and its suite has it."""
    options = run.options
    only = tuple(options.get("only", ()))
    entry = next((entry for entry in all_checks() if entry.id == old.id), None)
    known = entry is not None or any(result.id == old.id for result in run.results)
    return (
        known
        and _LEVELS.index(old.level) <= _LEVELS.index(Level(options.get("level", Level.INFO)))
        and (not only or old.id.startswith(only))
        and (entry is None or not entry.scratch or bool(options.get("scratch")))
    )


def _run_change(old: Report, new: Report) -> Change | None:
    """The run as a whole got worse where it has problems of its own that it had not: the token was changed, for one."""
    if not new.problems or old.problems:
        return None
    return Change(kind=Kind.REGRESSION, name="", old=None, new=None, reason="; ".join(new.problems))


def _remarks(old: Report, new: Report) -> list[str]:
    pairs = [
        *((f"module {name}", old.module.get(name), new.module.get(name)) for name in ("description", "version")),
        *(
            (f"token {name}", old.token.get(name), new.token.get(name))
            for name in ("label", "serial", "model", "firmware")
        ),
        ("suite", old.suite, new.suite),
        *((f"asked for {name}", old.options.get(name), new.options.get(name)) for name in ("level", "only", "scratch")),
    ]
    return [f"{name}: {_said(before)} before, {_said(after)} now" for name, before, after in pairs if before != after]


def _said(value: object) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "all"
    return "nothing" if value in (None, "") else str(value)
