"""HTTP/1.1 over a connection that arrived: enough of it to see that nothing is lost, and nothing comes twice.

Source: RFC 9110; RFC 9112.
"""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, cast

from hsmbridge.errors import HsmbridgeError

if TYPE_CHECKING:
    import socketserver
    from collections.abc import Iterator

    from hsmbridge_csp.tls.connection import TlsConnection

__all__ = ["content", "serve"]

_BLOCK = 1 << 20
_MAX_CONTENT = 1 << 30


@lru_cache(maxsize=1)
def _block() -> bytes:
    return hashlib.shake_128(b"hsmbridge demo").digest(_BLOCK)


def content(size: int) -> Iterator[memoryview]:
    """Yield what ``/bytes/SIZE`` is, piece by piece."""
    block = memoryview(_block())
    while size > 0:
        yield block[:size]
        size -= _BLOCK


def serve(connection: TlsConnection, requests: int | None = None) -> int:
    """Answer the requests of one connection.

    Args:
        connection: stays open.
        requests: how many at most; None until the client has no more.

    Returns: how many were answered.

    Raises:
        HsmbridgeError: the connection failed.
    """
    kind = _Handler if requests is None else _Careful
    handler = kind.__new__(kind)
    handler.left, handler.answered = requests, 0
    # The base class wants a socket; it uses makefile and sendall alone.
    BaseHTTPRequestHandler.__init__(handler, cast("Any", connection), ("", 0), cast("socketserver.BaseServer", None))
    return handler.answered


class _Handler(BaseHTTPRequestHandler):
    """GET / says who answers; GET /bytes/N gives N bytes; PUT gives the SHA-256 of what was put."""

    protocol_version = "HTTP/1.1"
    left: int | None
    answered: int

    def handle(self) -> None:
        """Answer until the client or the number of requests ends it."""
        self.close_connection = False
        while not self.close_connection and self.left != self.answered:
            self.handle_one_request()

    def do_GET(self) -> None:
        """Answer GET."""
        if self.path.startswith("/bytes/") and self.path[7:].isdecimal() and int(self.path[7:]) <= _MAX_CONTENT:
            size = int(self.path[7:])
            self._head(size)
            for piece in content(size):
                self.wfile.write(piece)
        else:
            self._text(f"process {os.getpid()}\n")

    def do_PUT(self) -> None:
        """Answer PUT."""
        left, digest = int(self.headers.get("Content-Length", "0")), hashlib.sha256()
        room = memoryview(bytearray(1 << 16))
        while left:
            count = cast("Any", self.rfile).readinto(room[: min(left, len(room))])
            if not count:
                raise HsmbridgeError("the client sent less than it had announced", hint="send it again")
            digest.update(room[:count])
            left -= count
        self._text(digest.hexdigest() + "\n")

    def _text(self, text: str) -> None:
        self._head(len(text))
        self.wfile.write(text.encode())

    def _head(self, size: int) -> None:
        self.answered += 1
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(size))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


class _Careful(_Handler):
    """Reads nothing that the next process has to answer."""

    rbufsize = 0
