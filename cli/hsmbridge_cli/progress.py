"""A progress bar for what takes longer than a second, on standard error, and only in a terminal."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["PATIENCE", "watched"]

_T = TypeVar("_T")

PATIENCE = 1.0
"""Seconds before the bar appears: what is over by then needs none."""


def watched(items: Sequence[_T], what: str) -> Iterator[_T]:
    """Yield *items*, with a bar once that takes longer than a second.

    Args:
        items: what is worked on, one after the other.
        what: the bar's text.
    """
    if not sys.stderr.isatty():
        yield from items
        return
    begun = time.monotonic()
    done = 0
    for item in items:
        if time.monotonic() - begun > PATIENCE:
            break
        yield item
        done += 1
    if done < len(items):
        yield from _drawn(items, done, what)


def _drawn(items: Sequence[_T], done: int, what: str) -> Iterator[_T]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=len(items), completed=done)
        for item in items[done:]:
            yield item
            bar.advance(task)
