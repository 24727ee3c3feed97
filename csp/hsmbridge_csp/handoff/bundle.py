"""The bundle: all blobs of an offline handoff in one file.

A CBOR sequence of byte strings: the header (a map), every blob, and a trailer that signs header and running hash. It
is read twice: whole, to verify it, and then to import it.

Source: docs/handoff.md, "The bundle"; RFC 8742 (CBOR sequences); RFC 9052 section 4.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import IntEnum
from typing import IO, TYPE_CHECKING

from hsmbridge_csp import cbor
from hsmbridge_csp.cose import CoseSign1, Header
from hsmbridge_csp.errors import NTE, BlobError
from hsmbridge_csp.handoff.durable import reported, sync_directory
from hsmbridge_csp.handoff.messages import MAX_KEYS
from hsmbridge_csp.handoff.proof import RunningDigest
from hsmbridge_csp.identity import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from hsmbridge_csp.identity import Identity, VerifyingKey

__all__ = ["BundleHeader", "read_blobs", "unfinished_name", "verify_bundle", "write_bundle"]

_CONTEXT = b"hsmbridge bundle/1"
_VERSION = 1
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_MAX_ITEM = 1 << 20
_BYTES, _ONE, _TWO, _FOUR = 0x40, 24, 25, 26
_HINT = "the bundle was damaged or not made by hsmbridge; nothing was imported"


class Label(IntEnum):
    """Labels of the header's map."""

    VERSION = 1
    HANDOFF = 2
    NONCE = 3
    SENDER = 4
    PEER = 5
    RECIPIENT = 6
    COUNT = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleHeader:
    """What a bundle says in front.

    Attributes:
        handoff: 16 bytes; nonce: the sender's, 32 bytes.
        sender: fingerprint of the identity that signs it; peer: of the one that is to sign the receipt.
        recipient: fingerprint of the key that the blobs are sealed for.
        count: of blobs.
    """

    handoff: bytes
    nonce: bytes
    sender: bytes
    peer: bytes
    recipient: bytes
    count: int

    def encode(self) -> bytes:
        """Return the map."""
        return cbor.encode(
            {
                int(Label.VERSION): _VERSION,
                int(Label.HANDOFF): self.handoff,
                int(Label.NONCE): self.nonce,
                int(Label.SENDER): self.sender,
                int(Label.PEER): self.peer,
                int(Label.RECIPIENT): self.recipient,
                int(Label.COUNT): self.count,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> BundleHeader:
        """Read a map.

        Raises:
            BlobError: not a bundle's header.
        """
        match cbor.decode(data):
            case {
                Label.VERSION: 1,
                Label.HANDOFF: bytes() as handoff,
                Label.NONCE: bytes() as nonce,
                Label.SENDER: bytes() as sender,
                Label.PEER: bytes() as peer,
                Label.RECIPIENT: bytes() as recipient,
                Label.COUNT: int() as count,
                **unknown,
            } if not unknown and (len(handoff), len(nonce)) == (16, 32) and 0 < count <= MAX_KEYS:
                return cls(handoff=handoff, nonce=nonce, sender=sender, peer=peer, recipient=recipient, count=count)
        raise _bad("its header is malformed")


def unfinished_name(path: Path, handoff: bytes) -> Path:
    """Return the name of a bundle that the journal does not know of yet."""
    return path.with_name(f"{path.name}.unfinished-{handoff.hex()}")


def write_bundle(path: Path, header: BundleHeader, blobs: Iterable[bytes], identity: Identity) -> None:
    """Write a bundle durably, mode 600; *path* is a new file.

    Args:
        path: where; the caller gives it its final name when the journal knows of it.
        header: in front.
        blobs: as many as the header says.
        identity: the sender's.
    """
    running = RunningDigest(header.handoff)
    first = header.encode()
    with reported(path), os.fdopen(os.open(path, _NEW, 0o600), "wb") as file:
        _write(file, first)
        for blob in blobs:
            running.add(blob)
            _write(file, blob)
        _write(file, _trailer(first, running.digest(), identity))
        file.flush()
        os.fsync(file.fileno())
    sync_directory(path)


def verify_bundle(path: Path, key_of: Callable[[bytes], VerifyingKey]) -> tuple[BundleHeader, bytes]:
    """Read a bundle to its end and verify it as a whole, before anything of it is used.

    Returns: its header and the running hash over its blobs.

    Raises:
        BlobError: not a bundle, damaged, cut off, or not authentic.
        StatementError: nobody vouches for its sender.
    """
    with path.open("rb") as file:
        items = _items(file)
        first = next(items, None)
        if first is None:
            raise _bad("it is empty")
        header = BundleHeader.decode(first)
        running = RunningDigest(header.handoff)
        for _ in range(header.count):
            blob = next(items, None)
            if blob is None:
                raise _bad("it is cut off")
            running.add(blob)
        trailer = next(items, None)
        if trailer is None or next(items, None) is not None:
            raise _bad("it does not end where its header says")
    signed = CoseSign1.decode(trailer)
    if signed.kid != header.sender or signed.payload != running.digest():
        raise _bad("its blobs are not those that were signed", NTE.BAD_SIGNATURE)
    verify(key_of(signed.kid), signed.algorithm, signed.to_be_signed(_CONTEXT + first), signed.signature)
    return header, running.digest()


def read_blobs(path: Path, count: int) -> Iterator[bytes]:
    """Yield the blobs of a bundle that was verified.

    Raises:
        BlobError: it is not what it was.
    """
    with path.open("rb") as file:
        items = _items(file)
        next(items, None)
        for _ in range(count):
            blob = next(items, None)
            if blob is None:
                raise _bad("it changed while it was read")
            yield blob


def _trailer(first: bytes, digest: bytes, identity: Identity) -> bytes:
    protected = cbor.encode({int(Header.ALG): int(identity.algorithm)})
    unsigned = CoseSign1(protected=protected, kid=identity.fingerprint, payload=digest, signature=b"")
    signature = identity.sign(unsigned.to_be_signed(_CONTEXT + first))
    return CoseSign1(protected=protected, kid=unsigned.kid, payload=digest, signature=signature).encode()


def _write(file: IO[bytes], item: bytes) -> None:
    file.write(cbor.encode(item))


def _items(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the byte strings of a sequence; each must have the shortest head and be there in full."""
    while first := file.read(1):
        kind, short = first[0] & 0xE0, first[0] & 0x1F
        wide = {_ONE: 1, _TWO: 2, _FOUR: 4}.get(short, 0)
        if kind != _BYTES or (wide == 0 and short >= _ONE):
            raise _bad("it holds something else than byte strings")
        head = first + file.read(wide)
        length = int.from_bytes(head[1:], "big") if wide else short
        if length > _MAX_ITEM:
            raise _bad(f"an item is longer than {_MAX_ITEM} bytes", NTE.BAD_LEN)
        item = file.read(length)
        if len(item) != length or cbor.encode(item)[: len(head)] != head:
            raise _bad("it is cut off, or not in its shortest form")
        yield item


def _bad(why: str, nte: NTE = NTE.BAD_DATA) -> BlobError:
    return BlobError(f"not a usable bundle: {why}", nte=nte, hint=_HINT)
