"""Files that commands read and write: bounded, checked before the token is touched, and written in one step.

Source: rename(2), link(2): either replaces or refuses as a whole.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hsmbridge.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MAX_WRAP_BYTES", "STANDARD_STREAM", "OutputFile", "read_input"]

STANDARD_STREAM = "-"
"""The name that stands for standard input or output."""

MAX_WRAP_BYTES = 64 * 1024
"""Ours: the largest wrapped key that is sensible is an RSA-16384 private key, under 10 KiB."""

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS})
"""What link(2) answers on file systems without hard links."""


def read_input(name: str, limit: int) -> bytes:
    """Read a whole file, or standard input for ``-``.

    Args:
        name: the path.
        limit: most bytes to accept.

    Raises:
        UsageError: it cannot be opened or read.
        InputError: it is larger than *limit*.
    """
    if name == STANDARD_STREAM:
        data = sys.stdin.buffer.read(limit + 1)
    else:
        try:
            with Path(name).open("rb") as file:
                data = file.read(limit + 1)
        except (OSError, ValueError) as error:
            # ValueError: a NUL in the path.
            raise UsageError(
                f"{name} cannot be read: {_reason(error)}", hint="check the path and that you may read the file"
            ) from None
    if len(data) > limit:
        raise InputError(f"{name} is larger than {limit} bytes", hint="a wrapped key is small; is this the right file?")
    return data


class OutputFile:
    """Where a result goes: a new file of mode 600 that is there as a whole or not at all, or standard output.

    What can be checked is checked at once, so that no key is touched for a result that has nowhere to go.

    Args:
        name: the path, or ``-``.
        force: replace a file that is there.
        binary: the result is not text: it is not written to a terminal.

    Raises:
        UsageError: the file is there already, or cannot be made.
    """

    def __init__(self, name: str, *, force: bool = False, binary: bool = True) -> None:
        self.name = name
        self._force = force
        self.is_stdout = name == STANDARD_STREAM
        if self.is_stdout:
            if binary and sys.stdout.isatty():
                raise UsageError("binary output is not written to a terminal", hint="write it to a file with -o FILE")
            return
        # Through a symbolic link to what it names, else the link itself would be replaced.
        self._path = Path(os.path.realpath(name))
        try:
            mode = self._path.stat().st_mode
        except FileNotFoundError:
            mode = None
        except (OSError, ValueError) as error:
            raise _unwritable(name, error) from None
        if mode is not None and not stat.S_ISREG(mode):
            raise UsageError(f"{name} is not a regular file", hint="give a new file's name, or - for standard output")
        if mode is not None and not force:
            raise _exists(name)
        if not os.access(self._path.parent, os.W_OK | os.X_OK):
            raise UsageError(
                f"{name} cannot be written: no such directory, or not yours to write in",
                hint="name a directory that exists and that you may write in",
            )

    def write(self, data: bytes) -> None:
        """Write the result.

        Raises:
            UsageError: it could not be written; no file was left.
        """
        if self.is_stdout:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        directory = self._path.parent
        try:
            # mkstemp makes it with mode 600.
            descriptor, temporary = tempfile.mkstemp(prefix=".hsmbridge-", dir=directory)
        except OSError as error:
            raise _unwritable(self.name, error) from None
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            self._put_in_place(temporary)
            _sync_directory(directory)
        except OSError as error:
            raise _unwritable(self.name, error) from None
        finally:
            _quietly(os.unlink, temporary)

    def _put_in_place(self, temporary: str) -> None:
        if self._force:
            Path(temporary).replace(self._path)
            return
        try:
            os.link(temporary, self._path)  # unlike a rename, it does not replace what came into being meanwhile
        except FileExistsError:
            raise _exists(self.name) from None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if self._path.is_symlink() or self._path.exists():
                raise _exists(self.name) from None
            Path(temporary).replace(self._path)


def _exists(name: str) -> UsageError:
    return UsageError(f"{name} is there already", hint="name another file, or replace it with --force")


def _unwritable(name: str, error: Exception) -> UsageError:
    return UsageError(f"{name} cannot be written: {_reason(error)}", hint="check the directory; no file was left")


def _reason(error: Exception) -> str:
    return (error.strerror or "error").lower() if isinstance(error, OSError) else "not a file name"


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _quietly(os.fsync, descriptor)  # some file systems cannot, and then it is not needed either
    finally:
        os.close(descriptor)


def _quietly(action: Callable[..., None], argument: str | int) -> None:
    try:
        action(argument)
    except OSError:
        return
