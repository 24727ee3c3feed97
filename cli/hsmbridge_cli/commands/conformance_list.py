"""``hsmbridge conformance list``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hsmbridge_cli.lazy import Command
from hsmbridge_cli.options import Settings, token_options

if TYPE_CHECKING:
    from hsmbridge_conformance.catalogue import Check

__all__ = ["conformance_list", "describe_check"]


@click.command(cls=Command, name="list", examples=("hsmbridge conformance list", "hsmbridge conformance list --json"))
@token_options
@click.pass_obj
def conformance_list(settings: Settings) -> None:
    """List the checks.

    Needs no token. SUBJECT is who is judged: the vendor's module, or hsmbridge on that module.
    """
    from hsmbridge_conformance.catalogue import CHAPTERS, all_checks

    from hsmbridge_cli.display import emit_json, emit_table

    if settings.json:
        document = {"chapters": CHAPTERS, "checks": [describe_check(entry) for entry in all_checks()]}
        emit_json("conformance.list", document)
        return
    rows = [(entry.id, entry.subject, entry.level, entry.title) for entry in all_checks()]
    emit_table(("ID", "SUBJECT", "LEVEL", "TITLE"), rows)


def describe_check(entry: Check) -> dict[str, object]:
    """Return a check JSON-ready."""
    from hsmbridge_conformance.catalogue import SPECIFICATIONS

    return {
        "id": entry.id,
        "chapter": entry.chapter,
        "subject": entry.subject,
        "level": entry.level,
        "title": entry.title,
        "text": entry.text,
        "clauses": [SPECIFICATIONS[clause] for clause in entry.clauses],
        "scratch": entry.scratch,
    }
