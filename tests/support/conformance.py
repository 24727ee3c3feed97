"""The conformance suite, run as the installed command on a SoftHSM of its own, plain or behind the shim."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

from tests.support.shim import shim_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["Bench", "Outcome", "Run", "bench", "matches", "once_for_all_workers"]

_START = Path(__file__).parents[2] / "ci" / "softhsm" / "start"
_MEMORY = Path("/dev/shm")  # noqa: S108 # token objects are ten times faster there, and mkdtemp makes the directory
_SECONDS = 60

Outcome = tuple[str, str]
"""Verdict and reason of one result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a command printed.

    Attributes:
        returncode: its status.
        stdout, stderr: its output.
    """

    returncode: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        """The report."""
        try:
            document: dict[str, Any] = json.loads(self.stdout)
        except ValueError:
            raise ValueError(f"no report; status {self.returncode}: {self.stderr}") from None
        return document

    @property
    def results(self) -> dict[str, Outcome]:
        """``ID[parameter]`` to its outcome; a result that is there twice is an error."""
        found: dict[str, Outcome] = {}
        for result in self.document["checks"]:
            name = f"{result['id']}[{result['parameter']}]" if result["parameter"] else result["id"]
            if name in found:
                raise ValueError(f"{name} is there twice")
            found[name] = (result["verdict"], result["reason"])
        return found


class Bench:
    """A token for runs.

    Args:
        directory: private.
        variables: what ``ci/softhsm/start`` printed.
        shim: the shim, compiled.
        compiled: where interpreters keep compiled modules; may be shared.
    """

    def __init__(self, directory: Path, variables: Mapping[str, str], shim: Path, compiled: Path) -> None:
        self._directory, self._variables, self._shim, self._compiled = directory, variables, shim, compiled
        self.journal = directory / "journal"
        self._pin = directory / "pin-file"
        self._pin.touch(mode=0o600)
        self._pin.write_text(variables["PKCS11_PIN"])

    def start(self, command: str, *arguments: str, **changes: str) -> subprocess.Popen[str]:
        """Start ``hsmbridge conformance command --json``.

        Args:
            command: run, clean or diff.
            arguments: of it.
            changes: to the environment: variables of the shim, or of the command; an empty one is removed.
        """
        tool = Path(sys.executable).with_name("hsmbridge")
        pin = [] if command == "diff" else ["--pin-file", str(self._pin)]
        own = {
            "XDG_STATE_HOME": str(self._directory / "state"),
            "PYTHONPYCACHEPREFIX": str(self._compiled),
        }
        # Each run starts several interpreters: without compiled modules most of the time would go into compiling them.
        wanted = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", **own, **self._variables, **changes}
        wanted = {name: value for name, value in wanted.items() if value and "PIN" not in name}
        return subprocess.Popen(
            [str(tool), "conformance", command, "--json", *pin, *arguments],
            env=wanted,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, command: str, *arguments: str, **changes: str) -> Run:
        """Let :meth:`start` come to its end. A traceback is an error, whatever the module did."""
        return self.finish(self.start(command, *arguments, **changes))

    def finish(self, running: subprocess.Popen[str]) -> Run:
        """Wait for what :meth:`start` gave."""
        try:
            stdout, stderr = running.communicate(timeout=_SECONDS)
        except BaseException:
            running.kill()
            running.communicate()
            raise
        if "Traceback" in stdout + stderr:
            raise ValueError(f"a traceback:\n{stderr}\n{stdout}")
        return Run(returncode=running.returncode, stdout=stdout, stderr=stderr)

    def behind(self, *, wrong: str | None = None, actions: str = "", armed: Path | None = None) -> dict[str, str]:
        """Return the changes to the environment that put the shim in front of the module, with an empty journal."""
        self.journal.unlink(missing_ok=True)
        module = self._variables["PKCS11_MODULE"]
        shim = shim_environment(module, journal=self.journal, actions=actions, armed=armed, wrong=wrong)
        return {**shim, "PKCS11_MODULE": str(self._shim)}

    def objects(self) -> dict[str, str]:
        """Return the digests of all object files, without SoftHSM's own state."""
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (self._directory / "token").rglob("*.object")
            if path.name != "token.object"
        }


@contextmanager
def bench(shim: Path, compiled: Path) -> Iterator[Bench]:
    """Make a SoftHSM with one token, and remove it in the end."""
    base = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    directory = Path(tempfile.mkdtemp(prefix="hsmbridge-suite.", dir=base))
    try:
        (directory / "token").mkdir()
        printed = subprocess.run([_START, directory / "token"], check=True, capture_output=True, text=True, timeout=60)
        # each line is a shell command: export NAME='VALUE'
        lines = (shlex.split(line)[1].partition("=") for line in printed.stdout.splitlines())
        yield Bench(directory, {name: value for name, _, value in lines}, shim, compiled)
    finally:
        rmtree(directory)


def once_for_all_workers(path: Path, make: Callable[[], str]) -> str:
    """Return a text that one of several test processes makes.

    Args:
        path: where it is kept, in a directory that all of them share.
        make: makes it.
    """
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            path.write_text(make(), "utf-8")
        return path.read_text("utf-8")


def matches(name: str, pattern: str) -> bool:
    """Say whether a result's name begins with an ID, or is ``ID[parameter]``, where ``*`` is anything."""
    check, _, parameter = pattern.partition("[")
    check_id, _, given = name.removeprefix("HSB-").partition("[")
    return fnmatchcase(given[:-1], parameter[:-1]) and check_id == check if parameter else check_id.startswith(check)
