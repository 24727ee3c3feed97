"""Faults: calls that fail before and after they took effect, sessions and devices that go away in the middle."""

from __future__ import annotations

from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING

from hsmbridge.codes import CKR
from hsmbridge_conformance.catalogue import check
from hsmbridge_conformance.disturbed import Destroy, Export, Import, ImportPersisted, Operation
from hsmbridge_conformance.disturbed_handoff import Handoff, HandoffPersisted
from hsmbridge_conformance.faults import CHANGING, Deed, Fault, sample
from hsmbridge_conformance.killing import SCENES, close_sessions
from hsmbridge_conformance.sweeping import sweep
from hsmbridge_conformance.verdict import Level, Subject

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hsmbridge_conformance.rig import Rig

__all__: list[str] = []

_OPERATIONS: dict[str, type[Operation]] = {
    "export": Export,
    "import": Import,
    "import-persisted": ImportPersisted,
    "destroy": Destroy,
    "handoff": Handoff,
    "handoff-persisted": HandoffPersisted,
}

_REFUSALS = (
    CKR.DEVICE_ERROR, CKR.DEVICE_REMOVED, CKR.SESSION_HANDLE_INVALID, CKR.USER_NOT_LOGGED_IN, CKR.DEVICE_MEMORY,
)  # fmt: skip


def _operations(rig: Rig) -> Iterable[str]:
    del rig
    return _OPERATIONS


def _each_call(deed: Deed, numbers: list[int], names: list[str]) -> Iterator[Fault]:
    """Yield faults at these calls, with the return values in turn; two for what makes or changes an object."""
    answers = cycle(_REFUSALS)
    for number in numbers:
        for _ in range(2 if names[number - 1] in CHANGING else 1):
            yield Fault(at=number, deed=deed, ckr=next(answers))


@check("HSB-FAULT-001", subject=Subject.TOOLKIT, level=Level.MUST, clauses="HSB ERR", cases=_operations)
def error_before_each_call(rig: Rig, name: str) -> str:
    """A call that fails costs at most the operation: nothing is lost, nothing is left behind unreported.

    An operation is done again and again, each time with another of its calls answered with an error in the module's
    place. Of a handoff's hundred calls those are tried that make or change an object where the key arrives in the
    process, and the first and the last of each function where it arrives in the token. It must end with a typed
    error, or in success where hsmbridge rightly goes on. Then the source must be usable, no object of others may have
    been destroyed and none twice, what was made must be gone or reported, no key byte and no PIN may be in what was
    said, and the same operation must work once nothing is in the way.
    """
    return sweep(rig, _OPERATIONS[name], partial(_each_call, Deed.BEFORE))


@check("HSB-FAULT-002", subject=Subject.TOOLKIT, level=Level.MUST, clauses="HSB ERR", cases=_operations)
def error_after_each_call(rig: Rig, name: str) -> str:
    """A call that took effect and reports an error does no more harm than one that failed.

    As before, but each call is made and its answer replaced, other than C_EncryptInit and its like. So there are
    objects whose handle nobody has, and a destroy that is said to have failed: hsmbridge must look instead of trying
    blindly once more.
    """
    return sweep(rig, _OPERATIONS[name], partial(_each_call, Deed.AFTER))


_LOSSES = {
    "device-removed": CKR.DEVICE_REMOVED,
    "session-lost": CKR.SESSION_HANDLE_INVALID,
    "logged-out": CKR.USER_NOT_LOGGED_IN,
}
_LOST_DURING = ("export", "import-persisted", "destroy", "handoff-persisted")
_CLOSED = "sessions-closed"


def _losses(rig: Rig) -> Iterable[str]:
    del rig
    return [*(f"{loss}/{name}" for loss in _LOSSES for name in _LOST_DURING), *(f"{_CLOSED}/{name}" for name in SCENES)]


def _from_then_on(ckr: int, numbers: list[int], names: list[str]) -> Iterator[Fault]:
    """Yield a loss before the first call, and before the first and the last of each function that changes something."""
    del numbers
    for number in sorted({1, *(number for number in sample(names) if names[number - 1] in CHANGING)}):
        yield Fault(at=number, ckr=ckr, onwards=True)


@check("HSB-FAULT-005", subject=Subject.TOOLKIT, level=Level.MUST, clauses="HSB ERR", cases=_losses)
def everything_fails_from_then_on(rig: Rig, case: str) -> str:
    """A device that is removed, a session that is lost, a login that ends: nothing is destroyed, and the key is there.

    From one call on, every call is answered with CKR_DEVICE_REMOVED, CKR_SESSION_HANDLE_INVALID or
    CKR_USER_NOT_LOGGED_IN, those that would clean up as well: from the first call on, and from the first and the last
    of each function that changes the token. In a second process all sessions are closed in earnest, right before the
    last C_UnwrapKey. There must be a typed error that says what may be left, no object of others may be destroyed, and
    when the token answers again, the key must be usable and the operation must come to its end.
    """
    loss, _, name = case.partition("/")
    if loss == _CLOSED:
        return close_sessions(rig, SCENES[name])
    return sweep(rig, _OPERATIONS[name], partial(_from_then_on, _LOSSES[loss]))
