"""Watching the calls that go to a module: as evidence in a report, and for a test suite that makes calls fail.

A process has one observer, set before the module is opened. Without one the calls cost nothing extra.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["Observer", "current_observer", "observe"]


class Observer(Protocol):
    """Is told of every call into the module, in the thread that makes it.

    What it answers counts for the functions that work on objects and keys, all bound in one place. C_Initialize and
    the calls that the binding makes are only watched, and its answers are ignored there.
    """

    def entering(self, function: str, arguments: tuple[object, ...]) -> int | None:
        """Be told that *function* is about to be called; *arguments* may point at secrets and are not to be kept.

        Returns: None to have it called; a CK_RV is what the caller gets instead of a call.
        """

    def returned(self, function: str, ckr: int) -> int:
        """Be told what it answered, or what was answered for it.

        Returns: the CK_RV that the caller gets.
        """


_observers: list[Observer] = []


def observe(observer: Observer) -> None:
    """Let *observer* watch every module that is opened from now on."""
    _observers[:] = [observer]


def current_observer() -> Observer | None:
    """Return the process's observer."""
    return _observers[0] if _observers else None
