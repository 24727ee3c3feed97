"""Answering the sender who asks what became of a handoff.

"Not imported" is said only after a tombstone was written that forbids a later import; what is still being worked on,
or has not been looked at since its process died, gets no answer.

Source: docs/handoff.md, "Recovery".
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hsmbridge_csp.handoff.messages import Message, Offer
from hsmbridge_csp.journal import Phase, Role

if TYPE_CHECKING:
    from hsmbridge_csp.channel import Channel
    from hsmbridge_csp.handoff.messages import Query
    from hsmbridge_csp.handoff.receiver import Receiver
    from hsmbridge_csp.journal import Journal

__all__ = ["answer"]

_NO_BLOBS = b""


def answer(receiver: Receiver, journal: Journal, channel: Channel, query: Query) -> None:
    """Tell the sender what became of a handoff; one that was never heard of is refused from now on."""
    entry = journal.entry(Role.RECEIVER, query.handoff)
    if entry is None:
        offer = Offer(handoff=query.handoff, nonce=query.nonce, count=1, digest=_NO_BLOBS)
        entry = replace(receiver.offered(offer, channel.peer.fingerprint), count=0)
        statement = receiver.refuse(entry, "asked for before it was offered")
    elif entry.peer != channel.peer.fingerprint or entry.nonce != query.nonce:
        statement = b""
    elif entry.statement or entry.owner.alive:
        statement = entry.statement
    elif entry.phase is Phase.OFFERED:
        statement = receiver.refuse(entry, "the receiving process died before it had imported")
    else:
        statement = b""  # claimed by a process that died: `recover` looks what is left before anything is promised
    if statement:
        channel.send(Message.STATEMENT, statement)
    else:
        channel.send(Message.UNDECIDED, b"")
