"""A second process on the same token: what "another process" and "a fresh process" mean in the catalogue.

The peer answers one JSON request a line with one JSON line, over pipes of its own: a module may print what it likes
to standard output.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import IO, TYPE_CHECKING, Any

from hsmbridge.errors import HsmbridgeError

if TYPE_CHECKING:
    from pathlib import Path

    from hsmbridge_conformance.target import Target

__all__ = ["Peer", "PeerDied"]

_ENDING_SECONDS = 5


class PeerDied(HsmbridgeError):  # noqa: N818 - what happened, as a sentence
    """The second process ended in the middle of a request."""


class Peer:
    """Starts the second process; it logs in at once.

    Args:
        target: the token.
        prefix: the run's CKA_ID prefix.
        directory: private; identities of the run are there.

    Raises:
        PeerDied: it could not open the token.
    """

    def __init__(self, target: Target, prefix: bytes, directory: Path) -> None:
        (there, ask), (answer, here) = os.pipe(), os.pipe()
        environment = {**os.environ, "HSMBRIDGE_HOME": str(directory)}
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own module, in this interpreter
                [sys.executable, "-P", "-m", "hsmbridge_conformance.peer_process", str(there), str(here)],
                pass_fds=(there, here),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        finally:
            os.close(there)
            os.close(here)
        self._ask: IO[str] = os.fdopen(ask, "w", encoding="utf-8")
        self._answer: IO[str] = os.fdopen(answer, encoding="utf-8")
        self.ask("open", target=target.message(), prefix=prefix.hex())

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def ask(self, verb: str, **arguments: Any) -> Any:  # noqa: ANN401 - JSON both ways
        """Have the second process do something.

        Args:
            verb: a function of :mod:`hsmbridge_conformance.peer_process`.
            arguments: for JSON; bytes as hex.

        Returns: its answer.

        Raises:
            HsmbridgeError: what the other process raised, by its text.
            PeerDied: it ended.
        """
        try:
            self._ask.write(json.dumps({"verb": verb, **arguments}) + "\n")
            self._ask.flush()
            line = self._answer.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            status = self._process.wait()
            how = signal.Signals(-status).name if status < 0 else f"status {status}"
            raise PeerDied(f"the second process ended with {how} while it was asked to {verb}")
        reply = json.loads(line)
        if "error" in reply:
            raise HsmbridgeError(str(reply["error"]))
        return reply["answer"]

    def close(self) -> None:
        """Let it end."""
        self._ask.close()
        try:
            self._process.wait(_ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answer.close()
