"""``hsmbridge conformance diff``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hsmbridge_cli.lazy import Command
from hsmbridge_cli.options import Settings, token_options

if TYPE_CHECKING:
    from hsmbridge_conformance.comparison import Comparison
    from hsmbridge_conformance.report import Report

__all__ = ["conformance_diff"]

_REGRESSION = 1
_COLOURS = {"regression": "red", "improvement": "green"}


@click.command(
    cls=Command,
    name="diff",
    examples=("hsmbridge conformance diff firmware-2.1.json firmware-2.2.json",),
)
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@token_options
@click.pass_obj
def conformance_diff(settings: Settings, old: str, new: str) -> int:
    """Compare two runs.

    OLD and NEW are reports as JSON, of the same module before and after an upgrade; - is standard input. Needs no
    token. Ends with 1 if anything got worse: a verdict, or a result that was there and is not any more.
    """
    from hsmbridge_conformance.comparison import compare

    from hsmbridge_cli.display import emit_json

    found = compare(_read(old), _read(new))
    if settings.json:
        emit_json("conformance.diff", {"old": old, "new": new, **found.document()})
    else:
        _print(found)
    return 0 if found.ok else _REGRESSION


def _read(name: str) -> Report:
    from hsmbridge_conformance.reports.as_json import MAX_BYTES, parse

    from hsmbridge.errors import InputError
    from hsmbridge_cli.files import read_input

    try:
        data = read_input(name, MAX_BYTES)
    except InputError:
        raise InputError(
            f"{name} is too long for a report", hint="give a report that --report json:PATH wrote"
        ) from None
    return parse(data, name)


def _print(found: Comparison) -> None:
    from hsmbridge_cli.display import clean

    for remark in found.remarks:
        click.echo(clean(remark))
    if found.remarks:
        click.echo()
    for change in found.changes:
        kind = click.style(f"{change.kind:<11}", fg=_COLOURS.get(change.kind))
        step = f"{change.old or 'none'} -> {change.new or 'none'}" if change.name else "the run itself"
        click.echo(f"{kind}  {clean(change.name)}{'  ' if change.name else ''}{step}")
        if change.reason:
            click.echo(f"{'':13}{clean(change.reason)}")
    counted = {kind: sum(change.kind == kind for change in found.changes) for kind in _KINDS}
    told = ", ".join(f"{count} {name}" for name, count in counted.items() if count)
    click.echo(f"{'ok' if found.ok else 'failed'}: {told + ', ' if told else ''}{found.unchanged} unchanged")


_KINDS = ("regression", "improvement", "changed", "new", "gone")
