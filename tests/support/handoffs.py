"""Two sides of a handoff, Alice who sends and Bob who receives, each with a journal of his own.

Both are of this process unless a test starts another: a journal's owner is a process, so what looks at a process that
died has to start one.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hsmbridge_csp.channel import Channel, Side
from hsmbridge_csp.handoff.destination import InProcess
from hsmbridge_csp.handoff.ends import Pending
from hsmbridge_csp.handoff.offline import receive_bundle, send_bundle
from hsmbridge_csp.handoff.parties import Party
from hsmbridge_csp.handoff.receiver import Receiver
from hsmbridge_csp.handoff.sender import Sender
from hsmbridge_csp.handoff.source import LiveSource
from hsmbridge_csp.handoff.statement import Kind, Statement
from hsmbridge_csp.journal import Entry, Journal, Role
from hsmbridge_csp.modes import Direction
from hsmbridge_csp.recipient_ecdh import EcdhOpener, EcdhSealer
from hsmbridge_csp.record_key import Aead, RecordKey, RecordState
from hsmbridge_csp.trust import Role as TrustRole
from hsmbridge_csp.trust import TrustStore, make_pin

from tests.support.channels import ALICE, BOB, Between, open_pair, read_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hsmbridge_csp.handoff.destination import Destination
    from hsmbridge_csp.handoff.ends import Moved
    from hsmbridge_csp.handoff.receiver import Received
    from hsmbridge_csp.identity import FileIdentity
    from hsmbridge_csp.keys import Key
    from hsmbridge_csp.recipients import Sealer

    from hsmbridge.token import Token

__all__ = ["Ends", "Peer", "Sides", "live", "record_key", "relayed", "statement_for", "write_identity"]

ROOT = Path(__file__).resolve().parents[2]


def record_key(sequence: int = 7, value: bytes | None = None) -> RecordKey:
    """Return an AES-GCM key that seals, in the middle of its records."""
    state = RecordState(
        iv=os.urandom(12), direction=Direction.ENCRYPT, sequence=sequence, used=sequence, limit=Aead.AES_GCM.limit
    )
    return RecordKey(Aead.AES_GCM, bytearray(value or os.urandom(32)), state)


def live(keys: Sequence[Key]) -> list[LiveSource]:
    """Return keys as sources."""
    return [LiveSource(key) for key in keys]


def write_identity(identity: FileIdentity, path: Path) -> None:
    """Write a throw-away identity's private key where another process finds it."""
    raw = identity._key.private_bytes(  # noqa: SLF001 - for a child of this test; the class only makes new files
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(raw)
    path.chmod(0o600)


def statement_for(entry: Entry, kind: Kind = Kind.RECEIPT, **changes: Any) -> Statement:  # noqa: ANN401 - fields of it
    """Return the statement that Alice's entry waits for, with changes."""
    receipt = kind is Kind.RECEIPT
    fields: dict[str, Any] = {
        "kind": kind,
        "handoff": entry.handoff,
        "digest": entry.digest,
        "count": entry.count,
        "sender": ALICE.fingerprint,
        "recipient": entry.peer,
        "nonce": entry.nonce,
        "persisted": False,
        "proof": entry.proof if receipt else b"",
    }
    return Statement(**{**fields, **changes})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """What both sides got.

    Attributes:
        sent: by the sender; received: by the receiver; each a result or what was raised.
    """

    sent: Moved | BaseException
    received: Received | BaseException | None

    def both(self) -> tuple[Moved, Received]:
        """Return both results of a handoff that came to its end."""
        for end in (self.sent, self.received):
            if isinstance(end, BaseException):
                raise end
        return self.sent, self.received  # type: ignore[return-value]  # what else they may be was raised


class Sides:
    """Alice and Bob.

    Args:
        directory: takes both journals; the caller's.

    Attributes:
        alice, bob: as parties.
        private: Bob's P-256 key for bundles.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.alice = self._party(ALICE, BOB, "alice")
        self.bob = self._party(BOB, ALICE, "bob")
        self.private = ec.generate_private_key(ec.SECP256R1())

    def _party(self, identity: FileIdentity, other: FileIdentity, name: str) -> Party:
        pins = TrustStore(tuple(make_pin(role, "other", other.public_key) for role in TrustRole))
        return Party(identity=identity, journal=Journal(self.journal(name)), trust=pins)

    def journal(self, name: str) -> Path:
        """Return the path of a side's journal."""
        return self.directory / name / "journal.sqlite"

    @property
    def sealer(self) -> EcdhSealer:
        """Seals for Bob's key."""
        return EcdhSealer(self.private.public_key())

    @property
    def opener(self) -> EcdhOpener:
        """Bob's key."""
        return EcdhOpener(self.private)

    def hand_over(
        self, keys: Sequence[Key], destination: Destination | None = None, *, token: Token | None = None,
        recipient: Sealer | None = None,
    ) -> Ends:  # fmt: skip
        """Hand keys over between two threads of this process."""
        with open_pair() as (out, into):
            return self.over(out, into, keys, destination, token=token, recipient=recipient)

    def over(  # noqa: PLR0913 - both ends, and what is between them
        self, out: Channel, into: Channel, keys: Sequence[Key], destination: Destination | None = None, *,
        token: Token | None = None, recipient: Sealer | None = None,
    ) -> Ends:  # fmt: skip
        """Hand keys over through two ends of a channel."""
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(self._serve, into, destination or InProcess())
            sent: Moved | BaseException
            try:
                sent = Sender(self.alice, token).send(live(keys), out, recipient)
            except Exception as error:  # noqa: BLE001 - the test says which it must be
                sent = error
                out.abort()
            return Ends(sent=sent, received=future.exception() or future.result())

    def _serve(self, channel: Channel, destination: Destination) -> Received | None:
        try:
            return Receiver(self.bob).serve(channel, destination)
        except BaseException:
            channel.abort()
            raise

    def ask(self, pending: Pending) -> Moved:
        """Let Alice ask what became of a handoff, and Bob answer from his journal."""
        with open_pair() as (out, into), ThreadPoolExecutor(1) as pool:
            future = pool.submit(self._serve, into, InProcess())
            try:
                return Sender(self.alice).ask(pending, out)
            finally:
                out.abort()
                with contextlib.suppress(Exception):
                    future.result()

    def doubted(
        self, keys: Sequence[Key], answer: Callable[[Entry], bytes] | None = None, *, token: Token | None = None,
        recipient: Sealer | None = None,
    ) -> BaseException:  # fmt: skip
        """Let Alice send keys to somebody with Bob's name who imports nothing.

        Args:
            keys: hers.
            answer: what he says, from what Alice's journal has of the handoff; None hangs up.
            token: where token keys live.
            recipient: for whom they are sealed.

        Returns: what she raises.
        """
        with open_pair() as (out, into), ThreadPoolExecutor(1) as pool:
            future = pool.submit(self._take, into, answer)
            try:
                Sender(self.alice, token).send(live(keys), out, recipient)
            except Exception as error:  # noqa: BLE001 - the test says which it must be
                return error
            finally:
                future.result()
        return AssertionError("nothing was raised")

    def _take(self, channel: Channel, answer: Callable[[Entry], bytes] | None) -> None:
        channel.receive()
        channel.receive()
        if answer is None:
            channel.abort()
            return
        entry = self.alice.journal.entries(open_only=True)[-1]
        channel.send(18, answer(entry))

    def pending(self, keys: Sequence[Key]) -> Pending:
        """Return what is needed to settle the one open handoff of these keys that Alice has."""
        (entry,) = (entry for entry in self.alice.journal.entries(open_only=True) if entry.role is Role.SENDER)
        return Pending(entry=entry, sources=tuple(live(keys)))

    def send_bundle(self, keys: Sequence[Key], name: str = "bundle", **changes: Any) -> Path:  # noqa: ANN401 - arguments
        """Write a bundle from Alice for Bob."""
        path = self.directory / name
        arguments = {"recipient": self.sealer, "peer": BOB.fingerprint, **changes}
        send_bundle(Sender(self.alice, arguments.get("token")), self.alice, live(keys), path, **arguments)
        return path

    def receive_bundle(self, path: Path, destination: Destination | None = None) -> Received:
        """Let Bob import a bundle."""
        return receive_bundle(Receiver(self.bob), self.bob, path, self.opener, destination or InProcess())

    def phases(self) -> tuple[list[str], list[str]]:
        """Return the phases of Alice's handoffs and of Bob's."""
        alice, bob = (sorted(str(entry.phase) for entry in side.journal.entries()) for side in (self.alice, self.bob))
        return alice, bob

    def close(self) -> None:
        """Close both journals."""
        self.alice.journal.close()
        self.bob.journal.close()


@contextmanager
def relayed(between: Between, tamper: Callable[[Side, int, bytes], list[bytes]]) -> Iterator[None]:
    """Pass on what two ends say to each other after their handshake.

    Args:
        between: has shaken.
        tamper: is given who sent a frame, its number from 0 and its bytes; returns what goes on instead.
    """

    def pump(side: Side) -> None:
        number = 0
        while True:
            try:
                frame = read_frame(between.inner[side])
            except OSError:
                frame = b""
            if not frame:
                between._end(side.other)  # noqa: SLF001 - as its own pump does
                return
            for other in tamper(side, number, frame):
                between.put(side.other, other)
            number += 1

    threads = [threading.Thread(target=pump, args=(side,)) for side in Side]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for end in between.ends.values():
            if isinstance(end, Channel):
                end.abort()
        for thread in threads:
            thread.join()


class Peer:
    """Bob, or one of several, in a process of his own: ``python -m tests.support.handoff_peer``.

    Args:
        sides: whose journal and identities he has.
        act: what he does.
        facts: what it needs.
        environment: more variables.
    """

    def __init__(
        self, sides: Sides, act: str, facts: dict[str, Any] | None = None, environment: dict[str, str] | None = None
    ) -> None:
        identity = sides.directory / "bob.pem"
        if not identity.exists():
            write_identity(BOB, identity)
            key = sides.private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            (sides.directory / "bob.key").write_bytes(key)
            public = ALICE.public_key.public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            (sides.directory / "alice.pem").write_bytes(public)
        told = {"act": act, "directory": str(sides.directory), "journal": str(sides.journal("bob")), **(facts or {})}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.handoff_peer"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **(environment or {})},
        )  # fmt: skip
        self.tell(told)

    def tell(self, document: object) -> None:
        """Write a line to him."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(document) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:  # noqa: ANN401 - a JSON document
        """Read what he says; None when he has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def end(self) -> int:
        """Wait for him.

        Returns: the status, negative for a signal.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        status = self.process.wait(60)
        self.process.stdout.close()
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.end()
