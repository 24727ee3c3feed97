"""Somebody in the middle who writes down what goes by, and changes nothing."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Self

__all__ = ["Capture", "Relay"]

_PATIENCE = 5.0
"""Seconds for what is still on its way."""


class Capture:
    """The bytes of one connection.

    Attributes:
        up: from the client; down: from the server.
    """

    def __init__(self) -> None:
        self.up, self.down = bytearray(), bytearray()


class Relay:
    """Listens on loopback and forwards to a port there.

    Args:
        port: where the server listens.

    Attributes:
        port: where clients connect.
        captures: one for each connection, in the order in which they came.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.captures: list[Capture] = []
        self._sockets: list[socket.socket] = []
        self._forwarders: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    def close(self) -> None:
        """Accept nobody any more, wait for the connections' ends, and end those that last."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        deadline = time.monotonic() + _PATIENCE
        for forwarder in self._forwarders:
            forwarder.join(max(0.0, deadline - time.monotonic()))
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for forwarder in self._forwarders:
            forwarder.join()
        for each in self._sockets:
            each.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets.append(server)
                capture = Capture()
                self.captures.append(capture)
                for source, target, seen in ((client, server, capture.up), (server, client, capture.down)):
                    self._forwarders.append(threading.Thread(target=_forward, args=(source, target, seen)))
                    self._forwarders[-1].start()


def _forward(source: socket.socket, target: socket.socket, seen: bytearray) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            seen += data
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
