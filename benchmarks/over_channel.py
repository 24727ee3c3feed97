"""How fast software record keys cross a channel, against the cryptography and the CBOR of it alone.

    python benchmarks/over_channel.py [--json FILE] [--keys N] [--rounds N]

`run.py` calls this for its third row. One process holds both ends of a channel over a socket pair, and each key goes
all the way before the next one begins: key record, blob, frame, kernel, frame, blob, key record, key. The other side
makes, from ready-made maps, the calls of cbor2 and of ``cryptography``'s AESGCM that the same blobs need, no others.
"""

from __future__ import annotations

import argparse
import json
import secrets
import socket
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cbor2
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hsmbridge_csp.channel import Channel, Side, Terms
from hsmbridge_csp.channel_blob import ChannelOpener, ChannelSealer
from hsmbridge_csp.clearpart import BLOB_ID_SIZE, ClearPart, Purpose
from hsmbridge_csp.identity import FileIdentity
from hsmbridge_csp.modes import Direction
from hsmbridge_csp.record_key import Aead, RecordKey, RecordState
from hsmbridge_csp.transfer import bits_of, key_from, record_of

if TYPE_CHECKING:
    from collections.abc import Callable

TYPE = 16
"""Of our frames: the first that is not the channel's own."""

HEADER = bytes.fromhex("0902000000000000")
"""BLOBHEADER of a key for which CryptoAPI has no number."""

CRITICAL = list(range(-65537, -65546, -1))


class Handoff:
    """The two ends of a channel, and keys that stand at its beginning.

    Args:
        count: keys.
    """

    def __init__(self, count: int) -> None:
        identities = {side: FileIdentity.generate() for side in Side}
        self.sender, self.recipient = (identity.fingerprint for identity in identities.values())
        left, right = socket.socketpair()
        terms = {
            side: Terms(side=side, identity=identity, believed=frozenset({identities[side.other].fingerprint}))
            for side, identity in identities.items()
        }
        with ThreadPoolExecutor(1) as pool:
            arriving = pool.submit(Channel.over, right, terms[Side.RECEIVER])
            self.out = Channel.over(left, terms[Side.SENDER])
            self.into = arriving.result()
        self.keys = [self._key(number) for number in range(count)]
        self.rounds = 0

    def _key(self, number: int) -> RecordKey:
        state = RecordState(
            iv=secrets.token_bytes(12),
            direction=Direction.ENCRYPT,
            sequence=1000 + number,
            used=1000 + number,
            limit=Aead.AES_GCM.limit,
        )
        return RecordKey(Aead.AES_GCM, bytearray(secrets.token_bytes(32)), state)

    def ours(self) -> float:
        """Hand all keys over.

        Returns: keys per second.
        """
        label = self.rounds.to_bytes(4, "big")
        self.rounds += 1
        sealer = ChannelSealer(self.out.content_key(Side.SENDER, label), self.sender, self.recipient)
        opener = ChannelOpener(self.into.content_key(Side.SENDER, label), self.sender, self.recipient)
        out, into, arrived = self.out, self.into, []
        start = time.perf_counter()
        for key in self.keys:
            record = record_of(key, None, by_reference=False)
            clear = ClearPart(
                blob_id=secrets.token_bytes(BLOB_ID_SIZE),
                created=int(time.time()),
                key_type=record.algorithm,
                bits=bits_of(key, record),
                by_reference=False,
                purpose=Purpose.MOVE,
                sender=self.sender,
                recipient=self.recipient,
            )
            out.send(TYPE, sealer.seal(clear, record))
            _, record = opener.open(into.receive().payload)
            arrived.append(key_from(record, None, None, persist=False))
        seconds = time.perf_counter() - start
        for key, other in zip(self.keys, arrived, strict=True):
            assert isinstance(other, RecordKey)
            assert (key.value, key.state) == (other.value, other.state), "another key or state arrived"
        return len(arrived) / seconds

    def theirs(self, *, framed: bool) -> float:
        """Encode, encrypt, decrypt and decode as many maps of the same content, and make an AESGCM of each key in them.

        Args:
            framed: encrypt and decrypt once more, as the channel does, and pass each frame through a socket pair.

        Returns: keys per second.
        """
        maps = [self._maps(key) for key in self.keys]
        outer, inner = AESGCM(secrets.token_bytes(32)), AESGCM(secrets.token_bytes(32))
        dumps, loads, tag = cbor2.dumps, cbor2.loads, cbor2.CBORTag
        left, right = socket.socketpair()
        arrived = []
        with left, right:
            start = time.perf_counter()
            for number, (clear, record) in enumerate(maps):
                iv = number.to_bytes(12, "big")
                protected = dumps(clear)
                sealed = inner.encrypt(iv, dumps(record), dumps(["Encrypt0", protected, HEADER]))
                blob = dumps(tag(16, [protected, {5: iv}, sealed]))
                if framed:
                    left.send(outer.encrypt(iv, blob, HEADER))
                    blob = outer.decrypt(iv, right.recv(4096), HEADER)
                protected, unprotected, sealed = loads(blob).value
                shown = loads(protected)
                opened = loads(inner.decrypt(unprotected[5], sealed, dumps(["Encrypt0", protected, HEADER])))
                arrived.append((shown, opened, AESGCM(opened[3])))
            seconds = time.perf_counter() - start
        assert [(clear, record) for clear, record, _ in arrived] == maps
        return len(arrived) / seconds

    def _maps(self, key: RecordKey) -> tuple[dict[int, Any], dict[int, Any]]:
        own = [1, secrets.token_bytes(16), int(time.time()), "AES-GCM", 256, False, "move", self.sender, self.recipient]
        clear = {1: 3, 2: CRITICAL, 3: "application/cbor", **dict(zip(CRITICAL, own, strict=True))}
        state = key.state
        fields = {1: state.iv, 2: state.sequence, 3: state.direction.value, 4: state.used, 5: state.limit}
        return clear, {1: "AES-GCM", 2: 1, 3: bytes(key.value), 11: fields, 13: int(key.permissions)}

    def close(self) -> None:
        """Close the channel."""
        self.out.close()
        self.into.close()


def measure(keys: int, rounds: int) -> list[dict[str, float]]:
    """Let both sides take turns.

    Returns: per round keys per second: ``ours``, ``blobs`` alone, and ``frames`` as well.
    """
    handoff = Handoff(keys)
    ways: dict[str, Callable[[], float]] = {
        "ours": handoff.ours,
        "blobs": lambda: handoff.theirs(framed=False),
        "frames": lambda: handoff.theirs(framed=True),
    }
    for way in ways.values():
        way()  # warms it up
    figures = []
    for number in range(rounds):
        names = list(ways) if number % 2 else list(ways)[::-1]
        figures.append({name: ways[name]() for name in names})
    handoff.close()
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure record keys over a channel.")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures of each round here as well")
    parser.add_argument("--keys", metavar="N", type=int, default=1000, help="keys in a round (default: %(default)s)")
    parser.add_argument("--rounds", metavar="N", type=int, default=21, help="rounds (default: %(default)s)")
    options = parser.parse_args()
    figures = measure(options.keys, options.rounds)
    rates = {name: statistics.median(figure[name] for figure in figures) for name in figures[0]}
    for name, rate in rates.items():
        ratio = statistics.median(figure["ours"] / figure[name] for figure in figures)
        print(f"{name:<7} {rate:>8,.0f} keys/s, {1e6 / rate:>5.1f} µs a key; ours / {name}: {ratio:.2f}")
    if options.json:
        options.json.write_text(json.dumps(figures) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
