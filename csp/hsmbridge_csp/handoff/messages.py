"""What the two ends of a handoff say to each other over a channel.

Each message is one frame; its payload is deterministic CBOR, or the bytes of blobs or of a statement as they are.

Source: docs/handoff.md, "Over a channel"; docs/channel.md (frames).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum

from hsmbridge_csp import cbor
from hsmbridge_csp.errors import NTE, BlobError

__all__ = ["BATCH", "MAX_ATTACHMENT", "Message", "Offer", "Query", "pack_blobs", "unpack_blobs"]

BATCH = 1 << 18
"""Bytes of blobs in one frame at most, unless a single blob is longer."""

MAX_KEYS = 1_000_000
MAX_ATTACHMENT = 1 << 19
"""Bytes that may go along with the keys of a handoff."""
_VERSION = 1
_LENGTH = struct.Struct(">I")
_HINT = "both ends must run versions of hsmbridge that speak the same protocol"


class Message(IntEnum):
    """Frame types of the handoff, above those of the channel."""

    OFFER = 16
    BLOBS = 17
    STATEMENT = 18
    QUERY = 19
    UNDECIDED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What the sender is going to send, before the first blob.

    Attributes:
        handoff: 16 bytes; nonce: 32 bytes; count: of blobs; digest: running hash over all of them.
        attachment: what goes along with the keys: a connection's unread bytes, say. File descriptors travel with the
            offer's frame.
    """

    handoff: bytes
    nonce: bytes
    count: int
    digest: bytes
    attachment: bytes = field(default=b"", repr=False)

    def encode(self) -> bytes:
        """Return the payload."""
        return cbor.encode([_VERSION, self.handoff, self.nonce, self.count, self.digest, self.attachment])

    @classmethod
    def decode(cls, payload: bytes) -> Offer:
        """Read a payload.

        Raises:
            BlobError: not an offer.
        """
        match cbor.decode(payload):
            case [
                1,
                bytes() as handoff,
                bytes() as nonce,
                int() as count,
                bytes() as digest,
                bytes() as attachment,
            ] if (len(handoff), len(nonce), len(digest)) == (16, 32, 32) and 0 < count <= MAX_KEYS:
                return cls(handoff=handoff, nonce=nonce, count=count, digest=digest, attachment=attachment)
        raise BlobError("the sender's offer is malformed", nte=NTE.BAD_DATA, hint=_HINT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """The sender's question what became of a handoff.

    Attributes:
        handoff: 16 bytes; nonce: that of the handoff, 32 bytes.
    """

    handoff: bytes
    nonce: bytes

    def encode(self) -> bytes:
        """Return the payload."""
        return cbor.encode([_VERSION, self.handoff, self.nonce])

    @classmethod
    def decode(cls, payload: bytes) -> Query:
        """Read a payload.

        Raises:
            BlobError: not a query.
        """
        match cbor.decode(payload):
            case [1, bytes() as handoff, bytes() as nonce]:
                if (len(handoff), len(nonce)) == (16, 32):
                    return cls(handoff=handoff, nonce=nonce)
        raise BlobError("the sender's question is malformed", nte=NTE.BAD_DATA, hint=_HINT)


def pack_blobs(blobs: list[bytes]) -> bytes:
    """Return the payload of one BLOBS frame: each blob behind its length (u32, big-endian)."""
    return b"".join(part for blob in blobs for part in (_LENGTH.pack(len(blob)), blob))


def unpack_blobs(payload: bytes) -> list[bytes]:
    """Read what :func:`pack_blobs` wrote.

    Raises:
        BlobError: the lengths do not fit the payload.
    """
    blobs = []
    offset = 0
    while offset < len(payload):
        if offset + _LENGTH.size > len(payload):
            break
        (length,) = _LENGTH.unpack_from(payload, offset)
        offset += _LENGTH.size
        blobs.append(payload[offset : offset + length])
        offset += length
    if offset != len(payload) or not blobs:
        raise BlobError("a frame of blobs is malformed", nte=NTE.BAD_DATA, hint=_HINT)
    return blobs
