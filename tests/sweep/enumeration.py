"""All cases of an operation: every distinct call and step of an undisturbed run, with every fault that fits it."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, TypeVar

from hsmbridge.codes import CKR
from tests.sweep.cases import Case, Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.shim import Entry
    from tests.sweep.operations import Operation
    from tests.sweep.scene import Scene

__all__ = ["cases_of", "preceding", "reduced"]

_T = TypeVar("_T")

_REFUSALS = (
    CKR.DEVICE_ERROR, CKR.DEVICE_MEMORY, CKR.DEVICE_REMOVED, CKR.SESSION_HANDLE_INVALID, CKR.USER_NOT_LOGGED_IN,
)  # fmt: skip
_OUTPUT = frozenset(
    {
        "C_WrapKey", "C_GetAttributeValue", "C_Encrypt", "C_Decrypt", "C_Sign", "C_Digest", "C_GenerateRandom",
        "C_EncryptFinal", "C_EncryptUpdate",
    }
)  # fmt: skip
_WITHOUT_SESSION = frozenset({"C_GetSlotList", "C_GetTokenInfo", "C_GetSlotInfo", "C_GetMechanismList", "C_GetInfo"})
_WRITES = ("write", "pwrite64", "pwrite", "ftruncate64", "ftruncate", "fsync", "fdatasync")
_NAMES = ("rename", "link", "unlink")


def preceding(operation: Operation, dry: Scene) -> dict[str, str]:
    """Return what goes wrong beforehand in every case, by process, as a fault's text."""
    if operation.before is None:
        return {}
    process, function, action = operation.before
    if function.startswith("step:"):
        names = _steps(dry, process)
        wanted = function.removeprefix("step:")
        number = max(number for number, name in enumerate(names, 1) if name.split()[0] == wanted)
        return {process: f"step#{number}={action}"}
    last = max(entry.nth for entry in _calls(dry, process) if entry.function == function)
    return {process: f"{function}#{last}={action}"}


def cases_of(operation: Operation, dry: Scene) -> Iterator[Case]:
    """Yield all cases.

    Of a run of calls that differ in nothing but the attribute that they ask for, and of a run of writes to one file,
    the first and the last are taken.

    Args:
        operation: what is done.
        dry: an undisturbed run of it, or one in which only that happened which precedes each case.
    """
    for process in operation.processes:
        first, hung = _begin(operation, process, dry), set[str]()
        later = [entry for entry in _calls(dry, process) if entry.number > first]
        for number, entry in enumerate(_ends(later, lambda entry: (entry.function, tuple(entry.facts.items())))):
            refusals = _REFUSALS if not operation.is_handoff else (_REFUSALS[number % 5], _REFUSALS[(number + 2) % 5])
            for text in (*_faults(entry, refusals), *_hang(entry, hung)):
                yield _case(operation, process, dry, text)
        if operation.is_handoff and (operation.before is None or operation.before[0] != process):
            steps = list(enumerate(_steps(dry, process), 1))
            for number, step in _ends(steps, lambda step: step[1]):
                for text in _step_faults(number, step.split()[0]):
                    yield _case(operation, process, dry, text)


def _ends(items: list[_T], key: Callable[[_T], object]) -> Iterator[_T]:
    """Yield the first and the last of each run of items with the same key."""
    for _, group in groupby(items, key):
        first, *others = group
        yield first
        yield from others[-1:]


def _begin(operation: Operation, process: str, dry: Scene) -> int:
    """Return the number of the call that fails beforehand: what comes before it is swept elsewhere."""
    if operation.before is None or operation.before[0] != process:
        return 0
    return max(entry.number for entry in dry.entries(process) if entry.event == "action")


def _case(operation: Operation, process: str, dry: Scene, text: str) -> Case:
    before = dry.fault.get(process)
    words = f"{before.text} {text}" if before is not None else text
    return Case(operation=operation.name, process=process, fault=Fault(text=words))


def _calls(scene: Scene, process: str) -> list[Entry]:
    return [entry for entry in scene.entries(process) if entry.event == "call"]


def _steps(scene: Scene, process: str) -> list[str]:
    """Return the steps of a process, each as function and path."""
    path = scene.steps(process)
    return [line.partition(" ")[2] for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def _faults(entry: Entry, refusals: tuple[int, ...]) -> Iterator[str]:
    when = f"{entry.function}#{entry.nth}"
    yield from (f"{when}=before:{code:#x}" for code in refusals)
    yield from (f"{when}=after:{CKR.DEVICE_ERROR:#x}", f"{when}=kill-before", f"{when}=kill-after")
    yield f"@{entry.number}+=before:{CKR.DEVICE_REMOVED:#x}"
    if entry.function not in _WITHOUT_SESSION:
        yield from (f"{when}=logout", f"{when}=lose-session")
    if entry.function in _OUTPUT:
        yield from (f"{when}=corrupt-output", f"{when}=short-length")


def _hang(entry: Entry, seen: set[str]) -> Iterator[str]:
    """A hang is the same to everybody else wherever it is: once for each function."""
    if entry.function not in seen:
        seen.add(entry.function)
        yield f"{entry.function}#{entry.nth}=hang"


def _step_faults(number: int, name: str) -> Iterator[str]:
    yield from (f"step#{number}=kill-before", f"step#{number}=kill-after")
    if name in _WRITES:
        yield from (f"step#{number}=fail:EIO", f"step#{number}+=fail:ENOSPC")
    if name in _WRITES or name in _NAMES:
        yield f"step#{number}+=fail:EROFS"


def reduced(cases: list[Case]) -> list[Case]:
    """Return a sample: for each kind of process each kind of fault once, spread over operations, calls and steps."""
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        groups.setdefault((case.process, case.fault.kind), []).append(case)
    spread = 0.618  # of the golden ratio: neighbouring groups take cases that are far apart
    return [group[int(index * spread * len(group)) % len(group)] for index, group in enumerate(groups.values())]
