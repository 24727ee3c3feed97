"""The checks of a page: those worth reading in a short list, then all of them with their evidence, and the filter."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hsmbridge_conformance.reports.htmlmatrix import row_id
from hsmbridge_conformance.reports.markup import Markup, element, joined, symbol
from hsmbridge_conformance.reports.wording import (
    BY_WEIGHT,
    by_check,
    by_reason,
    catalogue_entry,
    chapter_title,
    clause_names,
)
from hsmbridge_conformance.verdict import Level, Subject, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hsmbridge_conformance.report import Report
    from hsmbridge_conformance.verdict import Call, Result

__all__ = ["check_list", "filter_form", "worth_reading"]

_WORTH = frozenset({Verdict.FAIL, Verdict.ERROR, Verdict.FINDING})
_SHOWN_CALLS = frozenset({*_WORTH, Verdict.WAIVED})
"""Verdicts whose evidence is unfolded."""

_MOST_REASONS = 4


def worth_reading(report: Report) -> Markup:
    """Return the list of what failed and what was found, worst first, each leading to its evidence."""
    heading = element("h2", "What to read", id="worth")
    grouped = by_check(result for result in report.results if result.verdict in _WORTH)
    if not grouped:
        return element("section", heading, element("p", "Nothing failed, and nothing was found."))
    rows = [_worth_row(results) for results in sorted(grouped.values(), key=_weight)]
    head = element("tr", *(element("th", name, scope="col") for name in ("Verdict", "Check", "What was seen")))
    caption = element("caption", "Checks that failed, or found something", class_="hidden")
    table = element("table", caption, element("thead", head), element("tbody", *rows), class_="worth")
    return element("section", heading, table)


def _weight(results: Sequence[Result]) -> tuple[int, int, int]:
    """MUST before SHOULD before INFO, the module before the toolkit, failed before found."""
    worst = min(BY_WEIGHT.index(result.verdict) for result in results)
    return list(Level).index(results[0].level), list(Subject).index(results[0].subject), worst


def _worth_row(results: list[Result]) -> Markup:
    first = min(results, key=lambda result: BY_WEIGHT.index(result.verdict))
    entry = catalogue_entry(first.id)
    title = entry.title if entry is not None else ""
    link = element("a", element("code", first.id), href=f"#{first.id}")
    return element(
        "tr",
        element("td", _chip(first.verdict), _level(first)),
        element("th", link, " ", element("span", title, class_="title"), scope="row"),
        element("td", *_reasons(results)),
    )


def _reasons(results: list[Result]) -> Iterator[Markup]:
    """Yield each reason once, with what it was met with."""
    groups = by_reason(sorted(results, key=lambda one: BY_WEIGHT.index(one.verdict)))
    for group in groups[:_MOST_REASONS]:
        verdict = group[0].verdict
        yield element("p", element("span", symbol(verdict), class_=f"sign v-{verdict}"), " ", group[0].reason)
        cases = [result.parameter for result in group if result.parameter]
        if cases:
            yield element("p", "with ", ", ".join(cases), class_="quiet")
    if len(groups) > _MOST_REASONS:
        yield element("p", f"and {len(groups) - _MOST_REASONS} more", class_="quiet")


def filter_form(report: Report) -> Markup:
    """Return the filter; it is hidden until the script shows it, since without a script it would do nothing."""
    counts = Counter(result.verdict for result in report.results)
    boxes = [
        element(
            "label",
            element("input", type="checkbox", name="verdict", value=str(verdict), checked=True),
            element("span", symbol(verdict), f"{verdict} ", element("b", counts[verdict]), class_=f"chip v-{verdict}"),
        )
        for verdict in BY_WEIGHT
        if counts[verdict]
    ]
    return element(
        "form",
        element("fieldset", element("legend", "Verdict"), *boxes),
        element("label", "Level ", _select("level", ("all", *(str(level) for level in Level)))),
        element("label", "Subject ", _select("subject", ("all", *(str(subject) for subject in Subject)))),
        element("label", "Search ", element("input", type="search", name="text", placeholder="ID, mechanism, CKR_…")),
        element("button", "Unfold all", type="button", name="unfold"),
        element("output", "", name="shown", aria_live="polite"),
        id="filter",
        hidden=True,
    )


def _select(name: str, choices: Sequence[str]) -> Markup:
    return element("select", *(element("option", choice, value=choice) for choice in choices), name=name)


def check_list(report: Report) -> Markup:
    """Return all checks, chapter by chapter; those worth reading are unfolded."""
    chapters: dict[str, list[Markup]] = {}
    for check_id, results in by_check(report.results).items():
        chapters.setdefault(chapter_title(check_id), []).append(_check(check_id, results))
    return joined(
        *(element("section", element("h3", title), *checks, class_="chapter") for title, checks in chapters.items())
    )


def _check(check_id: str, results: list[Result]) -> Markup:
    entry = catalogue_entry(check_id)
    counts = Counter(result.verdict for result in results)
    chips = (_chip(verdict, counts[verdict]) for verdict in BY_WEIGHT if counts[verdict])
    summary = element(
        "summary",
        element("code", check_id),
        element("span", entry.title if entry is not None else "", class_="title"),
        element("span", _level(results[0]), *chips, class_="tags"),
    )
    about = []
    if entry is not None:
        about.append(element("p", *_prose(entry.text)))
    if clauses := clause_names(check_id):
        about.append(element("p", "Source: ", "; ".join(clauses), ".", class_="quiet"))
    head = element("tr", *(element("th", name, scope="col") for name in ("Verdict", "With", "What was seen")))
    groups = by_reason(sorted(results, key=lambda one: BY_WEIGHT.index(one.verdict)))
    rows = (_result(result, first=result is group[0]) for group in groups for result in group)
    table = element(
        "table",
        element("caption", f"Results of {check_id}", class_="hidden"),
        element("thead", head),
        element("tbody", *rows),
        class_="results",
    )
    return element(
        "details",
        summary,
        element("div", *about, table),
        class_="check",
        id=check_id,
        open=bool(_WORTH & counts.keys()),
    )


def _prose(text: str) -> Iterator[object]:
    """Yield a check's paragraph, in which names stand between double backquotes, as in its source."""
    for number, part in enumerate(text.split("``")):
        yield element("code", part) if number % 2 else part


def _result(result: Result, *, first: bool) -> Markup:
    """A row; of several with the same reason the first one's calls are unfolded."""
    seen = [element("p", result.reason)] if result.reason else []
    if result.waiver:
        seen.append(element("p", "Waived: ", result.waiver, class_="quiet"))
    if result.calls:
        seen.append(_calls(result, unfolded=first and result.verdict in _SHOWN_CALLS))
    return element(
        "tr",
        element("td", _chip(result.verdict)),
        element("th", element("code", result.parameter) if result.parameter else "-", scope="row"),
        element("td", *seen, class_="seen"),
        id=row_id(result),
        data_verdict=str(result.verdict),
        data_level=str(result.level),
        data_subject=str(result.subject),
    )


def _calls(result: Result, *, unfolded: bool) -> Markup:
    count = sum(call.times for call in result.calls)
    summary = element("summary", f"{'Last ' if count > 1 else ''}{count} {'call' if count == 1 else 'calls'}")
    steps = element("ol", *(_call(call) for call in result.calls))
    return element("details", summary, steps, class_="calls", open=unfolded)


def _call(call: Call) -> Markup:
    answer = call.ckr or "did not return"
    kind = "ok" if call.ckr == "CKR_OK" else "gone" if call.ckr is None else "refused"
    times = element("span", f" {call.times} times", class_="quiet") if call.times > 1 else ""
    return element("li", element("code", call.function), " ", element("code", answer, class_=kind), times)


def _chip(verdict: Verdict, count: int = 1) -> Markup:
    return element("span", symbol(verdict), str(verdict), f" {count}" if count > 1 else "", class_=f"chip v-{verdict}")


def _level(result: Result) -> Markup:
    return element("span", f"{result.level} · {result.subject}", class_=f"level l-{result.level}")
