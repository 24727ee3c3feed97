"""Settling: asking the recipient, refusing what is not going to be imported, and telling how it ended."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from hsmbridge_csp.channel import Side, connect
from hsmbridge_csp.handoff.bundle import verify_bundle
from hsmbridge_csp.handoff.messages import Message, Offer, Query
from hsmbridge_csp.handoff.receiver import Receiver
from hsmbridge_csp.handoff.recovery import Outcome, Recovery
from hsmbridge_csp.journal import Owner, Phase, Role

from hsmbridge.errors import HsmbridgeError, PolicyError
from hsmbridge_cli.display import clean, emit_json
from hsmbridge_cli.handoffs import describe_entry, describe_key, entry_named, entry_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsmbridge_csp.channel import Channel
    from hsmbridge_csp.handoff.parties import Party
    from hsmbridge_csp.journal import Entry, Journal

    from hsmbridge_cli.handoffs import Neighbours
    from hsmbridge_cli.handoffwatch import Watch
    from hsmbridge_cli.options import Settings

__all__ = ["ask_recipient", "refuse_handoff", "tell_outcomes"]

_OPEN = 1


def ask_recipient(party: Party, neighbours: Neighbours, socket: str, timeout: float, outcomes: list[Outcome]) -> None:
    """Ask whoever answers at a socket what became of handoffs that are in doubt, and act on it.

    Args:
        party: we.
        neighbours: whom we believe.
        socket: where the recipient listens.
        timeout: seconds to wait for it.
        outcomes: what recovery found; those that are settled now are replaced.

    Raises:
        ChannelError: nobody answers, or nobody whom we believe; the rest stays open.
    """
    if not any(_in_doubt(outcome) for outcome in outcomes):
        return
    with connect(Path(socket), neighbours.terms(party, Side.SENDER, timeout), timeout) as channel:
        for number, outcome in enumerate(outcomes):
            if _in_doubt(outcome) and outcome.entry.peer == channel.peer.fingerprint:
                outcomes[number] = _asked(party, channel, outcome.entry)


def _in_doubt(outcome: Outcome) -> bool:
    entry = outcome.entry
    return entry.role is Role.SENDER and entry.phase is Phase.SENT and not entry.owner.alive


def _asked(party: Party, channel: Channel, entry: Entry) -> Outcome:
    channel.send(Message.QUERY, Query(handoff=entry.handoff, nonce=entry.nonce).encode())
    answer = channel.receive()
    if answer.type != Message.STATEMENT:
        return Outcome(entry=entry, text="the recipient is still at work on it, or must run `handoff recover` itself")
    try:
        return Recovery(party).apply(answer.payload, entry)
    except HsmbridgeError as error:
        return Outcome(entry=entry, text=f"left as it is: {error}")


def refuse_handoff(party: Party, neighbours: Neighbours, recovery: Recovery, what: str) -> tuple[Outcome, bytes]:
    """Promise never to import a bundle, received before or not.

    Args:
        party: we.
        neighbours: whom we believe.
        recovery: removes what is left of an import that was cut short.
        what: the handoff's number, or the bundle's path.

    Returns: what the journal has now, and the tombstone.

    Raises:
        PolicyError: it was imported, or a process works on it.
        UsageError, NotFoundError: it names none; BlobError: not an authentic bundle.
    """
    if Path(what).is_file():
        handoff = _offered(party, neighbours, Path(what).absolute())
    else:
        handoff = entry_named(party.journal, what)[0].handoff
    recovery.settle(entry_of(party.journal, Role.RECEIVER, handoff))
    entry = entry_of(party.journal, Role.RECEIVER, handoff)
    if entry.owner.alive and entry.owner != Owner.current():
        raise PolicyError(f"process {entry.owner.pid} is receiving it", hint="let it end first")
    if entry.phase is Phase.OFFERED:
        Receiver(party).refuse(entry, "refused by hand")
        entry = entry_of(party.journal, Role.RECEIVER, handoff)
    if entry.phase is not Phase.REFUSED:
        raise PolicyError(
            f"handoff {handoff.hex()} is {entry.phase} here: it cannot be refused any more",
            hint="its receipt is in the journal: `hsmbridge handoff show ID --receipt FILE`",
        )
    return Outcome(entry=entry, text="refused from now on; its tombstone lets the sender's keys go on"), entry.statement


def _offered(party: Party, neighbours: Neighbours, path: Path) -> bytes:
    header, digest = verify_bundle(path, party.key_of)
    neighbours.check(header.sender)
    if header.peer != party.identity.fingerprint:
        raise PolicyError(
            f"the bundle is for {neighbours.name_of(header.peer)}: only that identity can refuse it",
            hint="refuse it there, or with --identity",
        )
    offer = Offer(handoff=header.handoff, nonce=header.nonce, count=header.count, digest=digest)
    return Receiver(party).offered(offer, header.sender, str(path)).handoff


def tell_outcomes(
    settings: Settings,
    watch: Watch,
    command: str,
    *,
    journal: Journal,
    neighbours: Neighbours,
    outcomes: Sequence[Outcome],
) -> None:
    """Print one line for each handoff.

    Raises:
        click.exceptions.Exit: with 1, where one of them stays open.
    """
    if settings.json:
        shown = [
            {
                **describe_entry(outcome.entry, neighbours),
                "text": outcome.text,
                "of_keys": [describe_key(key) for key in journal.keys(outcome.entry.role, outcome.entry.handoff)],
            }
            for outcome in outcomes
        ]
        emit_json(command, {"handoffs": shown, "settled": all(outcome.settled for outcome in outcomes)})
    else:
        for outcome in outcomes:
            entry = outcome.entry
            line = f"{entry.handoff.hex()}  {entry.role}  {entry.phase}: {outcome.text}"
            click.echo(clean(line), err=watch.owns_stdout)
        if not outcomes:
            click.echo("nothing is open", err=watch.owns_stdout)
    if not all(outcome.settled for outcome in outcomes):
        raise click.exceptions.Exit(_OPEN)
