"""Two runs compared: what got worse is a regression, what merely differs is not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hsmbridge_conformance.comparison import Kind, compare
from hsmbridge_conformance.verdict import Level, Verdict

from tests.support.reports import result, sample_report

if TYPE_CHECKING:
    from hsmbridge_conformance.report import Report
    from hsmbridge_conformance.verdict import Result

P, N, U, W, F, E = (
    Verdict.PASS, Verdict.FINDING, Verdict.UNSUPPORTED, Verdict.WAIVED, Verdict.FAIL, Verdict.ERROR,
)  # fmt: skip


def run(*results: Result, **more: Any) -> Report:  # noqa: ANN401 - members of a report
    """Return a report with these results."""
    return replace(sample_report(), results=results, **more)


def kinds(old: Report, new: Report) -> list[Kind]:
    """Return what kinds of changes there are."""
    return [change.kind for change in compare(old, new).changes]


@pytest.mark.parametrize("verdict", list(Verdict))
def test_the_same_is_no_change(verdict: Verdict) -> None:
    """A result that is what it was is not listed."""
    found = compare(run(result(verdict=verdict)), run(result(verdict=verdict, reason="put otherwise")))
    assert (found.changes, found.unchanged, found.ok) == ((), 1, True)


@pytest.mark.parametrize(
    ("old", "new"), [(P, N), (P, U), (P, W), (P, F), (P, E), (N, F), (N, U), (N, W), (U, F), (W, F)]
)
def test_worse_is_a_regression_and_back_an_improvement(old: Verdict, new: Verdict) -> None:
    """Each step down fails the comparison; the same step up is an improvement, and does not."""
    down = compare(run(result(verdict=old)), run(result(verdict=new)))
    up = compare(run(result(verdict=new)), run(result(verdict=old)))
    assert ([change.kind for change in down.changes], down.ok) == ([Kind.REGRESSION], False)
    assert ([change.kind for change in up.changes], up.ok) == ([Kind.IMPROVEMENT], True)


def test_fail_and_error_are_equally_bad() -> None:
    """From fail to error nothing got worse, but something changed."""
    assert kinds(run(result(verdict=F)), run(result(verdict=E))) == [Kind.CHANGED]


@pytest.mark.parametrize(("verdict", "kind"), [(P, Kind.REGRESSION), (N, Kind.REGRESSION), (U, Kind.GONE)])
def test_a_missing_result(verdict: Verdict, kind: Kind) -> None:
    """A mechanism that is gone is a regression, unless it could not be used before either."""
    old = run(result(parameter="CKM_A"), result(parameter="CKM_B", verdict=verdict))
    assert kinds(old, run(result(parameter="CKM_A"))) == [kind]


@pytest.mark.parametrize("options", [{"level": "must"}, {"only": ["HSB-KAT"]}])
def test_what_was_not_asked_for_is_not_missing(options: dict[str, object]) -> None:
    """A check that the new run was not asked for is told as gone; the choice is remarked on."""
    new = run(result("HSB-KAT-001"), options={**sample_report().options, **options})
    found = compare(run(result("HSB-KAT-001"), result("HSB-WRAP-007", level=Level.SHOULD)), new)
    assert [change.kind for change in found.changes] == [Kind.GONE]
    assert found.ok
    assert any(remark.startswith("asked for ") for remark in found.remarks)


def test_a_check_that_another_suite_has_is_not_missing() -> None:
    """A check that this suite does not know, and the new run has not, has gone with the suite."""
    found = compare(run(result(), result("HSB-OLD-001")), run(result(), suite="0.2.0"))
    assert [change.kind for change in found.changes] == [Kind.GONE]
    assert found.remarks == ("suite: 0.1.0 before, 0.2.0 now",)


def test_new_results_are_no_regressions() -> None:
    """A check that was not there before is listed, whatever it says."""
    found = compare(run(result()), run(result(), result("HSB-WRAP-002", verdict=F)))
    assert ([change.kind for change in found.changes], found.ok) == ([Kind.NEW], True)


def test_the_run_itself_can_get_worse() -> None:
    """A run that leaves the token changed, after one that did not, is a regression without any result."""
    found = compare(run(result()), run(result(), problems=("the token is not what it was",)))
    assert [(change.kind, change.name, change.reason) for change in found.changes] == [
        (Kind.REGRESSION, "", "the token is not what it was")
    ]
    assert not kinds(run(result(), problems=("x",)), run(result(), problems=("y",)))


def test_another_token_is_remarked_on() -> None:
    """Two runs on different tokens or modules are compared, and it is said that they differ."""
    old = sample_report()
    new = replace(old, token={**old.token, "serial": "9"}, module={**old.module, "version": "2.7"})
    assert compare(old, new).remarks == ("module version: 2.6 before, 2.7 now", "token serial: 0123abcd before, 9 now")


def test_regressions_come_first() -> None:
    """Changes are listed regressions first, in the order of the catalogue within."""
    names = ("HSB-WRAP-001", "HSB-WRAP-002", "HSB-WRAP-003")
    old = run(*(result(name, verdict=verdict) for name, verdict in zip(names, (F, P, P), strict=True)))
    new = run(*(result(name, verdict=verdict) for name, verdict in zip(names, (P, F, N), strict=True)))
    assert [change.name for change in compare(old, new).changes] == [names[1], names[2], names[0]]
