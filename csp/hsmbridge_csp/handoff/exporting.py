"""Sealing all keys of a handoff, before the first of them leaves.

The sealed blobs wait in a spool that goes to disk when it grows: they are worth nothing to anybody but the recipient.

Source: docs/handoff.md; docs/blob-format.md.
"""

from __future__ import annotations

import secrets
import struct
import tempfile
import time
from typing import TYPE_CHECKING, Self

from hsmbridge.destruction import Ours
from hsmbridge_csp.channel import Side
from hsmbridge_csp.channel_blob import ChannelSealer
from hsmbridge_csp.clearpart import BLOB_ID_SIZE, ClearPart, Purpose
from hsmbridge_csp.handoff.messages import BATCH, pack_blobs
from hsmbridge_csp.handoff.proof import RunningDigest, prove_all
from hsmbridge_csp.sealing import seal_blob, sign_blob
from hsmbridge_csp.transfer import bits_of, record_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from hsmbridge.token import Token
    from hsmbridge_csp.channel import Channel
    from hsmbridge_csp.handoff.ends import Pending
    from hsmbridge_csp.handoff.source import Source
    from hsmbridge_csp.identity import Identity
    from hsmbridge_csp.recipients import Sealer
    from hsmbridge_csp.record import KeyRecord

__all__ = ["Export", "channel_label", "sealed_for_channel", "sealed_for_recipient"]

_IN_MEMORY = 8 << 20
"""Bytes of sealed blobs that are kept in memory."""

_LENGTH = struct.Struct(">I")


class Export:
    """The sealed blobs of one handoff, in order.

    Args:
        handoff: its id.
        attachment: what goes along with the keys.
    """

    def __init__(self, handoff: bytes, attachment: bytes = b"") -> None:
        self._spool = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - closed by __exit__
        self._digest = RunningDigest(handoff, attachment)
        self.ids: list[bytes] = []

    def add(self, blob_id: bytes, blob: bytes) -> None:
        """Keep one more blob."""
        self._spool.write(_LENGTH.pack(len(blob)))
        self._spool.write(blob)
        self._digest.add(blob)
        self.ids.append(blob_id)

    @property
    def digest(self) -> bytes:
        """The running hash over all blobs."""
        return self._digest.digest()

    def blobs(self) -> Iterator[bytes]:
        """Yield all blobs in order."""
        self._spool.seek(0)
        while head := self._spool.read(_LENGTH.size):
            yield self._spool.read(_LENGTH.unpack(head)[0])

    def batches(self) -> Iterator[bytes]:
        """Yield the payloads of the frames that carry all blobs."""
        batch: list[bytes] = []
        size = 0
        for blob in self.blobs():
            if batch and size + len(blob) > BATCH:
                yield pack_blobs(batch)
                batch, size = [], 0
            batch.append(blob)
            size += len(blob) + _LENGTH.size
        yield pack_blobs(batch)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._spool.close()


Sealed = tuple[list[bytes], bytes, bytes]
"""Blob ids in order, running hash, and the hash of the keys' answers that a receipt must give."""


def channel_label(handoff: bytes) -> bytes:
    """Return the label under which a channel gives the content key of one handoff."""
    return b"handoff/1" + handoff


def sealed_for_channel(export: Export, pending: Pending, channel: Channel, identity: Identity) -> Sealed:
    """Seal all keys under a key that only the two ends of this channel have.

    Raises:
        HsmbridgeError: a key cannot go; nothing has left.
    """
    handoff, peer = pending.entry.handoff, pending.entry.peer
    key = channel.content_key(Side.SENDER, channel_label(handoff))
    sealer = ChannelSealer(key, identity.fingerprint, peer)
    try:
        for source in pending.sources:
            by_reference = not source.key.classify().is_software
            record = record_of(source.key, None, by_reference=by_reference)
            clear = _clear_part(source, record, identity, peer, by_reference=by_reference)
            export.add(clear.blob_id, sealer.seal(clear, record))
    finally:
        sealer.forget()
    return export.ids, export.digest, _proof(export, pending)


def sealed_for_recipient(
    export: Export, pending: Pending, recipient: Sealer, identity: Identity, token: Token | None
) -> Sealed:
    """Seal all keys for a recipient's key, each blob signed.

    Raises:
        HsmbridgeError: a key cannot go; nothing has left.
    """
    for source in pending.sources:
        by_reference = not source.key.classify().is_software
        record = record_of(source.key, recipient, by_reference=by_reference)
        clear = _clear_part(source, record, identity, recipient.fingerprint, by_reference=by_reference)
        if token is None:
            blob = seal_blob(clear, record, recipient, None)
        else:
            with Ours(token) as ours:
                blob = seal_blob(clear, record, recipient, ours)
        export.add(clear.blob_id, sign_blob(blob, identity).encode())
    return export.ids, export.digest, _proof(export, pending)


def _clear_part(
    source: Source, record: KeyRecord, identity: Identity, recipient: bytes, *, by_reference: bool
) -> ClearPart:
    return ClearPart(
        blob_id=secrets.token_bytes(BLOB_ID_SIZE),
        created=int(time.time()),
        key_type=record.algorithm,
        bits=bits_of(source.key, record),
        by_reference=by_reference,
        purpose=Purpose.MOVE,
        sender=identity.fingerprint,
        recipient=recipient,
    )


def _proof(export: Export, pending: Pending) -> bytes:
    entry = pending.entry
    return prove_all((source.key for source in pending.sources), entry.handoff + export.digest + entry.nonce)
