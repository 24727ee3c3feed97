"""Recovery of both sides, each in a fresh process, and what can be seen afterwards."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from hsmbridge_csp.channel import Listener, Side, connect
from hsmbridge_csp.channel.errors import ChannelError
from hsmbridge_csp.handoff.destination import InProcess
from hsmbridge_csp.handoff.messages import Message, Query
from hsmbridge_csp.handoff.offline import receive_bundle
from hsmbridge_csp.handoff.receiver import Receiver
from hsmbridge_csp.handoff.recovery import Recovery
from hsmbridge_csp.handoff.statement import read_statement
from hsmbridge_csp.journal import Journal, Phase, Role

from hsmbridge.errors import HsmbridgeError
from tests.sweep.keys import kek_of
from tests.sweep.moving import ASKING, destination_of, terms

if TYPE_CHECKING:
    from hsmbridge_csp.handoff.parties import Party
    from hsmbridge_csp.journal import Entry

    from tests.sweep.link import Link
    from tests.sweep.operations import Operation
    from tests.sweep.scene import Scene

__all__ = ["inspect", "receive_later", "recover_receiver", "recover_sender"]

_WAIT = 3.0
_JOURNALS = ("journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm")


def recover_receiver(link: Link, scene: Scene, process: str) -> None:
    """Settle the receiver's side, then answer senders as often as told to."""
    token = scene.open_token()
    look = scene.look(fresh=False)
    link.say("ready", hardware=look.bystanders(scene.bench))
    scene.arm_calls(process)
    scene.arm_steps(process)
    try:
        party = scene.party("receiver")
        outcomes = Recovery(party, token).run()
    except HsmbridgeError as error:
        link.say("done", outcomes=[], error=str(error))
        return
    with Listener(scene.root / "socket" / ASKING) as listener:
        link.say("done", outcomes=[[str(found.entry.phase), found.text] for found in outcomes])
        while link.listen() == "serve":
            with listener.accept(terms(scene, Side.RECEIVER), _WAIT) as channel:
                Receiver(party).serve(channel, InProcess(token))


def recover_sender(link: Link, scene: Scene, process: str) -> None:
    """Settle the sender's side: from its journal, then by the receiver's word, as a file or over a channel."""
    link.say("ready", hardware=[])
    scene.arm_steps(process)
    try:
        outcomes = _recover_sender(link, scene)
    except HsmbridgeError as error:
        link.say("done", outcomes=[], error=str(error))
        return
    link.say("done", outcomes=outcomes)


def _recover_sender(link: Link, scene: Scene) -> list[list[str]]:
    party = scene.party("sender")
    recovery = Recovery(party)
    outcomes = [[str(found.entry.phase), found.text] for found in recovery.run()]
    for entry in party.journal.entries(open_only=True):
        if entry.role is not Role.SENDER or entry.phase is not Phase.SENT:
            continue
        if entry.bundle:
            statement = _receipt_file(scene, entry)
        else:
            link.say("asking")
            statement = _ask(scene, entry)
        if statement:
            outcomes.append([str(entry.phase), recovery.apply(statement, entry).text])
    return outcomes


def _receipt_file(scene: Scene, entry: Entry) -> bytes:
    with Journal(scene.work / "receiver" / "journal.sqlite") as journal:
        known = journal.entry(Role.RECEIVER, entry.handoff)
    return known.statement if known is not None else b""


def _ask(scene: Scene, entry: Entry) -> bytes:
    try:
        with connect(scene.root / "socket" / ASKING, terms(scene, Side.SENDER)) as channel:
            channel.send(Message.QUERY, Query(handoff=entry.handoff, nonce=entry.nonce).encode())
            frame = channel.receive()
            return frame.payload if frame.type == Message.STATEMENT else b""
    except ChannelError:  # the other side's recovery is dead, which is one of the faults
        return b""


def receive_later(link: Link, scene: Scene, operation: Operation) -> None:
    """Receive a bundle that nobody has received yet, on the bare module; one that does not open is refused."""
    token = scene.bench.open_token(scene.bench.module)
    opener = kek_of(token)
    party = scene.party("receiver")
    destination = destination_of(operation, scene, token, opener)
    try:
        receive_bundle(Receiver(party), party, scene.bundle, opener, destination)
    except HsmbridgeError as error:
        entry = next((entry for entry in party.journal.entries() if entry.role is Role.RECEIVER), None)
        if entry is not None:
            Receiver(party).refuse(entry, "it does not open")
        link.say("received", error=f"{type(error).__name__}: {error}")
        return
    link.say("received", error="")


def inspect(link: Link, scene: Scene) -> None:
    """Say what there is, on the bare module: objects, files, and both journals."""
    look = scene.look(fresh=True)
    objects = [[found.on_token, found.cls, found.label, found.id, found.answer] for found in look.objects()]
    files = {}
    for path in sorted(scene.work.rglob("*")):
        if path.is_file() and path.name not in _JOURNALS:
            content = path.read_bytes()
            name = str(path.relative_to(scene.work))
            files[name] = content.hex() if len(content) <= 64 else hashlib.sha256(content).hexdigest()
    sides = {side: _entries(scene.party(side)) for side in ("sender", "receiver")}
    link.say("seen", objects=objects, files=files, **sides)


def _entries(party: Party) -> list[dict[str, object]]:
    with party.journal as journal:
        return [
            {
                "handoff": entry.handoff.hex(),
                "phase": str(entry.phase),
                "settled": entry.phase.settled,
                "statement": entry.statement.hex(),
                "kind": _kind(party, entry),
                "remark": entry.remark,
                "dispositions": [key.disposition for key in journal.keys(entry.role, entry.handoff)],
            }
            for entry in journal.entries()
        ]


def _kind(party: Party, entry: Entry) -> str:
    """Verify a statement that this journal holds, and say which it is: receipt, tombstone, none or bad."""
    if not entry.statement:
        return "none"
    signer = entry.peer if entry.role is Role.SENDER else party.identity.fingerprint
    try:
        statement = read_statement(entry.statement, signer, party.key_of)
    except HsmbridgeError:
        return "bad"
    right = statement.handoff == entry.handoff and statement.nonce == entry.nonce
    return statement.kind.name.lower() if right else "bad"
