"""Answering the sender who asks what became of a handoff.

"Not imported" is said only after a tombstone was written that forbids a later import; what is still being worked on,
or has not been looked at since its process died, gets no answer.

Source: docs/handoff.md, "Recovery".
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from hsmbridge_csp.channel.errors import ChannelError
from hsmbridge_csp.handoff.messages import Message, Offer
from hsmbridge_csp.journal import JournalError, Owner, Phase, Role

if TYPE_CHECKING:
    from hsmbridge_csp.channel import Channel
    from hsmbridge_csp.handoff.messages import Query
    from hsmbridge_csp.handoff.receiver import Receiver
    from hsmbridge_csp.journal import Entry, Journal

__all__ = ["answer", "give_up", "let_go", "send_quietly"]

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


def give_up(receiver: Receiver, journal: Journal, entry: Entry, error: BaseException) -> None:
    """End an import that failed and of which nothing is left: with a tombstone, where that is so for certain.

    Nothing is promised about a bundle, and it can be received again: the keys in it may have no other holder, where
    they lived in a process that is gone; and what seems to be here already may have been imported under another
    journal. To refuse it is the user's to decide (``recover --refuse``). Over a channel both cannot be: its blobs were
    never elsewhere, and the sender waits.
    """
    if entry.bundle:
        journal.reopen(entry.handoff)
    else:
        receiver.refuse(entry, type(error).__name__)


def let_go(journal: Journal, entry: Entry, error: BaseException) -> None:
    """Leave an import that is promised, but lacks names, to `recover`, which need not wait for this process to end."""
    remark = f"not all keys have their names: {type(error).__name__}"
    with suppress(JournalError):  # it is this process's then until that ends
        journal.advance(
            Role.RECEIVER, entry.handoff, Phase.IMPORTED, Phase.IMPORTED, owner=Owner.nobody(), remark=remark
        )


def send_quietly(channel: Channel, statement: bytes) -> None:
    """Send a statement that is durable, where there is one: a sender that does not get it asks again."""
    if statement:
        with suppress(ChannelError):
            channel.send(Message.STATEMENT, statement)
