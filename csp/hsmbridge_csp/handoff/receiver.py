"""The receiver's side: take everything, verify everything, claim it durably, import it, promise it.

For each handoff this side signs a receipt or a tombstone, never both: which of the two is decided by one
compare-and-set in the journal, and whoever loses it undoes what he did.

Source: docs/handoff.md.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from hsmbridge.errors import HsmbridgeError
from hsmbridge_csp.channel.errors import ChannelError
from hsmbridge_csp.channel.passing import close_all
from hsmbridge_csp.errors import NTE, BlobError
from hsmbridge_csp.handoff.answering import answer, give_up, let_go, send_quietly
from hsmbridge_csp.handoff.arriving import collect, open_from_channel, open_sealed
from hsmbridge_csp.handoff.errors import AlreadyImportedError, InDoubtError, UnpublishedError
from hsmbridge_csp.handoff.messages import Message, Offer, Query
from hsmbridge_csp.handoff.proof import prove_all
from hsmbridge_csp.handoff.statement import Kind
from hsmbridge_csp.journal import Entry, JournalError, KeyEntry, Owner, Phase, Role

if TYPE_CHECKING:
    from hsmbridge_csp.channel import Channel
    from hsmbridge_csp.handoff.arriving import Arrival
    from hsmbridge_csp.handoff.destination import Destination
    from hsmbridge_csp.handoff.parties import Party
    from hsmbridge_csp.keys import Key

__all__ = ["Received", "Receiver"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """Keys that have arrived; they are this side's from now on.

    Attributes:
        handoff: its id.
        keys: in order, each in exactly the state in which it left.
        statement: the signed receipt.
        attachment: what went along.
        fds: file descriptors that went along; the caller's to close.
    """

    handoff: bytes
    keys: tuple[Key, ...]
    statement: bytes
    attachment: bytes = field(default=b"", repr=False)
    fds: tuple[int, ...] = ()


class Receiver:
    """Takes keys over.

    Args:
        party: who we are.
    """

    def __init__(self, party: Party) -> None:
        self._party = party
        self._journal = party.journal

    def serve(self, channel: Channel, destination: Destination) -> Received | None:
        """Do what the peer comes for: a handoff, or the question what became of an earlier one.

        Args:
            channel: to the sender.
            destination: where keys arrive.

        Returns: what has arrived; None where it was a question.

        Raises:
            AlreadyImportedError: this handoff was decided before; the sender has been told.
            HsmbridgeError: nothing was imported, and the sender has a tombstone.
            InDoubtError: something of the import may be left; the sender gets no answer until ``recover``.
            UnpublishedError: all has arrived and the sender has the receipt, but a key lacks its own name.
        """
        frame = channel.receive()
        if frame.type == Message.QUERY:
            answer(self, self._journal, channel, Query.decode(frame.payload))
            return None
        if frame.type != Message.OFFER:
            raise BlobError("the peer offers nothing", nte=NTE.BAD_TYPE, hint="the sender begins with an offer")
        fds = tuple(frame.fds)
        try:
            return replace(self._accept(channel, Offer.decode(frame.payload), destination), fds=fds)
        except UnpublishedError as error:
            error.received = replace(error.received, fds=fds)
            raise
        except BaseException:
            close_all(frame.fds)
            raise

    def _accept(self, channel: Channel, offer: Offer, destination: Destination) -> Received:
        """Take what is offered; the sender is told, whatever comes of it."""
        entry = self.offered(offer, channel.peer.fingerprint)
        if entry.phase is not Phase.OFFERED or entry.owner != Owner.current():
            return self._again(channel, entry)
        try:
            blobs = collect(channel, offer)
            arrivals = self._open(channel, entry, blobs, destination)
        except ChannelError:
            self.refuse(entry, "the channel broke before all blobs had come")
            raise
        except HsmbridgeError as error:
            send_quietly(channel, self.refuse(entry, type(error).__name__))
            raise
        try:
            received = self.take_over(entry, arrivals, destination, offer.attachment)
        except (InDoubtError, AlreadyImportedError):
            raise
        except Exception:  # whatever it was: what was refused durably is told
            known = self._journal.entry(Role.RECEIVER, entry.handoff)
            if known is not None:
                send_quietly(channel, known.statement)
            raise
        send_quietly(channel, received.statement)
        return received

    def offered(self, offer: Offer, peer: bytes, bundle: str = "") -> Entry:
        """Write down that a handoff is offered.

        Returns: its entry; an earlier one where there is one.

        Raises:
            BlobError: the id was used by another sender.
        """
        entry = Entry(
            handoff=offer.handoff,
            role=Role.RECEIVER,
            phase=Phase.OFFERED,
            peer=peer,
            nonce=offer.nonce,
            count=offer.count,
            digest=offer.digest,
            proof=b"",
            bundle=bundle,
            owner=Owner.current(),
            created=int(time.time()),
            statement=b"",
            remark="",
        )
        if self._journal.begin(entry):
            return entry
        known = self._journal.entry(Role.RECEIVER, offer.handoff)
        if known is None or known.peer != peer:
            raise BlobError("the handoff's id belongs to another sender", nte=NTE.BAD_DATA, hint="begin a new handoff")
        return known

    def take_over(
        self, entry: Entry, arrivals: list[Arrival], destination: Destination, attachment: bytes = b""
    ) -> Received:
        """Claim, import, promise, publish.

        Args:
            entry: offered.
            arrivals: authentic, in order.
            destination: empty.
            attachment: what went along.

        Raises:
            AlreadyImportedError: a blob was claimed before, by this handoff or another one.
            InDoubtError: something of the import may be left.
            UnpublishedError: the keys are here and promised, but a key lacks its own name.
            HsmbridgeError: nothing was imported; the journal has the tombstone, or the bundle can be received again.
        """
        try:
            places = [destination.place(record, blob) for blob, record in arrivals]
        except HsmbridgeError as error:
            give_up(self, self._journal, entry, error)
            raise
        keys = [
            KeyEntry(position=position, blob=blob, place=place, residency="", evidence="")
            for position, ((blob, _), place) in enumerate(zip(arrivals, places, strict=True))
        ]
        if not self._journal.claim(entry.handoff, keys, entry.digest):
            raise AlreadyImportedError(
                f"handoff {entry.handoff.hex()} was imported before, or is being imported by another process",
                hint="a move imports once: see `hsmbridge handoff ls`",
            )
        try:
            for blob, record in arrivals:
                destination.make(record, blob)
            about = entry.handoff + entry.digest + entry.nonce
            proof = prove_all(destination.keys, about)
            statement = self._party.state(entry, Kind.RECEIPT, persisted=destination.persistent, proof=proof)
        except BaseException as error:
            self._undo(entry, destination, error)
            raise
        if not self._journal.advance(Role.RECEIVER, entry.handoff, Phase.CLAIMED, Phase.IMPORTED, statement=statement):
            destination.withdraw()
            raise AlreadyImportedError(
                f"handoff {entry.handoff.hex()} was settled by another process meanwhile",
                hint="what was imported here was removed again; see `hsmbridge handoff ls`",
            )
        held = tuple(destination.keys)
        received = Received(handoff=entry.handoff, keys=held, statement=statement, attachment=attachment)
        try:
            destination.publish()
        except BaseException as error:
            let_go(self._journal, entry, error)
            if isinstance(error, Exception):
                raise UnpublishedError(received, error) from error
            raise
        with contextlib.suppress(JournalError):  # the promise is written; that it was kept, `recover` sees for itself
            self._journal.advance(Role.RECEIVER, entry.handoff, Phase.IMPORTED, Phase.DONE)
        return received

    def refuse(self, entry: Entry, remark: str) -> bytes:
        """Promise never to import a handoff of which nothing was imported; durable before it is returned.

        Returns: the tombstone, or whatever was decided before; empty where nothing is decided.
        """
        statement = self._party.state(entry, Kind.TOMBSTONE)
        phases = (Phase.OFFERED, Phase.CLAIMED)
        if self._journal.advance(
            Role.RECEIVER, entry.handoff, phases, Phase.REFUSED, statement=statement, remark=remark
        ):
            return statement
        known = self._journal.entry(Role.RECEIVER, entry.handoff)
        return known.statement if known is not None else b""

    def _again(self, channel: Channel, entry: Entry) -> Received:
        send_quietly(channel, entry.statement)
        raise AlreadyImportedError(
            f"handoff {entry.handoff.hex()} is {entry.phase} here already",
            hint="a move imports once: see `hsmbridge handoff ls`",
        )

    def _open(self, channel: Channel, entry: Entry, blobs: list[bytes], destination: Destination) -> list[Arrival]:
        if destination.opener is None:
            return open_from_channel(channel, self._party, entry.handoff, blobs)
        return open_sealed(self._party, channel.peer.fingerprint, destination.opener, destination.token, blobs)

    def _undo(self, entry: Entry, destination: Destination, error: BaseException) -> None:
        """Remove what was made and promise never to import; where something may be left, promise nothing."""
        try:
            destination.withdraw()
        except Exception as failure:  # noqa: BLE001 - whatever it is, something may be left
            text = f"{error}; and not everything could be removed: {failure}"
            raise InDoubtError(text, handoff=entry.handoff) from error
        give_up(self, self._journal, entry, error)
