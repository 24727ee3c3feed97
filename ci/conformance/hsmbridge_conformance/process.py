"""Starting a worker, listening to it with a time limit, and saying how it ended.

Source: the signals of a process that a module brought down are those of signal(7).
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from hsmbridge_conformance.journal import read_position

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from hsmbridge_conformance.journal import Position

__all__ = ["HANG_SECONDS", "WorkerProcess"]

HANG_SECONDS = 60.0
"""A check that says nothing for so long hangs. Generating an RSA pair in a slow token takes a few seconds."""

_CHUNK = 65536
_ENDING_SECONDS = 10


class WorkerProcess:
    """One worker, in a process group of its own that ends with it.

    Args:
        order: what it shall do: ``task`` (describe, clean, check), ``target`` with the PIN, and the task's own fields.
        directory: private; the note about the current call and the module's own output go there.
        hang_seconds: how long it may be silent.

    Attributes:
        ended: why the messages stopped before the worker said that it was done; empty while it runs and after a good
            end.
        hung: it was ended because it was silent for too long.
    """

    def __init__(self, order: dict[str, Any], directory: Path, hang_seconds: float = HANG_SECONDS) -> None:
        self._hang_seconds = hang_seconds
        self.hung = False
        self._position = directory / "position"
        self._position.write_bytes(b"")
        self.ended = ""
        read, write = os.pipe()
        with (directory / "module-output").open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own module, in this interpreter
                [sys.executable, "-P", "-m", "hsmbridge_conformance.worker", str(write)],
                pass_fds=(write,),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**os.environ, "HSMBRIDGE_HOME": str(directory)},
                start_new_session=True,
            )
        os.close(write)
        self._pipe = read
        stdin = self._process.stdin
        if stdin is not None:
            with suppress(BrokenPipeError):  # it may have ended at once: the messages will say so
                stdin.write(json.dumps({**order, "position": str(self._position)}).encode() + b"\n")
                stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()
        os.close(self._pipe)

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield what the worker says, until it says that it is done, ends, or is silent for too long."""
        buffer = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._pipe, selectors.EVENT_READ)
            deadline = time.monotonic() + self._hang_seconds
            while True:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self.ended = f"it did not come back within {self._hang_seconds:g} s"
                    self.hung = True
                    self._end()
                    return
                chunk = os.read(self._pipe, _CHUNK)
                if not chunk:
                    self.ended = self._how_it_ended()
                    return
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    message = json.loads(line)
                    if "end" in message:
                        return
                    yield message
                deadline = time.monotonic() + self._hang_seconds

    @property
    def position(self) -> Position:
        """What the worker was doing when it ended."""
        return read_position(self._position)

    def _how_it_ended(self) -> str:
        try:
            status = self._process.wait(_ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            return "it closed its pipe and went on"
        if status < 0:
            return f"{_signal_name(-status)} ended the process"
        return f"the process exited with status {status}"

    def _end(self) -> None:
        """End the worker and what it started: its group is its own."""
        if self._process.poll() is None or self.ended:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
