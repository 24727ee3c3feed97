"""The application process: it takes the keys over and finishes what the other process began."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hsmbridge_csp.hardening import disable_core_dumps
from hsmbridge_csp.provider import Provider
from hsmbridge_csp.token_key import TokenKey
from hsmbridge_csp.trust import TrustStore

from hsmbridge.codes import CKO
from hsmbridge.destruction import Ours
from hsmbridge.objects import find_key
from hsmbridge_cli.demo.parts import PARTS
from hsmbridge_cli.demo.script import SOCKET, Config, Frames, open_token, tell_parent

if TYPE_CHECKING:
    from hsmbridge_csp.keys import Key
    from hsmbridge_csp.recipient_kek import TokenKek

    from hsmbridge.token import Token

__all__ = ["main"]

_TIMEOUT = 60.0


def main() -> None:
    """Run the application process; the report goes to standard output as JSON.

    A key that came by value out of the token is kept as a token object here, so that other programs can judge it.
    """
    disable_core_dumps()
    config = Config.from_stdin()
    config.enter()
    token = open_token(config)
    provider = Provider(token, trust=TrustStore.parse(config.sender.encode(), name="the trust of the demo"))
    kek = provider.kek(find_key(token, label=config.label("kek"), classes=(CKO.SECRET_KEY,)))
    keys = _take_over(provider, kek)
    for part in PARTS:
        part.finish(keys[part.name], config)
    tell_parent({"pid": os.getpid()})
    sys.stdin.read()  # until the judges are done
    if not config.keep:
        _remove_arrival(token, keys["session"])


def _take_over(provider: Provider, kek: TokenKek) -> dict[str, Key]:
    keys: dict[str, Key] = {}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(SOCKET)
        listener.listen(1)
        listener.settimeout(_TIMEOUT)
        tell_parent({"listening": True})
        connection, _ = listener.accept()
        Path(SOCKET).unlink()
        with connection:
            frames = Frames(connection)
            while (name := frames.receive_json()["name"]) is not None:
                keys[name] = provider.import_key(frames.receive(), kek, persist=True)
            frames.send_json({"imported": list(keys)})
            frames.receive_json()  # the other side has destroyed its copies: from here on there is one holder
    return keys


def _remove_arrival(token: Token, arrived: Key) -> None:
    """Remove the token object that this process itself made of the session key, and nothing else."""
    with Ours(token) as ours:
        if isinstance(arrived, TokenKey):
            ours.take(arrived.object)


if __name__ == "__main__":
    main()
