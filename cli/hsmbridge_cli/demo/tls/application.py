"""The application process: it takes connections over and serves them. It has no certificate key and no token."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from hsmbridge_csp.channel import Listener, Side
from hsmbridge_csp.channel.errors import ChannelError
from hsmbridge_csp.handoff.receiver import Receiver
from hsmbridge_csp.hardening import disable_core_dumps
from hsmbridge_csp.tls.moving import take_over

from hsmbridge.errors import HsmbridgeError
from hsmbridge_cli.demo.script import tell_parent
from hsmbridge_cli.demo.tls.script import SOCKET, TlsConfig
from hsmbridge_cli.demo.tls.web import serve

if TYPE_CHECKING:
    from hsmbridge_csp.channel import Channel
    from hsmbridge_csp.tls.connection import TlsConnection

__all__ = ["main"]

_AT_ONCE = 64


def main() -> None:
    """Run the application process; each line on standard input asks for a report on standard output."""
    disable_core_dumps()
    config = TlsConfig.from_stdin()
    party, terms = config.party(Side.RECEIVER)
    with Listener(SOCKET) as listener:
        tell_parent({"pid": os.getpid()})
        channel = listener.accept(terms, config.timeout)
    served: list[Future[dict[str, Any]]] = []
    threading.Thread(target=_take, args=(config, Receiver(party), channel, served), daemon=True).start()
    for _ in sys.stdin:
        tell_parent({"connections": [future.result() for future in list(served)]})


def _take(config: TlsConfig, receiver: Receiver, channel: Channel, served: list[Future[dict[str, Any]]]) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while not channel.closed:
            try:
                connection = take_over(receiver, channel, timeout=config.timeout)
            except ChannelError:
                return  # the secure process is done
            except HsmbridgeError as error:
                sys.stderr.write(f"application process: {error}\n")
                continue
            served.append(pool.submit(_serve, connection))


def _serve(connection: TlsConnection) -> dict[str, Any]:
    suite = connection.sending.suite
    found: dict[str, Any] = {"version": suite.version.name, "suite": suite.name, "first": _sequences(connection)}
    found["unread"] = len(connection.reader.unread)
    try:
        found["requests"] = serve(connection)
        found["last"] = _sequences(connection)
        connection.close()
        found["ended"] = "close_notify"
    except HsmbridgeError as error:
        connection.close()
        found["ended"] = type(error).__name__
    return found


def _sequences(connection: TlsConnection) -> list[int]:
    return [connection.sending.sequence, connection.receiving.sequence]


if __name__ == "__main__":
    main()
