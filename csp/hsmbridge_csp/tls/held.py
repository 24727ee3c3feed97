"""Who has a connection, and how it ends: socket, keys, and what is on its way between them.

Source: RFC 8446 section 6; docs/tls.md.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Self

from hsmbridge.errors import HsmbridgeError
from hsmbridge_csp.errors import BadKeyError, KeyStateError
from hsmbridge_csp.modes import Direction
from hsmbridge_csp.tls.alerts import AlertDescription, ContentType
from hsmbridge_csp.tls.errors import TlsClosedError
from hsmbridge_csp.tls.files import linger
from hsmbridge_csp.tls.messages import HandshakeBuffer, alert_message
from hsmbridge_csp.tls.wire import RecordReader
from hsmbridge_csp.tls.writer import RecordWriter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from hsmbridge_csp.tls.record_key import TlsRecordKey

__all__ = ["HeldConnection"]


class HeldConnection:
    """A connection as a thing that this process has, or has no more.

    Attributes:
        socket: connected.
        sending, receiving: the keys.
        reader, writer: records that come and go.
        handshake: a handshake message that has begun to come.
        plaintext: what was opened and nobody has read yet.
        ended: whether the peer's close_notify has come.
    """

    def __init__(  # noqa: PLR0913 - what a connection is made of
        self,
        sock: socket.socket,
        sending: TlsRecordKey,
        receiving: TlsRecordKey,
        unread: bytes = b"",
        *,
        plaintext: bytes = b"",
        ended: bool = False,
    ) -> None:
        pair = (sending.direction, receiving.direction)
        if pair != (Direction.ENCRYPT, Direction.DECRYPT) or sending.suite is not receiving.suite:
            raise BadKeyError(
                "these are not the two keys of one connection", hint="give the sealing key first, of the same suite"
            )
        self.socket = sock
        self.sending, self.receiving = sending, receiving
        self.reader = RecordReader(sock, receiving.suite.form, unread)
        self.writer = RecordWriter(sock, sending)
        self.handshake = HandshakeBuffer(receiving.version)
        self.plaintext, self.ended = plaintext, ended
        self.reading = threading.Lock()
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether it was closed or handed over."""
        return self._closed

    @contextlib.contextmanager
    def at_rest(self) -> Iterator[None]:
        """Keep every reader and writer out, between two records.

        Raises:
            KeyStateError: NTE_BAD_KEY_STATE: a read, a write or a handshake message is pending.
            TlsClosedError: it was closed or handed over.
        """
        self.check_open()
        if not self.reading.acquire(blocking=False):
            raise _busy("a read")
        try:
            if self.handshake.pending:
                raise _busy("a handshake message")
            with self.writer.at_rest() as rests:
                if not rests:
                    raise _busy("a write")
                yield
        finally:
            self.reading.release()

    def check_open(self) -> None:
        """Refuse a connection that this process does not have any more.

        Raises:
            TlsClosedError: it was closed or handed over.
        """
        if self._closed:
            raise TlsClosedError(
                "this process does not have the connection any more",
                hint="it was closed, or handed over to another process",
            )

    def settimeout(self, seconds: float | None) -> None:
        """Set how long one operation of the socket may wait."""
        self.socket.settimeout(seconds)

    def close(self) -> None:
        """Send close_notify, overwrite the keys, close the socket. May be called twice."""
        self.end(AlertDescription.CLOSE_NOTIFY)

    def abandon(self) -> None:
        """Let go of socket and keys without a word: they belong to another process, or to nobody.

        Nothing is shut down, so whoever has a duplicate of the socket goes on.
        """
        self._closed = True
        for key in (self.sending, self.receiving):
            with contextlib.suppress(BadKeyError):  # destroyed already: by the handoff
                key.dispose()
        self.reader.forget()
        self.writer.forget()
        self.plaintext = b""
        self.socket.close()

    def end(self, alert: AlertDescription | None) -> None:
        """Say why, if there is something to say, and let go of everything. May be done twice."""
        if self._closed:
            return
        self._closed = True
        if alert is not None:
            with contextlib.suppress(HsmbridgeError):
                self.writer.say(ContentType.ALERT, alert_message(alert))
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
            if alert not in (None, AlertDescription.CLOSE_NOTIFY):
                linger(self.socket)
        self.abandon()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<TlsConnection {self.sending.suite.name}{', closed' if self._closed else ''}>"


def _busy(what: str) -> KeyStateError:
    return KeyStateError(f"{what} is pending", hint="finish it, then hand the connection over")
