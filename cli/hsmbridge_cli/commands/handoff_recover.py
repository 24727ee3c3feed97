"""``hsmbridge handoff recover``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from hsmbridge_cli.lazy import Command
from hsmbridge_cli.options import Settings, token_options

if TYPE_CHECKING:
    from hsmbridge_csp.journal import Journal

__all__ = ["handoff_recover"]


@click.command(
    cls=Command,
    name="recover",
    examples=(
        "hsmbridge handoff recover",
        "hsmbridge handoff recover --socket /run/user/1000/keys/socket",
        "hsmbridge handoff recover --refuse keys.bundle --receipt keys.tombstone",
    ),
)
@click.option("--socket", metavar="PATH", help="Ask the recipient, which answers there: `handoff receive --answer`.")
@click.option(
    "--refuse", metavar="ID|BUNDLE", help="Promise never to import this bundle: its keys go on at the source."
)
@click.option("--receipt", metavar="FILE", help="Where the tombstone of --refuse goes.")
@click.option("--identity", metavar="FILE|KEY", help="Who sent or received; your own identity unless given.")
@click.option("--peer", metavar="NAME|HEX", help="Who may answer: a pinned name or a fingerprint.")
@click.option("--timeout", type=click.FloatRange(min=0), default=60.0, metavar="S", help="Seconds to wait; 60.")
@click.option("--events", metavar="FILE", help="A line of JSON for each event; - is standard output.")
@token_options
@click.pass_obj
def handoff_recover(
    settings: Settings,
    *,
    socket: str | None,
    refuse: str | None,
    receipt: str | None,
    identity: str | None,
    peer: str | None,
    timeout: float,
    events: str | None,
) -> None:
    """Settle, from evidence, what was cut short.

    Evidence is the journal, the recipient's signed word, and what is really there; time is none. It may be run any
    number of times, and leaves alone what a live process works on. Ends with 1 as long as something stays open.
    """
    from hsmbridge_csp.handoff.recovery import Recovery

    from hsmbridge_cli.files import OutputFile
    from hsmbridge_cli.handoffs import Neighbours, identity_for, party_for
    from hsmbridge_cli.handoffsettling import ask_recipient, refuse_handoff, tell_outcomes
    from hsmbridge_cli.handoffstopping import stoppable
    from hsmbridge_cli.handoffwatch import watching
    from hsmbridge_cli.parties import name_or_path, token_for

    if (refuse is None) != (receipt is None):
        raise click.UsageError("--refuse goes with --receipt FILE, which tells the sender")
    if refuse is not None and socket is not None:
        raise click.UsageError("--refuse is for bundles, --socket asks about what was sent")
    if receipt == "-" and (settings.json or events == "-"):
        raise click.UsageError("--receipt - wants standard output for itself")
    target = None if receipt is None else OutputFile(receipt)
    identity_name = None if identity is None else name_or_path(identity)
    with (
        stoppable(settings),
        watching(settings, events) as watch,
        token_for(settings, identity_name, also=_token_is_named(settings) and _token_is_needed()) as token,
        party_for(identity_for(identity_name, token), watch) as party,
    ):
        neighbours, recovery = Neighbours.of(party, peer), Recovery(party, token)
        if refuse is not None and target is not None:
            outcome, tombstone = refuse_handoff(party, neighbours, recovery, refuse)
            target.write(tombstone)
            outcomes = [outcome]
            if target.is_stdout:
                return
        else:
            watch.say("looking at what is there…")
            outcomes = recovery.run()
            if socket is not None:
                watch.say("waiting for the recipient to answer…")
                ask_recipient(party, neighbours, socket, timeout, outcomes)
        tell_outcomes(
            settings, watch, "handoff.recover", journal=party.journal, neighbours=neighbours, outcomes=outcomes
        )


def _token_is_named(settings: Settings) -> bool:
    return bool(settings.module or settings.uri or os.environ.get("PKCS11_MODULE"))


def _token_is_needed() -> bool:
    """Tell whether a key was arriving in a token when its import was cut short."""
    from hsmbridge_csp.handoff.destination import TOKEN
    from hsmbridge_csp.journal import Journal, Role

    def arriving(journal: Journal) -> bool:
        return any(
            key.place.startswith(TOKEN)
            for entry in journal.entries(open_only=True)
            if entry.role is Role.RECEIVER
            for key in journal.keys(Role.RECEIVER, entry.handoff)
        )

    with Journal() as journal:
        return arriving(journal)
