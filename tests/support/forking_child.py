"""A process that opened a token forks, and then spawns.

It prints what the child may do, what the parent still can, and what the spawned process does.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from typing import TYPE_CHECKING

from hsmbridge.codes import CKA, CKO
from hsmbridge.destruction import destroy_session_key
from hsmbridge.dialects import Dialect
from hsmbridge.errors import HsmbridgeError
from hsmbridge.module import Module
from hsmbridge.probe import probe
from hsmbridge.residency import classify
from tests.support.children import close, open_token
from tests.support.tokens import token_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from hsmbridge.objects import Object
    from hsmbridge.token import Token


def attempts(token: Token, key: Object) -> dict[str, Callable[[], object]]:
    """Everything that a child may try with what it inherited."""
    return {
        "search": lambda: token.handles({CKA.CLASS: CKO.SECRET_KEY}),
        "read": key.read_identity,
        "classify": lambda: classify(key),
        "destroy": lambda: destroy_session_key(key),
        "keys": token.keys,
        "set": lambda: key.set({CKA.LABEL: "forked"}),
        "mechanisms": token.mechanisms,
        "probe": lambda: probe(token).route(Dialect.AES_KW),
        "tokens": token.module.tokens,
        "open": lambda: Module.open(token.module.path),
    }


def outcome(attempt: Callable[[], object]) -> str:
    """Run one attempt and name what came of it."""
    try:
        attempt()
    except HsmbridgeError as error:
        return type(error).__name__ if error.hint else f"{type(error).__name__} without a hint"
    except BaseException as error:  # noqa: BLE001 - a child must report, whatever it is
        return repr(error)
    return "done"


def in_fork(work: Callable[[], dict[str, str]]) -> dict[str, str]:
    """Run *work* in a fork and return what it found."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, json.dumps(work()).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer: dict[str, str] = json.loads(pipe.read() or b"{}")
    os.waitpid(pid, 0)
    return answer


def spawned(pipe: Connection, label: str) -> None:
    """Work with the token in a new process."""
    token = open_token()
    pipe.send(token.label == label and token.handles({CKA.TOKEN: True}) != [])
    pipe.close()
    close(token)


def main() -> None:
    """Open, fork, work on, spawn."""
    token = open_token()
    key = token_key(token)
    expected = key.identity
    token.handles({})

    def everything() -> dict[str, str]:
        return {name: outcome(attempt) for name, attempt in attempts(token, key).items()}

    report: dict[str, object] = {"child": in_fork(everything)}
    with token.sessions:  # a fork in the middle of an operation
        report["child inside an operation"] = in_fork(everything)
    report["parent"] = key.read_identity() == expected and key.handle in token.handles({CKA.TOKEN: True})
    if "HSMBRIDGE_SPAWN" in os.environ:
        context = multiprocessing.get_context("spawn")
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=spawned, args=(sender, token.label))
        process.start()
        sender.close()
        report["spawned"] = receiver.recv() if receiver.poll(60) else None
        process.join()
    close(token)
    print(json.dumps(report))  # noqa: T201 - for the parent


if __name__ == "__main__":
    main()
