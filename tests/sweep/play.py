"""One case from beginning to end: its processes, and the evidence that they leave to the judge."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.sweep.link import Child
from tests.sweep.moving import MOVING_SOCKET, receive, send
from tests.sweep.settling import inspect, receive_later, recover_receiver, recover_sender
from tests.sweep.single import act, import_again

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.sweep.link import Link
    from tests.sweep.operations import Operation
    from tests.sweep.scene import Scene

__all__ = ["Evidence", "play"]

_READY, _ENOUGH, _HANGING = 20.0, 12.0, 0.8
Report = dict[str, Any]


@dataclass(kw_only=True)
class Evidence:
    """What came of a case.

    Attributes:
        operation, scene: which it was.
        reports: what each process said, by process and word.
        status: how each process ended.
        seen: what a fresh process saw before the first recovery, and after each of them.
        later: what a process said that used a blob or bundle once more.
    """

    operation: Operation
    scene: Scene
    reports: dict[str, dict[str, Report]] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    seen: list[Report] = field(default_factory=list)
    later: Report | None = None

    def said(self, process: str, word: str) -> Report | None:
        """Return what a process said under a word; None where it did not get there."""
        return self.reports.get(process, {}).get(word)

    @property
    def last(self) -> Report:
        """What was seen last."""
        return self.seen[-1]


class Play:
    """Runs the processes of one case."""

    def __init__(self, operation: Operation, scene: Scene) -> None:
        self.operation, self.scene = operation, scene
        self.evidence = Evidence(operation=operation, scene=scene)
        self._children: dict[str, Child] = {}

    def start(self, process: str, what: Callable[[Link], None]) -> Child:
        """Start a process and wait until it is ready."""
        child = Child(what, self.scene.environment(process), self.scene.output(process))
        self._children[process] = child
        self.hear(process, _READY)
        return child

    def hear(self, process: str, seconds: float | None = None) -> Report | None:
        """Note a process's next report; None when it has ended."""
        child = self._children[process]
        if child.status is not None:
            return None
        if seconds is None:
            fault = self.scene.fault.get(process)
            seconds = _HANGING if fault is not None and fault.hangs else _ENOUGH
        report = child.hear(seconds)
        if report is None:
            self.evidence.status[process] = child.end()
            return None
        self.evidence.reports.setdefault(process, {})[report["what"]] = report
        return report

    def alive(self, process: str) -> bool:
        """Whether a process was started and has not ended."""
        return process in self._children and self._children[process].status is None

    def end(self, process: str) -> None:
        """Let a process report what it holds, and end."""
        if self.alive(process):
            self._children[process].tell("end")
            while self.hear(process) is not None:
                pass

    def see(self, name: str = "inspection") -> None:
        """Let a fresh process look."""
        self.start(name, partial(inspect, scene=self.scene))
        self.end(name)
        seen = self.evidence.reports.pop(name, {}).get("seen")
        if seen is None:
            raise RuntimeError(f"the inspection died: {self.scene.output(name).read_text('utf-8')}")
        self.evidence.seen.append(seen)

    def close(self) -> None:
        """End whatever is left."""
        for child in self._children.values():
            child.kill()


def play(operation: Operation, scene: Scene) -> Evidence:
    """Run a case."""
    acting = Play(operation, scene)
    try:
        if not operation.is_handoff:
            _single(acting)
        elif operation.offline:
            _offline(acting)
        else:
            _live(acting)
    finally:
        acting.close()
    return acting.evidence


def _single(acting: Play) -> None:
    operation, scene = acting.operation, acting.scene
    acting.start("actor", partial(act, scene=scene, operation=operation))
    acting.hear("actor")
    acting.end("actor")
    acting.see()
    blob = scene.work / "blob"
    if operation.name.startswith("import-") or blob.exists():
        data = blob.read_bytes() if blob.exists() else bytes.fromhex(scene.bench.blob)
        acting.start("again", partial(import_again, scene=scene, blob=data))
        acting.end("again")
        acting.evidence.later = acting.evidence.said("again", "import")


def _live(acting: Play) -> None:
    operation, scene = acting.operation, acting.scene
    acting.start("receiver", partial(receive, scene=scene, operation=operation))
    acting.start("sender", partial(send, scene=scene, operation=operation))
    hanging = "receiver" if "receiver" in scene.fault and scene.fault["receiver"].hangs else "sender"
    for process in (hanging, "sender", "receiver"):
        if acting.evidence.said(process, "done") is None:
            acting.hear(process)
        if process == "sender":
            _end_waiting(scene.root / "socket" / MOVING_SOCKET)
    acting.see()
    sent = acting.evidence.said("sender", "done")
    in_doubt = sent is not None and sent["outcome"] == "in-doubt"
    if acting.alive("sender") and in_doubt and not _recovery_is_swept(operation):
        _ask(acting)
    acting.end("sender")
    acting.end("receiver")
    _recover(acting)


def _recovery_is_swept(operation: Operation) -> bool:
    return any(process.endswith("-recovery") for process in operation.processes)


def _end_waiting(path: Path) -> None:
    """Connect and leave, in case that the receiver still waits for a sender that never came."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as visitor, contextlib.suppress(OSError):
        visitor.settimeout(0)
        visitor.connect(str(path))


def _ask(acting: Play) -> None:
    """The sender lives and is in doubt: the receiver's side is settled as far as it can be, and asked.

    A receiver that has the keys goes on holding them meanwhile; one that failed ends first.
    """
    received = acting.evidence.said("receiver", "done")
    if received is None or received["outcome"] != "received":
        acting.end("receiver")
    answering = acting.start("answering", partial(recover_receiver, scene=acting.scene, process="answering"))
    acting.hear("answering")
    answering.tell("serve")
    sender = acting._children["sender"]  # noqa: SLF001 - of this module
    sender.tell("ask")
    acting.hear("sender")
    acting.end("answering")


def _offline(acting: Play) -> None:
    operation, scene = acting.operation, acting.scene
    acting.start("sender", partial(send, scene=scene, operation=operation))
    acting.hear("sender")
    acting.end("sender")
    if not scene.bundle.exists():
        _round(acting, "early")
    if scene.bundle.exists():
        acting.start("receiver", partial(receive, scene=scene, operation=operation))
        acting.hear("receiver")
        acting.see()
        acting.end("receiver")
    else:
        acting.see()
    _recover(acting)
    phases = [entry["phase"] for entry in acting.evidence.last["receiver"]]
    if scene.bundle.exists() and not set(phases) & {"done", "refused", "imported"}:
        acting.start("later", partial(receive_later, scene=scene, operation=operation))
        acting.end("later")
        acting.evidence.later = acting.evidence.said("later", "received")
        _recover(acting, "-late")


def _recover(acting: Play, late: str = "") -> None:
    """Recover twice, a third time where the first is disturbed; look after each."""
    rounds = ["", "-2", "-3"] if _recovery_is_swept(acting.operation) else [f"-1{late}", f"-2{late}"]
    for suffix in rounds:
        _round(acting, suffix)
        acting.see(f"inspection{suffix}")


def _round(acting: Play, suffix: str) -> None:
    receiver, sender = f"receiver-recovery{suffix}", f"sender-recovery{suffix}"
    answering = acting.start(receiver, partial(recover_receiver, scene=acting.scene, process=receiver))
    acting.hear(receiver)
    acting.start(sender, partial(recover_sender, scene=acting.scene, process=sender))
    while (report := acting.hear(sender)) is not None and report["what"] == "asking":
        answering.tell("serve")
    acting.end(sender)
    acting.end(receiver)
