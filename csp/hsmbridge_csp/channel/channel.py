"""An open channel: frames in both directions until either end closes it, or something goes wrong.

Source: docs/channel.md.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from typing import TYPE_CHECKING, NoReturn, Self

from hsmbridge_csp.channel.errors import ChannelClosedError, ChannelError, DescriptorError, FrameError, PeerClosedError
from hsmbridge_csp.channel.frames import FIRST_TYPE, MAX_PAYLOAD, TAG_SIZE, Frame, FrameType, check_outgoing
from hsmbridge_csp.channel.handshake import shake
from hsmbridge_csp.channel.passing import close_all
from hsmbridge_csp.channel.schedule import content_key
from hsmbridge_csp.channel.terms import Peer, peer_credentials
from hsmbridge_csp.channel.wire import Wire
from hsmbridge_csp.wipe import wipe

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
    from types import TracebackType

    from hsmbridge_csp.channel.handshake import Session
    from hsmbridge_csp.channel.protection import Inbound, Outbound
    from hsmbridge_csp.channel.terms import Side, Terms

__all__ = ["Channel"]

_MAX_BODY = MAX_PAYLOAD + TAG_SIZE
_CLOSING_TIMEOUT = 1.0
"""Seconds that a peer who takes nothing can hold up our closing."""


class Channel:
    """An authenticated channel to one peer. Made by :meth:`over`, by a listener or by ``connect``.

    One thread may send while another receives. After any error but :class:`ChannelUsageError` it is closed, its keys
    are overwritten, and each further call is a :class:`ChannelClosedError`. A forked child finds it closed too: two
    processes would use a nonce twice.

    Args:
        wire: the connection.
        session: what the handshake left.
        peer: who is there.
        timeout: seconds that one operation may wait, None for ever.

    Attributes:
        peer: who is at the other end.
        transcript: 32 bytes that name this channel and no other; not secret, the same at both ends.
        timeout: seconds that one operation may wait, None for ever; may be set.
    """

    __slots__ = (
        "__weakref__", "_exporter", "_inbound", "_outbound", "_receiving", "_sending", "_wire", "peer", "timeout",
        "transcript",
    )  # fmt: skip

    def __init__(self, wire: Wire, session: Session, peer: Peer, timeout: float | None) -> None:
        self.peer = peer
        self.transcript = session.transcript
        self.timeout = timeout
        self._wire = wire
        self._outbound: Outbound | None = session.outbound
        self._inbound: Inbound | None = session.inbound
        self._exporter: bytearray | None = session.exporter
        self._sending, self._receiving = threading.Lock(), threading.Lock()
        _OPEN.add(self)

    @classmethod
    def over(cls, connection: socket.socket, terms: Terms) -> Channel:
        """Open a channel over a connected Unix stream socket, which is the channel's from here on.

        Raises:
            WrongUserError: the peer runs as another user.
            UnpinnedPeerError: the peer's identity is not believed.
            ChannelError: the peer is not there, or not authentic.
        """
        wire = Wire(connection)
        try:
            credentials = peer_credentials(connection, terms.uids)
            session = shake(wire, terms)
        except BaseException:
            wire.close()
            raise
        peer = Peer(fingerprint=session.fingerprint, uid=credentials.uid, pid=credentials.pid)
        return cls(wire, session, peer, terms.timeout)

    @property
    def closed(self) -> bool:
        """Whether it is of no more use."""
        return self._outbound is None

    def send(self, kind: int, payload: bytes | bytearray, fds: Sequence[int] = ()) -> None:
        """Send a frame.

        Args:
            kind: 16 to 255.
            payload: at most 1 MiB.
            fds: file descriptors whose duplicates the peer gets; the caller's stay open.

        Raises:
            ChannelUsageError: not something to be sent.
            ChannelTimeoutError: the peer takes nothing.
            PeerGoneError: the peer is gone.
            DescriptorError: a file descriptor is not open.
            ExhaustedError: the key has protected as much as it may.
        """
        check_outgoing(kind, payload, len(fds))
        with self._sending:
            self._send(kind, payload, fds, self.timeout)

    def _send(self, kind: int, payload: bytes | bytearray, fds: Sequence[int], timeout: float | None) -> None:
        outbound = self._outbound
        if outbound is None:
            _refuse_closed()
        try:
            frame = outbound.seal(kind, payload, len(fds))
            if self._outbound is None:  # ended by another thread, which may have overwritten the key meanwhile
                _refuse_closed()
            self._wire.send(frame, fds, timeout)
        except BaseException as error:  # part of a frame may be out, even after a KeyboardInterrupt
            self._fail(error)
            raise

    def receive(self) -> Frame:
        """Receive the next frame. Its file descriptors are the caller's, who closes them.

        Raises:
            PeerClosedError: there is none: the peer closed the channel in order.
            PeerGoneError: the peer is gone.
            ChannelTimeoutError: the peer says nothing.
            WrongCounterError: not the next frame.
            NotAuthenticError: changed, reflected or of another channel.
            FrameError: too large, or of no type that belongs here.
            DescriptorError: other file descriptors came than the frame says.
        """
        with self._receiving:
            inbound, descriptors = self._inbound, list[int]()
            if inbound is None:
                _refuse_closed()
            try:
                header, body, descriptors = self._wire.receive(_MAX_BODY, self.timeout)
                return _accepted(*inbound.open(header, body), descriptors)
            except BaseException as error:
                close_all(descriptors)
                self._fail(error)
                raise

    def content_key(self, side: Side, label: bytes) -> bytes:
        """Derive an AES-256 key that only the two ends of this channel have.

        Args:
            side: who seals with it; each end opens with the other's.
            label: what it is for, for example a blob's id; another label is another key.

        Returns: 32 bytes that nobody else uses: to be overwritten with ``wipe``.

        Raises:
            ChannelClosedError: the channel is closed.
        """
        exporter = self._exporter
        key = content_key(exporter, side, label) if exporter is not None else b""
        if self._exporter is None:  # as in _send
            _refuse_closed()
        return key

    def close(self) -> None:
        """Close in order: the peer is told, and can rely on having got everything. Does nothing on a closed channel."""
        # Whoever holds the lock is stuck in sending, so that there is nothing to be told any more.
        if self._sending.acquire(timeout=_CLOSING_TIMEOUT):
            try:
                with contextlib.suppress(ChannelError):
                    self._send(FrameType.CLOSE, b"", (), _CLOSING_TIMEOUT)
            finally:
                self._sending.release()
        self.abort()

    def abort(self) -> None:
        """Close at once, without a word: the peer finds out that the channel was not closed in order."""
        self._forget()
        self._wire.close()

    def _fail(self, error: BaseException) -> None:
        ended = self.closed
        self.abort()
        if ended and isinstance(error, ChannelError):  # another thread closed it: no fault of the peer's
            _refuse_closed()

    def _forget(self) -> None:
        outbound, inbound, exporter = self._outbound, self._inbound, self._exporter
        self._outbound = self._inbound = self._exporter = None
        if outbound is not None:
            outbound.forget()
        if inbound is not None:
            inbound.forget()
        if exporter is not None:
            wipe(exporter)

    def _leave_to_parent(self) -> None:
        self._forget()
        self._wire.abandon()
        # Another thread of the parent may have held these; no thread of ours ever lets go of them.
        self._sending, self._receiving = threading.Lock(), threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def __repr__(self) -> str:
        return f"<Channel to {self.peer.fingerprint.hex()}, process {self.peer.pid}{', closed' if self.closed else ''}>"


def _accepted(kind: int, count: int, payload: bytes, descriptors: list[int]) -> Frame:
    if count != len(descriptors):
        raise DescriptorError(
            f"{len(descriptors)} file descriptors came with a frame that has {count}",
            hint="all of them were closed; start the handoff again",
        )
    if kind >= FIRST_TYPE:
        return Frame(kind, payload, tuple(descriptors))
    if kind == FrameType.CLOSE:
        raise PeerClosedError("the peer closed the channel", hint="it has nothing more to say; see what it reported")
    raise FrameError(f"frame type {kind} does not belong into an open channel", hint="start the handoff again")


def _refuse_closed() -> NoReturn:
    raise ChannelClosedError("the channel is closed", hint="open a new one; the first error says why it was closed")


_OPEN: weakref.WeakSet[Channel] = weakref.WeakSet()


def _after_fork() -> None:
    for channel in list(_OPEN):
        channel._leave_to_parent()  # noqa: SLF001 - this module's own


os.register_at_fork(after_in_child=_after_fork)
