"""An established TLS connection: a socket and a record key for each direction, with or without a handshake behind it.

It knows records, alerts and KeyUpdate, and no handshake: nothing in it could make a new session. Whatever ends it goes
one way: the fatal alert that the RFC names, the keys overwritten, the socket closed, a typed error.

Source: RFC 8446 sections 4.6.3, 5 and 6; RFC 5246 sections 6 and 7.2; docs/tls.md.
"""

from __future__ import annotations

import io
from typing import BinaryIO, NoReturn, cast

from hsmbridge.errors import HsmbridgeError
from hsmbridge_csp.tls.alerts import AlertDescription, ContentType, TlsAlertError
from hsmbridge_csp.tls.errors import TlsConnectionError, TlsTimeoutError, TlsTruncatedError
from hsmbridge_csp.tls.files import BUFFER, RawReader
from hsmbridge_csp.tls.held import HeldConnection
from hsmbridge_csp.tls.messages import KeyUpdate, read_alert

__all__ = ["TlsConnection"]

_MAX_IDLE_RECORDS = 32
"""Records without application data in a row: more is somebody who wastes our time."""


class TlsConnection(HeldConnection):
    """The application process's side of a connection. One thread may read while another writes.

    Args:
        sock: connected; the connection's own from now on.
        sending: seals what goes out.
        receiving: opens what comes in.
        unread: bytes of records that were read from the socket already.
        plaintext: bytes of opened records that nobody has read yet.
        ended: whether the peer's close_notify has come.

    Raises:
        BadKeyError: the keys are not the two directions of one connection.
    """

    _idle = 0

    def recv(self, size: int = BUFFER) -> bytes:
        """Read what there is, at least a byte.

        Returns: empty after the peer's close_notify.

        Raises:
            TlsAlertError: the peer sent what may not come; it has been told, and the connection is closed.
            TlsPeerAlertError: the peer ended the connection.
            TlsTruncatedError: the stream ended without close_notify.
            TlsTimeoutError: nothing came in time; the connection goes on.
            TlsClosedError: it was closed or handed over.
        """
        room = bytearray(size)
        return bytes(room[: self.recv_into(room)])

    def recv_into(self, room: bytearray | memoryview) -> int:
        """Read into a buffer what there is, at least a byte; as :meth:`recv`.

        Returns: how much; 0 after the peer's close_notify.
        """
        with self.reading:
            self.check_open()
            while not self.plaintext and not self.ended:
                count = self._take_record(room)
                if count:
                    return count
            count = min(len(room), len(self.plaintext))
            room[:count] = self.plaintext[:count]
            self.plaintext = self.plaintext[count:]
            return count

    def sendall(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of *data*.

        Raises:
            TlsTimeoutError: the peer takes nothing in time.
            TlsConnectionError: the connection broke.
            KeyStateError: TLS 1.2, and the key is used up.
            TlsClosedError: it was closed or handed over.
        """
        self.check_open()
        self.writer.write(memoryview(data).cast("B"))

    def update_key(self, *, request: bool = False) -> None:
        """Go over to the next sending key, and have the peer do the same if *request*.

        Raises:
            KeyStateError: TLS 1.2 has no KeyUpdate.
        """
        self.check_open()
        self.sending.check_usable()
        self.writer.update_key(KeyUpdate.REQUESTED if request else KeyUpdate.NOT_REQUESTED)

    def makefile(self, mode: str = "rb", buffering: int = -1) -> BinaryIO:
        """Return a buffered binary file that reads from the connection, as a socket does."""
        if mode not in ("r", "rb"):
            raise ValueError("a connection is read through a file, and written with sendall")
        raw = RawReader(self.recv_into)
        return cast("BinaryIO", raw if not buffering else io.BufferedReader(raw, max(buffering, BUFFER)))

    def _take_record(self, room: bytearray | memoryview) -> int:
        """Take one record; application data go into *room*, and what does not fit is kept.

        Returns: how much of *room* was filled.
        """
        try:
            record, size = self.reader.next()
            kind, length = self.receiving.open_from(record, size)
            prefix = self.receiving.prefix
            if kind is ContentType.APPLICATION_DATA and not self.handshake.pending:
                if length:
                    self._idle = 0
                    count = min(length, len(room))
                    room[:count] = record[prefix : prefix + count]
                    if count < length:
                        self.plaintext = bytes(record[prefix + count : prefix + length])
                    return count
            else:
                self._take_control(kind, bytes(record[prefix : prefix + length]))
            self._count_idle()
        except TimeoutError as error:
            raise TlsTimeoutError("the peer says nothing", hint="read again later, or close") from error
        except TlsTimeoutError:
            raise
        except (TlsAlertError, TlsTruncatedError) as error:
            self.end(error.alert)
            raise
        except HsmbridgeError:
            self.end(None)
            raise
        except OSError as error:
            self._fail(error)
        return 0

    def _count_idle(self) -> None:
        self._idle += 1
        if self._idle > _MAX_IDLE_RECORDS:
            raise TlsAlertError(AlertDescription.UNEXPECTED_MESSAGE, "too many records that say nothing")

    def _take_control(self, kind: ContentType, fragment: bytes) -> None:
        if kind is ContentType.HANDSHAKE:
            request = self.handshake.add(fragment)
            if request is not None:
                self.receiving.update()
                if request is KeyUpdate.REQUESTED:
                    self.writer.update_key()
        elif kind is ContentType.ALERT and not self.handshake.pending:
            self.ended = read_alert(fragment, self.receiving.version)
        else:
            raise TlsAlertError(AlertDescription.UNEXPECTED_MESSAGE, f"{kind.name.lower()} cannot come now")

    def _fail(self, error: OSError) -> NoReturn:
        self.end(None)
        raise TlsConnectionError(f"the connection broke: {error}", hint="make a new connection") from error
