"""The calls that a worker makes, kept as evidence, and a note for the parent in case the worker does not come back.

A module may crash or hang in any call. So the worker writes what it is about to do into a small shared file before it
does it; the parent reads that file when the process is gone.
"""

from __future__ import annotations

import mmap
from collections import Counter, deque
from dataclasses import replace
from typing import TYPE_CHECKING

from hsmbridge.codes import ckr_name
from hsmbridge_conformance.verdict import Call

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CallJournal", "Position", "read_position"]

_SLOT = 512
"""Bytes for each of the two notes: the check with its parameter, and the C function."""

_KEPT = 12
"""Calls that are kept as evidence; equal ones in a row count as one."""

Position = tuple[str, str]
"""Check and parameter as ``ID parameter``, and the C function that was being called; empty where there was none."""


class CallJournal:
    """Watches the calls of this process (see :mod:`hsmbridge.observing`).

    Args:
        position: the shared file; None keeps no note.
    """

    def __init__(self, position: Path | None) -> None:
        self._calls: deque[Call] = deque(maxlen=_KEPT)
        self._concluded: tuple[Call, ...] | None = None
        self._destroyed: list[int] = []
        self._counted: Counter[str] = Counter()
        self._map: mmap.mmap | None = None
        if position is not None:
            with position.open("r+b") as file:
                file.truncate(2 * _SLOT)
                self._map = mmap.mmap(file.fileno(), 2 * _SLOT)

    def begin(self, name: str) -> None:
        """Start the evidence of one check with one parameter."""
        self._calls.clear()
        self._concluded = None
        self._destroyed.clear()
        self._counted.clear()
        self._note(0, name)
        self._note(_SLOT, "")

    def entering(self, function: str, arguments: tuple[object, ...]) -> None:
        """Note that a call begins."""
        if function == "C_DestroyObject" and isinstance(arguments[1], int):
            self._destroyed.append(arguments[1])
        self._counted[function] += 1
        self._note(_SLOT, function)

    def returned(self, function: str, ckr: int) -> None:
        """Note what it answered."""
        name = ckr_name(ckr)
        last = self._calls[-1] if self._calls else None
        if last is not None and (last.function, last.ckr) == (function, name):
            self._calls[-1] = replace(last, times=last.times + 1)
        else:
            self._calls.append(Call(function=function, ckr=name))
        self._note(_SLOT, "")

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
    raw = path.read_bytes().ljust(2 * _SLOT, b"\0")
    notes = [raw[offset : offset + _SLOT].split(b"\0", 1)[0].decode("utf-8", "replace") for offset in (0, _SLOT)]
    return notes[0], notes[1]
