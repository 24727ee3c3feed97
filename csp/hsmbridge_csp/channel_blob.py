"""Blobs for the other end of a channel: sealed under a key that only the two ends have, each blob once and in order.

The channel has proven who is there, so nobody signs and no key wraps the content key. All blobs of one handoff share
one key; the IV counts them, so none can be left out, repeated or taken for another.

Blobs of keys of one kind differ in blob id, IV and ciphertext alone. What they have in common is made once, as a
mould; a blob that fits into it byte by byte needs no parsing again, since between its fixed bytes any id and any IV is
as good an encoding.

Source: docs/blob-format.md, "Over a channel"; RFC 9052 section 5.2; NIST SP 800-38D section 8.2.1.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hsmbridge_csp import cbor
from hsmbridge_csp.blob import MAX_BLOB, header_for, parse_channel_blob
from hsmbridge_csp.clearpart import BLOB_ID_AT, BLOB_ID_SIZE, ClearPart, Purpose
from hsmbridge_csp.cose import IV_SIZE
from hsmbridge_csp.cose_encrypt0 import CoseEncrypt0
from hsmbridge_csp.errors import NTE, BlobError
from hsmbridge_csp.record import KeyRecord, Transfer
from hsmbridge_csp.wipe import wipe

__all__ = ["MAX_BLOBS", "ChannelOpener", "ChannelSealer"]

MAX_BLOBS = 1 << 32
"""Blobs under one key (NIST SP 800-38D section 8.3). The channel's own key is used up long before."""

_AGAIN = "start the handoff again"


class _Mould:
    """What blobs have in common that differ in blob id, IV and ciphertext alone.

    Args:
        clear: the clear part of one of them.
    """

    __slots__ = ("_aad", "_back", "_front", "_kind", "_places")

    def __init__(self, clear: ClearPart) -> None:
        protected, header = clear.encode(), header_for(clear)
        self._kind = _kind(clear)
        empty = CoseEncrypt0(protected=protected, iv=bytes(IV_SIZE), ciphertext=b"")
        before_iv = (header + empty.encode())[: -IV_SIZE - len(cbor.encode(b""))]
        self._front, self._back = _around_id(before_iv, protected)
        self._aad = _around_id(empty.aad(header), protected)
        id_at = len(self._front)
        back_at = id_at + BLOB_ID_SIZE
        iv_at = back_at + len(self._back)
        self._places = id_at, back_at, iv_at, iv_at + IV_SIZE

    def is_for(self, clear: ClearPart) -> bool:
        """Tell whether a blob with this clear part comes out of the mould."""
        return self._kind == _kind(clear) and len(clear.blob_id) == BLOB_ID_SIZE

    def fill(self, blob_id: bytes, iv: bytes, ciphertext: bytes) -> bytes:
        """Return a blob."""
        return b"".join((self._front, blob_id, self._back, iv, cbor.encode(ciphertext)))

    def aad(self, blob_id: bytes) -> bytes:
        """Return what AES-GCM authenticates besides the ciphertext: the Enc_structure."""
        front, back = self._aad
        return front + blob_id + back

    def take_out(self, data: bytes) -> tuple[bytes, bytes, bytes] | None:
        """Return blob id, IV and the encoding of the ciphertext; None if *data* does not come out of this mould."""
        id_at, back_at, iv_at, ciphertext_at = self._places
        if len(data) > MAX_BLOB or not data.startswith(self._front) or data[back_at:iv_at] != self._back:
            return None
        return data[id_at:back_at], data[iv_at:ciphertext_at], data[ciphertext_at:]

    def clear(self, blob_id: bytes) -> ClearPart:
        """Return the clear part of a blob."""
        created, key_type, bits, by_reference, purpose, sender, recipient = self._kind
        return ClearPart(
            blob_id=blob_id,
            created=created,
            key_type=key_type,
            bits=bits,
            by_reference=by_reference,
            purpose=purpose,
            sender=sender,
            recipient=recipient,
        )


def _kind(clear: ClearPart) -> tuple[int, str, int, bool, Purpose, bytes, bytes]:
    return (
        clear.created, clear.key_type, clear.bits, clear.by_reference, clear.purpose, clear.sender, clear.recipient,
    )  # fmt: skip


def _around_id(whole: bytes, protected: bytes) -> tuple[bytes, bytes]:
    at = whole.index(protected) + BLOB_ID_AT
    return whole[:at], whole[at + BLOB_ID_SIZE :]


class _End:
    """What both ends have.

    Args:
        key: 32 bytes that nothing else is sealed with, from the channel; ours to overwrite.
        sender: fingerprint of the end that seals, as the channel has proven it.
        recipient: of the end that opens.
    """

    __slots__ = ("_count", "_gcm", "_key", "_mould", "_process", "_recipient", "_sender")

    def __init__(self, key: bytes, sender: bytes, recipient: bytes) -> None:
        self._gcm: AESGCM | None = AESGCM(key)
        self._key = key
        self._sender, self._recipient = sender, recipient
        self._count = 0
        self._mould: _Mould | None = None
        self._process = os.getpid()

    def forget(self) -> None:
        """Overwrite the key: the handoff is over."""
        self._gcm = None
        wipe(self._key)
        self._key = b""

    def _ready(self) -> tuple[AESGCM, bytes]:
        # A forked child would count as its parent does, and use each nonce once more.
        if self._gcm is None or self._count >= MAX_BLOBS or self._process != os.getpid():
            raise BlobError(
                f"the key of this handoff is of no more use after {self._count} blobs", nte=NTE.BAD_KEY, hint=_AGAIN
            )
        return self._gcm, self._count.to_bytes(IV_SIZE, "big")

    def _check_ends(self, clear: ClearPart) -> None:
        if clear.purpose is not Purpose.MOVE:
            raise BlobError("over a channel a key moves, and is never copied", nte=NTE.BAD_DATA, hint=_AGAIN)
        if clear.sender != self._sender or clear.recipient != self._recipient:
            raise BlobError(
                "the blob names other ends than the channel has",
                nte=NTE.BAD_DATA,
                hint="it was made for another handoff; start this one again",
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self._count}>"


class ChannelSealer(_End):
    """Seals the blobs of one handoff, for the other end of a channel."""

    __slots__ = ()

    def seal(self, clear: ClearPart, record: KeyRecord) -> bytes:
        """Seal a key record: the next blob of the handoff.

        Args:
            clear: a move, from this end to the other one.
            record: the secret part.

        Raises:
            BlobError: the clear part names others than the two ends, or the key has sealed all that it may.
        """
        gcm, iv = self._ready()
        mould = self._mould
        if mould is None or not mould.is_for(clear):
            self._check_ends(clear)
            mould = self._mould = _Mould(clear)
        plaintext = record.encode()
        # Counted before it is used: whatever happens now, this nonce is not used again.
        self._count += 1
        try:
            ciphertext = gcm.encrypt(iv, plaintext, mould.aad(clear.blob_id))
        finally:
            wipe(plaintext)
        return mould.fill(clear.blob_id, iv, ciphertext)


class ChannelOpener(_End):
    """Opens the blobs of one handoff, in the order in which they were sealed."""

    __slots__ = ()

    def open(self, data: bytes) -> tuple[ClearPart, KeyRecord]:
        """Open the next blob of the handoff.

        Raises:
            BlobError: not a blob for this end of this channel, not the next one, not authentic, or not readable.
        """
        gcm, expected = self._ready()
        mould = self._mould
        parts = mould.take_out(data) if mould is not None else None
        if mould is None or parts is None:
            mould, parts = self._parse(data)
        blob_id, iv, encoded = parts
        if iv != expected:
            raise BlobError(
                f"the blob is not number {self._count} of this handoff",
                nte=NTE.BAD_DATA,
                hint="blobs were repeated, re-ordered or left out; start the handoff again",
            )
        ciphertext = cbor.decode(encoded)
        try:
            plaintext = gcm.decrypt(iv, ciphertext, mould.aad(blob_id)) if isinstance(ciphertext, bytes) else None
        except InvalidTag:
            plaintext = None
        if plaintext is None:
            raise BlobError(
                "the blob is not authentic: it was changed, or is another channel's", nte=NTE.BAD_DATA, hint=_AGAIN
            )
        try:
            record = KeyRecord.decode(plaintext)
        finally:
            wipe(plaintext)
        clear = mould.clear(blob_id)
        if record.algorithm != clear.key_type or (record.transfer is Transfer.REFERENCE) != clear.by_reference:
            raise BlobError("clear and encrypted part speak of different keys", nte=NTE.BAD_ALGID, hint=_AGAIN)
        self._mould = mould
        self._count += 1
        return clear, record

    def _parse(self, data: bytes) -> tuple[_Mould, tuple[bytes, bytes, bytes]]:
        clear, _ = parse_channel_blob(data)
        self._check_ends(clear)
        mould = _Mould(clear)
        parts = mould.take_out(data)
        if parts is None:
            # What was parsed is deterministic, so its encoding is what came; this line is here should that ever change.
            raise BlobError("the blob is not in deterministic encoding", nte=NTE.BAD_DATA, hint=_AGAIN)
        return mould, parts
