"""The report as a file of waivers, which a vendor begins with: one line for every result that nothing names yet.

A pattern stands for several parameters only where every result that it fits has that verdict, for the same reason.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from glob import escape
from typing import TYPE_CHECKING

from hsmbridge_conformance.catalogue import CHAPTERS
from hsmbridge_conformance.reports.wording import (
    by_check,
    call_names,
    catalogue_entry,
    chapter_of,
    chapter_title,
    module_name,
    visible,
)
from hsmbridge_conformance.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from hsmbridge_conformance.report import Report
    from hsmbridge_conformance.verdict import Call, Result

__all__ = ["render"]

_NAMED = (Verdict.FAIL, Verdict.FINDING, Verdict.UNSUPPORTED)
_LOOKING = ("C_GetAttributeValue", "C_FindObjects")
"""How checks look at what a call has done."""


def render(report: Report) -> str:
    """Return the file; what a waiver of the run names already is left out, so that it can be appended to that one."""
    lines = [
        f"# Results of {visible(module_name(report))} that are not a pass, from a run on {visible(report.started)}.",
        "# A line is: ID PARAMETER fail|finding|unsupported EVIDENCE; * and ? match as in a shell, - is no parameter.",
        "# Read every line before you keep it: it says that you know of this, and why it may be so.",
    ]
    grouped = by_check(report.results)
    open_ids = [check_id for check_id, results in grouped.items() if any(_is_open(result) for result in results)]
    for chapter in sorted({chapter_of(check_id) for check_id in open_ids}, key=_place):
        of_chapter = [check_id for check_id in open_ids if chapter_of(check_id) == chapter]
        lines += ["", f"# ---- {chapter_title(of_chapter[0])}"]
        for check_id in of_chapter:
            lines += _about(check_id, grouped[check_id])
    return "\n".join(lines) + "\n"


def _place(chapter: str) -> int:
    names = list(CHAPTERS)
    return names.index(chapter) if chapter in names else len(names)


def _is_open(result: Result) -> bool:
    return not result.waiver and result.verdict not in (Verdict.PASS, Verdict.WAIVED)


def _about(check_id: str, results: Sequence[Result]) -> Iterator[str]:
    entry = catalogue_entry(check_id)
    yield ""
    yield f"# {entry.title} ({entry.level})" if entry is not None else f"# {check_id}"
    groups: dict[tuple[Verdict, str], list[Result]] = {}
    for result in filter(_is_open, results):
        if result.verdict in _NAMED:
            groups.setdefault((result.verdict, result.reason), []).append(result)
        else:
            yield f"# {visible(result.name)} could not be judged, and that cannot be waived: {visible(result.reason)}"
    every = [result.parameter or "-" for result in results]
    for (verdict, _), alike in groups.items():
        for pattern in _patterns([result.parameter or "-" for result in alike], every):
            yield f"{check_id}  {pattern}  {verdict}  {_evidence(alike[0])}"


def _patterns(parameters: Sequence[str], every: Collection[str]) -> list[str]:
    """Return patterns that fit these parameters of a check and none of its others."""
    left = list(parameters)
    others = [parameter for parameter in every if parameter not in parameters]
    found = []
    while left:
        first = escape(left[0])
        mechanism, slash, what = first.partition("/")
        wider = ["*", f"{mechanism}/*", f"*/{what}"] if slash else ["*"]
        fitting = [pattern for pattern in wider if len(_fit(pattern, left)) > 1 and not _fit(pattern, others)]
        best = max(fitting, key=lambda pattern: len(_fit(pattern, left)), default=first)
        found.append(best)
        left = [parameter for parameter in left if not fnmatchcase(parameter, best)]
    return found


def _fit(pattern: str, parameters: Iterable[str]) -> list[str]:
    return [parameter for parameter in parameters if fnmatchcase(parameter, pattern)]


def _evidence(result: Result) -> str:
    """Return the reason with the call that it came to, and the refusals behind that, where it does not name them."""
    deeds = [place for place, call in enumerate(result.calls) if not call.function.startswith(_LOOKING)]
    tail = result.calls[deeds[-1] :] if deeds else ()
    told = [
        call
        for place, call in enumerate(tail)
        if (place == 0 or call.ckr != "CKR_OK") and not _is_told(call, result.reason)
    ]
    return visible("; ".join(filter(None, (result.reason, ", ".join(call_names(told)))))) or "no reason given"


def _is_told(call: Call, reason: str) -> bool:
    return call.function in reason and (call.ckr or "") in reason
