"""``hsmbridge conformance explain``."""

from __future__ import annotations

import click

from hsmbridge_cli.lazy import Command
from hsmbridge_cli.options import Settings, token_options

__all__ = ["conformance_explain"]


@click.command(cls=Command, name="explain", examples=("hsmbridge conformance explain HSB-WRAP-001",))
@click.argument("check_id", metavar="ID")
@token_options
@click.pass_obj
def conformance_explain(settings: Settings, check_id: str) -> None:
    """Say what a check does, and why.

    Needs no token. ID is one of `conformance list`; HSB- may be left out.
    """
    from hsmbridge_conformance.catalogue import CHAPTERS, all_checks

    from hsmbridge.errors import NotFoundError
    from hsmbridge_cli.commands.conformance_list import describe_check
    from hsmbridge_cli.display import emit_json

    wanted = check_id.upper().removeprefix("HSB-")
    entry = next((entry for entry in all_checks() if entry.id == f"HSB-{wanted}"), None)
    if entry is None:
        raise NotFoundError(f"there is no check {check_id!r}", hint="see `hsmbridge conformance list`")
    described = describe_check(entry)
    if settings.json:
        emit_json("conformance.explain", described)
        return
    click.echo(f"{entry.id}  {CHAPTERS[entry.chapter]}, {entry.level}, judges the {entry.subject}\n")
    click.echo(f"{entry.title}.\n")
    click.echo(click.wrap_text(entry.text.replace("``", ""), width=100))
    if entry.scratch:
        click.echo("\nOnly with --scratch-token: it could hurt a token that is worth something.")
    click.echo("\nSource:")
    for clause in described["clauses"] if isinstance(described["clauses"], list) else ():
        click.echo(f"  {clause}")
