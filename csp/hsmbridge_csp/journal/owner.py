"""The process that works on a handoff, known well enough to tell later whether it is still there.

A process number alone is given out again; with the time at which the process started, counted from this boot, it is
not.

Source: proc(5), /proc/PID/stat field 22 and /proc/sys/kernel/random/boot_id.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Owner"]

_START_TIME = 19
"""Index of starttime among the fields behind the command's name, which may itself hold blanks and brackets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """One process of this host.

    Attributes:
        pid: its number; start: clock ticks from boot to its start; boot: identity of the boot.
    """

    pid: int
    start: int
    boot: str

    @classmethod
    def current(cls) -> Owner:
        """Return this process."""
        pid = os.getpid()
        return cls(pid=pid, start=_start_time(pid) or 0, boot=_boot())

    @classmethod
    def nobody(cls) -> Owner:
        """Return what stands for no process: `recover` may settle the handoff, wherever it runs."""
        return cls(pid=0, start=0, boot="")

    @property
    def alive(self) -> bool:
        """Whether that very process is still running here."""
        return self.boot == _boot() and _start_time(self.pid) == self.start

    def __str__(self) -> str:
        return f"{self.pid}/{self.start}/{self.boot}"

    @classmethod
    def parse(cls, text: str) -> Owner:
        """Read what ``str()`` wrote."""
        pid, start, boot = text.split("/", 2)
        return cls(pid=int(pid), start=int(start), boot=boot)


def _start_time(pid: int) -> int | None:
    try:
        line = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return None
    fields = line.rpartition(")")[2].split()
    # A zombie holds no key any more: its memory is gone, only its status waits to be fetched.
    return None if fields[0] in {"Z", "X"} else int(fields[_START_TIME])


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
