"""Reading a PIN from a file, a pipe or a terminal without letting anybody else see it.

Source: open(2) and fstat(2) for the checks; termios(3) for the echo.
"""

from __future__ import annotations

import os
import shlex
import stat
import termios
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from hsmbridge.errors import InputError, PolicyError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MAX_PIN_BYTES", "STDIN", "PinFileError", "PinPermissionError", "read_file", "read_line"]

MAX_PIN_BYTES: Final = 255
"""Bytes of UTF-8 in a PIN. Source: SoftHSM's MAX_PIN_LEN, the most of any token we know."""

STDIN: Final = 0
_MAX_READ: Final = MAX_PIN_BYTES + len("\r\n")
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class PinFileError(InputError):
    """A PIN file was read, and what it holds is not a PIN."""


class PinPermissionError(PolicyError):
    """A PIN file that somebody else can read or change."""


def read_file(name: str) -> bytes:
    """Read a PIN file: a regular file or a pipe, ours or root's, closed to group and others.

    Args:
        name: the path.

    Returns:
        What it holds, without the line's end; of a file that is too long at least one byte more than can be a PIN.

    Raises:
        UsageError: the file cannot be opened or read, or is of another kind.
        PinPermissionError: others may read or change it.
    """
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        raise _unreadable(name, error) from error
    try:
        # The opened file is judged, not its name: whoever may rename files in between gains nothing.
        _check_kind_and_mode(os.fstat(fd), name)
        data = _read_all(fd)
    except OSError as error:
        raise _unreadable(name, error) from error
    finally:
        os.close(fd)
    return _chomped(data)


def read_line(fd: int) -> bytes:
    """Read one line and leave unread what follows it; unechoed where *fd* is a terminal.

    Args:
        fd: an open file descriptor.

    Returns:
        The line without its end; of a line that is too long, one byte more than can be a PIN.

    Raises:
        UsageError: it cannot be read.
    """
    data = b""
    try:
        with _echo_off(fd):
            # Byte by byte: a buffer would swallow what follows the line, which is not ours.
            while len(data) <= _MAX_READ and not data.endswith(b"\n") and (byte := os.read(fd, 1)):
                data += byte
    except (OSError, termios.error) as error:
        raise UsageError(
            "standard input cannot be read", hint="pipe the PIN in, or give a file: --pin-file FILE"
        ) from error
    return _chomped(data)


def _check_kind_and_mode(status: os.stat_result, name: str) -> None:
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISFIFO(status.st_mode)):
        raise UsageError(
            f"PIN file {name!r} is neither a regular file nor a pipe",
            hint="give a file that holds the PIN, or - to type it or to pipe it in",
        )
    if status.st_uid not in {os.geteuid(), 0}:
        raise PinPermissionError(
            f"PIN file {name!r} belongs to another user, who can change it",
            hint=f"chown {os.geteuid()} {shlex.quote(name)}, or make a copy of your own",
        )
    if status.st_mode & _OTHERS:
        raise PinPermissionError(
            f"PIN file {name!r} is open to other users (mode {stat.S_IMODE(status.st_mode):03o})",
            hint=f"chmod 600 {shlex.quote(name)}; then consider the PIN as known, and change it",
        )


def _unreadable(name: str, error: OSError | ValueError) -> UsageError:
    # ValueError: a NUL or a lone surrogate in the path.
    reason = (error.strerror or "error").lower() if isinstance(error, OSError) else "not a file name"
    return UsageError(
        f"PIN file {name!r} cannot be read: {reason}", hint="check the path and that you may read the file"
    )


def _read_all(fd: int) -> bytes:
    """Read to the end, or one byte more than can be a PIN."""
    data = b""
    while len(data) <= _MAX_READ and (chunk := os.read(fd, _MAX_READ + 1 - len(data))):
        data += chunk
    return data


@contextmanager
def _echo_off(fd: int) -> Iterator[None]:
    """Type unseen where *fd* is a terminal; the line's end still shows."""
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    during = [*before]
    during[3] = (before[3] & ~termios.ECHO) | termios.ECHONL
    termios.tcsetattr(fd, termios.TCSADRAIN, during)
    try:
        yield
    finally:
        # FLUSH: the rest of a line that was too long must not end up in the shell, as a command.
        termios.tcsetattr(fd, termios.TCSAFLUSH, before)


def _chomped(data: bytes) -> bytes:
    return data[: -len(b"\r\n")] if data.endswith(b"\r\n") else data.removesuffix(b"\n")
