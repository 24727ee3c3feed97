"""Where a socket lies: a directory that nobody else may enter, held open so that it cannot be exchanged meanwhile.

Source: docs/channel.md, "The socket"; unix(7), pathname sockets; flock(2).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import time
from typing import TYPE_CHECKING

from hsmbridge_csp.channel.errors import ChannelUsageError, NoListenerError, SocketBusyError, UnsafeSocketError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Place"]

_PRIVATE = 0o700
_LOCK_TIMEOUT = 5.0
_LOCK_PAUSE = 0.01


class Place:
    """A socket's name in its directory.

    Args:
        path: of the socket.
        owners: users to one of whom the directory must belong.
        create: make the directory where there is none; its parent must be there.

    Raises:
        NoListenerError: there is no such directory.
        UnsafeSocketError: others may enter it.
        ChannelUsageError: the path names no file.
    """

    def __init__(self, path: Path, owners: frozenset[int], *, create: bool) -> None:
        if not path.name or path.name in (".", ".."):
            raise ChannelUsageError(f"{path} names no socket", hint="give DIRECTORY/NAME")
        self.path = path
        if create:
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                path.parent.mkdir(mode=_PRIVATE)
        try:
            self._directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise NoListenerError(
                f"{path.parent} cannot be opened: {error.strerror}",
                hint="the listener makes the directory, in a parent that must be there",
            ) from None
        status = os.fstat(self._directory)
        if status.st_uid not in owners or status.st_mode & 0o077:
            self.close()
            raise UnsafeSocketError(
                f"others may enter {path.parent}, or it belongs to somebody else",
                hint=f"use a directory of your own with mode 700: mkdir -m 700 DIRECTORY, or chmod 700 {path.parent}",
            )
        # By way of the open directory: it is the one that was checked, and the path is never too long for sun_path.
        self._address = f"/proc/self/fd/{self._directory}/{path.name}"

    def bind(self, listener: socket.socket) -> tuple[int, int]:
        """Bind and listen; a socket whose listener is dead is replaced.

        Returns: device and inode of the new socket, by which :meth:`remove` knows it again.

        Raises:
            SocketBusyError: somebody listens there.
            UnsafeSocketError: something else lies there.
        """
        with self._locked():
            self._remove_dead()
            os.fchmod(listener.fileno(), 0o600)  # the file gets the mode that the socket has when it is bound
            try:
                listener.bind(self._address)
            except OSError as error:
                raise UnsafeSocketError(
                    f"cannot make the socket {self.path}: {(error.strerror or str(error)).lower()}",
                    hint="use another directory; a name has at most 80 bytes",
                ) from None
            # Only now can anybody connect; until then the probe of another listener sees a socket that is in use.
            listener.listen()
            status = os.stat(self.path.name, dir_fd=self._directory, follow_symlinks=False)
            return status.st_dev, status.st_ino

    def connect(self, connection: socket.socket) -> None:
        """Connect.

        Raises:
            NoListenerError: nobody listens there.
            BlockingIOError: too many wait to be accepted.
        """
        try:
            connection.connect(self._address)
        except BlockingIOError:
            raise
        except OSError as error:
            raise NoListenerError(
                f"nobody listens at {self.path}: {(error.strerror or str(error)).lower()}",
                hint="start the other end first: `hsmbridge handoff receive --socket PATH`",
            ) from None

    def remove(self, identity: tuple[int, int]) -> None:
        """Remove the socket, if it is still the one with that device and inode."""
        with contextlib.suppress(OSError, SocketBusyError), self._locked():
            status = os.stat(self.path.name, dir_fd=self._directory, follow_symlinks=False)
            if (status.st_dev, status.st_ino) == identity:
                os.unlink(self.path.name, dir_fd=self._directory)

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._directory)

    def _remove_dead(self) -> None:
        try:
            status = os.stat(self.path.name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(status.st_mode):
            raise UnsafeSocketError(f"{self.path} is there and is no socket", hint="choose another name")
        if self._is_alive():
            raise SocketBusyError(
                f"another process listens at {self.path}", hint="choose another name, or end that process"
            )
        os.unlink(self.path.name, dir_fd=self._directory)

    def _is_alive(self) -> bool:
        # A datagram socket cannot connect to a stream socket, so the listener hears nothing of this; but the kernel
        # looks for the listener first: ECONNREFUSED says that there is none, EPROTOTYPE that there is.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            return probe.connect_ex(self._address) != errno.ECONNREFUSED

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the directory's lock, so that no two listeners replace the same dead socket."""
        deadline = time.monotonic() + _LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(self._directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise SocketBusyError(
                        f"another process holds the lock of {self.path.parent}", hint="end that process"
                    ) from None
                time.sleep(_LOCK_PAUSE)
        try:
            yield
        finally:
            fcntl.flock(self._directory, fcntl.LOCK_UN)
