"""Whole records out of a stream of bytes.

Bytes that were read from the socket before it changed hands come first. What is here and not yet opened can be given
away again, with the socket.

Source: RFC 8446 section 5.1; RFC 5246 section 6.2.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsmbridge_csp.tls.alerts import AlertDescription, ContentType
from hsmbridge_csp.tls.errors import TlsTruncatedError
from hsmbridge_csp.tls.protection import HEADER, HEADER_SIZE, WIRE_VERSION
from hsmbridge_csp.tls.suites import TlsVersion

if TYPE_CHECKING:
    import socket

    from hsmbridge_csp.tls.suites import RecordForm

__all__ = ["RecordReader"]

_ROOM = 1 << 17
"""Seven full records and a bit: fewer calls of recv than records when much comes."""

_TYPES = frozenset(map(int, ContentType))


class RecordReader:
    """Cuts what comes from a socket into records.

    Args:
        sock: the connection.
        form: of the connection's suite.
        unread: what was read from the socket already.
    """

    def __init__(self, sock: socket.socket, form: RecordForm, unread: bytes = b"") -> None:
        self._socket = sock
        self._form = form
        self._room = bytearray(max(_ROOM, len(unread)))
        self._view = memoryview(self._room)
        self._room[: len(unread)] = unread
        self._start, self._end = 0, len(unread)

    @property
    def unread(self) -> bytes:
        """What came and belongs to no record that was taken."""
        return bytes(self._view[self._start : self._end])

    def next(self) -> tuple[memoryview, int]:
        """Take the next record.

        Returns: where it stands, from its first byte on, and its size; good until the next call. A header that cannot
            be one is given alone, without what it announces: whoever opens it finds out what is wrong with it.

        Raises:
            TlsTruncatedError: the stream ended.
            TimeoutError: nothing came in time; what came is kept.
            OSError: the connection broke.
        """
        self._fill(HEADER_SIZE)
        kind: int
        kind, version, length = HEADER.unpack_from(self._room, self._start)
        if self._is_wrong(kind, version, length):
            size = HEADER_SIZE
        else:
            size = HEADER_SIZE + length
            self._fill(size)
        record = self._view[self._start : self._start + size]
        self._start += size
        return record, size

    def forget(self) -> None:
        """Overwrite what is here: opened records stand where they came."""
        self._view[:] = bytes(len(self._room))
        self._start = self._end = 0

    def _is_wrong(self, kind: int, version: int, length: int) -> bool:
        form = self._form
        if length > form.max_ciphertext or kind not in _TYPES:
            return True
        if form.version is TlsVersion.TLS13:
            return kind != ContentType.APPLICATION_DATA
        return version != WIRE_VERSION

    def _fill(self, size: int) -> None:
        """Have *size* bytes at the start."""
        while (there := self._end - self._start) < size:
            if not there:
                self._start = self._end = 0
            elif len(self._room) - self._start < size:
                self._view[:there] = bytes(self._view[self._start : self._end])
                self._start, self._end = 0, there
            count = self._socket.recv_into(self._view[self._end :])
            if not count:
                raise TlsTruncatedError(AlertDescription.DECODE_ERROR if there else None)
            self._end += count
