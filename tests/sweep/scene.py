"""The places of one case, all in one directory, and the environment that its processes get.

``token`` is the token, ``work`` what the operation itself writes (journals, key files, the bundle), ``log`` what the
processes and the shim say.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hsmbridge_csp.handoff.parties import Party
from hsmbridge_csp.journal import Journal
from hsmbridge_csp.trust import Role, TrustStore, make_pin

from hsmbridge.publickeys import spki_fingerprint
from tests.support.shim import Entry, read_journal, shim_environment
from tests.sweep.look import Look

if TYPE_CHECKING:
    from hsmbridge.token import Token
    from tests.sweep.bench import Bench
    from tests.sweep.cases import Fault

__all__ = ["OTHER", "Scene"]

OTHER = {"sender": "receiver", "receiver": "sender"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One case's directory.

    Attributes:
        bench: what it shares with the others; root: the directory, made by :meth:`make`.
        fault: what happens, by the process to which it happens.
    """

    bench: Bench
    root: Path
    fault: dict[str, Fault]

    @classmethod
    def make(cls, bench: Bench, root: Path, fault: dict[str, Fault]) -> Scene:
        """Make the directory with a copy of the token."""
        for name in ("token", "log", "work", "work/keys", "work/arrived", "work/sender", "work/receiver", "socket"):
            (root / name).mkdir(mode=0o700, parents=True)
        source = Path(bench.directory) / "token"
        shutil.copytree(source / "tokens", root / "token" / "tokens")
        configuration = (source / "softhsm2.conf").read_text("utf-8")
        own = configuration.replace(str(source / "tokens"), str(root / "token" / "tokens"))
        (root / "token" / "softhsm2.conf").write_text(own, "utf-8")
        return cls(bench=bench, root=root, fault=fault)

    @property
    def work(self) -> Path:
        """Where the operation writes."""
        return self.root / "work"

    @property
    def key_file(self) -> Path:
        """The key at rest that moves."""
        return self.work / "keys" / "file.key"

    @property
    def bundle(self) -> Path:
        """The bundle of an offline handoff."""
        return self.work / "bundle"

    def calls(self, process: str) -> Path:
        """Return the shim's journal of a process."""
        return self.root / "log" / f"{process}.calls"

    def entries(self, process: str) -> list[Entry]:
        """Return what the shim wrote of a process since it was armed."""
        path = self.calls(process)
        return [entry for entry in read_journal(path) if entry.number] if path.exists() else []

    def output(self, process: str) -> Path:
        """Return what takes a process's stdout and stderr."""
        return self.root / "log" / f"{process}.output"

    def steps(self, process: str) -> Path:
        """Return the interposer's log of a process."""
        return self.root / "log" / f"{process}.steps"

    def environment(self, process: str) -> dict[str, str]:
        """Return what a process gets: the shim with the rules of its fault, if it has one."""
        fault = self.fault.get(process)
        shim = shim_environment(
            self.bench.module,
            journal=self.calls(process),
            actions=fault.rules if fault is not None else "",
            armed=self.root / "log" / f"{process}.armed",
        )
        return {**shim, "SOFTHSM2_CONF": str(self.root / "token" / "softhsm2.conf"), "PYTHONFAULTHANDLER": ""}

    def open_token(self) -> Token:
        """Open the token through the shim, and log in."""
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        return self.bench.open_token(self.bench.shim)

    def look(self, *, fresh: bool) -> Look:
        """Look past the shim."""
        return Look(self.bench.module, self.bench.pin if fresh else None)

    def arm_calls(self, process: str) -> None:
        """From here on the process's calls count."""
        (self.root / "log" / f"{process}.armed").touch()

    def arm_steps(self, process: str) -> None:
        """From here on the process's durable and socket steps count."""
        fault = self.fault.get(process)
        log = os.open(self.steps(process), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        what, nth, error, names = fault.step if fault is not None else (0, 0, 0, False)
        arm = ctypes.CDLL(self.bench.interposer).interpose_arm
        arm(what, ctypes.c_long(nth), error, ctypes.c_bool(names), str(self.work).encode(), log)

    def party(self, side: str) -> Party:
        """Open a side's journal, with the other side's identity pinned."""
        peer = self.bench.identity(OTHER[side])
        pins = tuple(make_pin(role, OTHER[side], peer.public_key) for role in Role)
        journal = Journal(self.work / side / "journal.sqlite")
        return Party(identity=self.bench.identity(side), journal=journal, trust=TrustStore(pins))

    def fingerprint(self, side: str) -> bytes:
        """Return the fingerprint of a side's identity."""
        return spki_fingerprint(self.bench.identity(side).public_key)
