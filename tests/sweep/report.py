"""The table of a sweep, for a terminal and for docs/."""

from __future__ import annotations

import datetime as dt
import sys
from typing import TYPE_CHECKING, Any

from tests.sweep.cases import Case
from tests.sweep.operations import OPERATIONS
from tests.sweep.sabotage import SABOTAGE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.sweep.runner import Result

__all__ = ["print_report", "print_sabotage", "record"]

Rows = list[tuple[str, ...]]

_SHOWN = 4
_BEGIN, _END = "<!-- sweep: begin -->", "<!-- sweep: end -->"
_HEAD = ("operation", "calls and steps", "kinds of faults", "cases", "violations", "left")


def print_report(result: Result) -> None:
    """Print the table, the violations, and a total."""
    rows = [_HEAD, *_rows(result)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    for row in rows:
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")
    _print_violations(result)
    missed = len(result.rows) - len(result.cases)
    if missed:
        sys.stdout.write(f"\n{missed} more did not meet their call or step this time and are not counted\n")
    if result.kept:
        sys.stdout.write(f"kept: {result.kept}\n")
    sys.stdout.write(f"\n{_total(result)} ({result.seconds:.0f} s)\n")


def _print_violations(result: Result) -> None:
    """Print each violation with the cases in which it was found, the first few of them."""
    found: dict[str, list[str]] = {}
    for case, violation in result.violations:
        found.setdefault(violation, []).append(case)
    for violation, cases in found.items():
        sys.stdout.write(f"\nviolation, {len(cases)} times: {violation}\n")
        sys.stdout.writelines(f"  python -m tests.sweep --case '{case}'\n" for case in cases[:_SHOWN])


def _total(result: Result) -> str:
    return f"{len(result.cases)} cases (call x fault x operation), {len(result.violations)} violations"


def _rows(result: Result) -> Rows:
    by_operation: dict[str, list[dict[str, Any]]] = {}
    for row in result.cases:
        by_operation.setdefault(Case.parse(row["case"]).operation, []).append(row)
    rows: Rows = []
    for name in OPERATIONS:
        found = by_operation.get(name)
        if found is None:
            continue
        kinds = {Case.parse(row["case"]).fault.kind for row in found if Case.parse(row["case"]).fault.text}
        violations = sum(len(row["violations"]) for row in found)
        left = sum(row["left"] > 0 for row in found)
        rows.append(
            (name, str(result.calls.get(name, 0)), str(len(kinds)), str(len(found)), str(violations), str(left))
        )
    return rows


def print_sabotage(found: dict[str, list[str]]) -> int:
    """Print whether each mistake was found.

    Returns: 1 if one was not.
    """
    missed = 0
    for name, mistake in SABOTAGE.items():
        seen = any(mistake.found in violation for violation in found[name])
        missed += not seen
        text = mistake.found if seen else f"NOT FOUND, but: {'; '.join(found[name]) or 'nothing'}"
        sys.stdout.write(f"{name}: {text}\n")
    sys.stdout.write(f"\n{len(SABOTAGE) - missed} of {len(SABOTAGE)} mistakes were found\n")
    return int(bool(missed))


def record(result: Result, path: Path) -> None:
    """Write the table between the marks in a page of docs/.

    Raises:
        ValueError: the page has no marks.
    """
    page = path.read_text("utf-8")
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not end:
        raise ValueError(f"{path} has no place for the table")
    rows = _rows(result)
    # The last columns are counts: what is in each, in all.
    total = ("all", "", "", *(str(sum(int(row[column]) for row in rows)) for column in range(3, len(_HEAD))))
    lines = ["| " + " | ".join(row) + " |" for row in (_HEAD, ("---", *["---:"] * (len(_HEAD) - 1)), *rows, total)]
    today = dt.datetime.now(tz=dt.UTC).date()
    said = f"{today}, on two cores, {result.seconds:.0f} seconds: {_total(result)}."
    path.write_text("\n".join([f"{before}{begin}", said, "", *lines, f"{end}{after}"]), "utf-8")
