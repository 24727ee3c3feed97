"""Processes that are ended in the middle of an import or a handoff, and the fresh ones that judge what is left.

The judge of one death is the next one to die: starting a process costs more than all else.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from hsmbridge_csp.handoff.destination import arriving_id
from hsmbridge_csp.journal import Journal, Phase, Role

from hsmbridge.codes import CKA
from hsmbridge.errors import HsmbridgeError
from hsmbridge_conformance.disturbed import answer_of
from hsmbridge_conformance.faults import CHANGING, Deed
from hsmbridge_conformance.handing import must_work, provider, recipient
from hsmbridge_conformance.keymaking import usage
from hsmbridge_conformance.moving import make_bundle
from hsmbridge_conformance.peer import PeerDied
from hsmbridge_conformance.verdict import Failed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hsmbridge_conformance.rig import Rig

__all__ = ["SCENES", "Scene", "close_sessions", "last_calls", "strike"]


class Scene(ABC):
    """What a second process is asked to do, of a fresh key of this run.

    Args:
        rig: the worker's means.
    """

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.to = recipient(rig)
        self.source = rig.make("aes:256", usage(CKA.ENCRYPT, CKA.DECRYPT))
        self.key_id = self.source.identity.id
        self.answer = answer_of(self.source)
        with must_work("the export failed"):
            self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """Export the key."""

    @abstractmethod
    def ask(self) -> None:
        """Have the second process do it."""

    @abstractmethod
    def settle(self) -> None:
        """Have a fresh process bring it to its end.

        Raises:
            Failed: it cannot.
        """

    def arriving(self) -> list[bytes]:
        """Return names that may not be left at the end."""
        return []

    def judge(self) -> None:
        """Look from a fresh process: exactly one key has arrived, and it is the right one.

        Raises:
            Failed: that is not so.
        """
        self.settle()
        found = self.rig.peer.ask("answer", key_id=self.key_id.hex())
        if len(found) != 1:
            raise Failed(f"{len(found)} keys have arrived, and one should have")
        if found != [self.answer.hex()]:
            raise Failed("another key has arrived")
        if any(self.rig.peer.ask("count", key_id=name.hex()) for name in self.arriving()):
            raise Failed("an object is left under its arriving name")
        if answer_of(self.source) != self.answer:
            raise Failed("the source is gone")

    def remove(self) -> None:
        """Remove what is left of it, so that the next one finds nothing."""
        for name in (self.key_id, *self.arriving()):
            for left in self.rig.token.find({CKA.TOKEN: True, CKA.ID: name}):
                self.rig.ours.remove(self.rig.ours.take(left))
        if self.source.alive:
            self.rig.ours.remove(self.source)


class _Import(Scene):
    """A copy, into the token."""

    def prepare(self) -> None:
        """Export the key."""
        sender = provider(self.rig)
        self._blob = sender.export_key(sender.adopt(self.source), self.to.sealer).hex()

    def ask(self) -> None:
        """Import."""
        self.rig.peer.ask("import_copy", blob=self._blob, kek_id=self.to.kek_id)

    def settle(self) -> None:
        """Import again, where nothing has arrived."""
        if not self.rig.peer.ask("count", key_id=self.key_id.hex()):
            with must_work("the blob cannot be imported any more"):
                self.ask()


class _Handoff(Scene):
    """A bundle, into the token."""

    def prepare(self) -> None:
        """Freeze the key and write the bundle."""
        sender = provider(self.rig)
        self._bundle = make_bundle(self.rig, self.to, [sender.adopt(self.source)])
        self._journal = self.rig.directory / f"journal-{secrets.token_hex(8)}.sqlite"

    def ask(self) -> None:
        """Receive it."""
        self.rig.peer.ask("receive", bundle=str(self._bundle), kek_id=self.to.kek_id, journal=str(self._journal))

    def settle(self) -> None:
        """Recover, which is to change nothing the second time, and receive the bundle where it was not imported."""
        with must_work("recovery failed"):
            first, second = (self.rig.peer.ask("recover", journal=str(self._journal)) for _ in range(2))
        if first != second:
            raise Failed("a second recovery changes something")
        if Phase.DONE not in first:
            with must_work("the bundle cannot be received any more"):
                self.ask()

    def arriving(self) -> list[bytes]:
        """Return the names under which keys of the bundle arrive."""
        with Journal(self._journal) as journal:
            handoffs = [entry.handoff for entry in journal.entries()]
            return [arriving_id(key.blob) for one in handoffs for key in journal.keys(Role.RECEIVER, one) if key.blob]


SCENES: dict[str, type[Scene]] = {"import": _Import, "handoff": _Handoff}


def last_calls(rig: Rig, kind: type[Scene]) -> dict[str, int]:
    """Return the functions that change a token in an undisturbed run, each with the number of its last call."""
    scene = kind(rig)
    rig.peer.ask("arm", at=0, deed=Deed.BEFORE)
    with must_work("it does not work undisturbed"):
        scene.ask()
    names: list[str] = rig.peer.ask("disarm")
    scene.judge()
    scene.remove()
    return {name: number for number, name in enumerate(names, 1) if name in CHANGING}


def strike(rig: Rig, kind: type[Scene], blows: Iterable[dict[str, Any]]) -> str:
    """Let the second process die again and again, and judge each time.

    Args:
        rig: the worker's means.
        kind: what it is at.
        blows: the fields of :meth:`hsmbridge_conformance.peer_moving.MovingVerbs.arm`, and ``function`` to be told.

    Returns: how often it died.

    Raises:
        Failed: a judgement.
    """
    died = 0
    for blow in blows:
        function, fields = blow["function"], {name: value for name, value in blow.items() if name != "function"}
        scene = kind(rig)
        rig.peer.ask("arm", **fields)
        try:
            scene.ask()
            rig.peer.ask("disarm")
        except PeerDied:
            died += 1
        except HsmbridgeError as error:
            raise Failed(f"{fields['deed']} at {function}: the process was not ended, but: {error}") from None
        try:
            rig.fresh_peer()
            scene.judge()
        except Failed as failure:
            raise Failed(f"{fields['deed']} at call {fields['at']} ({function}): {failure}") from None
        scene.remove()
    return f"died {died} times"


def close_sessions(rig: Rig, kind: type[Scene]) -> str:
    """Let all sessions of the second process be closed before its last C_UnwrapKey, and judge after a new login.

    Raises:
        Failed: no typed error, or a judgement.
    """
    calls = {name: number for name, number in last_calls(rig, kind).items() if name == "C_UnwrapKey"}
    for function, number in calls.items():
        scene = kind(rig)
        rig.peer.ask("arm", at=number, deed=Deed.CLOSE)
        try:
            scene.ask()
        except PeerDied as error:
            raise Failed(f"closed before call {number} ({function}): {error}") from None
        except HsmbridgeError:
            pass
        finally:
            if rig.peer.alive:
                rig.peer.ask("disarm")
        rig.fresh_peer()
        scene.judge()
        scene.remove()
    return f"closed {len(calls)} times"
