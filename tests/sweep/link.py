"""Processes of a case: forked from a worker that has loaded everything and opened nothing, and talked to by lines.

A fork costs a fiftieth of a new interpreter. To a PKCS#11 module it is a fresh process: the worker never opens one.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["Child", "Link"]

_COMMANDS, _REPORTS, _MANY = 3, 4, 256
_CRASHED = 70


class Link:
    """A child's end."""

    def __init__(self) -> None:
        self._commands = os.fdopen(_COMMANDS, "r", encoding="utf-8")

    def say(self, what: str, **facts: object) -> None:
        """Report something."""
        os.write(_REPORTS, (json.dumps({"what": what, **facts}) + "\n").encode())

    def listen(self) -> str:
        """Wait for a command; empty at the end."""
        return self._commands.readline().strip()


class Child:
    """A process of a case.

    Args:
        act: what it does.
        environment: variables that it gets.
        output: takes stdout and stderr.
    """

    def __init__(self, act: Callable[[Link], None], environment: Mapping[str, str], output: Path) -> None:
        commands, reports = os.pipe(), os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _run(act, environment, output, commands[0], reports[1])
        os.close(commands[0])
        os.close(reports[1])
        self._commands, self._reports = commands[1], reports[0]
        self._buffer = b""
        self.status: int | None = None
        self.hung = False

    def hear(self, seconds: float) -> dict[str, Any] | None:
        """Return the next report; None when the process has ended, which it is made to when the time is over."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._reports], [], [], left)[0]:
                self.hung = True
                self.kill()
                return None
            piece = os.read(self._reports, 1 << 16)
            if not piece:
                self.end()
                return None
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        report: dict[str, Any] = json.loads(line)
        return report

    def tell(self, command: str) -> None:
        """Send a command; a process that has ended does not mind."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._commands, command.encode() + b"\n")

    def kill(self) -> None:
        """SIGKILL."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.end()

    def end(self) -> int:
        """Wait for the end.

        Returns: the exit status, negative for a signal.
        """
        if self.status is None:
            _, status = os.waitpid(self.pid, 0)
            self.status = os.waitstatus_to_exitcode(status)
            os.close(self._commands)
            os.close(self._reports)
        return self.status


def _run(
    act: Callable[[Link], None], environment: Mapping[str, str], output: Path, commands: int, reports: int
) -> None:
    status = _CRASHED
    try:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        kept = [os.dup2(source, _MANY + index) for index, source in enumerate((commands, reports, file))]
        os.dup2(kept[0], _COMMANDS)
        os.dup2(kept[1], _REPORTS)
        os.dup2(kept[2], 1)
        os.dup2(kept[2], 2)
        os.closerange(_REPORTS + 1, 2 * _MANY)
        os.environ.update(environment)
        act(Link())
        status = 0
    except BaseException:  # noqa: BLE001 - the end of the process: whatever it is goes to the log
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)
