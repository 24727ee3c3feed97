"""Reports as JSON, JUnit and Markdown: read back by somebody else's parser, whatever a token calls itself."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from hsmbridge_conformance.catalogue import CHAPTERS, all_checks
from hsmbridge_conformance.reports import as_json, junit, markdown
from hsmbridge_conformance.reports.formats import FORMATS, parse_destination, render
from hsmbridge_conformance.reports.matrix import make_matrix
from hsmbridge_conformance.reports.wording import standings, visible
from hsmbridge_conformance.verdict import Level, Subject, Verdict
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from hsmbridge.errors import InputError, UsageError
from tests.support.htmltext import Page
from tests.support.reports import HOSTILE, hostile_report, result, sample_report
from tests.support.schema import complaints

if TYPE_CHECKING:
    from hsmbridge_conformance.report import Report

SCHEMA: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[3] / "docs" / "conformance" / "report.schema.json").read_text("utf-8")
)
REPORTS = [sample_report(), hostile_report()]
EACH = pytest.mark.parametrize("report", REPORTS, ids=["sample", "hostile"])


@EACH
def test_json_comes_back(report: Report) -> None:
    """A report that is written as JSON and read again is the same report."""
    assert as_json.parse(render(report, "json"), "r") == report


def test_json_follows_the_schema() -> None:
    """The document of a report with every verdict follows the published schema."""
    document = json.loads(render(sample_report(), "json"))
    assert {entry["verdict"] for entry in document["checks"]} == set(Verdict)
    assert complaints(SCHEMA, document) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), "hsmbridge.conformance/2"),
        (("started",), "yesterday"),
        (("seconds",), -1),
        (("module", "path"), None),
        (("options", "level"), "most"),
        (("checks", 0, "id"), "WRAP-1"),
        (("checks", 0, "verdict"), "good"),
        (("checks", 0, "subject"), "vendor"),
        (("checks", 0, "calls"), [{"function": "C_WrapKey", "ckr": 0, "times": 1}]),
        (("checks", 0, "calls"), [{"function": "C_WrapKey", "ckr": None, "times": True}]),
        (("checks", 0, "parameter"), 3),
        (("problems",), [1]),
    ],
)
def test_schema_and_parser_refuse_the_same(path: tuple[str | int, ...], value: object) -> None:
    """What the schema does not allow is refused by the reader as well, with an InputError."""
    document: Any = deepcopy(json.loads(render(sample_report(), "json")))
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert complaints(SCHEMA, document)
    if path not in {("started",), ("module", "path")}:  # those are shown and never computed with
        with pytest.raises(InputError, match="not a report"):
            as_json.parse(json.dumps(document).encode(), "r")


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"null", b"\xff", b"{", b"[" * 100_000, b'{"schema": NaN}', b"1" * 10_000, b'{"schema": []}']
)
def test_bad_json_is_an_input_error(data: bytes) -> None:
    """Bytes that are no report end in an InputError with a hint, never in another exception."""
    with pytest.raises(InputError, match="r is not a report") as caught:
        as_json.parse(data, "r")
    assert caught.value.hint


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_json_is_an_input_error(data: st.DataObject) -> None:
    """A report whose members are replaced at random is read, or refused with an InputError."""
    values: st.SearchStrategy[object] = (
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just([]) | st.just({})
    )
    small = replace(sample_report(), results=sample_report().results[-2:])
    document: Any = json.loads(render(small, "json"))
    place = data.draw(st.sampled_from([document, document["options"], *document["checks"]]))
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(values)
    try:
        as_json.parse(json.dumps(document).encode(), "r")
    except InputError:
        return


def parsed(report: Report) -> ET.Element:
    """Return a report's JUnit document as another's parser reads it."""
    return ET.fromstring(junit.render(report).encode())  # noqa: S314 - our own document


def test_junit_has_a_case_for_each_result() -> None:
    """Each ID and parameter is one case with what its verdict calls for, and no name is there twice."""
    report = sample_report()
    root = parsed(report)
    cases = {(case.get("classname"), case.get("name")): [child.tag for child in case] for case in root.iter("testcase")}
    assert len(cases) == len(report.results) + 1
    chapters = {entry.id: entry.chapter for entry in all_checks()}
    expected = {
        Verdict.PASS: [],
        Verdict.FAIL: ["failure"],
        Verdict.ERROR: ["error"],
        Verdict.FINDING: ["system-out"],
        Verdict.UNSUPPORTED: ["skipped"],
        Verdict.WAIVED: ["skipped"],
    }
    for one in report.results:
        classname = f"hsmbridge.conformance.{one.subject}.{chapters[one.id]}"
        assert cases[classname, one.name] == expected[one.verdict]


def test_junit_counts_what_it_holds() -> None:
    """The attributes of suites and of the whole are the numbers of the elements below them."""
    root = parsed(sample_report())
    for level in (root, *root.findall("testsuite")):
        for attribute, tag in (
            ("tests", "testcase"),
            ("failures", "failure"),
            ("errors", "error"),
            ("skipped", "skipped"),
        ):
            assert int(level.get(attribute, "")) == len(list(level.iter(tag))), (level.get("name"), attribute)


def test_junit_shows_the_evidence() -> None:
    """A failure says the reason, the check's title and clause, and the calls; a skipped case its reason."""
    root = parsed(sample_report())
    failure = root.find(".//testcase[@name='HSB-WRAP-001[CKM_AES_CBC_PAD]']/failure")
    assert failure is not None
    assert failure.get("message") == "a key with CKA_EXTRACTABLE=false was wrapped"
    assert "C_GenerateKey -> CKR_OK (2 times)" in (failure.text or "")
    assert "C_WrapKey, " not in (failure.text or "")
    assert "section 5.18.3" in (failure.text or "")
    skipped = root.find(".//testcase[@name='HSB-E2E-002[CKM_RSA_PKCS_OAEP+SHA_1/rsa:2048]']/skipped")
    assert skipped is not None
    assert (skipped.get("message") or "").startswith("waived: C_Verify -> CKR_SIGNATURE_INVALID")


def test_junit_fails_with_the_run() -> None:
    """What is wrong with the run itself is a case of its own."""
    bad = replace(sample_report(), problems=("the token is not what it was",))
    for report, failures in ((sample_report(), 0), (bad, 1)):
        case = parsed(report).find(".//testcase[@name='run']")
        assert case is not None
        assert len(case.findall("failure")) == failures


def test_junit_is_xml_whatever_a_token_says() -> None:
    """Control characters, lone surrogates and markup in a label leave the document well-formed, and add no element."""
    root = parsed(hostile_report())
    assert {element.tag for element in root.iter()} <= {
        "testsuites", "testsuite", "properties", "property", "testcase", "failure", "error", "skipped", "system-out",
    }  # fmt: skip
    assert visible(HOSTILE) in {element.get("value") for element in root.iter("property")}


def test_markdown_leads_to_the_evidence() -> None:
    """Each check that failed or found something is in the table, and its link leads to a heading further down."""
    text = markdown.render(sample_report())
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    headings = {tokens[n + 1].content.lower() for n, token in enumerate(tokens) if token.type == "heading_open"}
    links = {
        str(child.attrs["href"]) for token in tokens for child in token.children or () if child.type == "link_open"
    }
    wrong = {one.id for one in sample_report().results if one.verdict in {"fail", "finding", "error"}}
    assert links == {f"#{check_id.lower()}" for check_id in wrong}
    assert {link[1:] for link in links} <= headings


def test_markdown_adds_no_markup_of_a_token() -> None:
    """A label with HTML in it is text: the page has the elements of our own and no image, link or script beside."""
    page = Page.read(MarkdownIt("commonmark").enable("table").render(markdown.render(hostile_report())))
    assert not {"img", "script"} & {name for name, _ in page.elements}
    assert {attributes.get("href") for name, attributes in page.elements if name == "a"} == {"#hsb-e2e-001"}
    assert "<img src=x onerror=alert(1)>" in page.text


@pytest.mark.parametrize("count", [10, 100, 3000])
def test_markdown_stays_short(count: int) -> None:
    """However much is wrong, the document stays below 60 KB, and says so if something was left out."""
    results = tuple(result("HSB-WRAP-001", f"CKM_{n}", Verdict.FAIL, f"{n} " + "é" * 500) for n in range(count))
    text = markdown.render(replace(sample_report(), results=results))
    assert len(text.encode()) < 60_000
    assert ("The rest is left out" in text) == (count > 10)


def test_matrix_takes_the_worse_result() -> None:
    """Where two results meet in one cell, the worse one is shown; types stand in their families, by size."""
    results = (
        result("HSB-E2E-001", "CKM_A/aes:256", Verdict.FAIL, "wrong"),
        result("HSB-E2E-001", "CKM_A/aes:256", Verdict.PASS),
        result("HSB-E2E-002", "CKM_A/ed25519"),
        result("HSB-E2E-001", "CKM_B/generic:32"),
        result("HSB-E2E-001", "CKM_B/aes:128"),
        result("HSB-WRAP-001", "CKM_C/aes:128"),
        result("HSB-E2E-002", "", Verdict.UNSUPPORTED, "no pairs"),
    )
    matrix = make_matrix(replace(sample_report(), results=results))
    assert matrix.mechanisms == ("CKM_A", "CKM_B")
    assert matrix.key_types == ("aes:128", "aes:256", "generic:32", "ed25519")
    assert matrix.cells["CKM_A", "aes:256"].verdict is Verdict.FAIL
    assert ("CKM_B", "aes:256") not in matrix.cells
    assert matrix.without == ("no pairs",)


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ([result()], ("passes", "not judged")),
        ([result(verdict=Verdict.FAIL)], ("fails", "not judged")),
        ([result(verdict=Verdict.ERROR)], ("fails", "not judged")),
        ([result(verdict=Verdict.UNSUPPORTED)], ("not judged", "not judged")),
        ([result(verdict=Verdict.FAIL, level=Level.SHOULD)], ("not judged", "not judged")),
        ([result(), result(verdict=Verdict.FAIL, level=Level.SHOULD)], ("passes", "not judged")),
        ([result(), result(verdict=Verdict.FAIL, subject=Subject.TOOLKIT)], ("passes", "fails")),
    ],
)
def test_standing_agrees_with_the_run(results: list[Any], words: tuple[str, str]) -> None:
    """The module stands before the toolkit; the word for each is what the run's own verdict says."""
    report = replace(sample_report(), results=tuple(results))
    assert tuple(standing.word for standing in standings(report)) == words
    assert report.ok == ("fails" not in words and "passes" in words)


def test_destinations() -> None:
    """FORMAT:PATH names one of the forms; a path may have colons itself."""
    assert parse_destination("html:a:b.html") == ("html", "a:b.html")
    assert {parse_destination(f"{name}:p")[0] for name in FORMATS} == {"html", "junit", "md", "json", "waivers"}
    for bad in ("html", "html:", "pdf:x", ""):
        with pytest.raises(UsageError):
            parse_destination(bad)


def test_chapters_have_titles() -> None:
    """Every check of the catalogue belongs to a chapter that reports have a title for."""
    assert {entry.chapter for entry in all_checks()} <= set(CHAPTERS)
