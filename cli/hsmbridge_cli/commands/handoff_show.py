"""``hsmbridge handoff show``."""

from __future__ import annotations

import click

from hsmbridge_cli.lazy import Command
from hsmbridge_cli.options import Settings, token_options

__all__ = ["handoff_show"]


@click.command(
    cls=Command,
    name="show",
    examples=("hsmbridge handoff show 5f0c", "hsmbridge handoff show 5f0c --receipt keys.receipt"),
)
@click.argument("handoff", metavar="ID")
@click.option("--receipt", metavar="FILE", help="Write once more what the recipient has signed, receipt or tombstone.")
@token_options
@click.pass_obj
def handoff_show(settings: Settings, handoff: str, receipt: str | None) -> None:
    """Show one handoff, its keys and its steps.

    ID is the handoff's number, or the first digits of it. Where sender and recipient have one journal, both sides show.
    """
    from hsmbridge_csp.journal import Journal

    from hsmbridge.errors import NotFoundError
    from hsmbridge_cli.display import emit_json
    from hsmbridge_cli.files import STANDARD_STREAM, OutputFile
    from hsmbridge_cli.handoffs import Neighbours, describe_side, entry_named

    if receipt == STANDARD_STREAM and settings.json:
        raise click.UsageError("--receipt - and --json both want standard output")
    target = None if receipt is None else OutputFile(receipt)
    neighbours = Neighbours.to_be_shown()
    with Journal() as journal:
        entries = entry_named(journal, handoff)
        sides = [describe_side(journal, entry, neighbours) for entry in entries]
    if target is not None:
        statement = next((entry.statement for entry in entries if entry.statement), None)
        if statement is None:
            raise NotFoundError("nothing is signed about it yet", hint="settle it with `hsmbridge handoff recover`")
        target.write(statement)
    if settings.json:
        emit_json("handoff.show", {"sides": sides})
    elif target is None or not target.is_stdout:
        for side in sides:
            _print(side)


def _print(side: dict[str, object]) -> None:
    from time import localtime, strftime

    from hsmbridge_cli.display import clean, emit_fields

    peer, keys, steps = side["peer"], side["of_keys"], side["steps"]
    if not isinstance(peer, dict) or not isinstance(keys, list) or not isinstance(steps, list):
        return
    fields: list[tuple[str, object]] = [(name, side[name]) for name in ("handoff", "role", "phase")]
    fields.append(("peer", f"{peer['name']} ({peer['fingerprint']})"))
    fields += [(name, side[name]) for name in ("bundle", "statement", "remark") if side[name] is not None]
    emit_fields(fields)
    for key in keys:
        facts = (key["place"], key["residency"], key["evidence"], key["disposition"])
        click.echo(clean(f"key {key['position']}  {', '.join(str(fact) for fact in facts if fact)}"))
    for step in steps:
        when = strftime("%Y-%m-%d %H:%M:%S", localtime(step["at"]))
        click.echo(clean(f"{when}  {step['phase']}  {step['remark'] or ''}").rstrip())
