"""``hsmbridge handoff ls``."""

from __future__ import annotations

import click

from hsmbridge_cli.lazy import Command
from hsmbridge_cli.options import Settings, token_options

__all__ = ["handoff_ls"]


@click.command(cls=Command, name="ls", examples=("hsmbridge handoff ls", "hsmbridge handoff ls --all --json"))
@click.option("--all", "everything", is_flag=True, help="Those that are settled too.")
@token_options
@click.pass_obj
def handoff_ls(settings: Settings, everything: bool) -> None:
    """List the handoffs that are not settled.

    Of both sides, the oldest first. What no process works on any more is settled by `handoff recover`.
    """
    from hsmbridge_csp.journal import Journal

    from hsmbridge_cli.display import emit_json, emit_table
    from hsmbridge_cli.handoffs import Neighbours, age_of, describe_entry

    neighbours = Neighbours.to_be_shown()
    with Journal() as journal:
        entries = journal.entries(open_only=not everything)
    if settings.json:
        emit_json("handoff.ls", {"handoffs": [describe_entry(entry, neighbours) for entry in entries]})
        return
    emit_table(
        ("HANDOFF", "ROLE", "PHASE", "AGE", "KEYS", "PEER", "REMARK"),
        [
            (
                entry.handoff.hex(),
                entry.role,
                entry.phase,
                age_of(entry.created),
                entry.count,
                neighbours.name_of(entry.peer),
                entry.remark or entry.bundle or None,
            )
            for entry in entries
        ],
    )
