"""The pages about the suite agree with its catalogue and with what it finds in the five modules."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest
from hsmbridge_conformance.catalogue import all_checks
from hsmbridge_conformance.verdict import Level
from hsmbridge_conformance.waivers import parse_waivers

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs" / "conformance"
NAMES = ("softhsm", "softokn", "softokn-fips", "opencryptoki", "tpm2")
VERDICTS = ("fail", "finding", "unsupported")
CHECKS = {entry.id: entry for entry in all_checks()}
ID = re.compile(r"HSB-[A-Z0-9]+-[0-9]{3}")


def rows(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without backquotes, its first two rows left out."""
    section = (DOCS / page).read_text("utf-8").split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split(" | ")] for line in lines]


@cache
def expected(name: str) -> tuple[tuple[str, str, str, str], ...]:
    """Return the lines of a module's expected results: ID, parameter, verdict, evidence."""
    text = (ROOT / "ci" / name / "expected").read_text("utf-8")
    found = (line.split(None, 3) for line in text.splitlines() if line.startswith("HSB-"))
    return tuple((one[0], one[1], one[2], one[3]) for one in found)


DEFECTS = [(name, row) for row in rows("defects.md", "Found") for name in row[0].split()]
REMARKS = [(name, row) for name, row in DEFECTS if row[4] == "remark" and CHECKS[row[2]].level is Level.INFO]


def label(value: str | list[str]) -> str:
    """Return what a test is called by: the module, or the check and its parameter."""
    return value if isinstance(value, str) else f"{value[2]}[{value[3]}]"


@pytest.mark.parametrize(("name", "row"), DEFECTS, ids=label)
def test_each_defect_is_found_by_the_check_that_is_named(name: str, row: list[str]) -> None:
    """A row of docs/conformance/defects.md names a check, and the module's expected results say the same of it."""
    _, _, check_id, parameter, verdict, _ = row
    assert check_id in CHECKS
    lines = [line for line in expected(name) if line[0] == check_id]
    if verdict == "remark":
        assert not [line for line in lines if fnmatchcase(parameter, line[1])]
        return
    assert verdict in VERDICTS
    assert [line for line in lines if line[2] == verdict and (line[1] == parameter or fnmatchcase(parameter, line[1]))]


@pytest.mark.parametrize(("name", "row"), REMARKS, ids=label)
def test_each_remark_is_in_the_results(name: str, row: list[str]) -> None:
    """The remark of a check that informs is what the run printed, as docs/conformance/matrix.md has it."""
    _, _, check_id, parameter, _, reason = row
    section = (DOCS / "matrix.md").read_text("utf-8").split(f"\n## {name}\n", 1)[1].split("\n## ", 1)[0]
    told = [line for line in section.splitlines() if f"[{check_id}]" in line and f"`{parameter}`" in line]
    assert [line for line in told if reason in line]


def test_every_module_has_defects_in_the_table() -> None:
    """The table speaks of all five modules."""
    assert {name for row in rows("defects.md", "Found") for name in row[0].split()} == set(NAMES)


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_pages_name_checks_that_exist(page: Path) -> None:
    """Every ID on a page about the suite is one of the catalogue."""
    assert set(ID.findall(page.read_text("utf-8"))) <= CHECKS.keys()


def test_the_catalogue_page_has_every_check() -> None:
    """docs/conformance/checks.md has each check once, in the catalogue's order, with its title."""
    text = (DOCS / "checks.md").read_text("utf-8")
    assert re.findall(r"^### (.+)$", text, re.MULTILINE) == list(CHECKS)
    flat = " ".join(text.split())
    assert [entry.id for entry in all_checks() if f"**{entry.title}" not in flat] == []


@pytest.mark.parametrize("name", NAMES)
def test_expected_results_are_well_formed(name: str) -> None:
    """Expected results can be read, name checks of the catalogue and repeat nothing; failures cite their calls."""
    parse_waivers(ROOT / "ci" / name / "expected")
    lines = expected(name)
    assert lines
    assert {check_id for check_id, _, _, _ in lines} <= CHECKS.keys()
    assert len({line[:2] for line in lines}) == len(lines)
    bare = [line for line in lines if line[2] != "unsupported" and not re.search(r"\bC_[A-Z]\w+|CKA_", line[3])]
    assert not bare


@pytest.mark.parametrize("name", NAMES)
def test_no_failure_of_the_toolkit_is_expected(name: str) -> None:
    """What hsmbridge itself does wrong is mended, not waived: its checks pass, or cannot be done."""
    assert not [line for line in expected(name) if CHECKS[line[0]].subject == "toolkit" and line[2] != "unsupported"]
