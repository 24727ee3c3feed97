"""How fast record keys go through whole handoffs, and how much memory that takes at each end.

    python benchmarks/handoff.py [--json FILE] [--keys N] [--rounds N] [--stream N]

Sender and receiver are two processes with a journal each. A handoff is all of docs/handoff.md: journal, freeze, seal,
deliver, import, proof, receipt, destroy. *Grouped* all keys are one handoff; *one by one* each key is one, on a channel
that stays open; there a key costs the fsyncs of its own seven steps in two journals, so the disk decides.

The row that it is held against, keys over a channel without a transaction, is measured in between (`over_channel.py`).
Then a group of `--stream` keys goes over, and each process tells how much larger it got between its first byte and the
end, beyond what the keys take that it holds itself.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import serialization
from hsmbridge_csp.channel import Listener, Side, Terms, connect
from hsmbridge_csp.handoff.destination import InProcess
from hsmbridge_csp.handoff.parties import Party
from hsmbridge_csp.handoff.receiver import Receiver
from hsmbridge_csp.handoff.sender import Sender
from hsmbridge_csp.handoff.source import LiveSource
from hsmbridge_csp.identity import FileIdentity
from hsmbridge_csp.journal import Journal
from hsmbridge_csp.modes import Direction
from hsmbridge_csp.record_key import Aead, RecordKey, RecordState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsmbridge_csp.channel import Channel

IDENTITY, SOCKET = "identity.pem", "socket"
ALONE = 25
"""Keys that go one by one in a round: each waits for the disk several times."""


def keys_of(count: int) -> list[RecordKey]:
    """Make record keys that are in the middle of their records."""
    state = {"direction": Direction.ENCRYPT, "limit": Aead.AES_GCM.limit}
    return [
        RecordKey(
            Aead.AES_GCM,
            bytearray(secrets.token_bytes(32)),
            RecordState(iv=secrets.token_bytes(12), sequence=1000 + number, used=1000 + number, **state),  # type: ignore[arg-type]  # as named
        )
        for number in range(count)
    ]


def party(directory: Path, name: str) -> Party:
    """Return one side; both have the same identity, which needs no pin."""
    identity = FileIdentity.load(directory / IDENTITY)
    return Party(identity=identity, journal=Journal(directory / name / "journal.sqlite"))


def terms(side: Side, identity: FileIdentity) -> Terms:
    """Return terms that believe one's own identity."""
    return Terms(side=side, identity=identity, believed=frozenset({identity.fingerprint}), timeout=300)


def resident() -> int:
    """Return the bytes that this process has in memory."""
    return _status("VmRSS:")


def peak() -> int:
    """Return the most that it ever had since :func:`forget_peak`."""
    return _status("VmHWM:")


def forget_peak() -> None:
    """Let the kernel count the peak anew (proc(5), /proc/PID/clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise ValueError(name)


def receive(directory: Path) -> None:
    """Be the receiver: take what comes until the sender has gone, and say after each group what it took."""
    me = party(directory, "receiver")
    listener = Listener(directory / "private" / SOCKET)
    sys.stdout.write("\n")
    sys.stdout.flush()
    with listener, listener.accept(terms(Side.RECEIVER, me.identity)) as channel:  # type: ignore[arg-type]  # of a file
        for line in sys.stdin:
            groups = int(line)
            growth, held = 0, 0
            gc.collect()
            forget_peak()
            before = resident()
            for _ in range(groups):
                received = Receiver(me).serve(channel, InProcess())
                assert received is not None
                growth, held = peak() - before, len(received.keys)
                del received
            # The keys themselves: as many again, made here as they are made anywhere.
            gc.collect()
            start = resident()
            alike = keys_of(held) if held > 1 else []
            own = resident() - start
            del alike
            sys.stdout.write(json.dumps({"growth": growth, "keys": own}) + "\n")
            sys.stdout.flush()


class Pair:
    """Both ends; the sender is this process.

    Args:
        directory: a private one.
    """

    def __init__(self, directory: Path) -> None:
        raw = FileIdentity.generate()._key.private_bytes(  # noqa: SLF001 - a throw-away identity for both processes
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (directory / IDENTITY).touch(0o600)
        (directory / IDENTITY).write_bytes(raw)
        command = [sys.executable, __file__, "--receive", str(directory)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._stdout.readline()
        self._me = party(directory, "sender")
        path = directory / "private" / SOCKET
        self.channel: Channel = connect(path, terms(Side.SENDER, self._me.identity), wait=10)  # type: ignore[arg-type]  # of a file

    def hand_over(self, groups: Sequence[Sequence[RecordKey]]) -> tuple[float, dict[str, float]]:
        """Hand groups of keys over, each as one handoff.

        Returns: seconds, and what the receiver says.
        """
        self._stdin.write(f"{len(groups)}\n")
        self._stdin.flush()
        start = time.perf_counter()
        for group in groups:
            Sender(self._me).send([LiveSource(key) for key in group], self.channel)
        seconds = time.perf_counter() - start
        said: dict[str, float] = json.loads(self._stdout.readline())
        return seconds, said

    def close(self) -> None:
        """End both."""
        self.channel.close()
        self._stdin.close()
        assert self._process.wait() == 0


def measure(keys: int, rounds: int) -> list[dict[str, float]]:
    """Let grouped, one by one and the row without a transaction take turns.

    Returns: per round keys per second.
    """
    figures = []
    with tempfile.TemporaryDirectory() as directory:
        pair, row = (
            Pair(Path(directory)),
            importlib.import_module("over_channel").Handoff(keys),
        )  # the script beside this
        pair.hand_over([keys_of(keys)])
        row.ours()
        for _ in range(rounds):
            grouped = keys / pair.hand_over([keys_of(keys)])[0]
            single = ALONE / pair.hand_over([[key] for key in keys_of(ALONE)])[0]
            figures.append({"grouped": grouped, "single": single, "channel": row.ours()})
        row.close()
        pair.close()
    return figures


def stream(count: int) -> dict[str, float]:
    """Hand one large group over and look how both processes grow.

    Returns: bytes: what each grew at most, and what the receiver's keys take; keys per second.
    """
    with tempfile.TemporaryDirectory() as directory:
        pair = Pair(Path(directory))
        pair.hand_over([keys_of(1000)])
        moving = keys_of(count)
        gc.collect()
        forget_peak()
        before = resident()
        seconds, said = pair.hand_over([moving])
        sender = peak() - before
        pair.close()
    return {
        "keys": count, "rate": count / seconds, "sender": sender, "receiver": said["growth"],
        "receiver_keys": said["keys"],
    }  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure whole handoffs of record keys.")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures here as well")
    parser.add_argument("--keys", metavar="N", type=int, default=1000, help="keys in a group (default: %(default)s)")
    parser.add_argument("--rounds", metavar="N", type=int, default=7, help="rounds (default: %(default)s)")
    parser.add_argument("--stream", metavar="N", type=int, default=100_000, help="keys in the large group")
    parser.add_argument("--receive", metavar="DIR", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.receive:
        receive(options.receive)
        return
    figures = measure(options.keys, options.rounds)
    for name in figures[0]:
        rate = statistics.median(figure[name] for figure in figures)
        ratio = statistics.median(figure[name] / figure["channel"] for figure in figures)
        print(f"{name:<8} {rate:>8,.0f} keys/s; against keys over a channel without a transaction: {ratio:.2f}")
    sizes = [options.stream // 10, options.stream]
    streams: list[dict[str, Any]] = [stream(size) for size in sizes]
    for found in streams:
        beyond = found["receiver"] - found["receiver_keys"]
        print(
            f"{found['keys']:>8,} keys in one handoff: {found['rate']:,.0f} keys/s; "
            f"the sender grew by {found['sender'] / 2**20:.0f} MiB, "
            f"the receiver by {found['receiver'] / 2**20:.0f} MiB, of which its keys are "
            f"{found['receiver_keys'] / 2**20:.0f} MiB: {beyond / found['keys']:,.0f} bytes a key beyond them"
        )
    if options.json:
        options.json.write_text(json.dumps({"rounds": figures, "streams": streams}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
