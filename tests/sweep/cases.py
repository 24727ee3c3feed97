"""What a case is: an operation, and what happens at which call or step of which process.

``handoff-value/receiver/C_UnwrapKey#2=after:0x30`` is one: it can be run again by that name alone. Steps are those of
the interposer: ``handoff-files/sender/step#17=kill-after``.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from typing import Self

__all__ = ["Case", "Fault"]

_STEP = re.compile(r"step#(\d+)(\+?)=([a-z-]+)(?::(\w+))?")
_STEP_ACTIONS = {"kill-before": 1, "kill-after": 2, "fail": 3}
_ONWARDS = 4
_NAME = re.compile(r"([a-z-]+)/([a-z-]+)/(.*)")
NO_SPACE = errno.ENOSPC


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens to one process.

    Attributes:
        text: one or more rules of the shim, or ``step#N=ACTION``, separated by blanks.
    """

    text: str

    @property
    def rules(self) -> str:
        """The shim's rules."""
        return " ".join(word for word in self.text.split() if not word.startswith("step#"))

    @property
    def step(self) -> tuple[int, int, int, bool]:
        """Action, number, errno and whether names fail, for the interposer; zeros where nothing is done."""
        for word in self.text.split():
            match = _STEP.fullmatch(word)
            if match is not None:
                number, onwards, action, error = match.groups()
                code = getattr(errno, error) if error else 0
                return _ONWARDS if onwards else _STEP_ACTIONS[action], int(number), code, code != NO_SPACE
        return 0, 0, 0, False

    @property
    def kind(self) -> str:
        """The action of the last rule, without its place: ``before:0x30``, ``kill-after``, ``fail+:ENOSPC``."""
        when, _, action = self.text.rpartition(" ")[2].partition("=")
        if when.startswith("step#"):
            return f"step {action}{' from then on' if when.endswith('+') else ''}"
        return f"{action}{' from then on' if when.endswith('+') else ''}"

    @property
    def where(self) -> str:
        """The call or step of the last rule."""
        return self.text.rpartition(" ")[2].partition("=")[0]

    @property
    def kills(self) -> bool:
        """Whether the process ends by it."""
        return "=kill-" in self.text

    @property
    def hangs(self) -> bool:
        """Whether the process has to be killed for it."""
        return "=hang" in self.text

    @property
    def lasts(self) -> bool:
        """Whether it is never over for the process."""
        return "+=" in self.text

    @property
    def harms_session(self) -> bool:
        """Whether session objects die by the fault itself."""
        return "=logout" in self.text or "=lose-session" in self.text

    @property
    def lies(self) -> bool:
        """Whether the token answers wrongly, with CKR_OK."""
        return "=corrupt-output" in self.text or "=short-length" in self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One case.

    Attributes:
        operation: its name; process: to which it happens; fault: what.
    """

    operation: str
    process: str
    fault: Fault

    @property
    def name(self) -> str:
        """The name by which it can be run again."""
        return f"{self.operation}/{self.process}/{self.fault.text}"

    @classmethod
    def parse(cls, name: str) -> Self:
        """Read a name.

        Raises:
            ValueError: not one.
        """
        match = _NAME.fullmatch(name)
        if match is None:
            raise ValueError(f"not a case: {name!r}")
        operation, process, text = match.groups()
        return cls(operation=operation, process=process, fault=Fault(text=text))
