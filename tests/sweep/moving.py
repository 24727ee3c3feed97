"""Both ends of a handoff, each in its own process, over a channel or by a bundle."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from hsmbridge_csp.channel import Listener, Side, Terms, connect
from hsmbridge_csp.handoff.destination import Destination, InProcess, InToken
from hsmbridge_csp.handoff.errors import InDoubtError, RefusedError
from hsmbridge_csp.handoff.files import InFiles
from hsmbridge_csp.handoff.offline import receive_bundle, send_bundle
from hsmbridge_csp.handoff.receiver import Receiver
from hsmbridge_csp.handoff.sender import Pending, Sender
from hsmbridge_csp.journal import Role

from hsmbridge.errors import HsmbridgeError
from tests.sweep.keys import describe, kek_of, source_of, warm
from tests.sweep.scene import OTHER

if TYPE_CHECKING:
    from pathlib import Path

    from hsmbridge_csp.handoff.parties import Party
    from hsmbridge_csp.handoff.source import Source
    from hsmbridge_csp.recipient_kek import TokenKek
    from hsmbridge_csp.recipients import Opener

    from hsmbridge.token import Token
    from tests.sweep.link import Link
    from tests.sweep.operations import Operation
    from tests.sweep.scene import Scene

__all__ = ["ASKING", "MOVING_SOCKET", "destination_of", "receive", "send", "terms"]

MOVING_SOCKET, ASKING = "moving", "asking"
_WAIT = 10.0


def terms(scene: Scene, side: Side) -> Terms:
    """Return the terms of an end: it believes the other side's identity and nobody else's."""
    believed = frozenset({scene.fingerprint(OTHER[str(side)])})
    return Terms(side=side, identity=scene.bench.identity(str(side)), believed=believed)


def destination_of(operation: Operation, scene: Scene, token: Token, opener: Opener | None) -> Destination:
    """Return where the keys arrive."""
    if operation.destination == "token" and opener is not None:
        return InToken(token, opener)
    if operation.destination == "files":
        return InFiles(lambda position, _: scene.work / "arrived" / str(position), _render, token, opener)
    return InProcess(token, opener)


def _render(key: object) -> bytes:
    return bytes(key.value)  # type: ignore[attr-defined]


def send(link: Link, scene: Scene, operation: Operation) -> None:
    """Hand the keys over; if that stays in doubt, wait for the word to ask, and ask."""
    token = scene.open_token()
    warm(token)
    look = scene.look(fresh=False)
    sources = [source_of(name, scene, token) for name in operation.sources]
    recipient = kek_of(token) if operation.sealed else None
    if recipient is not None:
        _ = recipient.fingerprint
    link.say("ready", hardware=look.bystanders(scene.bench))
    scene.arm_calls("sender")
    scene.arm_steps("sender")
    said = _attempt(lambda: _send(scene, operation, token, sources, recipient))
    link.say("done", **said)
    while (word := link.listen()) not in ("", "end"):
        if word == "ask":
            said = _attempt(lambda: _ask(scene, token, sources))
            link.say("asked", **said)
    keys = [describe(source.key, name, look) for source, name in zip(sources, operation.sources, strict=True)]
    link.say("end", keys=keys, objects=[[found.on_token, found.id, found.answer] for found in look.objects()])


def _send(scene: Scene, operation: Operation, token: Token, sources: list[Source], recipient: TokenKek | None) -> str:
    party = scene.party("sender")
    sender = Sender(party, token)
    if operation.offline and recipient is not None:
        send_bundle(sender, party, sources, scene.bundle, recipient, scene.fingerprint("receiver"), token)
        return "sent"
    with connect(scene.root / "socket" / MOVING_SOCKET, terms(scene, Side.SENDER)) as channel:
        sender.send(sources, channel, recipient)
    return "moved"


def _ask(scene: Scene, token: Token, sources: list[Source]) -> str:
    party = scene.party("sender")
    entry = next(entry for entry in party.journal.entries() if entry.role is Role.SENDER)
    with connect(scene.root / "socket" / ASKING, terms(scene, Side.SENDER)) as channel:
        Sender(party, token).ask(Pending(entry=entry, sources=tuple(sources)), channel)
    return "moved"


def _attempt(act: object) -> dict[str, object]:
    try:
        return {"outcome": act(), "error": "", "typed": True}  # type: ignore[operator]
    except RefusedError as error:
        return {"outcome": "refused", "error": str(error), "typed": True}
    except InDoubtError as error:
        return {"outcome": "in-doubt", "error": str(error), "typed": True}
    except Exception as error:  # noqa: BLE001 - its type is what is judged
        typed = isinstance(error, HsmbridgeError)
        return {"outcome": "failed", "error": f"{type(error).__name__}: {error}", "typed": typed}


def receive(link: Link, scene: Scene, operation: Operation) -> None:
    """Take the keys over, hold them until told to end, and say then what is held."""
    token = scene.open_token()
    warm(token)
    look = scene.look(fresh=False)
    opener = kek_of(token) if operation.sealed else None
    if opener is not None:
        _ = opener.fingerprint
    before = {found.handle for found in look.objects()}
    destination = destination_of(operation, scene, token, opener)
    with contextlib.ExitStack() as stack:
        listener = None if operation.offline else stack.enter_context(Listener(_socket(scene)))
        link.say("ready", hardware=look.bystanders(scene.bench))
        scene.arm_calls("receiver")
        scene.arm_steps("receiver")
        said = _attempt(lambda: _receive(scene, operation, listener, destination))
    link.say("done", **said)
    while link.listen() not in ("", "end"):
        pass
    held = said["outcome"] == "received"
    keys = [describe(key, "", look) for key in destination.keys]
    new = [found for found in look.objects() if found.handle not in before]
    link.say("end", held=held, keys=keys, new=[[found.on_token, found.label, found.id, found.answer] for found in new])


def _socket(scene: Scene) -> Path:
    return scene.root / "socket" / MOVING_SOCKET


def _receive(scene: Scene, operation: Operation, listener: Listener | None, destination: Destination) -> str:
    party: Party = scene.party("receiver")
    receiver = Receiver(party)
    if listener is None:
        opener = destination.opener
        if opener is None:
            raise ValueError(f"{operation.name} has no recipient")
        receive_bundle(receiver, party, scene.bundle, opener, destination)
        return "received"
    with listener.accept(terms(scene, Side.RECEIVER), _WAIT) as channel:
        receiver.serve(channel, destination)
    return "received"
