"""The calls that a worker makes, kept as evidence, and a note for the parent in case the worker does not come back.

A module may crash or hang in any call. So the worker writes what it is about to do into a small shared file before it
does it; the parent reads that file when the process is gone. A check can have calls fail on purpose
(:mod:`hsmbridge_conformance.faults`): what is noted is then what the caller got.
"""

from __future__ import annotations

import mmap
from collections import Counter, deque
from dataclasses import replace
from typing import TYPE_CHECKING

from hsmbridge.codes import ckr_name
from hsmbridge_conformance.verdict import Call, Failed

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from hsmbridge_conformance.faults import FaultPlan

__all__ = ["DESTROY", "CallJournal", "GivenUp", "Position", "read_position"]

DESTROY = "C_DestroyObject"

_SLOT = 512
"""Bytes for each of the notes: the check with its parameter, the C function, and the mechanism that is tried."""

_NOTES = 3

_KEPT = 12
"""Calls that are kept as evidence; equal ones in a row count as one."""

Position = tuple[str, str, str]
"""Check and parameter as ``ID parameter``; the C function that was being called; and the wrapping mechanism that was
being tried, to see whether the module has it. Empty where there was none."""


class GivenUp(Failed):
    """A check needs a function that is not called any more, since it hung too often."""


class CallJournal:
    """Watches the calls of this process (see :mod:`hsmbridge.observing`).

    Args:
        position: the shared file; None keeps no note.
        given_up: functions that are not to be called: :class:`GivenUp` is raised in place of the call.

    Attributes:
        faults: what a check lets go wrong; None for nothing.
    """

    def __init__(self, position: Path | None, given_up: Collection[str] = ()) -> None:
        self._given_up = frozenset(given_up)
        self._calls: deque[Call] = deque(maxlen=_KEPT)
        self._concluded: tuple[Call, ...] | None = None
        self._destroyed: list[int] = []
        self._counted: Counter[str] = Counter()
        self.faults: FaultPlan | None = None
        self._map: mmap.mmap | None = None
        if position is not None:
            with position.open("r+b") as file:
                file.truncate(_NOTES * _SLOT)
                self._map = mmap.mmap(file.fileno(), _NOTES * _SLOT)

    def begin(self, name: str) -> None:
        """Start the evidence of one check with one parameter."""
        self._calls.clear()
        self._concluded = None
        self._destroyed.clear()
        self._counted.clear()
        self.faults = None
        self._note(0, name)
        self._note(_SLOT, "")
        self._note(2 * _SLOT, "")

    def trying(self, mechanism: str) -> None:
        """Note which mechanism is tried: if the process ends, it is this one's fault, not the check's."""
        self._note(2 * _SLOT, mechanism)

    def entering(self, function: str, arguments: tuple[object, ...]) -> int | None:
        """Note that a call begins; a fault may answer in the module's place.

        Raises:
            GivenUp: the function is not to be called.
        """
        if function in self._given_up:
            raise GivenUp(f"{function} is not called any more, since it hung again and again in this run")
        if function == DESTROY and isinstance(arguments[1], int):
            self._destroyed.append(arguments[1])
        self._counted[function] += 1
        self._note(_SLOT, function)
        return None if self.faults is None else self.faults.entering(function, arguments)

    def returned(self, function: str, ckr: int) -> int:
        """Note what the caller gets: what the module answered, or what a fault makes of it."""
        if self.faults is not None:
            ckr = self.faults.returned(ckr)
        name = ckr_name(ckr)
        last = self._calls[-1] if self._calls else None
        if last is not None and (last.function, last.ckr) == (function, name):
            self._calls[-1] = replace(last, times=last.times + 1)
        else:
            self._calls.append(Call(function=function, ckr=name))
        self._note(_SLOT, "")
        return ckr

    def conclude(self) -> None:
        """Keep the calls so far as the evidence of the current check, whatever is cleaned up now."""
        self._concluded = tuple(self._calls)

    @property
    def calls(self) -> tuple[Call, ...]:
        """The last calls of the current check, up to its conclusion where there is one."""
        return tuple(self._calls) if self._concluded is None else self._concluded

    @property
    def destroyed(self) -> tuple[int, ...]:
        """Every handle that C_DestroyObject was called with during the current check."""
        return tuple(self._destroyed)

    def counted(self, function: str) -> int:
        """Return how often the current check has called a function so far."""
        return self._counted[function]

    def _note(self, offset: int, text: str) -> None:
        if self._map is not None:
            raw = text.encode("utf-8", "replace")[: _SLOT - 1]
            self._map[offset : offset + len(raw) + 1] = raw + b"\0"


def read_position(path: Path) -> Position:
    """Return what a worker was doing when it ended."""
    raw = path.read_bytes().ljust(_NOTES * _SLOT, b"\0")
    where, function, tried = (
        raw[number * _SLOT : (number + 1) * _SLOT].split(b"\0", 1)[0].decode("utf-8", "replace")
        for number in range(_NOTES)
    )
    return where, function, tried
