"""A second process on the same token: what "another process" and "a fresh process" mean in the catalogue.

The peer answers one JSON request a line with one JSON line, over pipes of its own: a module may print what it likes
to standard output.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import subprocess
import sys
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

from hsmbridge.errors import HsmbridgeError, Pkcs11Error
from hsmbridge_conformance.journal import read_position
from hsmbridge_conformance.verdict import Failed, Unsupported

if TYPE_CHECKING:
    from pathlib import Path

    from hsmbridge_conformance.target import Target

__all__ = ["Peer", "PeerDied"]

_ENDING_SECONDS = 5
_ANSWER_SECONDS = 15
"""A request takes milliseconds; one that takes so long hangs in the module."""

_CRASHES = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE})


class PeerDied(HsmbridgeError):  # noqa: N818 - what happened, as a sentence
    """The second process ended in the middle of a request, and the module was not what ended it."""


class Peer:
    """Starts the second process, in the process group of this one; it logs in at once.

    Args:
        target: the token.
        prefix: the run's CKA_ID prefix.
        directory: private; identities of the run are there.

    Raises:
        HsmbridgeError: it could not open the token; Failed: the module did not survive that.
    """

    def __init__(self, target: Target, prefix: bytes, directory: Path) -> None:
        self._position = directory / f"peer-{secrets.token_hex(8)}"
        self._position.write_bytes(b"")
        (there, ask), (answer, here) = os.pipe(), os.pipe()
        environment = {**os.environ, "HSMBRIDGE_HOME": str(directory)}
        module = "hsmbridge_conformance.peer_process"
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own module, in this interpreter
                [sys.executable, "-P", "-m", module, str(there), str(here), str(self._position)],
                pass_fds=(there, here),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=environment,
            )
        finally:
            os.close(there)
            os.close(here)
        self._ask: IO[str] = os.fdopen(ask, "w", encoding="utf-8")
        self._answer: IO[str] = os.fdopen(answer, encoding="utf-8")
        try:
            self.ask("open", target=target.message(), prefix=prefix.hex())
        except BaseException:
            self.close()
            raise

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
            Pkcs11Error, Unsupported, HsmbridgeError: what the other process raised, by its text.
            Failed: the module crashed there, or did not come back.
            PeerDied: the process ended for another reason.
        """
        try:
            self._ask.write(json.dumps({"verb": verb, **arguments}) + "\n")
            self._ask.flush()
            # One request is answered by one line, so nothing is left in the reader's buffer between two requests.
            if not select.select([self._answer], [], [], _ANSWER_SECONDS)[0]:
                self._process.kill()
                raise Failed(f"the second process did not come back within {_ANSWER_SECONDS} s{self._where()}")
            line = self._answer.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._died(verb)
        reply = json.loads(line)
        if "unsupported" in reply:
            raise Unsupported(reply["unsupported"])
        if "ckr" in reply:
            raise Pkcs11Error(reply["function"], reply["ckr"])
        if "error" in reply:
            raise HsmbridgeError(str(reply["error"]))
        return reply["answer"]

    def _died(self, verb: str) -> None:
        status = self._process.wait()
        if -status in _CRASHES:
            raise Failed(f"{signal.Signals(-status).name} ended the second process{self._where()}")
        raise PeerDied(f"the second process ended with status {status} while it was asked to {verb}{self._where()}")

    def _where(self) -> str:
        function = read_position(self._position)[1]
        return f", in {function}" if function else ""

    def close(self) -> None:
        """Let it end."""
        with suppress(BrokenPipeError):  # it may have ended in the middle of a request
            self._ask.close()
        try:
            self._process.wait(_ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answer.close()
        self._position.unlink(missing_ok=True)
