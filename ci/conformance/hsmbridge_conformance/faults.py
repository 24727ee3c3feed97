"""Calls that fail on purpose: which call, and what becomes of it.

A vendor's machine has no C compiler, so nothing is put between the program and its module: the one place of the token
layer that makes calls asks the process's observer first, and that is where a fault comes in. A call that fails
*before* is never made; one that fails *after* was made, took effect, and its answer was lost.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from hsmbridge.codes import CKR
from hsmbridge_conformance.journal import DESTROY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["CHANGING", "Deed", "Fault", "FaultPlan", "changing", "sample"]

_FOR_EVER = 3600.0
_MAKING = frozenset(
    {"C_CreateObject", "C_CopyObject", "C_GenerateKey", "C_GenerateKeyPair", "C_UnwrapKey", "C_DeriveKey"}
)
"""Functions that leave handles of new objects behind their last arguments."""

_CONCLUDING = frozenset({"C_Encrypt", "C_Decrypt", "C_Sign", "C_Verify"})
"""Functions that end what an Init call began whatever they answer, and change no object: they are always made.

A module whose C_Encrypt was never called would have an operation open that no failing module has.
"""

_BEGINNING = frozenset({"C_EncryptInit", "C_DecryptInit", "C_SignInit", "C_VerifyInit"})
"""Functions that leave no operation behind where they report an error: those that fail are never made."""

CHANGING = _MAKING | {DESTROY, "C_SetAttributeValue"}
"""Functions that leave the token otherwise than it was."""


class Deed(StrEnum):
    """What becomes of a call."""

    BEFORE = "before"
    """It is not made; the caller gets an error."""

    AFTER = "after"
    """It is made; the caller gets an error all the same."""

    KILL_BEFORE = "kill-before"
    KILL_AFTER = "kill-after"
    KILL_INSIDE = "kill-inside"
    """Another thread ends the process while the module is at work."""

    CRASH = "crash"
    HANG = "hang"

    CLOSE = "close"
    """All sessions of the process are closed before the call, which also ends its login."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault.

    Attributes:
        at: number of the call, counted from 1 when the plan begins; 0 lets nothing go wrong.
        deed: what becomes of it.
        ckr: the error that the caller gets.
        onwards: whether every later call goes the same way.
        delay: seconds after which a process is killed inside a call.
    """

    at: int = 0
    deed: Deed = Deed.BEFORE
    ckr: int = CKR.DEVICE_ERROR
    onwards: bool = False
    delay: float = 0.0

    def hits(self, number: int) -> bool:
        """Whether the call of this number goes wrong."""
        return number == self.at or (self.onwards and 0 < self.at < number)

    def fails(self, function: str) -> bool:
        """Whether a call of this function that goes wrong is not made at all, but answered."""
        if self.deed is Deed.AFTER:
            return function in _BEGINNING
        return self.deed is Deed.BEFORE and function not in _CONCLUDING


class _Current(threading.local):
    """The call that a thread is making."""

    number = 0
    makes: tuple[object, ...] = ()
    lost = False
    """Whether it is made, and its answer is replaced."""


class FaultPlan:
    """Counts the calls from when it is put to work, and lets the one go wrong that its fault is about.

    It sees what the caller does not: which objects there are although the answer was lost, and whether a handle is
    destroyed twice. The calls by which the binding opens and closes sessions are not counted.

    Args:
        fault: what goes wrong; None counts only.
        close: closes all sessions of the process.

    Attributes:
        names: the functions that were called, in order.
        orphans: handles of objects that were made by calls whose answer was lost.
        made: handles of all objects that were made.
        twice: handles that were destroyed a second time, no new object having got the handle meanwhile.
        foreign: handles of objects that a destroy was tried for, and that were there when the plan began.
        spent: whether the fault has happened.
    """

    def __init__(self, fault: Fault | None = None, close: Callable[[], None] | None = None) -> None:
        self._fault = fault or Fault()
        self._close = close
        self._lock = threading.Lock()
        self._current = _Current()
        self._dead: set[int] = set()
        self.names: list[str] = []
        self.orphans: list[int] = []
        self.made: set[int] = set()
        self.twice: list[int] = []
        self.foreign: list[int] = []
        self.spent = False

    def entering(self, function: str, arguments: tuple[object, ...]) -> int | None:
        """Count a call; the answer is given here where it is not to be made."""
        current = self._current
        current.number, current.makes, current.lost = 0, (), False
        if not arguments:
            return None
        with self._lock:
            self.names.append(function)
            number = len(self.names)
            hit = self._fault.hits(number)
            self.spent |= hit
            made = not (hit and self._fault.fails(function))
            if function == DESTROY and isinstance(arguments[1], int):
                self._note_destroy(arguments[1], made=made)
        if hit and self._fault.deed is Deed.CLOSE and self._close is not None:
            self._close()  # by calls of the binding, which come here as well
        elif hit:
            _DEEDS.get(self._fault.deed, _nothing)(self._fault)
        current.number, current.makes = number, arguments[-2:] if function in _MAKING else ()
        current.lost = hit and made and self._fault.deed in {Deed.BEFORE, Deed.AFTER}
        return None if made else self._fault.ckr

    def returned(self, ckr: int) -> int:
        """Take note of the answer to the thread's current call, and change it where the plan says so."""
        current = self._current
        number, makes, lost = current.number, current.makes, current.lost
        current.number, current.makes, current.lost = 0, (), False
        if makes and ckr == CKR.OK:
            self._note_made(list(_handles(makes)), lost=lost)
        if self._fault.hits(number) and self._fault.deed is Deed.KILL_AFTER:
            os.kill(os.getpid(), signal.SIGKILL)
        return self._fault.ckr if lost else ckr

    def _note_destroy(self, handle: int, *, made: bool) -> None:
        if handle in self._dead:
            self.twice.append(handle)
        elif handle not in self.made:
            self.foreign.append(handle)
        if made:  # what was not destroyed may be looked for, found again, and destroyed
            self._dead.add(handle)

    def _note_made(self, handles: list[int], *, lost: bool) -> None:
        with self._lock:
            self.made.update(handles)
            self._dead.difference_update(handles)
            if lost:
                self.orphans += handles


def _handles(arguments: tuple[object, ...]) -> Iterator[int]:
    """Yield the handles that a call left in the variables that its last arguments point at."""
    for argument in arguments:
        value = getattr(getattr(argument, "_obj", None), "value", None)
        if isinstance(value, int):
            yield value


def _nothing(fault: Fault) -> None:
    del fault


def _kill(fault: Fault) -> None:
    del fault
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_soon(fault: Fault) -> None:
    ready = threading.Event()

    def strike() -> None:
        ready.set()
        time.sleep(fault.delay)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=strike, daemon=True).start()
    ready.wait()


def _crash(fault: Fault) -> None:
    del fault
    os.kill(os.getpid(), signal.SIGSEGV)


def _hang(fault: Fault) -> None:
    del fault
    time.sleep(_FOR_EVER)


_DEEDS: dict[Deed, Callable[[Fault], None]] = {
    Deed.KILL_BEFORE: _kill,
    Deed.KILL_INSIDE: _kill_soon,
    Deed.CRASH: _crash,
    Deed.HANG: _hang,
}


def changing(names: list[str]) -> list[int]:
    """Return the numbers of the calls that make or change an object."""
    return [number for number, name in enumerate(names, 1) if name in CHANGING]


def sample(names: list[str]) -> list[int]:
    """Return the numbers of the calls to try where there are many: the first and the last call of each function."""
    last = {name: number for number, name in enumerate(names, 1)}
    return sorted({*last.values(), *(names.index(name) + 1 for name in last)})
