"""``hsmbridge handoff commit``."""

from __future__ import annotations

import click

from hsmbridge_cli.lazy import Command
from hsmbridge_cli.options import Settings, token_options

__all__ = ["handoff_commit"]


@click.command(
    cls=Command,
    name="commit",
    examples=("hsmbridge handoff commit keys.receipt", "hsmbridge handoff commit - < keys.receipt"),
)
@click.argument("receipt", metavar="RECEIPT")
@click.option("--identity", metavar="FILE|KEY", help="Who sent the keys; your own identity unless given.")
@click.option("--events", metavar="FILE", help="A line of JSON for each event; - is standard output.")
@token_options
@click.pass_obj
def handoff_commit(settings: Settings, receipt: str, identity: str | None, events: str | None) -> None:
    """Act on a receipt: destroy what was handed over.

    On a receipt, file: keys are overwritten and removed. On a tombstone, by which the recipient promises never to
    import, they get their names back. Anything else changes nothing. It may be done twice.
    """
    from hsmbridge_csp.handoff.recovery import Recovery
    from hsmbridge_csp.handoff.statement import MAX_STATEMENT, peek_handoff
    from hsmbridge_csp.journal import Role

    from hsmbridge_cli.files import read_input
    from hsmbridge_cli.handoffs import Neighbours, entry_of, identity_for, party_for
    from hsmbridge_cli.handoffsettling import tell_outcomes
    from hsmbridge_cli.handoffstopping import stoppable
    from hsmbridge_cli.handoffwatch import watching
    from hsmbridge_cli.parties import name_or_path, token_for

    statement = read_input(receipt, MAX_STATEMENT)
    handoff = peek_handoff(statement)
    identity_name = None if identity is None else name_or_path(identity)
    with (
        stoppable(settings),
        watching(settings, events) as watch,
        token_for(settings, identity_name) as token,
        party_for(identity_for(identity_name, token), watch) as party,
    ):
        entry = entry_of(party.journal, Role.SENDER, handoff)
        outcome = Recovery(party).apply(statement, entry)
        neighbours = Neighbours.of(party, None)
        tell_outcomes(
            settings, watch, "handoff.commit", journal=party.journal, neighbours=neighbours, outcomes=[outcome]
        )
