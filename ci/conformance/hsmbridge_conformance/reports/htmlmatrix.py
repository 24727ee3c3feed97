"""The matrix of a page: a tile for each mechanism and type of key, told apart by colour and by sign."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hsmbridge_conformance.reports.markup import Markup, element, joined, symbol
from hsmbridge_conformance.reports.matrix import SOURCES, make_matrix
from hsmbridge_conformance.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsmbridge_conformance.report import Report
    from hsmbridge_conformance.reports.matrix import Matrix
    from hsmbridge_conformance.verdict import Result

__all__ = ["MEANINGS", "matrix_section", "row_id"]

MEANINGS = {
    Verdict.PASS: "handed over",
    Verdict.FINDING: "handed over, with a finding",
    Verdict.FAIL: "goes wrong",
    Verdict.WAIVED: "goes wrong, and is waived",
    Verdict.ERROR: "could not be judged",
    Verdict.UNSUPPORTED: "not possible",
}
"""What a verdict means in the matrix."""

_UNTRIED = "untried"
_PARTS = re.compile(r"[^_+]*[_+]|[^_+]+")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9.-]")


def row_id(result: Result) -> str:
    """Return the fragment under which a result stands in the page; the same in every run."""
    return f"{result.id}_{_NOT_PLAIN.sub('_', result.parameter)}"


def matrix_section(report: Report) -> Markup:
    """Return the section, with a sentence instead of a table where nothing could be tried."""
    matrix = make_matrix(report)
    heading = element("h2", "What can be handed over", id="matrix")
    if not matrix.cells:
        why = "; ".join(matrix.without) or f"{' and '.join(SOURCES)} were not part of this run"
        return element("section", heading, element("p", f"No mechanism was tried with any type of key: {why}."))
    introduction = element(
        "p",
        "A key of each type is wrapped by one process with each mechanism and unwrapped by a second one, and its use "
        "compared. A tile leads to its evidence.",
    )
    return element("section", heading, introduction, _table(matrix), _legend(matrix))


def _table(matrix: Matrix) -> Markup:
    head = element(
        "tr",
        element("th", "Mechanism", scope="col"),
        *(element("th", element("span", name), scope="col") for name in matrix.key_types),
    )
    rows = []
    for mechanism in matrix.mechanisms:
        tiles = (_tile(mechanism, name, matrix.cells.get((mechanism, name))) for name in matrix.key_types)
        rows.append(element("tr", element("th", *_breakable(mechanism), scope="row", title=mechanism), *tiles))
    table = element(
        "table",
        element("caption", "Mechanism by type of key", class_="hidden"),
        element("thead", head),
        element("tbody", *rows),
        class_="matrix",
    )
    return element("div", table, class_="scroll", tabindex="0", role="region", aria_label="Mechanism by type of key")


def _breakable(mechanism: str) -> Iterator[object]:
    """Yield a mechanism's name with places where a narrow column may break it."""
    for part in _PARTS.findall(mechanism.removeprefix("CKM_")):
        yield part
        yield element("wbr")


def _tile(mechanism: str, key_type: str, result: Result | None) -> Markup:
    if result is None:
        title = f"{mechanism}, {key_type}: not tried"
        sign = joined(symbol(_UNTRIED), element("span", "not tried", class_="hidden"))
        return element("td", sign, class_=f"tile v-{_UNTRIED}", title=title)
    meaning = MEANINGS[result.verdict]
    title = f"{mechanism}, {key_type}: {meaning}" + (f" - {result.reason}" if result.reason else "")
    sign = joined(symbol(result.verdict), element("span", meaning, class_="hidden"))
    link = element("a", sign, href=f"#{row_id(result)}", title=title)
    return element("td", link, class_=f"tile v-{result.verdict}")


def _legend(matrix: Matrix) -> Markup:
    seen = {cell.verdict for cell in matrix.cells.values()}
    items = [
        element("li", element("span", symbol(verdict), class_=f"tile v-{verdict}"), meaning)
        for verdict, meaning in MEANINGS.items()
        if verdict in seen
    ]
    if len(matrix.cells) < len(matrix.mechanisms) * len(matrix.key_types):
        items.append(element("li", element("span", symbol(_UNTRIED), class_=f"tile v-{_UNTRIED}"), "not tried"))
    return element("ul", *items, class_="legend", aria_label="Legend")
