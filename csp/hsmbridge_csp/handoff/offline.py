"""Handoffs without a connection: a bundle goes one way, a receipt file comes back.

Source: docs/handoff.md, "Offline".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsmbridge.errors import ExistsError, KekError
from hsmbridge_csp.handoff.alone import importing_alone
from hsmbridge_csp.handoff.arriving import check_whole, open_sealed
from hsmbridge_csp.handoff.bundle import BundleHeader, read_blobs, unfinished_name, verify_bundle, write_bundle
from hsmbridge_csp.handoff.durable import give_name
from hsmbridge_csp.handoff.errors import AlreadyImportedError, InDoubtError
from hsmbridge_csp.handoff.exporting import Export, sealed_for_recipient
from hsmbridge_csp.handoff.messages import Offer
from hsmbridge_csp.journal import Owner, Phase, Role

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hsmbridge.token import Token
    from hsmbridge_csp.handoff.destination import Destination
    from hsmbridge_csp.handoff.ends import Pending
    from hsmbridge_csp.handoff.parties import Party
    from hsmbridge_csp.handoff.receiver import Received, Receiver
    from hsmbridge_csp.handoff.sender import Sender
    from hsmbridge_csp.handoff.source import Source
    from hsmbridge_csp.journal import Entry
    from hsmbridge_csp.recipients import Opener, Sealer

__all__ = ["receive_bundle", "send_bundle"]


def send_bundle(  # noqa: PLR0913, PLR0917 - who, what, for whom, where
    sender: Sender,
    party: Party,
    sources: Sequence[Source],
    path: Path,
    recipient: Sealer,
    peer: bytes,
    token: Token | None = None,
) -> Pending:
    """Freeze keys and write them into a bundle; the sources wait for the receipt.

    Args:
        sender: writes the journal.
        party: who we are.
        sources: the keys.
        path: a new file.
        recipient: the key that they are sealed for.
        peer: fingerprint of the identity that is to sign the receipt.
        token: where token keys live.

    Returns: what ``settle`` takes, together with the receipt.

    Raises:
        InDoubtError: the bundle may be out, and the keys stay frozen: `recover` gives it its name.
        HsmbridgeError: the keys go on here, and no bundle is left.
    """
    path = path.absolute()
    if path.exists():
        raise ExistsError(f"{path} is there already", hint="name a new file")
    pending = sender.prepare_bundle(sources, peer, str(path))
    unfinished = unfinished_name(path, pending.entry.handoff)
    entry = pending.entry
    header = BundleHeader(
        handoff=entry.handoff,
        nonce=entry.nonce,
        sender=party.identity.fingerprint,
        peer=peer,
        recipient=recipient.fingerprint,
        count=entry.count,
    )
    with sender.thawing(pending), Export(entry.handoff) as export:
        try:
            sealed = sealed_for_recipient(export, pending, recipient, party.identity, token)
            write_bundle(unfinished, header, export.blobs(), party.identity)
            pending = sender.sealed(pending, sealed)
        except BaseException as error:
            _discard(unfinished, entry.handoff, error)
            raise
    with sender.doubting(entry.handoff):  # from here on somebody may have the bundle
        give_name(unfinished, path)
    return pending


def _discard(unfinished: Path, handoff: bytes, why: BaseException) -> None:
    """Remove a bundle that is not to be.

    Raises:
        InDoubtError: it is still there, where somebody may find it: the keys do not go on beside it.
    """
    try:
        unfinished.unlink(missing_ok=True)
    except OSError as failure:
        raise InDoubtError(f"{unfinished} cannot be removed: {failure.strerror}", handoff=handoff) from why


def receive_bundle(receiver: Receiver, party: Party, path: Path, opener: Opener, destination: Destination) -> Received:
    """Verify a bundle whole, then import it, all or nothing.

    Args:
        receiver: writes the journal.
        party: who we are, and whom we believe.
        path: the bundle.
        opener: the key that it is sealed for.
        destination: where the keys arrive.

    Returns: the keys, and the receipt that goes back to the sender.

    Raises:
        BlobError: not an authentic bundle; nothing was claimed or imported.
        AlreadyImportedError: it was imported, or refused, before; the error carries what was promised then.
        ExistsError: another process imports it right now, or the token has the key.
        HsmbridgeError: nothing was imported; the journal has the tombstone for the sender.
    """
    header, digest = verify_bundle(path, party.key_of)
    if header.peer != party.identity.fingerprint:
        raise KekError(
            f"the bundle wants its receipt from {header.peer.hex()}", hint="receive it as that identity (--identity)"
        )
    offer = Offer(handoff=header.handoff, nonce=header.nonce, count=header.count, digest=digest)
    entry = _taken(party, receiver.offered(offer, header.sender, str(path)))
    blobs = list(read_blobs(path, header.count))
    check_whole(header.handoff, blobs, header.count, digest)
    with importing_alone(header.handoff, digest):
        arrivals = open_sealed(party, header.sender, opener, destination.token, blobs)
        return receiver.take_over(entry, arrivals, destination)


def _taken(party: Party, entry: Entry) -> Entry:
    """Make a handoff ours to import: a new one, or one whose importing process died before it had promised anything."""
    if entry.owner == Owner.current() and entry.phase is Phase.OFFERED:
        return entry
    if (
        entry.phase is Phase.OFFERED
        and not entry.owner.alive
        and party.journal.advance(
            Role.RECEIVER, entry.handoff, Phase.OFFERED, Phase.OFFERED, owner=Owner.current(), remark="taken up again"
        )
    ):
        return entry
    raise AlreadyImportedError(
        f"handoff {entry.handoff.hex()} is {entry.phase} here already",
        hint="a move imports once; if its process died, run `hsmbridge handoff recover` and then receive again",
    )
