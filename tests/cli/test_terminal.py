"""What differs in a terminal: questions, tables and bars."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import COMMAND

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


def in_terminal(cli: Cli, *arguments: str, answers: dict[bytes, bytes] | None = None) -> tuple[int, bytes]:
    """Run the command in a terminal of its own.

    Args:
        cli: where.
        arguments: what follows the command's name.
        answers: what is typed once a text has appeared.

    Returns:
        The status, and all that the terminal showed.
    """
    leader, follower = pty.openpty()
    variables = {**cli.variables, "TERM": "xterm", "COLUMNS": "140"}
    running = subprocess.Popen(
        [COMMAND, *arguments], cwd=cli.directory, env=variables, stdin=follower, stdout=follower, stderr=follower,
        start_new_session=True,
    )  # fmt: skip
    os.close(follower)
    shown, waiting = b"", dict(answers or {})
    until = time.monotonic() + 60
    try:
        while time.monotonic() < until:
            if not select.select([leader], [], [], 1)[0]:
                continue
            try:
                shown += os.read(leader, 4096)
            except OSError:  # how Linux says that the other end of a terminal is closed
                break
            for prompt in [prompt for prompt in waiting if prompt in shown]:
                os.write(leader, waiting.pop(prompt))
        return running.wait(timeout=60), shown
    finally:
        running.kill()
        running.wait()
        os.close(leader)


@pytest.mark.parametrize(("answer", "status"), [(b"y\n", 0), (b"n\n", 2)])
def test_destroying_asks_first(plain: Cli, answer: bytes, status: int) -> None:
    """`key destroy` asks in a terminal; only a yes destroys."""
    path = plain.directory / "k"
    path.write_bytes(bytes(range(32)))
    arguments = ("key", "destroy", "file:k", "--key-type", "aes:256")
    done, shown = in_terminal(plain, *arguments, answers={b"[y/N]": answer})
    assert done == status, shown
    assert path.exists() == (status != 0)


def test_the_pin_is_asked_for_unechoed(fresh: Cli) -> None:
    """Without another source the PIN is asked for in a terminal, where it is not shown."""
    pin = fresh.variables["PKCS11_PIN"]
    done, shown = in_terminal(fresh.without("PKCS11_PIN"), "key", "ls", answers={b"PIN of token": pin.encode() + b"\n"})
    assert done == 0, shown
    assert pin.encode() not in shown


def test_tables_are_drawn(fresh: Cli) -> None:
    """A table in a terminal has a bold header; in a pipe it is plain text."""
    done, shown = in_terminal(fresh, "token", "ls")
    assert done == 0
    assert b"\x1b[1m" in shown
    assert fresh.variables["PKCS11_TOKEN_LABEL"].encode() in shown
    assert b"\x1b" not in fresh("token", "ls").out
