"""Faults, continued: processes that are ended in the middle, and modules that crash or hang."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hsmbridge.codes import CKF
from hsmbridge_conformance.barecalls import BareCalls
from hsmbridge_conformance.catalogue import check
from hsmbridge_conformance.faults import Deed
from hsmbridge_conformance.killing import SCENES, last_calls, strike
from hsmbridge_conformance.process import WorkerProcess
from hsmbridge_conformance.verdict import Failed, Level, Subject, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hsmbridge_conformance.rig import Rig

__all__: list[str] = []

_KILLS = (Deed.KILL_BEFORE, Deed.KILL_AFTER)
_DELAYS = (0.0, 0.00003, 0.0001, 0.0003)
"""Seconds: a call that makes an object takes some tens of microseconds in memory, and a millisecond on a disk."""

_PATIENCE = (2.5, 8.0, 24.0)
"""Seconds of silence that count as a hang, the next where a machine was so slow that the call was not reached."""


def _kills(rig: Rig) -> Iterable[str]:
    del rig
    return [f"{scene}/{deed}" for scene in SCENES for deed in _KILLS]


@check("HSB-FAULT-003", subject=Subject.TOOLKIT, level=Level.MUST, clauses="HSB", cases=_kills, scratch=True)
def killed_between_calls(rig: Rig, case: str) -> str:
    """A process that is killed between two calls costs no key and leaves none twice.

    A second process imports into the token, from a blob or from the bundle of a handoff, and ends itself with SIGKILL
    right before or right after a call that changes the token: it can neither clean up nor write anything down. A fresh
    process then recovers, twice, and imports where nothing has arrived. Exactly one key must be there in the end, the
    right one, nothing under a passing name, and the source must be what it was.
    """
    name, _, deed = case.partition("/")
    calls = last_calls(rig, SCENES[name])
    return strike(
        rig,
        SCENES[name],
        ({"at": number, "deed": deed, "function": function} for function, number in calls.items()),
    )


def _scenes(rig: Rig) -> Iterable[str]:
    del rig
    return SCENES


@check("HSB-FAULT-004", subject=Subject.TOOLKIT, level=Level.SHOULD, clauses="HSB", cases=_scenes, scratch=True)
def killed_inside_calls(rig: Rig, name: str) -> str:
    """A process that is killed while the module is at work costs no key either.

    As before, but another thread ends the process while the call runs that makes the key a token object, after delays
    from nothing to longer than the call. What a module leaves half-written then is its own affair, and the reason why
    this needs a token that may be lost; that one key is there in the end is still asked for.
    """
    calls = last_calls(rig, SCENES[name])
    number = calls["C_UnwrapKey"]
    return strike(
        rig,
        SCENES[name],
        ({"at": number, "deed": Deed.KILL_INSIDE, "delay": delay, "function": "C_UnwrapKey"} for delay in _DELAYS),
    )


def _endings(rig: Rig) -> Iterable[str]:
    del rig
    return (str(Deed.CRASH), str(Deed.HANG))


@check("HSB-FAULT-006", subject=Subject.TOOLKIT, level=Level.MUST, clauses="HSB", cases=_endings)
def crash_is_contained(rig: Rig, deed: str) -> str:
    """A module that crashes or hangs is reported, with the function, and takes nobody along.

    A worker of this suite is started on the token and made to crash, or to hang, inside a call, as it would with such
    a module. Whoever started it must be told within the time limit how it ended and in which function, and the next
    worker must find the token as usable as before. Not tried on a slot that is flagged as hardware: a TPM loses room
    for good with a process that dies, and whether a device does so cannot be told before.
    """
    if BareCalls(rig.token.module.path).slot_flags(rig.token.slot_id) & CKF.SLOT_HW:
        raise Unsupported("CKF_HW_SLOT is set: a process that dies may cost the device room")
    order = {"task": "describe", "target": rig.target.message(), "digest_key": bytes(32).hex()}
    # A worker that has logged in would leave more behind in the token than one that has not.
    doomed = {**order, "target": {**rig.target.message(), "login": False}, "fault": {"at": 2, "deed": deed}}
    directory = rig.directory / f"worker-{deed}"
    directory.mkdir(mode=0o700, exist_ok=True)
    said: list[dict[str, Any]] = []
    ended = function = ""
    for patience in _PATIENCE:
        with WorkerProcess(doomed, directory, patience) as worker:
            said = list(worker.messages())
            ended, (_, function, _) = worker.ended, worker.position
        if function:
            break
    if said or not ended:
        raise Failed("the end of the worker was not noticed")
    if not function.startswith("C_"):
        raise Failed(f"it is not told in which function the worker ended: {ended}")
    with WorkerProcess(order, directory) as worker:
        if not any("inventory" in message for message in worker.messages()):
            raise Failed(f"the next worker does not come through: {worker.ended}")
    return f"{ended}, in {function}"
