"""Handoffs of the suite: both sides in this process, over a channel or by a bundle, each time with the run's identity.

Source: docs/handoff.md.
"""

from __future__ import annotations

import secrets
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hsmbridge_csp.channel import Channel, Side, Terms
from hsmbridge_csp.handoff.offline import receive_bundle, send_bundle
from hsmbridge_csp.handoff.parties import Party
from hsmbridge_csp.handoff.receiver import Receiver
from hsmbridge_csp.handoff.sender import Sender
from hsmbridge_csp.handoff.source import LiveSource
from hsmbridge_csp.journal import Journal

from hsmbridge_conformance.handing import must_work
from hsmbridge_conformance.importing import run_identity
from hsmbridge_conformance.verdict import Failed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hsmbridge_csp.handoff.destination import Destination
    from hsmbridge_csp.handoff.receiver import Received
    from hsmbridge_csp.keys import Key
    from hsmbridge_csp.recipients import Opener

    from hsmbridge_conformance.handing import Recipient
    from hsmbridge_conformance.rig import Rig

__all__ = ["Ends", "make_bundle", "new_party", "receive", "run_ends"]

_SECONDS = 20.0
"""How long an end waits for the other; a handoff takes milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """How both ends of a connection ended.

    Attributes:
        sender, receiver: what was raised there; None where all went well.
        received: what arrived, where something did.
    """

    sender: BaseException | None
    receiver: BaseException | None
    received: Received | None


def new_party(directory: Path, *, durable: bool = True) -> Party:
    """Return the run's identity with a journal of its own, which nobody has written into.

    Args:
        directory: takes the journal.
        durable: wait for the disk at each step; needless where the journal ends with this very process.
    """
    journal = Journal(directory / f"journal-{secrets.token_hex(8)}.sqlite")
    if not durable:
        with journal.reading() as database:
            database.execute("PRAGMA synchronous=OFF")
    return Party(identity=run_identity(), journal=journal)


def run_ends(
    party: Party,
    send: Callable[[Channel], object],
    destination: Destination,
    between: Callable[[socket.socket], socket.socket] = lambda connection: connection,
) -> Ends:
    """Connect two ends, and let one send while the other receives.

    Args:
        party: both ends: their parts in a journal are different.
        send: what the sending end does with its channel.
        destination: where keys arrive.
        between: gets the sender's connection, and returns the one that the receiver is to have.
    """
    here, there = socket.socketpair()
    there = between(there)
    caught: list[BaseException] = []
    arrived: list[Received] = []

    def serve() -> None:
        try:
            with Channel.over(there, _terms(party, Side.RECEIVER)) as channel:
                received = Receiver(party).serve(channel, destination)
                if received is not None:
                    arrived.append(received)
        except BaseException as error:  # noqa: BLE001 - the other thread's to judge
            caught.append(error)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    failure: BaseException | None = None
    try:
        with Channel.over(here, _terms(party, Side.SENDER)) as channel:
            send(channel)
    except Exception as error:  # noqa: BLE001 - as above
        failure = error
    thread.join(2 * _SECONDS)
    if thread.is_alive():
        raise Failed("the receiving end of a handoff did not come back")
    return Ends(sender=failure, receiver=next(iter(caught), None), received=next(iter(arrived), None))


def _terms(party: Party, side: Side) -> Terms:
    identity = party.identity
    return Terms(side=side, identity=identity, believed=frozenset({identity.fingerprint}), timeout=_SECONDS)


def make_bundle(rig: Rig, to: Recipient, keys: list[Key]) -> Path:
    """Freeze keys of this run and write them into a bundle for the run's own recipient.

    Raises:
        Failed: that does not work; Unsupported: the module lacks a mechanism.
    """
    path = rig.directory / f"bundle-{secrets.token_hex(8)}"
    party = new_party(rig.directory)
    sources = [LiveSource(key) for key in keys]
    with must_work("the bundle could not be made"):
        fingerprint = party.identity.fingerprint
        send_bundle(Sender(party, rig.token), party, sources, path, to.sealer, fingerprint, rig.token)
    party.journal.close()
    return path


def receive(party: Party, path: Path, opener: Opener, destination: Destination) -> Received:
    """Receive a bundle.

    Raises:
        HsmbridgeError: it was refused.
    """
    return receive_bundle(Receiver(party), party, path, opener, destination)
