"""The secure process: it has the token, runs the handshakes, and hands each connection over."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from cryptography import x509
from hsmbridge_csp.channel import Side, connect
from hsmbridge_csp.handoff.sender import Sender
from hsmbridge_csp.hardening import allow_inspection, disable_core_dumps
from hsmbridge_csp.tls.errors import TlsClosedError
from hsmbridge_csp.tls.moving import hand_over
from hsmbridge_csp.tls.tlslite_ng import TlsServer
from hsmbridge_csp.tls.tokensigner import HandshakeSigner
from hsmbridge_csp.token_key import TokenKey

from hsmbridge.codes import CKO
from hsmbridge.errors import HsmbridgeError
from hsmbridge.objects import find_key
from hsmbridge_cli.demo.script import tell_parent
from hsmbridge_cli.demo.tls.script import SOCKET, TlsConfig
from hsmbridge_cli.demo.tls.web import serve

if TYPE_CHECKING:
    from hsmbridge_csp.channel import Channel
    from hsmbridge_csp.tls.connection import TlsConnection

__all__ = ["main"]

_AT_ONCE = 16
_WAIT = 30.0


def main() -> None:
    """Run the secure process; each line on standard input asks for a report on standard output."""
    disable_core_dumps()
    config = TlsConfig.from_stdin()
    token = config.open_token()
    key = TokenKey(find_key(token, label=config.key_label, classes=(CKO.PRIVATE_KEY,)))
    server = TlsServer(HandshakeSigner(key), x509.load_pem_x509_certificate(config.certificate.encode()))
    party, terms = config.party(Side.SENDER)
    channel = connect(SOCKET, terms, wait=_WAIT)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        desk = _Desk(config, server, Sender(party), channel)
        threading.Thread(target=desk.accept, args=(listener,), daemon=True).start()
        tell_parent({"pid": os.getpid(), "port": listener.getsockname()[1]})
        for _ in sys.stdin:
            tell_parent(desk.report())
    found = key.classify()
    outcome = key.dispose()
    tell_parent({"token_key": outcome.outcome.value, "residency": found.residency.value, "why": found.reason})
    channel.close()
    sys.stdout.flush()
    os._exit(0)  # the threads that wait for clients have nothing left to do


class _Desk:
    """Receives clients: handshakes side by side, handoffs one after the other."""

    def __init__(self, config: TlsConfig, server: TlsServer, sender: Sender, channel: Channel) -> None:
        self._config, self._server, self._sender, self._channel = config, server, sender, channel
        self._pool = ThreadPoolExecutor(_AT_ONCE)
        self._one = threading.Lock()
        self._done: list[Future[dict[str, Any]]] = []

    def accept(self, listener: socket.socket) -> None:
        """Take clients for ever."""
        while True:
            client, _ = listener.accept()
            client.settimeout(self._config.timeout)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._done.append(self._pool.submit(self._receive, client))

    def report(self) -> dict[str, Any]:
        """Wait for those that have come; tell what became of each, and let the parent look at this memory."""
        connections = [future.result() for future in list(self._done)]
        gc.collect()
        allow_inspection()
        return {"connections": connections}

    def _receive(self, client: socket.socket) -> dict[str, Any]:
        found: dict[str, Any] = {}
        try:
            connection = self._server.accept(client)
            suite = connection.sending.suite
            found |= {"version": suite.version.name, "suite": suite.name}
            if self._config.requests_before:
                found["requests"] = serve(connection, self._config.requests_before)
            found |= {"unread": len(connection.reader.unread), "sequences": _sequences(connection)}
            with self._one:
                moved = hand_over(self._sender, connection, self._channel)
            found["keys"] = [each.outcome.value for each in moved.dispositions]
            found["refused_afterwards"] = _is_refused(connection)
        except HsmbridgeError as error:
            with contextlib.suppress(OSError):
                client.close()
            found["error"] = f"{type(error).__name__}: {error}"
        return found


def _sequences(connection: TlsConnection) -> list[int]:
    return [connection.sending.sequence, connection.receiving.sequence]


def _is_refused(connection: TlsConnection) -> bool:
    """Try to read and to write what was handed over."""
    refused = 0
    for attempt in (connection.recv, lambda: connection.sendall(b"x")):
        try:
            attempt()
        except TlsClosedError:
            refused += 1
    return refused == len(("recv", "sendall"))


if __name__ == "__main__":
    main()
