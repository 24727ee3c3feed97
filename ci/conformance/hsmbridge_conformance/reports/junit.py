"""The report as JUnit XML: one case for each ID and parameter, so that a CI system follows each one by its name.

Source: the format has no standard; this is what Jenkins, GitLab and GitHub's actions read: testsuites, testsuite,
testcase, failure, error, skipped, properties and system-out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from hsmbridge_conformance.reports.wording import (
    call_names,
    catalogue_entry,
    chapter_of,
    clause_names,
    facts,
    standings,
    visible,
)
from hsmbridge_conformance.verdict import Verdict

if TYPE_CHECKING:
    from hsmbridge_conformance.report import Report
    from hsmbridge_conformance.verdict import Result

__all__ = ["render"]

_NAME = "hsmbridge.conformance"
_ELEMENTS = {
    Verdict.FAIL: "failure",
    Verdict.ERROR: "error",
    Verdict.UNSUPPORTED: "skipped",
    Verdict.WAIVED: "skipped",
}
"""What stands in a case; a finding is a pass that has something to say."""


def render(report: Report) -> str:
    """Return the document."""
    root = ET.Element("testsuites", name=_NAME, time=f"{report.seconds:.3f}")
    for standing in standings(report):
        results = [result for result in report.results if result.subject is standing.subject]
        suite = _suite(report, root, str(standing.subject), results)
        for result in results:
            _case(suite, result)
    _run(report, root)
    for kind in ("tests", "failures", "errors", "skipped"):
        root.set(kind, str(sum(int(suite.get(kind, "0")) for suite in root)))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=False) + "\n"


def _suite(report: Report, root: ET.Element, name: str, results: list[Result]) -> ET.Element:
    kinds = [_ELEMENTS.get(result.verdict, "") for result in results]
    suite = ET.SubElement(
        root,
        "testsuite",
        name=f"{_NAME}.{name}",
        tests=str(len(results)),
        failures=str(kinds.count("failure")),
        errors=str(kinds.count("error")),
        skipped=str(kinds.count("skipped")),
        time=f"{sum(result.seconds for result in results):.3f}",
        timestamp=visible(report.started),
    )
    properties = ET.SubElement(suite, "properties")
    for fact, value in facts(report):
        ET.SubElement(properties, "property", name=fact, value=visible(value))
    return suite


def _case(suite: ET.Element, result: Result) -> None:
    case = ET.SubElement(
        suite,
        "testcase",
        classname=f"{_NAME}.{result.subject}.{chapter_of(result.id)}",
        name=visible(result.name),
        time=f"{result.seconds:.3f}",
    )
    waived = f"waived: {result.waiver}; {result.reason}" if result.waiver else ""
    why = visible(waived or result.reason or result.verdict)
    kind = _ELEMENTS.get(result.verdict)
    if kind == "skipped":
        ET.SubElement(case, kind, message=why if result.waiver else f"{result.verdict}: {why}")
    elif kind is not None:
        ET.SubElement(case, kind, message=why, type=f"{result.level} {result.verdict}").text = _evidence(result)
    elif result.reason:
        ET.SubElement(case, "system-out").text = f"{result.verdict}: {why}\n{_evidence(result)}"


def _evidence(result: Result) -> str:
    entry = catalogue_entry(result.id)
    lines = [entry.title, *clause_names(result.id)] if entry is not None else []
    return "\n".join([*lines, *call_names(result.calls)]) + "\n"


def _run(report: Report, root: ET.Element) -> None:
    """Add a case for what no check can say: whether the run was one, the waivers are so, the token is as it was."""
    failed = {f"{result.name}: {result.reason}" for result in report.failed}
    reasons = [visible(reason) for reason in report.why_failed if reason not in failed]
    suite = ET.SubElement(
        root,
        "testsuite",
        name=f"{_NAME}.run",
        tests="1",
        failures=str(int(bool(reasons))),
        errors="0",
        skipped="0",
        time=f"{report.seconds:.3f}",
        timestamp=visible(report.started),
    )
    case = ET.SubElement(suite, "testcase", classname=f"{_NAME}.run", name="run", time=f"{report.seconds:.3f}")
    if reasons:
        ET.SubElement(case, "failure", message=reasons[0], type="run").text = "\n".join(reasons)
