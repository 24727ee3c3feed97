"""Errors as the user sees them, and the exit code of each."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hsmbridge.errors import HsmbridgeError, InputError, PolicyError, UnavailableError, UsageError
from hsmbridge_cli.display import clean

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["FAILED", "exit_code", "report"]

FAILED = 1
_CODES: tuple[tuple[type[HsmbridgeError], int], ...] = (
    (UsageError, 2),
    (InputError, 3),
    (PolicyError, 4),
    (UnavailableError, 5),
)
_TRACEBACK_VERBOSITY = 2


def exit_code(error: HsmbridgeError) -> int:
    """Return the exit code of an error; 1 for what the token refused or failed."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)


def report(error: Exception, verbosity: int) -> int:
    """Print an error on standard error.

    Args:
        error: what reached the top.
        verbosity: from 2 on, an unexpected error's traceback is shown, without the error's own text.

    Returns: the exit code.
    """
    if isinstance(error, HsmbridgeError):
        _say("error", str(error))
        for note in _notes(error):
            _say("note", note)
        if error.hint:
            _say("hint", error.hint)
        return exit_code(error)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return error.exit_code
    if isinstance(error, click.ClickException):
        return _report_click(error)
    if isinstance(error, OSError) and error.strerror:
        name = f"{error.filename}: " if isinstance(error.filename, str) else ""
        _say("error", f"{name}{error.strerror.lower()}")
        return FAILED
    return _report_unexpected(error, verbosity)


def _report_click(error: click.ClickException) -> int:
    message = error.format_message()
    _say("error", message[:1].lower() + message[1:].rstrip("."))
    context = getattr(error, "ctx", None)
    if isinstance(context, click.Context):
        _say("hint", f"see `{context.command_path} --help`")
    return 2


def _report_unexpected(error: Exception, verbosity: int) -> int:
    """Tell where it happened and what kind it was, and never its text: that may quote what was being worked on."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    _say("error", f"internal error: {type(error).__name__}{where}")
    if verbosity >= _TRACEBACK_VERBOSITY:
        click.echo("".join(traceback.format_list(frames)), err=True, nl=False)
    else:
        _say("hint", "run it again with -vv and report what it prints: this is a bug in hsmbridge")
    return FAILED


def _notes(error: BaseException) -> Iterable[str]:
    return getattr(error, "__notes__", ())


def _say(kind: str, text: str) -> None:
    sys.stdout.flush()
    click.echo(f"hsmbridge: {kind}: {clean(text)}", err=True)
