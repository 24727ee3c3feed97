"""What commands print: one JSON document, or text; warnings and remarks go to standard error.

Names that a token or a file gives are not trusted: control characters in a label must not steer the reader's terminal.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hsmbridge_cli.options import Settings

__all__ = ["clean", "emit_fields", "emit_json", "emit_table", "remark", "warn", "yes_no"]

_GAP = "  "


def clean(text: str) -> str:
    """Return *text* with everything that is not printable escaped."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def yes_no(value: object) -> str:
    """Return a value as a person writes it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def emit_json(command: str, document: Mapping[str, object]) -> None:
    """Print the one JSON document of a run.

    Args:
        command: ``token.ls`` and so on; the schema is ``hsmbridge.<command>/1``.
        document: JSON-ready.
    """
    import json

    click.echo(json.dumps({"schema": f"hsmbridge.{command}/1", **document}, indent=2))


def emit_fields(fields: Iterable[tuple[str, object]], *, err: bool = False) -> None:
    """Print names and values in two columns; a value of several lines goes on below itself."""
    rows = [(name, [clean(line) for line in yes_no(value).split("\n")]) for name, value in fields]
    width = max((len(name) for name, _ in rows), default=0)
    for name, lines in rows:
        click.echo(f"{name:<{width}}{_GAP}{lines[0]}".rstrip(), err=err)
        for line in lines[1:]:
            click.echo(f"{'':<{width}}{_GAP}{line}".rstrip(), err=err)


def emit_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table: drawn in a terminal, aligned columns without colour anywhere else."""
    cells = [[clean(yes_no(cell)) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _draw(columns, cells)
        return
    widths = [max(len(row[index]) for row in [list(columns), *cells]) for index in range(len(columns))]
    for row in [list(columns), *cells]:
        click.echo(_GAP.join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _draw(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in cells:
        # Text, not str: a label with square brackets is no markup.
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def warn(text: str) -> None:
    """Print a warning; the command goes on."""
    click.echo(f"hsmbridge: warning: {clean(text)}", err=True)


def remark(settings: Settings, text: str) -> None:
    """Print what is being done, with -v only."""
    if settings.verbosity:
        click.echo(f"hsmbridge: info: {clean(text)}", err=True)
