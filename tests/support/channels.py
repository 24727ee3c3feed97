"""What the tests of the channel share: ends, somebody in between, and a peer written from docs/channel.md alone."""

from __future__ import annotations

import hashlib
import hmac
import os
import select
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import cbor2
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from hsmbridge_csp.channel import Channel, Side, Terms
from hsmbridge_csp.identity import FileIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

__all__ = ["ALICE", "BOB", "Between", "RawPeer", "descriptors", "no_writer", "open_pair", "read_frame", "terms"]

ALICE, BOB = FileIdentity.generate(), FileIdentity.generate()
HEADER = struct.Struct(">IBBQ")


def terms(side: Side, **changes: Any) -> Terms:  # noqa: ANN401 - the fields of Terms
    """Return terms by which Alice sends and Bob receives; each believes the other."""
    me, other = (ALICE, BOB) if side is Side.SENDER else (BOB, ALICE)
    fields: dict[str, Any] = {
        "side": side,
        "identity": me,
        "believed": frozenset({other.fingerprint}),
        "timeout": 20.0,
        "handshake_timeout": 20.0,
    }
    return Terms(**{**fields, **changes})


@contextmanager
def open_pair() -> Iterator[tuple[Channel, Channel]]:
    """Open a channel between two ends of this process, the sender's first."""
    left, right = socket.socketpair()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(Channel.over, right, terms(Side.RECEIVER))
        sender = Channel.over(left, terms(Side.SENDER))
        receiver = future.result()
    try:
        yield sender, receiver
    finally:
        sender.abort()
        receiver.abort()


def descriptors() -> int:
    """Return how many descriptors this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def no_writer(reading: int) -> bool:
    """Close the reading end of an empty pipe; tell whether nobody had its other end open any more."""
    os.set_blocking(reading, False)
    try:
        return os.read(reading, 1) == b""
    except BlockingIOError:
        return False
    finally:
        os.close(reading)


def read_frame(connection: socket.socket) -> bytes:
    """Read one whole frame, empty at the end."""
    header = _exactly(connection, HEADER.size)
    return header + _exactly(connection, HEADER.unpack(header)[0]) if header else b""


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            return b""
        data += piece
    return data


class Between:
    """Somebody between sender and receiver, who can do with the frames what they like.

    Attributes:
        inner: the sockets towards the sender and the receiver.
        ends: what the ends found: a channel, or what was raised.
        seen: all frames of the handshake, by who sent them.
        passes_ends: whether the other end is told when one hangs up.
    """

    def __init__(self) -> None:
        self.inner: dict[Side, socket.socket] = {}
        self.ends: dict[Side, Channel | BaseException] = {}
        self.seen: dict[Side, list[bytes]] = {side: [] for side in Side}
        self.passes_ends = True

    def shake(self, tamper: Callable[[Side, int, bytes], list[bytes]] | None = None, **changes: Any) -> Between:  # noqa: ANN401 - the fields of Terms
        """Let both ends shake hands, and pass their frames on.

        Args:
            tamper: is given who sent a frame, its number and its bytes; returns what goes on instead. With :meth:`put`
                it can send to either end what it likes.
            changes: to the terms of both ends.
        """
        futures: dict[Side, Future[Channel]] = {}
        with ThreadPoolExecutor(2) as pool:
            for side in Side:
                outer, self.inner[side] = socket.socketpair()
                futures[side] = pool.submit(Channel.over, outer, terms(side, **changes))
            self._pump(futures, tamper or (lambda _side, _number, frame: [frame]))
            for side, future in futures.items():
                self.ends[side] = future.exception() or future.result()
        return self

    def _pump(self, futures: dict[Side, Future[Channel]], tamper: Callable[[Side, int, bytes], list[bytes]]) -> None:
        open_sides = set(Side)
        while open_sides and not all(future.done() for future in futures.values()):
            ready, _, _ = select.select([self.inner[side] for side in open_sides], [], [], 0.02)
            for side in [side for side in open_sides if self.inner[side] in ready]:
                try:
                    frame = read_frame(self.inner[side])
                except ConnectionError:
                    frame = b""
                if not frame:
                    open_sides.discard(side)
                    if self.passes_ends:
                        self._end(side.other)
                    continue
                self.seen[side].append(frame)
                for other in tamper(side, len(self.seen[side]) - 1, frame):
                    self.put(side.other, other)
        # Both may be through before it was seen that one had hung up.
        for side, future in futures.items():
            if self.passes_ends and future.exception() is not None:
                self._end(side.other)

    def _end(self, side: Side) -> None:
        try:
            self.inner[side].shutdown(socket.SHUT_WR)
        except OSError:
            return

    def put(self, side: Side, data: bytes) -> None:
        """Send bytes to an end; that it is gone does not matter."""
        try:
            self.inner[side].sendall(data)
        except ConnectionError:
            return

    def take(self, side: Side) -> bytes:
        """Take the next frame that an end sent."""
        return read_frame(self.inner[side])

    def end(self, side: Side) -> Channel:
        """Return an end's channel."""
        found = self.ends[side]
        assert isinstance(found, Channel), found
        return found

    def close(self) -> None:
        """Close all."""
        for connection in self.inner.values():
            connection.close()
        for end in self.ends.values():
            if isinstance(end, Channel):
                end.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def spki(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    """Return the DER SubjectPublicKeyInfo."""
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


@dataclass
class RawPeer:
    """The protocol once more, from its description, with ``cryptography`` and cbor2 alone.

    Attributes:
        connection: to the other end.
        side: "sender" or "receiver".
        key: the identity.
    """

    connection: socket.socket
    side: str
    key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
    ephemeral: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)
    counters: dict[str, int] = field(default_factory=lambda: {"sender": 0, "receiver": 0})
    hellos: bytes = b""
    transcript: bytes = b""
    secret: bytes = b""

    @property
    def other(self) -> str:
        """The part of the other end."""
        return "receiver" if self.side == "sender" else "sender"

    def derive(self, purpose: str, size: int, salt: bytes) -> bytes:
        """HKDF-SHA-256."""
        info = b"hsmbridge channel/1 " + purpose.encode()
        return HKDF(hashes.SHA256(), size, salt, info).derive(self.secret)

    def say_hello(self, **changes: Any) -> None:  # noqa: ANN401 - fields of the map
        """Exchange hellos."""
        fields = {"version": 1, "side": self.side, "public": self.ephemeral.public_key().public_bytes_raw()}
        fields |= {"nonce": os.urandom(32)} | changes
        mine = cbor2.dumps(dict(enumerate((fields[name] for name in ("version", "side", "public", "nonce")), 1)))
        self.connection.sendall(HEADER.pack(len(mine), 1, 0, 0) + mine)
        theirs = read_frame(self.connection)[14:]
        pair = [mine, theirs] if self.side == "sender" else [theirs, mine]
        self.hellos = hashlib.sha256(cbor2.dumps(["hsmbridge channel/1 hellos", *pair])).digest()
        self.secret = self.ephemeral.exchange(X25519PublicKey.from_public_bytes(cbor2.loads(theirs)[3]))

    def to_be_signed(self, side: str, public_key: bytes) -> bytes:
        """The Sig_structure of RFC 9052."""
        algorithm = -8 if isinstance(self.key, ed25519.Ed25519PrivateKey) else -7
        context = cbor2.dumps(["hsmbridge channel/1 proof", side, self.hellos])
        return cbor2.dumps(["Signature1", cbor2.dumps({1: algorithm}), context, public_key])

    def proof(self) -> bytes:
        """Return our proof."""
        public_key = spki(self.key)
        message = self.to_be_signed(self.side, public_key)
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            algorithm, signature = -8, self.key.sign(message)
        else:
            r, s = decode_dss_signature(self.key.sign(message, ec.ECDSA(hashes.SHA256())))
            algorithm, signature = -7, r.to_bytes(32, "big") + s.to_bytes(32, "big")
        mac_key = self.derive(f"{self.side} confirmation", 32, self.hellos)
        confirmation = hmac.new(mac_key, self.hellos + public_key, hashlib.sha256).digest()
        return cbor2.dumps({1: public_key, 2: algorithm, 3: signature, 4: confirmation})

    def send(self, kind: int, payload: bytes, count: int = 0, fds: list[int] | None = None) -> None:
        """Send an encrypted frame."""
        counter = self.counters[self.side]
        self.counters[self.side] += 1
        header = HEADER.pack(len(payload) + 16, kind, count, counter)
        frame = header + AESGCM(self._key(self.side)).encrypt(self._nonce(self.side, counter), payload, header)
        socket.send_fds(self.connection, [frame], fds or [])

    def receive(self) -> tuple[int, bytes]:
        """Receive an encrypted frame."""
        frame = read_frame(self.connection)
        _, kind, _, counter = HEADER.unpack_from(frame)
        assert counter == self.counters[self.other]
        self.counters[self.other] += 1
        nonce = self._nonce(self.other, counter)
        return kind, AESGCM(self._key(self.other)).decrypt(nonce, frame[14:], frame[:14])

    def shake(self) -> dict[int, Any]:
        """Shake hands; returns the other end's proof."""
        self.say_hello()
        mine = self.proof()
        self.send(2, mine)
        kind, theirs = self.receive()
        assert kind == 2
        pair = [mine, theirs] if self.side == "sender" else [theirs, mine]
        self.transcript = hashlib.sha256(cbor2.dumps(["hsmbridge channel/1 proofs", self.hellos, *pair])).digest()
        self.send(3, self.transcript)
        assert self.receive() == (3, self.transcript)
        proof: dict[int, Any] = cbor2.loads(theirs)
        return proof

    def content_key(self, side: str, label: bytes) -> bytes:
        """Return a content key."""
        exporter = self.derive("exporter", 32, self.transcript)
        return HKDFExpand(hashes.SHA256(), 32, f"hsmbridge channel/1 {side} content key ".encode() + label).derive(
            exporter
        )

    def _key(self, side: str) -> bytes:
        return self.derive(f"{side} key", 32, self.hellos)

    def _nonce(self, side: str, counter: int) -> bytes:
        iv = self.derive(f"{side} iv", 12, self.hellos)
        return bytes(a ^ b for a, b in zip(iv, counter.to_bytes(12, "big"), strict=True))
