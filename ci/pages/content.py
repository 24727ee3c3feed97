"""What the pages of docs/conformance say that come from the catalogue and from runs on real modules.

Nothing that changes from run to run gets into them: what is told of a result is the line of ci/NAME/expected that names
it. See publish.py.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hsmbridge_conformance.catalogue import CHAPTERS, SPECIFICATIONS, all_checks, chapter_checks
from hsmbridge_conformance.reports import as_json
from hsmbridge_conformance.reports.matrix import SOURCES, make_matrix
from hsmbridge_conformance.reports.wording import by_reason
from hsmbridge_conformance.verdict import Level, Subject, Verdict
from hsmbridge_conformance.waivers import Waiver, parse_waivers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hsmbridge_conformance.catalogue import Check
    from hsmbridge_conformance.report import Report
    from hsmbridge_conformance.verdict import Result

__all__ = ["ROOT", "Module", "checks_page", "matrix_page"]

ROOT = Path(__file__).resolve().parents[2]

VERDICTS = (Verdict.PASS, Verdict.FAIL, Verdict.FINDING, Verdict.UNSUPPORTED)
WIDTH = 130
WORDS = {Verdict.PASS: "yes", Verdict.FAIL: "**wrong**", Verdict.FINDING: "finding", Verdict.UNSUPPORTED: "no"}
ALSO = ("HSB-KAT-001", "HSB-KAT-002")
"""Checks with the parameters of the matrix, which see what a use of the key does not show: that it has grown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One token of CI.

    Attributes:
        name: of its folder; title: what the head of its expected results says that it is.
        report: of its run; lines: its expected results.
    """

    name: str
    title: str
    report: Report
    lines: tuple[Waiver, ...]

    @classmethod
    def read(cls, directory: Path, name: str) -> Module:
        """Read a run and what it was held to.

        Raises:
            SystemExit: the run is not a good one, or not a whole one.
        """
        expected = ROOT / "ci" / name / "expected"
        parse_waivers(expected)
        text = expected.read_text("utf-8").splitlines()
        lines = tuple(_line(number, line) for number, line in enumerate(text, 1) if line.startswith("HSB-"))
        file = directory / f"{name}.json"
        report = as_json.parse(file.read_bytes(), str(file))
        asked = report.options
        if not report.ok or not asked.get("exact") or asked["only"] or asked["level"] != Level.INFO:
            raise SystemExit(f"{file} is no good run of all checks with --exact")
        title = text[0].removeprefix("# What the conformance suite finds in ").rstrip(".")
        return cls(name=name, title=title, report=report, lines=lines)

    def verdict(self, result: Result) -> Verdict:
        """Return what a check said before it was waived."""
        if result.verdict is not Verdict.WAIVED:
            return result.verdict
        return next(line.verdict for line in self.lines if line.fits(result) and line.evidence == result.waiver)

    def about(self, line: Waiver) -> list[Result]:
        """Return the results that a line is about."""
        return [one for one in self.report.results if line.fits(one) and one.waiver == line.evidence]

    def count(self, subject: Subject) -> Counter[Verdict]:
        """Return how often each verdict was given about *subject*, before waiving."""
        return Counter(self.verdict(result) for result in self.report.results if result.subject is subject)


def _line(number: int, line: str) -> Waiver:
    check_id, parameter, verdict, evidence = line.split(None, 3)
    return Waiver(line=number, id=check_id, parameter=parameter, verdict=Verdict(verdict), evidence=evidence)


# ---- checks.md


def checks_page() -> Iterator[str]:
    """Yield the lines of the catalogue."""
    yield "# The checks"
    yield ""
    yield from _wrapped(
        f"{len(all_checks())} checks; this page is made from the code by `make conformance-docs`. *Module* and "
        "*toolkit* are who is judged: the vendor's module, or hsmbridge on that module. How much a check weighs is "
        "told by MUST, SHOULD and INFO; see [reading results](results.md). `hsmbridge conformance explain ID` prints "
        "the same. The short names of sources are [written out](#sources) below."
    )
    for chapter, title in CHAPTERS.items():
        yield from ("", f"## {title}")
        for entry in chapter_checks(chapter):
            yield from _check(entry)
    yield from ("", "## Sources", "", "| short | is |", "|---|---|")
    yield from (f"| {name} | {_cell(text)} |" for name, text in SPECIFICATIONS.items())


def _check(entry: Check) -> Iterator[str]:
    yield from ("", f"### {entry.id}", "")
    sources = ", ".join(entry.clauses)
    title = entry.title + ("" if entry.title.endswith("?") else ".")
    yield from _wrapped(f"**{title}** {str(entry.level).upper()}, {entry.subject}. Sources: {sources}.")
    yield ""
    yield from _wrapped(entry.text)
    if entry.scratch:
        yield from ("", "Only with `--scratch-token`.")


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


# ---- matrix.md


def matrix_page(modules: Sequence[Module]) -> Iterator[str]:
    """Yield the lines of the results."""
    yield "# Five modules"
    yield ""
    yield from _wrapped(
        "What the suite finds in the modules that this project is tested with, each at the version named below. Made "
        "from their runs by `make conformance-docs`; `make conformance` fails where a run says anything else. It is "
        "about these versions, in this configuration, and about nothing else: run the suite on yours. Which known "
        "defect is found by which check is told under [defects](defects.md)."
    )
    yield from ("", "## Is a key handed over?", "")
    yield from _wrapped(
        "A key is wrapped in one process, unwrapped in another, and used there "
        f"({_link('HSB-E2E-001')}, {_link('HSB-E2E-002')}); where its bytes are known, they are compared "
        f"({_link('HSB-KAT-001')}, {_link('HSB-KAT-002')}). *yes*: it is the same key. **wrong**: it arrives as "
        "another one, and every call answers CKR_OK. *no*: the module refuses, or makes no such key. A mechanism that "
        "a module does not have at all has no line."
    )
    yield ""
    yield from _matrix(modules)
    for module in modules:
        yield from _module(module)


def _matrix(modules: Sequence[Module]) -> Iterator[str]:
    matrices = [(module, make_matrix(module.report)) for module in modules]
    key_types = max((matrix.key_types for _, matrix in matrices), key=len)
    mechanisms = dict.fromkeys(mechanism for _, matrix in matrices for mechanism in matrix.mechanisms)
    yield "| | | " + " | ".join(f"`{key_type}`" for key_type in key_types) + " |"
    yield "|---|---|" + "---|" * len(key_types)
    for mechanism in mechanisms:
        named = f"`{mechanism}`"
        for module, matrix in matrices:
            if mechanism in matrix.mechanisms:
                words = (_word(module, f"{mechanism}/{key_type}") for key_type in key_types)
                yield f"| {named} | {module.name} | {' | '.join(words)} |"
                named = ""


def _word(module: Module, parameter: str) -> str:
    found = [(one.id, module.verdict(one)) for one in module.report.results if one.parameter == parameter]
    if any(verdict is Verdict.FAIL for check_id, verdict in found if check_id in (*SOURCES, *ALSO)):
        return WORDS[Verdict.FAIL]
    return next((WORDS[verdict] for check_id, verdict in found if check_id in SOURCES), "")


def _module(module: Module) -> Iterator[str]:
    yield from ("", f"## {module.name}", "")
    yield from _wrapped(
        f"{module.title}. Every result but a pass, with its evidence: [expected](../../ci/{module.name}/expected)."
    )
    yield from ("", "| | " + " | ".join(VERDICTS) + " |", "|---|" + "---:|" * len(VERDICTS))
    for subject in Subject:
        counted = module.count(subject)
        yield f"| {subject} | " + " | ".join(str(counted[verdict]) for verdict in VERDICTS) + " |"
    bad = [line for line in module.lines if line.verdict is not Verdict.UNSUPPORTED]
    if bad:
        yield from ("", "| | check | level | with | results | evidence |", "|---|---|---|---|---:|---|")
    for line in bad:
        results = module.about(line)
        word = "**fail**" if line.verdict is Verdict.FAIL else str(line.verdict)
        yield (
            f"| {word} | {_link(line.id)} | {results[0].level} | `{_cell(line.parameter)}` | {len(results)} | "
            f"{_cell(line.evidence)} |"
        )
    yield from _remarks(module)


def _remarks(module: Module) -> Iterator[str]:
    told = [
        one for one in module.report.results if one.level is Level.INFO and one.verdict is Verdict.PASS and one.reason
    ]
    if told:
        yield from ("", "Remarks of checks that only inform:", "", "| check | with | |", "|---|---|---|")
    for alike in by_reason(told):
        parameters = ", ".join(f"`{_cell(one.parameter or '-')}`" for one in alike)
        yield f"| {_link(alike[0].id)} | {parameters} | {_cell(alike[0].reason)} |"


def _link(check_id: str) -> str:
    return f"[{check_id}](checks.md#{check_id.lower()})"
