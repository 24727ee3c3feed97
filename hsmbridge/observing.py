"""Watching the calls that go to a module: as evidence in a report, never to decide anything.

A process has one observer, set before the module is opened. Without one the calls cost nothing extra.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["Observer", "current_observer", "observe"]


class Observer(Protocol):
    """Is told of every call into the module, in the thread that makes it."""

    def entering(self, function: str, arguments: tuple[object, ...]) -> None:
        """Be told that *function* is about to be called; *arguments* may point at secrets and are not to be kept."""

    def returned(self, function: str, ckr: int) -> None:
        """Be told what it answered."""


_observers: list[Observer] = []


def observe(observer: Observer) -> None:
    """Let *observer* watch every module that is opened from now on."""
    _observers[:] = [observer]


def current_observer() -> Observer | None:
    """Return the process's observer."""
    return _observers[0] if _observers else None
