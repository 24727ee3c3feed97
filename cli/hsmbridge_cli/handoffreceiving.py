"""Receiving: from a bundle, with a receipt file; or from a socket, one sender after the other."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from hsmbridge_csp.channel import Listener, Side
from hsmbridge_csp.channel.errors import ChannelTimeoutError, PeerClosedError
from hsmbridge_csp.handoff.bundle import verify_bundle
from hsmbridge_csp.handoff.errors import AlreadyImportedError, UnpublishedError
from hsmbridge_csp.handoff.offline import receive_bundle
from hsmbridge_csp.handoff.receiver import Receiver
from hsmbridge_csp.journal import Phase, Role
from hsmbridge_csp.keys import SoftwareKey

from hsmbridge.errors import HsmbridgeError, UsageError
from hsmbridge_cli.display import clean, emit_json
from hsmbridge_cli.failures import report
from hsmbridge_cli.handoffs import describe_entry, entry_of
from hsmbridge_cli.handofftrying import try_bundle
from hsmbridge_cli.softkeys import destroy_key_file

if TYPE_CHECKING:
    from hsmbridge_csp.channel import Channel
    from hsmbridge_csp.handoff.parties import Party
    from hsmbridge_csp.handoff.receiver import Received
    from hsmbridge_csp.identity import VerifyingKey
    from hsmbridge_csp.recipients import Opener

    from hsmbridge.token import Token
    from hsmbridge_cli.files import OutputFile
    from hsmbridge_cli.handoffplaces import Place
    from hsmbridge_cli.handoffs import Neighbours
    from hsmbridge_cli.handoffwatch import Watch
    from hsmbridge_cli.options import Settings

__all__ = ["Reception", "receive_from_bundle", "receive_from_socket"]

_OPERATION_SECONDS = 60.0
"""How long a sender that has connected may be silent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reception:
    """All that receiving needs.

    Attributes:
        settings: of the command.
        party: who we are; neighbours: whom we believe in this run.
        watch: is told.
        place: DEST.
        token: where token keys arrive or are found, None for files.
        opener: the recipient's key, None where a channel seals.
    """

    settings: Settings
    party: Party
    neighbours: Neighbours
    watch: Watch
    place: Place
    token: Token | None
    opener: Opener | None

    def key_of(self, fingerprint: bytes) -> VerifyingKey:
        """Return the public key of somebody whom we believe in this run.

        Raises:
            UnknownSenderError: nobody is.
        """
        self.neighbours.check(fingerprint)
        return self.party.key_of(fingerprint)

    def overwrite(self, received: Received) -> None:
        """Overwrite what this process has of what arrived."""
        for key in received.keys:
            if isinstance(key, SoftwareKey):
                key.dispose()

    def describe(self, received: Received) -> dict[str, object]:
        """Return what arrived, JSON-ready, and overwrite what this process has of it."""
        entry = entry_of(self.party.journal, Role.RECEIVER, received.handoff)
        places = [key.place for key in self.party.journal.keys(Role.RECEIVER, received.handoff)]
        keys = []
        for key, place in zip(received.keys, places, strict=True):
            evidence = key.classify()
            keys.append({"algorithm": str(key.algorithm), "place": place, "residency": str(evidence.residency)})
        self.overwrite(received)
        facts = describe_entry(entry, self.neighbours)
        return {**{name: facts[name] for name in ("handoff", "phase", "peer", "bundle")}, "keys": keys}

    def print(self, handoff: dict[str, object]) -> None:
        """Print what arrived, for people."""
        keys, peer = handoff["keys"], handoff["peer"]
        if self.settings.json or not isinstance(keys, list) or not isinstance(peer, dict):
            return
        for key in keys:
            where = "where it was: in its token" if key["place"] == "reference" else f"in {key['place']}"
            click.echo(clean(f"received {key['algorithm']}, {where}"), err=self.watch.owns_stdout)
        text = f"handoff {handoff['handoff']}: {len(keys)} key(s) from {peer['name']}"
        click.echo(clean(text), err=self.watch.owns_stdout)


def receive_from_bundle(here: Reception, bundle: str, receipt: OutputFile | None, used_up: str | None) -> None:
    """Verify a bundle whole, take its keys over, and write the receipt.

    Args:
        here: who, where to, with which key.
        bundle: its path.
        receipt: where the receipt goes, or the tombstone; None in a dry run.
        used_up: file of the private key that is destroyed once the receipt is durable.

    Raises:
        HsmbridgeError: as for :func:`receive_bundle`; a note says what was promised.
    """
    path = Path(bundle).absolute()
    try:
        header, digest = verify_bundle(path, here.key_of)
    except OSError as error:
        reason = (error.strerror or "error").lower()
        raise UsageError(f"{bundle} cannot be read: {reason}", hint="check the path") from None
    if here.opener is None:
        raise UsageError("nothing opens the bundle", hint="say --kek or --as")
    if receipt is None:
        try_bundle(here, path, header, digest)
        return
    destination = here.place.destination(here.token, here.opener)
    try:
        received = receive_bundle(Receiver(here.party), here.party, path, here.opener, destination)
    except UnpublishedError as error:
        _write_receipt(error.received, receipt)
        error.add_note(f"the receipt is in {receipt.name}: give it to the sender")
        here.overwrite(error.received)
        if used_up is not None:
            destroy_key_file(used_up)
        raise
    except HsmbridgeError as error:
        _say_what_was_promised(here, header.handoff, receipt, error)
        raise
    _write_receipt(received, receipt)
    document = here.describe(received)
    if used_up is not None:
        destroy_key_file(used_up)
        document["destroyed"] = used_up
    here.print(document)
    if here.settings.json:
        emit_json("handoff.receive", {"handoffs": [document], "answered": 0, "receipt": receipt.name})
    elif not receipt.is_stdout:
        click.echo(clean(f"the receipt is in {receipt.name}: give it to the sender"), err=here.watch.owns_stdout)


def _write_receipt(received: Received, receipt: OutputFile) -> None:
    try:
        receipt.write(received.statement)
    except HsmbridgeError as error:
        error.add_note(f"the keys are here; write the receipt again: {_again(received.handoff)}")
        raise


def _say_what_was_promised(here: Reception, handoff: bytes, receipt: OutputFile, error: HsmbridgeError) -> None:
    entry = here.party.journal.entry(Role.RECEIVER, handoff)
    if entry is None or entry.phase is Phase.OFFERED:
        error.add_note("nothing was promised: the bundle can be received again")
    elif isinstance(error, AlreadyImportedError):
        if entry.statement:
            error.add_note(f"what was promised then is kept: {_again(handoff)}")
    elif entry.phase is Phase.REFUSED and entry.statement:
        receipt.write(entry.statement)
        error.add_note(f"the bundle is refused for good; {receipt.name} tells the sender, whose keys then go on")


def _again(handoff: bytes) -> str:
    return f"`hsmbridge handoff show {handoff.hex()} --receipt FILE`"


def receive_from_socket(here: Reception, socket: str, *, keep: bool, timeout: float | None) -> None:
    """Listen, and do what those who come want: hand keys over, or ask what became of them.

    Args:
        here: who, where to, with which key.
        socket: the path.
        keep: go on after the first.
        timeout: seconds to wait for a sender, None for ever.

    Raises:
        HsmbridgeError: without *keep*, as for :meth:`Receiver.serve` and :meth:`Listener.accept`.
    """
    terms = here.neighbours.terms(here.party, Side.RECEIVER, _OPERATION_SECONDS)
    handoffs: list[dict[str, object]] = []
    answered = 0
    try:
        with Listener(Path(socket)) as listener:
            here.watch.tell("listening", socket=socket)
            deadline = None if timeout is None else time.monotonic() + timeout
            while True:
                here.watch.say("waiting for a sender…")
                try:
                    with listener.accept(terms, None if deadline is None else deadline - time.monotonic()) as channel:
                        received, questions = _serve(here, channel)
                except HsmbridgeError as error:
                    if not keep or (isinstance(error, ChannelTimeoutError) and _is_over(deadline)):
                        raise
                    report(error, here.settings.verbosity)
                    continue
                answered += questions
                if received is not None:
                    handoffs.append(here.describe(received))
                    here.print(handoffs[-1])
                elif not here.settings.json:
                    click.echo(f"answered {questions} question(s)", err=here.watch.owns_stdout)
                if not keep:
                    return
    finally:
        if here.settings.json and (handoffs or answered):
            emit_json("handoff.receive", {"handoffs": handoffs, "answered": answered, "receipt": None})


def _is_over(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline


def _serve(here: Reception, channel: Channel) -> tuple[Received | None, int]:
    """Serve one sender: any number of questions, then perhaps one handoff."""
    receiver, questions = Receiver(here.party), 0
    here.watch.tell("connected", peer=channel.peer.fingerprint.hex(), process=channel.peer.pid)
    while True:
        try:
            received = receiver.serve(channel, here.place.destination(here.token, here.opener))
        except PeerClosedError:
            if questions:
                return None, questions
            raise
        if received is not None:
            return received, questions
        questions += 1
