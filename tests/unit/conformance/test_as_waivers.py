"""The file of waivers that a run prints is one that holds for that run, and says no more than it."""

from __future__ import annotations

import tempfile
from fnmatch import fnmatchcase
from pathlib import Path

from hsmbridge_conformance.report import Report
from hsmbridge_conformance.reports.as_waivers import render
from hsmbridge_conformance.verdict import Call, Level, Result, Subject, Verdict
from hsmbridge_conformance.waivers import parse_waivers, unnamed
from hypothesis import given
from hypothesis import strategies as st

MECHANISMS = ("CKM_AES_KEY_WRAP", "CKM_AES_KEY_WRAP_PAD", "CKM_RSA_PKCS_OAEP+SHA_1", "odd*[name]?")
IDS = ("HSB-WRAP-001", "HSB-KAT-001", "HSB-UNWRAP-004", "HSB-OTHER-999")
GIVEN = (Verdict.PASS, Verdict.FAIL, Verdict.FINDING, Verdict.UNSUPPORTED)


def result(check_id: str, parameter: str, verdict: Verdict, reason: str = "", *calls: Call, waiver: str = "") -> Result:
    """Return a result of level SHOULD, about the module."""
    return Result(
        id=check_id,
        parameter=parameter,
        subject=Subject.MODULE,
        level=Level.SHOULD,
        verdict=verdict,
        reason=reason,
        calls=calls,
        waiver=waiver,
    )


def report(*results: Result) -> Report:
    """Return a report of these results."""
    module = {"description": "Module\nof\x1b[31m a kind", "manufacturer": "Vendor", "version": "1.2"}
    return Report(
        suite="0", started="2026-01-01T00:00:00+00:00", seconds=1.0, module=module, token={}, results=tuple(results)
    )


def lines(text: str) -> list[list[str]]:
    """Return the fields of a file's lines, without comments."""
    return [line.split(None, 3) for line in text.splitlines() if line and not line.startswith("#")]


PARAMETERS = st.one_of(
    st.just(""),
    st.sampled_from(MECHANISMS),
    st.builds("{}/{}".format, st.sampled_from(MECHANISMS), st.sampled_from("abc")),
)
KEYS = st.tuples(st.sampled_from(IDS[:3]), PARAMETERS)
OUTCOMES = st.tuples(st.sampled_from(GIVEN), st.sampled_from(("", "one reason", "another\nreason")))


@given(st.dictionaries(KEYS, OUTCOMES, max_size=20))
def test_the_file_holds_for_the_run_that_made_it(outcomes: dict[tuple[str, str], tuple[Verdict, str]]) -> None:
    """Whatever a run found, its own file waives all of it, has no line too many, and fits nothing that passes."""
    results = [result(*key, *outcome) for key, outcome in outcomes.items()]
    text = render(report(*results))
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "known"
        file.write_text(text, "utf-8")
        waived, problems = parse_waivers(file).apply(results)
    assert problems == []
    assert unnamed(waived) == []
    for check_id, pattern, _, _ in lines(text):
        passing = [one.parameter or "-" for one in results if one.id == check_id and one.verdict is Verdict.PASS]
        assert not [parameter for parameter in passing if fnmatchcase(parameter, pattern)]


def test_a_pattern_that_fits_a_pass_is_not_so(tmp_path: Path) -> None:
    """A line that fits a failing and a passing result fails the run; a narrow one for the failing result does not."""
    results = [result("HSB-WRAP-001", "a/1", Verdict.FAIL, "known"), result("HSB-WRAP-001", "a/2", Verdict.PASS)]
    file = tmp_path / "known"
    file.write_text("HSB-WRAP-001 a/* fail known\n", "utf-8")
    (problem,) = parse_waivers(file).apply(results)[1]
    assert "it also fits HSB-WRAP-001[a/2], which passes" in problem
    file.write_text("HSB-WRAP-001 a/1 fail known\n", "utf-8")
    assert parse_waivers(file).apply(results)[1] == []


def test_results_that_are_alike_share_a_line() -> None:
    """One pattern stands for all mechanisms, for all uses of one, or for one use of all, where nothing else fits it."""
    first, second = MECHANISMS[:2]
    alike = [result("HSB-WRAP-001", name, Verdict.FAIL, "it was wrapped") for name in MECHANISMS[:3]]
    uses = [result("HSB-UNWRAP-004", f"{name}/des3", Verdict.FAIL, "accepted") for name in (first, second)]
    uses.append(result("HSB-UNWRAP-004", f"{first}/aes", Verdict.PASS))
    tries = [result("HSB-KAT-001", f"{first}/{what}", Verdict.UNSUPPORTED, "not listed") for what in "ab"]
    tries.append(result("HSB-KAT-001", f"{second}/a", Verdict.FINDING, "late"))
    assert lines(render(report(*alike, *uses, *tries))) == [
        ["HSB-WRAP-001", "*", "fail", "it was wrapped"],
        ["HSB-KAT-001", f"{first}/*", "unsupported", "not listed"],
        ["HSB-KAT-001", f"{second}/a", "finding", "late"],
        ["HSB-UNWRAP-004", "*/des3", "fail", "accepted"],
    ]


def test_a_line_cites_its_calls() -> None:
    """The call that a result came to and the refusals behind it are cited, but not what the reason names already."""
    calls = (
        Call(function="C_GenerateKey", ckr="CKR_OK"),
        Call(function="C_WrapKey", ckr="CKR_OK"),
        Call(function="C_GetAttributeValue", ckr="CKR_OK", times=2),
        Call(function="C_GetAttributeValue", ckr="CKR_GENERAL_ERROR"),
    )
    cited = [
        result("HSB-WRAP-001", "", Verdict.FAIL, "it was wrapped", *calls),
        result("HSB-WRAP-002", "", Verdict.FAIL, "C_WrapKey -> CKR_OK", *calls[:2]),
        result("HSB-WRAP-003", "", Verdict.FAIL, "", Call(function="C_WrapKey", ckr=None)),
        result("HSB-WRAP-004", "", Verdict.FAIL),
    ]
    assert [evidence for _, _, _, evidence in lines(render(report(*cited)))] == [
        "it was wrapped; C_WrapKey -> CKR_OK, C_GetAttributeValue -> CKR_GENERAL_ERROR",
        "C_WrapKey -> CKR_OK",
        "C_WrapKey -> did not return",
        "no reason given",
    ]


def test_what_is_named_already_is_left_out() -> None:
    """Waived results, and unsupported ones that a waiver names, make no line; an error makes a comment only."""
    results = [
        result("HSB-WRAP-001", "", Verdict.WAIVED, "known", waiver="ticket 1"),
        result("HSB-WRAP-002", "", Verdict.UNSUPPORTED, "known", waiver="ticket 2"),
        result("HSB-WRAP-003", "", Verdict.ERROR, "broken\nHSB-WRAP-003  -  fail  not said"),
        result("HSB-WRAP-004", "", Verdict.PASS),
    ]
    text = render(report(*results))
    assert lines(text) == []
    assert "# HSB-WRAP-003 could not be judged" in text
    assert "ticket" not in text
