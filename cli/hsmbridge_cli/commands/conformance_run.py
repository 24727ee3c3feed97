"""``hsmbridge conformance run``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from hsmbridge_cli.lazy import Command
from hsmbridge_cli.options import Settings, token_options

if TYPE_CHECKING:
    from hsmbridge_conformance.runner import Options
    from hsmbridge_conformance.waivers import Waivers

    from hsmbridge_cli.files import OutputFile

__all__ = ["conformance_run"]

_FAILED = 1
_FOREVER = 86400.0


@click.command(
    cls=Command,
    name="run",
    examples=(
        "hsmbridge conformance run --module ./vendor.so --token-label test --pin-file pin",
        "hsmbridge conformance run --level must --report html:report.html --report junit:report.xml",
        "hsmbridge conformance run --waivers known.txt --exact --json >report.json",
        "hsmbridge conformance run --only WRAP --only HSB-UNWRAP-002 -v",
    ),
)
@click.option(
    "--level",
    type=click.Choice(["must", "should", "info"]),
    default="info",
    show_default=True,
    help="The least weight to run: must is quick, info is everything.",
)
@click.option("--only", multiple=True, metavar="ID", help="Only this check, or all whose IDs begin so; repeatable.")
@click.option("--waivers", metavar="FILE", help="Results that are known; a waived check that passes fails the run.")
@click.option("--exact", is_flag=True, help="With --waivers: fail on any result but a pass that FILE does not name.")
@click.option("--scratch-token", is_flag=True, help="The token may be lost: run what could hurt it, too.")
@click.option(
    "--report",
    "reports",
    multiple=True,
    metavar="FORMAT:PATH",
    help="Write a report: html, junit, md, json or waivers; repeatable; - is standard output.",
)
@click.option("--force", is_flag=True, help="Replace reports that are there.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, max=_FOREVER, min_open=True),
    metavar="S",
    help="Seconds of silence after which a check counts as hung [default: 60].",
)
@token_options
@click.pass_obj
def conformance_run(
    settings: Settings,
    *,
    level: str,
    only: tuple[str, ...],
    waivers: str | None,
    exact: bool,
    scratch_token: bool,
    reports: tuple[str, ...],
    force: bool,
    timeout: float | None,
) -> int:
    """Run the checks on a token, and report.

    The module is loaded by processes of their own: if it crashes or hangs, that is a result, and the run goes on. The
    PIN is tried once. What the run makes in the token it removes, and it compares the token with what it was.

    Ends with 1 on a failed check of level MUST, on a waiver that is not so, if no MUST could be executed, and if the
    token is not what it was.
    """
    if exact and waivers is None:
        raise click.UsageError("--exact goes with --waivers")
    from hsmbridge_conformance.reports.formats import render
    from hsmbridge_conformance.runner import run

    from hsmbridge_cli.runview import print_report, show_progress
    from hsmbridge_cli.targets import make_target

    options = _options(level, only, timeout, scratch=scratch_token, exact=exact)
    outputs = _outputs(reports, force=force, json=settings.json)
    known = _read_waivers(waivers)
    target = make_target(settings)
    try:
        with show_progress(settings) as progress:
            report = run(target, options, waivers=known, tell=progress.tell, begin=progress.begin)
    except KeyboardInterrupt:
        click.echo("hsmbridge: hint: `hsmbridge conformance clean` removes what this run has left", err=True)
        raise
    # Files first: a reader of standard output that goes away must not cost the reports.
    for name, file in sorted(outputs, key=lambda output: output[1].is_stdout):
        file.write(render(report, name))
    if settings.json:
        import json

        click.echo(json.dumps(report.document(), indent=2))
    elif not any(file.is_stdout for _, file in outputs):
        print_report(report, waivers)
    return 0 if report.ok else _FAILED


def _options(level: str, only: tuple[str, ...], timeout: float | None, *, scratch: bool, exact: bool) -> Options:
    from hsmbridge_conformance.catalogue import all_checks
    from hsmbridge_conformance.process import HANG_SECONDS
    from hsmbridge_conformance.runner import Options
    from hsmbridge_conformance.verdict import Level

    from hsmbridge.errors import NotFoundError, UsageError

    wanted = tuple(f"HSB-{name.upper().removeprefix('HSB-')}" for name in only)
    for name in wanted:
        if not any(entry.id.startswith(name) for entry in all_checks()):
            raise NotFoundError(f"no check's ID begins with {name}", hint="see `hsmbridge conformance list`")
    options = Options(
        level=Level(level),
        only=wanted,
        scratch=scratch,
        exact=exact,
        hang_seconds=HANG_SECONDS if timeout is None else timeout,
    )
    if not options.chosen():
        raise UsageError(
            "these options leave no check to run",
            hint="a check may be of a lower --level, or need --scratch-token; see `hsmbridge conformance list`",
        )
    return options


def _outputs(reports: tuple[str, ...], *, force: bool, json: bool) -> list[tuple[str, OutputFile]]:
    """Look at every destination before the token is touched."""
    from hsmbridge_conformance.reports.formats import parse_destination

    from hsmbridge.errors import UsageError
    from hsmbridge_cli.files import OutputFile

    found = [parse_destination(text) for text in reports]
    paths = [os.path.realpath(path) for _, path in found]
    if len(set(paths)) != len(paths):
        raise UsageError("two reports go to the same file", hint="give each report a file of its own")
    outputs = [(name, OutputFile(path, force=force, binary=False)) for name, path in found]
    if json and any(file.is_stdout for _, file in outputs):
        raise UsageError("--json and a report on standard output exclude each other", hint="write the report to a file")
    return outputs


def _read_waivers(name: str | None) -> Waivers | None:
    from pathlib import Path

    from hsmbridge_conformance.waivers import parse_waivers

    return None if name is None else parse_waivers(Path(name))
