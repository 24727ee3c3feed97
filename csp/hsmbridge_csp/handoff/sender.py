"""The sender's side: freeze, seal, deliver, wait for the recipient's word, and act on it.

Whatever happens in between, the source is frozen until it is destroyed on a receipt, or goes on because no sealed byte
has left or on a tombstone. Time is never evidence.

Source: docs/handoff.md.
"""

from __future__ import annotations

import secrets
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from hsmbridge.errors import HsmbridgeError, UsageError
from hsmbridge_csp.handoff.ends import Moved, Pending
from hsmbridge_csp.handoff.errors import HandoffError, InDoubtError, RefusedError
from hsmbridge_csp.handoff.exporting import Export, sealed_for_channel, sealed_for_recipient
from hsmbridge_csp.handoff.messages import Message, Offer, Query
from hsmbridge_csp.handoff.source import look_gone
from hsmbridge_csp.handoff.statement import Kind
from hsmbridge_csp.journal import Entry, KeyEntry, Owner, Phase, Role
from hsmbridge_csp.permissions import Permission

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hsmbridge.token import Token
    from hsmbridge_csp.channel import Channel
    from hsmbridge_csp.handoff.parties import Party
    from hsmbridge_csp.handoff.source import Source
    from hsmbridge_csp.recipients import Sealer

__all__ = ["Moved", "Pending", "Sender"]

HANDOFF_ID = 16
NONCE = 32


class Sender:
    """Hands keys over.

    Args:
        party: who we are.
        token: where token keys live; None for software keys only.
    """

    def __init__(self, party: Party, token: Token | None = None) -> None:
        self._party = party
        self._journal = party.journal
        self._token = token

    def send(
        self,
        sources: Sequence[Source],
        channel: Channel,
        recipient: Sealer | None = None,
        *,
        attachment: bytes = b"",
        fds: Sequence[int] = (),
    ) -> Moved:
        """Hand keys over to the live process at the other end of a channel, all or none.

        Args:
            sources: the keys; frozen from here on.
            channel: to the recipient.
            recipient: its key, for token keys that go by value; None seals for the channel alone.
            attachment: what goes along, under the same running hash: at most 512 KiB.
            fds: file descriptors whose duplicates go along; the caller closes its own.

        Returns: what became of the keys.

        Raises:
            RefusedError: the recipient did not import; the keys go on here.
            InDoubtError: nobody knows; the keys stay frozen.
            HsmbridgeError: the handoff could not begin; the keys go on here.
        """
        pending = self._prepare(sources, channel.peer.fingerprint)
        with self.thawing(pending), Export(pending.entry.handoff, attachment) as export:
            if recipient is None:
                sealed = sealed_for_channel(export, pending, channel, self._party.identity)
            else:
                sealed = sealed_for_recipient(export, pending, recipient, self._party.identity, self._token)
            pending = self.sealed(pending, sealed)
            entry = pending.entry
            offer = Offer(
                handoff=entry.handoff,
                nonce=entry.nonce,
                count=entry.count,
                digest=entry.digest,
                attachment=attachment,
            )
            channel.send(Message.OFFER, offer.encode(), fds)
            with self.doubting(entry.handoff):
                for payload in export.batches():
                    channel.send(Message.BLOBS, payload)
                answer = self._await(channel, entry.handoff)
        return self.settle(pending, answer)

    def ask(self, pending: Pending, channel: Channel) -> Moved:
        """Ask the recipient, over another channel, what became of a handoff, and act on it.

        Raises:
            RefusedError, InDoubtError: as for :meth:`send`.
        """
        entry = pending.entry
        with self.doubting(entry.handoff):
            channel.send(Message.QUERY, Query(handoff=entry.handoff, nonce=entry.nonce).encode())
            answer = self._await(channel, entry.handoff)
        return self.settle(pending, answer)

    def settle(self, pending: Pending, statement: bytes) -> Moved:
        """Act on the recipient's word: destroy on a receipt, let go on on a tombstone.

        Raises:
            RefusedError: it was a tombstone; the keys go on here.
            StatementError: it is not the recipient's word about this handoff; nothing was done.
            InDoubtError: another process of this user settles it just now.
        """
        entry = pending.entry
        said = self._party.read_answer(entry, statement)
        if said.kind is Kind.TOMBSTONE:
            for source in pending.sources:  # first: who finds THAWED in the journal has nothing left to do
                source.thaw(entry.handoff)
            self._advance(entry, Phase.SENT, Phase.THAWED, remark="the recipient refused", statement=statement)
            raise RefusedError(
                f"the recipient did not import handoff {entry.handoff.hex()}, and never will",
                hint="the keys go on here; see what the recipient reported, then hand them over anew",
            )
        self._advance(entry, Phase.SENT, Phase.COMMITTED, statement=statement)
        dispositions = tuple(source.destroy(entry.handoff) for source in pending.sources)
        look_gone([path for source in pending.sources if (path := source.remains(entry.handoff)) is not None])
        outcomes = [f"{found.outcome}: {'; '.join(found.evidence)}" for found in dispositions]
        self._advance(entry, Phase.COMMITTED, Phase.DONE, dispositions=outcomes)
        return Moved(handoff=entry.handoff, dispositions=dispositions, persisted=said.persisted)

    def prepare_bundle(self, sources: Sequence[Source], peer: bytes, path: str) -> Pending:
        """Write the intent of an offline handoff and freeze the keys; see :mod:`hsmbridge_csp.handoff.offline`."""
        return self._prepare(sources, peer, bundle=path)

    def _prepare(self, sources: Sequence[Source], peer: bytes, bundle: str = "") -> Pending:
        """Write the intent down, then freeze: whoever finds frozen keys finds out why."""
        if not sources or len({id(source.key) for source in sources}) != len(sources):
            raise UsageError("a handoff is of one or more different keys", hint="name each key once")
        keys = []
        for position, source in enumerate(sources):
            source.key.check_usable(Permission.EXPORT)
            found = source.key.classify()
            keys.append(
                KeyEntry(
                    position=position,
                    blob=b"",
                    place=source.place,
                    residency=str(found.residency),
                    evidence="; ".join(found.evidence),
                )
            )
        entry = Entry(
            handoff=secrets.token_bytes(HANDOFF_ID),
            role=Role.SENDER,
            phase=Phase.INTENT,
            peer=peer,
            nonce=secrets.token_bytes(NONCE),
            count=len(sources),
            digest=b"",
            proof=b"",
            bundle=bundle,
            owner=Owner.current(),
            created=int(time.time()),
            statement=b"",
            remark="",
        )
        self._journal.begin(entry, keys)
        pending = Pending(entry=entry, sources=tuple(sources))
        with self.thawing(pending):
            for source in sources:
                source.freeze(entry.handoff)
        return pending

    def sealed(self, pending: Pending, sealed: tuple[list[bytes], bytes, bytes]) -> Pending:
        """Note durably what is about to leave: from now on only the recipient's word ends the handoff."""
        blobs, digest, proof = sealed
        self._advance(pending.entry, Phase.INTENT, Phase.SENT, blobs=blobs, digest=digest, proof=proof)
        return replace(pending, entry=replace(pending.entry, phase=Phase.SENT, digest=digest, proof=proof))

    def _await(self, channel: Channel, handoff: bytes) -> bytes:
        frame = channel.receive()
        if frame.type == Message.STATEMENT:
            return frame.payload
        if frame.type == Message.UNDECIDED:
            raise InDoubtError("the recipient is still at work on it", handoff=handoff)
        raise InDoubtError(f"the recipient answered with a message of type {frame.type}", handoff=handoff)

    def _advance(self, entry: Entry, before: Phase, after: Phase, **fields: object) -> None:
        if not self._journal.advance(Role.SENDER, entry.handoff, before, after, **fields):  # type: ignore[arg-type]  # columns
            raise InDoubtError("another process settles it just now", handoff=entry.handoff)

    @contextmanager
    def thawing(self, pending: Pending) -> Iterator[None]:
        """As long as no sealed byte has left, a failure lets the keys go on."""
        try:
            yield
        except InDoubtError:
            raise
        except BaseException as error:
            for source in pending.sources:
                source.thaw(pending.entry.handoff)
            phases = (Phase.INTENT, Phase.SENT)
            self._journal.advance(
                Role.SENDER, pending.entry.handoff, phases, Phase.THAWED, remark=f"not sent: {type(error).__name__}"
            )
            raise

    @contextmanager
    def doubting(self, handoff: bytes) -> Iterator[None]:
        """Once a sealed byte has left, a failure leaves the handoff in doubt, whatever it was."""
        try:
            yield
        except InDoubtError:
            raise
        except HandoffError as error:
            raise InDoubtError(str(error), handoff=handoff) from error
        except HsmbridgeError as error:
            raise InDoubtError(f"the recipient gave no answer: {error}", handoff=handoff) from error
        except BaseException as error:
            raise InDoubtError(f"interrupted ({type(error).__name__})", handoff=handoff) from error
