"""A connection as Python's files and sockets are used, and the end of one that failed.

Source: io.RawIOBase; tcp(7); RFC 8446 section 6.1.
"""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

__all__ = ["BUFFER", "RawReader", "linger"]

BUFFER = 1 << 16
"""Bytes that are read at once."""

_LINGER_SECONDS = 1.0
_LINGER_STEP = 0.2


class RawReader(io.RawIOBase):
    """What a buffered file reads from.

    Args:
        recv_into: fills a buffer, and returns how much of it.
    """

    def __init__(self, recv_into: Callable[[memoryview], int]) -> None:
        super().__init__()
        self._recv_into = recv_into

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, room: object) -> int:
        """Fill *room*, a writable buffer, with what there is."""
        return self._recv_into(memoryview(room).cast("B"))  # type: ignore[arg-type]  # io has no type for a buffer


def linger(sock: socket.socket) -> None:
    """Let the peer read our last words: closing a socket with unread data resets the connection, and they are lost.

    Raises:
        OSError: it is broken already, or the peer says nothing more.
    """
    deadline = time.monotonic() + _LINGER_SECONDS
    sock.settimeout(_LINGER_STEP)
    while time.monotonic() < deadline and sock.recv(BUFFER):
        pass
