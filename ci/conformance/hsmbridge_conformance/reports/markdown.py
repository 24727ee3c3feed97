"""The report as Markdown, for a comment on a pull request or a job's summary: what is wrong, then the rest folded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hsmbridge_conformance.reports.matrix import make_matrix
from hsmbridge_conformance.reports.wording import (
    BY_WEIGHT,
    by_check,
    by_reason,
    call_names,
    catalogue_entry,
    clause_names,
    facts,
    module_name,
    standings,
    visible,
)
from hsmbridge_conformance.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from hsmbridge_conformance.report import Report
    from hsmbridge_conformance.verdict import Result

__all__ = ["MAX_BYTES", "render"]

MAX_BYTES = 60_000
"""A comment on GitHub may have 65,536 characters."""

_LONGEST = 300
_MOST_CASES = 4
_MARKS = re.compile(r"([\\`*_{}\[\]<>#!|~&$@]|:(?=//))")
_WORDS = {
    Verdict.PASS: "yes",
    Verdict.FAIL: "**no: wrong**",
    Verdict.FINDING: "finding",
    Verdict.WAIVED: "waived",
    Verdict.UNSUPPORTED: "no",
    Verdict.ERROR: "not judged",
}


def render(report: Report) -> str:
    """Return the document; parts that would make it longer than :data:`MAX_BYTES` are left out, and it says so."""
    text = ""
    for part in _parts(report):
        if len((text + part).encode()) > MAX_BYTES - _LONGEST:
            return text + "\nThe rest is left out here: see the report as HTML or JSON.\n"
        text += part
    return text


def _parts(report: Report) -> Iterator[str]:
    """Yield pieces that can be left out from the end."""
    token = report.token.get("label") or "-"
    yield f"## hsmbridge conformance: {_code(module_name(report))}, token {_code(token)}\n\n"
    yield "".join(f"**{one.title} {one.word}**: {one.sentence}.\n" + "\n" for one in standings(report))
    yield _counts(report)
    if report.problems:
        yield "\nThe run itself fails:\n\n" + "".join(f"- {_safe(_short(problem))}\n" for problem in report.problems)
    worth = [result for result in report.results if result.verdict in BY_WEIGHT[:3]]
    if worth:
        yield "\n| | check | level | with | reason |\n|---|---|---|---|---|\n"
        groups = by_reason(worth)
        yield from (_row(group) for group in sorted(groups, key=lambda group: BY_WEIGHT.index(group[0].verdict)))
    yield _matrix(report)
    yield _folded("Unsupported, by reason", _reasons(report, Verdict.UNSUPPORTED))
    yield _folded("Waived", [f"{one.name}: {one.waiver}" for one in report.results if one.verdict is Verdict.WAIVED])
    yield _folded("About this run", [f"{name}: {value}" for name, value in facts(report)])
    if worth:
        yield "\n### The checks, and their evidence\n"
        for results in by_check(worth).values():
            yield _about(results)


def _counts(report: Report) -> str:
    head = "| | " + " | ".join(str(verdict) for verdict in BY_WEIGHT) + " |\n|---|" + "---:|" * len(BY_WEIGHT) + "\n"
    rows = (
        f"| {one.subject} | " + " | ".join(str(one.counts[verdict]) for verdict in BY_WEIGHT) + " |\n"
        for one in standings(report)
    )
    return head + "".join(rows)


def _row(group: Sequence[Result]) -> str:
    first = group[0]
    link = f"[{first.id}](#{first.id.lower()})"
    return f"| **{first.verdict}** | {link} | {first.level} | {_cases(group)} | {_safe(_short(first.reason))} |\n"


def _cases(group: Sequence[Result]) -> str:
    """Name what a reason was met with, the first few of many."""
    names = [_code(_short(result.parameter)) for result in group if result.parameter]
    rest = f" and {len(names) - _MOST_CASES} more" if len(names) > _MOST_CASES else ""
    return (", ".join(names[:_MOST_CASES]) or "-") + rest


def _matrix(report: Report) -> str:
    matrix = make_matrix(report)
    if not matrix.cells:
        return ""
    rows: list[Sequence[str]] = [["", *map(_code, matrix.key_types)], ["---"] * (len(matrix.key_types) + 1)]
    for mechanism in matrix.mechanisms:
        found = [matrix.cells.get((mechanism, key_type)) for key_type in matrix.key_types]
        rows.append([_code(mechanism), *("" if cell is None else _WORDS[cell.verdict] for cell in found)])
    return "\nIs a key handed over?\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _reasons(report: Report, verdict: Verdict) -> list[str]:
    grouped: dict[str, list[str]] = {}
    for result in report.results:
        if result.verdict is verdict:
            grouped.setdefault(result.reason, []).append(result.name)
    return [
        f"{len(names)} x {reason or 'no reason given'}: {_short(', '.join(names))}" for reason, names in grouped.items()
    ]


def _folded(title: str, lines: Iterable[str]) -> str:
    items = "".join(f"- {_safe(line)}\n" for line in lines)
    return f"\n<details><summary>{title}</summary>\n\n{items}\n</details>\n" if items else ""


def _about(results: Sequence[Result]) -> str:
    check_id = results[0].id
    entry = catalogue_entry(check_id)
    lines = [f"\n#### {check_id}\n\n"]
    if entry is not None:
        lines += [
            f"**{_safe(entry.title)}.** {_prose(entry.text)}\n\n",
            f"{_safe('; '.join(clause_names(check_id)))}\n\n",
        ]
    for group in by_reason(results):
        lines.append(f"- **{group[0].verdict}** {_cases(group)}: {_safe(_short(group[0].reason))}\n")
        lines += [f"  - {_code(call)}\n" for call in call_names(group[0].calls)]
    return "".join(lines)


def _prose(text: str) -> str:
    """Return a check's paragraph, in which names stand between double backquotes, as in its source."""
    return "".join(_code(part) if number % 2 else _safe(part) for number, part in enumerate(text.split("``")))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _safe(text: object) -> str:
    """Escape what Markdown or HTML would take for a mark: names that a token gives steer nothing."""
    return _MARKS.sub(r"\\\1", visible(text))


def _code(text: object) -> str:
    """Return a name as code, in which nobody is mentioned and nothing is linked; a bar would end a table's cell."""
    return "`" + visible(text).replace("`", "'").replace("|", "\\|") + "`"
