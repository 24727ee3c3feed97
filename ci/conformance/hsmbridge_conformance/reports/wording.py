"""What all forms of a report say in the same words.

Whatever a token or a module says of itself (labels, versions, answers) is not trusted: it passes through
:func:`visible` before it gets into a report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hsmbridge_conformance.catalogue import CHAPTERS, SPECIFICATIONS, all_checks
from hsmbridge_conformance.verdict import Level, Subject, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hsmbridge_conformance.catalogue import Check
    from hsmbridge_conformance.report import Report
    from hsmbridge_conformance.verdict import Call, Result

__all__ = [
    "BY_WEIGHT",
    "Standing",
    "by_check",
    "by_reason",
    "call_names",
    "catalogue_entry",
    "chapter_of",
    "chapter_title",
    "clause_names",
    "facts",
    "module_name",
    "standings",
    "visible",
]

BY_WEIGHT = (Verdict.FAIL, Verdict.ERROR, Verdict.FINDING, Verdict.WAIVED, Verdict.UNSUPPORTED, Verdict.PASS)
"""All verdicts, those first that somebody has to do something about."""

_BAD = (Verdict.FAIL, Verdict.ERROR)
_NOT_EXECUTED = (Verdict.UNSUPPORTED, Verdict.ERROR)


def visible(text: object) -> str:
    """Return text on one line in which everything that is not printable, such as a change of direction, is escaped."""
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in shown)


def call_names(calls: Iterable[Call]) -> list[str]:
    """Return evidence as lines: ``C_WrapKey -> CKR_OK (3 times)``."""
    return [
        f"{visible(call.function)} -> {visible(call.ckr or 'did not return')}"
        + (f" ({call.times} times)" if call.times > 1 else "")
        for call in calls
    ]


def catalogue_entry(check_id: str) -> Check | None:
    """Return a check of this suite; None for one that only another version has."""
    return next((entry for entry in all_checks() if entry.id == check_id), None)


def chapter_of(check_id: str) -> str:
    """Return the key of a check's chapter, for an unknown one the middle of its ID."""
    entry = catalogue_entry(check_id)
    if entry is None:
        return check_id.split("-")[1].lower()
    return entry.chapter if entry.chapter in CHAPTERS else check_id.split("-")[1].lower()


def chapter_title(check_id: str) -> str:
    """Return the title of a check's chapter."""
    name = chapter_of(check_id)
    return CHAPTERS.get(name, name.capitalize())


def clause_names(check_id: str) -> list[str]:
    """Return what a check cites, written out."""
    entry = catalogue_entry(check_id)
    return [SPECIFICATIONS[clause] for clause in entry.clauses] if entry is not None else []


def by_check(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Return results by ID, in the order in which the IDs come first."""
    grouped: dict[str, list[Result]] = {}
    for result in results:
        grouped.setdefault(result.id, []).append(result)
    return grouped


def by_reason(results: Iterable[Result]) -> list[list[Result]]:
    """Return results in groups of the same ID, verdict and reason, in the order in which the groups come first."""
    grouped: dict[tuple[str, str, str], list[Result]] = {}
    for result in results:
        grouped.setdefault((result.id, result.verdict, result.reason), []).append(result)
    return list(grouped.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How one subject came out of the run.

    Attributes:
        subject: who; title: the same for a heading.
        counts: results by verdict.
        failed: results of level MUST that failed, or could not be judged.
        judged: whether any MUST was executed.
    """

    subject: Subject
    title: str
    counts: dict[Verdict, int]
    failed: int
    judged: bool

    @property
    def word(self) -> str:
        """``passes``, ``fails``, or ``not judged``."""
        if self.failed:
            return "fails"
        return "passes" if self.judged else "not judged"

    @property
    def sentence(self) -> str:
        """One line on what the word stands for."""
        if self.failed:
            return f"{self.failed} {'result' if self.failed == 1 else 'results'} of level MUST failed"
        if not self.judged:
            return "no check of level MUST could be executed"
        soft = self.counts[Verdict.FAIL] + self.counts[Verdict.FINDING] + self.counts[Verdict.ERROR]
        if soft:
            return f"no MUST failed; {soft} {'result is' if soft == 1 else 'results are'} worth reading"
        return "no check failed"


def standings(report: Report) -> Sequence[Standing]:
    """Return the standing of the module and of the toolkit, in this order."""
    return [_standing(report, Subject.MODULE, "Module"), _standing(report, Subject.TOOLKIT, "Toolkit on this module")]


def _standing(report: Report, subject: Subject, title: str) -> Standing:
    results = [result for result in report.results if result.subject is subject]
    musts = [result for result in results if result.level is Level.MUST]
    return Standing(
        subject=subject,
        title=title,
        counts={verdict: sum(result.verdict is verdict for result in results) for verdict in BY_WEIGHT},
        failed=sum(result.verdict in _BAD for result in musts),
        judged=any(result.verdict not in _NOT_EXECUTED for result in musts),
    )


def module_name(report: Report) -> str:
    """Return who made the module, and what it is: the description alone is often "PKCS#11 library"."""
    module = report.module
    names = (module.get("manufacturer"), module.get("description"))
    name = ": ".join(str(part) for part in names if part) or "PKCS#11 module"
    return f"{name} {module.get('version') or ''}".rstrip()


def facts(report: Report) -> list[tuple[str, str]]:
    """Return what the run was about, as names and values."""
    module, token, options = report.module, report.token, report.options
    only = " ".join(str(name) for name in options.get("only", ())) or "all checks"
    asked = [f"level {options.get('level', 'info')}", only]
    asked += [name.replace("scratch", "scratch token") for name in ("scratch", "exact") if options.get(name)]
    return [
        ("module", module_name(report)),
        ("library", str(module.get("path") or "-")),
        ("token", str(token.get("label") or "-")),
        ("model", f"{token.get('model') or '-'}, firmware {token.get('firmware') or '-'}"),
        ("serial", str(token.get("serial") or "-")),
        ("suite", f"hsmbridge {report.suite}"),
        ("started", f"{report.started}, took {report.seconds:.1f} s"),
        ("asked for", ", ".join(asked)),
    ]
