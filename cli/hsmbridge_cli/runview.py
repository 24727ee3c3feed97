"""A conformance run in the terminal: how far it is, and what came out of it."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from hsmbridge_conformance.catalogue import CHAPTERS
from hsmbridge_conformance.reports.wording import (
    BY_WEIGHT,
    by_reason,
    call_names,
    chapter_title,
    module_name,
    standings,
)
from hsmbridge_conformance.verdict import Verdict

from hsmbridge_cli.display import clean, remark

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsmbridge_conformance.report import Report
    from hsmbridge_conformance.verdict import Result
    from rich.progress import Progress, TaskID

    from hsmbridge_cli.options import Settings

__all__ = ["RunProgress", "print_report", "show_progress"]

_COLOURS = {
    Verdict.PASS: "green",
    Verdict.FAIL: "red",
    Verdict.ERROR: "magenta",
    Verdict.FINDING: "yellow",
    Verdict.WAIVED: "blue",
    Verdict.UNSUPPORTED: None,
}
_WORD_COLOURS = {"passes": "green", "fails": "red", "not judged": "yellow"}
_MAX_CALLS = 6
_MAX_NAMES = 3


class RunProgress:
    """Is told how a run goes; shows it on standard error in a terminal, and every result with -v.

    Args:
        settings: the options.
        bar: where there is a terminal.
    """

    def __init__(self, settings: Settings, bar: Progress | None) -> None:
        self._settings = settings
        self._bar = bar
        self._task: TaskID | None = None
        self._begun: set[str] = set()

    def begin(self, total: int) -> None:
        """The token is there, and so many checks will be run on it."""
        if self._bar is not None:
            self._task = self._bar.add_task(next(iter(CHAPTERS.values())), total=total)

    def tell(self, result: Result) -> None:
        """A result has come in."""
        remark(self._settings, f"{result.name}: {result.verdict}{f', {result.reason}' if result.reason else ''}")
        self._begun.add(result.id)
        if self._bar is not None and self._task is not None:
            # A check is over when the next one begins: it may have more results to come.
            self._bar.update(self._task, completed=len(self._begun) - 1, description=chapter_title(result.id))


@contextmanager
def show_progress(settings: Settings) -> Iterator[RunProgress]:
    """Show how a run goes while the block runs."""
    if not sys.stderr.isatty() or settings.verbosity:
        yield RunProgress(settings, None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<14}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("checks"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield RunProgress(settings, bar)


def print_report(report: Report, waiver_file: str | None = None) -> None:
    """Print what came out: counts, what to read with its evidence, what could not be done, and one last line.

    Args:
        report: of the run.
        waiver_file: named where results are waived by it.
    """
    click.echo(clean(f"{module_name(report)}, token {report.token.get('label')!r}"))
    click.echo(f"suite {report.suite}, {len(report.results)} results in {report.seconds:.1f} s\n")
    _print_counts(report)
    _print_worth(report)
    _print_waived(report, waiver_file)
    _print_unsupported(report)
    click.echo()
    for problem in report.problems:
        click.echo(click.style("failed", fg="red") + f"  {clean(problem)}")
    click.echo(click.style("ok", fg="green") if report.ok else click.style(f"failed: {_why(report)}", fg="red"))


def _print_counts(report: Report) -> None:
    head = "".join(f"{verdict:>13}" for verdict in BY_WEIGHT)
    click.echo(f"{'':9}{'':12}{head}")
    for standing in standings(report):
        word = click.style(f"{standing.word:<12}", fg=_WORD_COLOURS[standing.word], bold=True)
        counts = "".join(_count(standing.counts[verdict], verdict) for verdict in BY_WEIGHT)
        click.echo(f"{standing.subject:<9}{word}{counts}")


def _count(count: int, verdict: Verdict) -> str:
    return click.style(f"{count:>13}", fg=_COLOURS[verdict] if count else None, dim=not count)


def _print_worth(report: Report) -> None:
    """Failed, not judged, found: each reason once, with what it was met with, and the calls of the first."""
    for verdict in BY_WEIGHT[:3]:
        for group in by_reason(result for result in report.results if result.verdict is verdict):
            first = group[0]
            click.echo(f"\n{click.style(f'{verdict:<8}', fg=_COLOURS[verdict])}{first.id}  ({first.level})")
            click.echo(f"{'':8}{clean(first.reason)}")
            cases = [result.parameter for result in group if result.parameter]
            if cases:
                click.echo(f"{'':8}with {clean(', '.join(cases))}")
            calls = call_names(first.calls)
            shown = [f"({len(calls) - _MAX_CALLS} earlier calls)"] if len(calls) > _MAX_CALLS else []
            for call in [*shown, *calls[-_MAX_CALLS:]]:
                click.echo(f"{'':10}{call}")


def _print_waived(report: Report, waiver_file: str | None) -> None:
    waived = [result for result in report.results if result.verdict is Verdict.WAIVED]
    if waived:
        click.echo(f"\nwaived{f' by {clean(waiver_file)}' if waiver_file else ''}:")
    for result in waived:
        click.echo(f"  {clean(result.name)}: {clean(result.waiver)}")


def _print_unsupported(report: Report) -> None:
    reasons: dict[str, list[str]] = {}
    for result in report.results:
        if result.verdict is Verdict.UNSUPPORTED:
            reasons.setdefault(result.reason, []).append(result.name)
    if reasons:
        click.echo("\nunsupported:")
    for reason, names in reasons.items():
        rest = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
        click.echo(f"  {len(names):>4} x {clean(reason)}")
        click.echo(f"{'':9}{clean(', '.join(names[:_MAX_NAMES]))}{rest}")


def _why(report: Report) -> str:
    count = len(report.failed)
    reasons = [f"{count} {'result' if count == 1 else 'results'} of level MUST"] if count else []
    told = {f"{result.name}: {result.reason}" for result in report.failed} | set(report.problems)
    reasons += [reason for reason in report.why_failed if reason not in told]
    if report.problems:
        reasons.append(f"{len(report.problems)} {'problem' if len(report.problems) == 1 else 'problems'} of the run")
    return "; ".join(reasons)
