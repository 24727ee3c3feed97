"""Listening and connecting.

Source: docs/channel.md, "The socket"; unix(7).
"""

from __future__ import annotations

import os
import select
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from hsmbridge_csp.channel.channel import Channel
from hsmbridge_csp.channel.errors import ChannelClosedError, ChannelTimeoutError, NoListenerError
from hsmbridge_csp.channel.place import Place

if TYPE_CHECKING:
    from types import TracebackType

    from hsmbridge_csp.channel.terms import Terms

__all__ = ["Listener", "connect"]

_PAUSE = 0.02
"""Seconds between two attempts to connect."""


class Listener:
    """A socket to which peers connect. The file is removed when it is closed.

    Args:
        path: of the socket. Its directory is made, with mode 700, where there is none.

    Raises:
        UnsafeSocketError: others may enter the directory, or something else lies there.
        SocketBusyError: another process listens there.
        NoListenerError: the directory cannot be opened or made.
    """

    def __init__(self, path: Path) -> None:
        self._owner = os.getpid()
        self._place: Place | None = None
        place = Place(Path(path), frozenset({os.geteuid()}), create=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(0)
            self._identity = place.bind(self._socket)
        except BaseException:
            self._socket.close()
            place.close()
            raise
        self._place = place
        self.path = Path(path)

    def accept(self, terms: Terms, timeout: float | None = None) -> Channel:
        """Wait for a peer, and shake hands. After an error the listener goes on: call it again.

        Args:
            terms: ours.
            timeout: seconds to wait until a peer connects, None for ever. The handshake has its own.

        Raises:
            ChannelTimeoutError: nobody came, or who came said nothing.
            ChannelError: who came is not wanted, or not authentic.
        """
        if self._place is None:
            raise ChannelClosedError("the listener is closed", hint="make a new one")
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                connection, _ = self._socket.accept()
            except (BlockingIOError, ConnectionAbortedError):
                self._wait(deadline)
                continue
            return Channel.over(connection, terms)

    def _wait(self, deadline: float | None) -> None:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if not poll.poll(None if left is None else left * 1000):
            raise ChannelTimeoutError(
                f"nobody connected to {self.path} in time", hint="start the other end: `hsmbridge handoff send`"
            )

    def close(self) -> None:
        """Stop listening and remove the socket; a forked child only lets go of it."""
        place, self._place = self._place, None
        if place is None:
            return
        if os.getpid() == self._owner:
            place.remove(self._identity)
        self._socket.close()
        place.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Listener at {self.path}>"


def connect(path: Path, terms: Terms, wait: float = 0.0) -> Channel:
    """Connect to a listener, and shake hands.

    Args:
        path: of the socket.
        terms: ours.
        wait: seconds for which nobody may listen there yet.

    Raises:
        NoListenerError: nobody listens there.
        UnsafeSocketError: others than us, or than the users of the terms, may enter its directory.
        ChannelError: who listens is not wanted, or not authentic.
    """
    deadline = time.monotonic() + wait
    while True:
        try:
            connection = _connected(Path(path), terms)
        except NoListenerError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_PAUSE)
            continue
        return Channel.over(connection, terms)


def _connected(path: Path, terms: Terms) -> socket.socket:
    place = Place(path, terms.uids | {os.geteuid()}, create=False)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Without blocking, a full queue is an error at once: a listener that never accepts holds up nobody for ever.
        connection.settimeout(0)
        deadline = time.monotonic() + terms.handshake_timeout
        while True:
            try:
                place.connect(connection)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise ChannelTimeoutError(
                        f"the listener at {path} accepts nobody", hint="look whether that process hangs"
                    ) from None
                time.sleep(_PAUSE)
                continue
            return connection
    except BaseException:
        connection.close()
        raise
    finally:
        place.close()
