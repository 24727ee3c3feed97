"""Whole frames over a Unix stream socket, with a time limit for each.

The socket is non-blocking: data that is there costs one call into the kernel, and only who has to wait asks poll(2).

Source: docs/channel.md, "Frames"; unix(7).
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from typing import TYPE_CHECKING

from hsmbridge_csp.channel.errors import ChannelError, ChannelTimeoutError, DescriptorError, PeerGoneError
from hsmbridge_csp.channel.frames import HEADER, check_sizes
from hsmbridge_csp.channel.passing import ANCILLARY_SPACE, close_all, packed, unpacked

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Wire"]

_READ_SIZE = 1 << 16
_SEND_FLAGS = socket.MSG_NOSIGNAL
_RECEIVE_FLAGS = socket.MSG_CMSG_CLOEXEC


class Wire:
    """One connection.

    Args:
        connection: a connected Unix stream socket; the wire owns it from here on.
    """

    __slots__ = ("_arrived", "_buffer", "_connection", "_position", "_readable", "_start", "_writable")

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(0)
        self._connection = connection
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(connection, select.POLLIN)
        self._writable.register(connection, select.POLLOUT)
        self._buffer = b""
        self._position = 0  # in the buffer, of the next frame
        self._start = 0  # of the buffer, in the stream
        self._arrived: list[tuple[int, list[int]]] = []  # descriptors, and where in the stream their read ended

    def send(self, frame: bytes, descriptors: Sequence[int], timeout: float | None) -> None:
        """Send a whole frame.

        Args:
            frame: header and body.
            descriptors: travel with its first byte; they stay open here.
            timeout: seconds for all of it, None for ever.

        Raises:
            ChannelTimeoutError: the peer took nothing for too long; part of the frame may be on its way.
            PeerGoneError: the connection is gone.
            DescriptorError: a descriptor is not open.
        """
        connection, sent, size, deadline = self._connection, 0, len(frame), None
        while sent < size:
            try:
                if descriptors:
                    sent += connection.sendmsg([frame], packed(descriptors), _SEND_FLAGS)
                    descriptors = ()
                else:
                    sent += connection.send(frame[sent:] if sent else frame, _SEND_FLAGS)
            except BlockingIOError:
                deadline = self._wait(self._writable, deadline, timeout, "take")
            except OSError as error:
                if descriptors and not isinstance(error, ConnectionError):
                    raise DescriptorError(
                        f"the file descriptors cannot be sent: {error.strerror}",
                        hint="they must be open and not too many",
                    ) from None
                raise _gone(in_a_frame=False) from None

    def receive(self, limit: int, timeout: float | None) -> tuple[bytes, bytes, list[int]]:
        """Receive a whole frame; nothing of it is authentic yet.

        Args:
            limit: bytes that its body may have.
            timeout: seconds for all of it, None for ever.

        Returns: header, body, and the descriptors that came with it, which are the caller's to close.

        Raises:
            ChannelTimeoutError: not all of it came in time.
            PeerGoneError: the connection ended.
            FrameError: its header claims too much.
            DescriptorError: more descriptors came than can be taken.
        """
        deadline = self._fill(HEADER.size, None, timeout)
        start = self._position
        length, _, descriptors, _ = HEADER.unpack_from(self._buffer, start)
        check_sizes(length, descriptors, limit)
        size = HEADER.size + length
        if len(self._buffer) - start < size:
            self._fill(size, deadline, timeout)
            start = self._position
        body, end = start + HEADER.size, start + size
        self._position = end
        return self._buffer[start:body], self._buffer[body:end], self._descriptors_before(end) if self._arrived else []

    def _descriptors_before(self, end: int) -> list[int]:
        # A read ends in the piece with which descriptors were sent, so they are this frame's if it ended in this frame.
        reach = self._start + end
        taken: list[int] = []
        while self._arrived and self._arrived[0][0] <= reach:
            taken += self._arrived.pop(0)[1]
        return taken

    def _fill(self, size: int, deadline: float | None, timeout: float | None) -> float | None:
        """Read until *size* bytes are in the buffer behind the position.

        Returns: when the time is over, None as long as nobody had to wait.
        """
        have = len(self._buffer) - self._position
        if have >= size:
            return deadline
        self._start += self._position
        pieces = [self._buffer[self._position :]] if have else []
        self._buffer, self._position = b"", 0
        connection = self._connection
        while have < size:
            try:
                piece, messages, flags, _ = connection.recvmsg(_READ_SIZE, ANCILLARY_SPACE, _RECEIVE_FLAGS)
            except BlockingIOError:
                deadline = self._wait(self._readable, deadline, timeout, "say")
                continue
            except OSError:
                raise _gone(in_a_frame=have > 0) from None
            have += len(piece)
            if messages:
                self._arrived.append((self._start + have, unpacked(messages, flags)))
            if not piece:
                raise _gone(in_a_frame=have > 0)
            pieces.append(piece)
        self._buffer = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return deadline

    def _wait(self, ready: select.poll, deadline: float | None, timeout: float | None, verb: str) -> float | None:
        if timeout is None:
            ready.poll()
            return None
        now = time.monotonic()
        if deadline is None:
            deadline = now + timeout
        if now >= deadline or not ready.poll((deadline - now) * 1000):
            raise ChannelTimeoutError(
                f"the peer did not {verb} what was due within {timeout:.3g} seconds",
                hint="look whether the other process hangs or waits for input, and start the handoff again",
            )
        return deadline

    def close(self) -> None:
        """End the connection, and close what descriptors came and were not taken."""
        # Another thread may be waiting in poll: this wakes it, closing alone would not.
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()
        for _, descriptors in self._arrived:
            close_all(descriptors)
        self._arrived.clear()
        self._buffer = b""

    def abandon(self) -> None:
        """Close our descriptor without ending the connection: it is the parent's, we are a forked child."""
        self._connection.close()


def _gone(*, in_a_frame: bool) -> ChannelError:
    where = "in the middle of a frame" if in_a_frame else "without closing the channel"
    return PeerGoneError(
        f"the peer ended the connection {where}",
        hint="look at what the other end reported; if it refused this end or died, `handoff recover` settles keys",
    )
