"""The shim of ci/shim: compiled, put in front of a token, and what its journal says."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tests.token.conftest import TokenEnv

__all__ = ["WRONG", "Entry", "build_shim", "calls", "completed", "read_journal", "shim_environment", "through"]

SOURCE = Path(__file__).parents[2] / "ci" / "shim"

WRONG = tuple(re.findall(r'^\t\{ "([a-z-]+)", \w+ \},$', (SOURCE / "wrong.c").read_text("utf-8"), re.MULTILINE))
"""The names of the wrong behaviours."""

_LINE = re.compile(r"(\d+) @(\d+) (C_\w+)#(\d+) (call|action|return)((?: \S+)*)")
_HEX = re.compile(r"0x[0-9a-f]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the journal.

    Attributes:
        pid: the process.
        number: of the call in the process, from 1; 0 for one before the shim was armed.
        function: the C function.
        nth: of the calls of this function.
        event: ``call``, ``action`` or ``return``.
        ckr: the CK_RV of a return.
        action: what the shim did, and why it did not.
        facts: handles, mechanism, lengths: ``session``, ``kek``, ``key``, ``object``, ``new``, ``bytes``, …; of a key
            pair ``new`` is the private key.
    """

    pid: int
    number: int
    function: str
    nth: int
    event: Literal["call", "action", "return"]
    ckr: int | None
    action: str | None
    facts: dict[str, int]


def build_shim(directory: Path, *flags: str) -> Path:
    """Compile the shim without a single warning.

    Args:
        directory: gets the module.
        flags: more for the compiler.

    Returns: the module's path.
    """
    output = directory / "hsmbridge-shim.so"
    subprocess.run([SOURCE / "build", output, "-Werror", *flags], check=True, timeout=60)
    return output


def shim_environment(  # noqa: PLR0913 - one argument for each variable of the shim
    module: str,
    *,
    journal: Path | None = None,
    actions: str = "",
    armed: Path | None = None,
    wrong: str | None = None,
    extra: dict[str, str] | None = None,
) -> dict[str, str]:
    """Return the environment that configures the shim.

    Args:
        module: the real module.
        journal: where it writes.
        actions: its rules.
        armed: the file that arms it.
        wrong: a name out of :data:`WRONG`.
        extra: more variables.
    """
    return {
        "HSMBRIDGE_SHIM_MODULE": module,
        "HSMBRIDGE_SHIM_JOURNAL": str(journal or ""),
        "HSMBRIDGE_SHIM_ACTIONS": actions,
        "HSMBRIDGE_SHIM_ARMED": str(armed or ""),
        "HSMBRIDGE_SHIM_WRONG": wrong or "",
        **(extra or {}),
    }


def through(shim: Path, token_env: TokenEnv) -> TokenEnv:
    """Return the token as programs see it that load the shim; they need :func:`shim_environment` as well."""
    return replace(token_env, module=str(shim), judge_module=str(shim))


def read_journal(path: Path) -> list[Entry]:
    """Read a journal; a line that is not one is an error, since a judge must not overlook anything."""
    return [_entry(line) for line in path.read_text("ascii").splitlines()]


def _entry(line: str) -> Entry:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError(f"not a line of the journal: {line!r}")
    pid, number, function, nth, event, rest = match.groups()
    words = rest.split()
    facts = {name: int(value, 0) for name, _, value in (word.partition("=") for word in words) if value}
    return Entry(
        pid=int(pid),
        number=int(number),
        function=function,
        nth=int(nth),
        event=event,  # type: ignore[arg-type] # the pattern allows these three only
        ckr=int(words[0], 16) if event == "return" and _HEX.fullmatch(words[0]) else None,
        action=rest.strip() if event == "action" else None,
        facts=facts if event != "action" else {},
    )


def calls(entries: list[Entry]) -> list[Entry]:
    """Return the calls in the order in which they came in."""
    return [entry for entry in entries if entry.event == "call"]


def completed(entries: list[Entry]) -> bool:
    """Say whether each call returned."""
    came = [(entry.pid, entry.number, entry.function) for entry in entries if entry.event == "call"]
    went = [(entry.pid, entry.number, entry.function) for entry in entries if entry.event == "return"]
    return sorted(came) == sorted(went)
