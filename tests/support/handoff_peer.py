"""Bob in a process of his own.

``python -m tests.support.handoff_peer``. The first line of standard input says what to do: ``act`` is ``live`` (listen,
take one handoff, then use the keys as each further line says), ``bundle`` (import one, when a second line comes) or
``token`` (the same, into the token that the environment names).

With ``die``, a phase and ``before`` or ``after``, the process kills itself at that step of the journal.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hsmbridge_csp.channel import Listener, Side, Terms
from hsmbridge_csp.handoff.destination import InProcess, InToken
from hsmbridge_csp.handoff.offline import receive_bundle
from hsmbridge_csp.handoff.parties import Party
from hsmbridge_csp.handoff.receiver import Receiver
from hsmbridge_csp.identity import FileIdentity
from hsmbridge_csp.journal import Entry, Journal, KeyEntry, Phase, Role
from hsmbridge_csp.recipient_ecdh import EcdhOpener
from hsmbridge_csp.recipient_kek import TokenKek
from hsmbridge_csp.trust import Role as TrustRole
from hsmbridge_csp.trust import TrustStore, load_public_key, make_pin

from hsmbridge.errors import HsmbridgeError
from hsmbridge.objects import find_key
from tests.support.children import close, open_token

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hsmbridge_csp.handoff.receiver import Received

__all__ = ["main"]


class DyingJournal(Journal):
    """A journal whose process is killed at one of its steps.

    Attributes:
        moment: phase and ``before`` or ``after``; None to live.
    """

    moment: tuple[str, str] | None = None

    def _perhaps(self, phase: Phase, when: str) -> None:
        if self.moment == (str(phase), when):
            os.kill(os.getpid(), signal.SIGKILL)

    def begin(self, entry: Entry, keys: Iterable[KeyEntry] = ()) -> bool:
        """As it is, and die where it was told so."""
        self._perhaps(entry.phase, "before")
        done = super().begin(entry, keys)
        self._perhaps(entry.phase, "after")
        return done

    def claim(self, handoff: bytes, keys: Sequence[KeyEntry], digest: bytes) -> bool:
        """As it is, and die where it was told so."""
        self._perhaps(Phase.CLAIMED, "before")
        done = super().claim(handoff, keys, digest)
        self._perhaps(Phase.CLAIMED, "after")
        return done

    def advance(
        self,
        role: Role,
        handoff: bytes,
        before: Phase | tuple[Phase, ...],
        after: Phase,
        **fields: Any,  # noqa: ANN401 - as in the class above it
    ) -> bool:
        """As it is, and die where it was told so."""
        self._perhaps(after, "before")
        done = super().advance(role, handoff, before, after, **fields)
        self._perhaps(after, "after")
        return done


def main() -> None:
    """Do it."""
    told = json.loads(sys.stdin.readline())
    directory = Path(told["directory"])
    alice = load_public_key((directory / "alice.pem").read_bytes(), name="alice")
    trust = TrustStore((make_pin(TrustRole.SENDER, "alice", alice),))
    with DyingJournal(Path(told["journal"])) as journal:
        journal.moment = tuple(told["die"]) if "die" in told else None
        party = Party(identity=FileIdentity.load(directory / "bob.pem"), journal=journal, trust=trust)
        {"live": _live, "bundle": _bundle, "token": _token}[told["act"]](party, told)


def _live(party: Party, told: dict[str, Any]) -> None:
    (pin,) = party.trust.pins
    terms = Terms(side=Side.RECEIVER, identity=party.identity, believed=frozenset({pin.fingerprint}))
    with Listener(Path(told["socket"])) as listener:
        _say({"pid": os.getpid()})
        with listener.accept(terms, 20) as channel:
            received = Receiver(party).serve(channel, InProcess())
    assert received is not None
    _say({"keys": len(received.keys)})
    for line in sys.stdin:
        number, what, data = json.loads(line)
        _say(_used(received, number, what, bytes.fromhex(data)).hex())


def _used(received: Received, number: int, what: str, data: bytes) -> bytes:
    use = getattr(received.keys[number], what)
    done: bytes = use(data, final=True) if what in {"encrypt", "decrypt"} else use(data)
    return done


def _bundle(party: Party, told: dict[str, Any]) -> None:
    private = serialization.load_pem_private_key(Path(told["directory"], "bob.key").read_bytes(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    opener = EcdhOpener(private)
    _say("ready")
    sys.stdin.readline()
    try:
        received = receive_bundle(Receiver(party), party, Path(told["bundle"]), opener, InProcess())
    except HsmbridgeError as error:
        _say({"refused": type(error).__name__})
        return
    _say({"won": [_used(received, number, "seal", b"next").hex() for number in range(len(received.keys))]})


def _token(party: Party, told: dict[str, Any]) -> None:
    token = open_token()
    kek = TokenKek(find_key(token, label=told["kek"]))
    _say("ready")
    sys.stdin.readline()
    try:
        received = receive_bundle(Receiver(party), party, Path(told["bundle"]), kek, InToken(token, kek))
    except HsmbridgeError as error:
        _say({"refused": type(error).__name__, "phases": [str(entry.phase) for entry in party.journal.entries()]})
    else:
        _say({"won": len(received.keys)})
    close(token)


def _say(document: object) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
