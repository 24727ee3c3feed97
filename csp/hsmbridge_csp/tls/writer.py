"""Sealed records on their way to a socket.

What was sealed has used its sequence number and must go out, whole and in order: what the socket does not take in time
is kept and goes first with the next write.

Source: RFC 8446 sections 4.6.3, 5.1 and 5.5; docs/tls.md.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hsmbridge_csp.errors import KeyStateError
from hsmbridge_csp.tls.alerts import ContentType
from hsmbridge_csp.tls.errors import TlsConnectionError, TlsTimeoutError
from hsmbridge_csp.tls.messages import KeyUpdate, key_update_message
from hsmbridge_csp.tls.suites import MAX_PLAINTEXT

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from hsmbridge_csp.tls.record_key import TlsRecordKey

__all__ = ["RecordWriter"]

_BATCH = 4
"""Full records in one call of send: a call costs about what a record costs."""

_RESERVE = 2
"""Records that a key keeps for the KeyUpdate or the alert that ends its use."""


class RecordWriter:
    """Seals and sends.

    Args:
        sock: the connection.
        key: seals.
    """

    def __init__(self, sock: socket.socket, key: TlsRecordKey) -> None:
        self._socket = sock
        self._key = key
        self._lock = threading.Lock()
        self._pending: bytes = b""
        self._slots: list[memoryview] = []

    @contextmanager
    def at_rest(self) -> Iterator[bool]:
        """Keep writers out; tells whether nobody was writing, and all that was sealed has gone out."""
        if not self._lock.acquire(blocking=False):
            yield False
            return
        try:
            yield not self._pending
        finally:
            self._lock.release()

    def write(self, data: memoryview) -> None:
        """Send application data.

        Raises:
            TlsTimeoutError: the peer takes nothing; what was sealed goes out first with the next write.
            TlsConnectionError: the connection broke.
            KeyStateError: the key is used up (TLS 1.2), or frozen.
        """
        with self._lock:
            self._flush()
            full = self._key.record_size(MAX_PLAINTEXT)
            if not self._slots and len(data) > MAX_PLAINTEXT:
                room = memoryview(bytearray(full * _BATCH))
                self._slots = [room[at : at + full] for at in range(0, len(room), full)] + [room]
            sent = 0
            while len(data) - sent > MAX_PLAINTEXT * _BATCH:
                sent += self._write_batch(data, sent)
            while sent < len(data):
                part = data[sent : sent + MAX_PLAINTEXT]
                self._make_room()
                self._send(self._key.seal(ContentType.APPLICATION_DATA, part))
                sent += len(part)

    def update_key(self, request: KeyUpdate = KeyUpdate.NOT_REQUESTED) -> None:
        """Send a KeyUpdate and go over to the next key.

        Raises:
            As :meth:`write`.
        """
        with self._lock:
            self._flush()
            self._update_key(request)

    def say(self, kind: ContentType, message: bytes) -> None:
        """Send one short record.

        Raises:
            As :meth:`write`.
        """
        with self._lock:
            self._flush()
            self._send(self._key.seal(kind, message))

    def forget(self) -> None:
        """Drop what has not gone out."""
        self._pending = b""
        self._slots = []

    def _write_batch(self, data: memoryview, start: int) -> int:
        """Seal full records side by side, and send them at once."""
        key, prefix = self._key, self._key.prefix
        *slots, room = self._slots
        if key.remaining <= _RESERVE + _BATCH:
            self._make_room()
            self._send(key.seal(ContentType.APPLICATION_DATA, data[start : start + MAX_PLAINTEXT]))
            return MAX_PLAINTEXT
        at, end = start, prefix + MAX_PLAINTEXT
        for slot in slots:
            slot[prefix:end] = data[at : at + MAX_PLAINTEXT]
            key.seal_into(slot, MAX_PLAINTEXT)
            at += MAX_PLAINTEXT
        self._send(room)
        return at - start

    def _make_room(self) -> None:
        if self._key.remaining > _RESERVE:
            return
        self._update_key(KeyUpdate.NOT_REQUESTED)

    def _update_key(self, request: KeyUpdate) -> None:
        if not self._key.has_secret:
            raise KeyStateError(
                f"the key cannot be renewed, and protects {self._key.remaining} more records",
                hint="TLS 1.2 has no KeyUpdate: close the connection in time and make a new one",
            )
        record = self._key.seal(ContentType.HANDSHAKE, key_update_message(request))
        self._key.update()  # first: a record that could not be sent at once is sent later all the same
        self._send(record)

    def _flush(self) -> None:
        if self._pending:
            pending, self._pending = self._pending, b""
            self._send(memoryview(pending))

    def _send(self, records: bytes | memoryview) -> None:
        view, sent = memoryview(records), 0
        try:
            while sent < len(view):
                sent += self._socket.send(view[sent:] if sent else view)
        except TimeoutError as error:
            self._pending = bytes(view[sent:])
            raise TlsTimeoutError(
                "the peer takes nothing", hint="write again later: what was sealed goes out first; or close"
            ) from error
        except OSError as error:
            raise TlsConnectionError(f"the connection broke: {error}", hint="make a new connection") from error
