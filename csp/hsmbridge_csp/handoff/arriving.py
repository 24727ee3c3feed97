"""Opening what arrived: every blob is authentic and for us before the first key is made.

Source: docs/handoff.md; docs/blob-format.md.
"""

from __future__ import annotations

import hmac
from contextlib import nullcontext
from typing import TYPE_CHECKING

from hsmbridge.destruction import Ours
from hsmbridge_csp.blob import Blob
from hsmbridge_csp.channel import Side
from hsmbridge_csp.channel_blob import ChannelOpener
from hsmbridge_csp.clearpart import Purpose
from hsmbridge_csp.errors import NTE, BlobError
from hsmbridge_csp.handoff.exporting import channel_label
from hsmbridge_csp.handoff.messages import Message, unpack_blobs
from hsmbridge_csp.handoff.proof import RunningDigest
from hsmbridge_csp.sealing import open_blob, verify_blob
from hsmbridge_csp.trust import UnknownSenderError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hsmbridge.token import Token
    from hsmbridge_csp.channel import Channel
    from hsmbridge_csp.handoff.messages import Offer
    from hsmbridge_csp.handoff.parties import Party
    from hsmbridge_csp.identity import VerifyingKey
    from hsmbridge_csp.recipients import Opener
    from hsmbridge_csp.record import KeyRecord

__all__ = ["Arrival", "check_whole", "collect", "open_from_channel", "open_sealed"]

Arrival = tuple[bytes, "KeyRecord"]
"""A blob's id and what was in it."""

_HINT = "nothing was imported; have the sender hand the keys over again"


def check_whole(handoff: bytes, blobs: Iterable[bytes], count: int, digest: bytes, attachment: bytes = b"") -> None:
    """Compare what came with what was announced, before anything is opened.

    Raises:
        BlobError: a blob is missing, added, changed or in another place.
    """
    running = RunningDigest(handoff, attachment)
    for blob in blobs:
        running.add(blob)
    if running.count != count or not hmac.compare_digest(running.digest(), digest):
        raise BlobError("the blobs are not those that the sender announced", nte=NTE.BAD_DATA, hint=_HINT)


def collect(channel: Channel, offer: Offer) -> list[bytes]:
    """Take all blobs of an offer from its channel.

    Raises:
        BlobError: the sender broke off, or they are not those that were announced; ChannelError: it broke.
    """
    blobs: list[bytes] = []
    while len(blobs) < offer.count:
        frame = channel.receive()
        if frame.type != Message.BLOBS:
            raise BlobError("the sender broke off", nte=NTE.BAD_DATA, hint="nothing was imported")
        blobs += unpack_blobs(frame.payload)
    check_whole(offer.handoff, blobs, offer.count, offer.digest, offer.attachment)
    return blobs


def open_from_channel(channel: Channel, party: Party, handoff: bytes, blobs: Iterable[bytes]) -> list[Arrival]:
    """Open blobs that were sealed for this channel alone.

    Raises:
        BlobError: not authentic, out of order, or not a move.
    """
    key = channel.content_key(Side.SENDER, channel_label(handoff))
    opener = ChannelOpener(key, channel.peer.fingerprint, party.identity.fingerprint)
    arrivals = []
    try:
        for blob in blobs:
            clear, record = opener.open(blob)
            _check_move(clear.purpose)
            arrivals.append((clear.blob_id, record))
    finally:
        opener.forget()
    return arrivals


def open_sealed(
    party: Party, sender: bytes, opener: Opener, token: Token | None, blobs: Iterable[bytes]
) -> list[Arrival]:
    """Verify and open blobs that were sealed for the recipient's key; all signatures come before the first unwrap.

    Args:
        party: whom we believe.
        sender: fingerprint of the identity that must have signed.
        opener: the recipient's key.
        token: where it lives; None for a key in a file.
        blobs: their bytes.

    Raises:
        BlobError: not authentic, or not a move; UnknownSenderError: signed by somebody else.
    """

    def key_of(fingerprint: bytes) -> VerifyingKey:
        if fingerprint != sender:
            raise UnknownSenderError("a blob of the handoff is signed by somebody else", hint=_HINT)
        return party.key_of(fingerprint)

    parsed = [Blob.parse(blob) for blob in blobs]
    for blob in parsed:
        verify_blob(blob, key_of)
        _check_move(blob.clear.purpose)
    arrivals = []
    for blob in parsed:
        with nullcontext() if token is None else Ours(token) as ours:
            arrivals.append((blob.clear.blob_id, open_blob(blob, opener, ours)))
    return arrivals


def _check_move(purpose: Purpose) -> None:
    if purpose is not Purpose.MOVE:
        raise BlobError(
            "a blob of the handoff is a copy", nte=NTE.BAD_DATA, hint="import a copy with `hsmbridge import`"
        )
