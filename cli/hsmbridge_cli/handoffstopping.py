"""A clean end on a signal: what is begun is settled, or left to be recovered, and told."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import click
from hsmbridge_csp.journal import Journal, Owner

from hsmbridge.errors import HsmbridgeError
from hsmbridge_cli.failures import report

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from hsmbridge_cli.options import Settings

__all__ = ["stoppable"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_BY_SIGNAL = 128


class _Stopped(KeyboardInterrupt):
    """A signal asked for the end."""


@contextmanager
def stoppable(settings: Settings) -> Iterator[None]:
    """Let SIGINT and SIGTERM unwind the command, so that what is begun is settled or left to be recovered, and told.

    Raises:
        click.exceptions.Exit: with 130 or 143, after a signal.
    """
    caught: list[int] = []

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        del frame
        caught.append(number)
        raise _Stopped

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    except _Stopped:
        click.echo(f"hsmbridge: error: stopped by {signal.Signals(caught[0]).name}", err=True)
    except HsmbridgeError as error:
        if not caught:
            raise
        report(error, settings.verbosity)
    else:
        caught.clear()  # it came too late to stop anything
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if caught:
        _tell_what_is_left()
        raise click.exceptions.Exit(_BY_SIGNAL + caught[0])


def _tell_what_is_left() -> None:
    me = Owner.current()
    with Journal() as journal:
        mine = [entry for entry in journal.entries(open_only=True) if entry.owner == me]
    for entry in mine:
        number = entry.handoff.hex()
        click.echo(f"hsmbridge: note: handoff {number} is left as {entry.phase} ({entry.role})", err=True)
    hint = "settle it with `hsmbridge handoff recover`" if mine else "nothing is left to be settled"
    click.echo(f"hsmbridge: hint: {hint}", err=True)
