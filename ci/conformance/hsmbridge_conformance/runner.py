"""The run: one worker after the other, the inventory before and after, and the report.

The parent never loads the module. It has the PIN tried once, by the worker that takes the inventory, and goes on only
if that login worked.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hsmbridge._version import __version__
from hsmbridge.errors import HsmbridgeError
from hsmbridge_conformance.catalogue import CHAPTERS, all_checks
from hsmbridge_conformance.chapters import ChapterRuns
from hsmbridge_conformance.cleaning import RunMark
from hsmbridge_conformance.inventory import difference
from hsmbridge_conformance.orders import Removed, clean, private_directory
from hsmbridge_conformance.process import HANG_SECONDS
from hsmbridge_conformance.report import Report
from hsmbridge_conformance.verdict import Level
from hsmbridge_conformance.waivers import unnamed

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsmbridge_conformance.catalogue import Check
    from hsmbridge_conformance.target import Target
    from hsmbridge_conformance.verdict import Result
    from hsmbridge_conformance.waivers import Waivers

__all__ = ["Options", "Removed", "clean", "run"]

_WEIGHT = {Level.MUST: 0, Level.SHOULD: 1, Level.INFO: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to run.

    Attributes:
        level: the least weight that is run: MUST, SHOULD or INFO (all).
        only: IDs or beginnings of IDs; empty for all.
        scratch: the token may be lost: run what could hurt it.
        exact: a result other than pass that no waiver names fails the run: for expected results.
        hang_seconds: silence that counts as a hang.
    """

    level: Level = Level.INFO
    only: tuple[str, ...] = ()
    scratch: bool = False
    exact: bool = False
    hang_seconds: float = HANG_SECONDS

    def chosen(self) -> list[Check]:
        """Return the checks that these options ask for."""
        return [
            entry
            for entry in all_checks()
            if _WEIGHT[entry.level] <= _WEIGHT[self.level]
            and (self.scratch or not entry.scratch)
            and (not self.only or entry.id.startswith(self.only))
        ]


def run(
    target: Target,
    options: Options,
    *,
    waivers: Waivers | None = None,
    tell: Callable[[Result], None] = lambda _: None,
    begin: Callable[[int], None] = lambda _: None,
) -> Report:
    """Run the suite.

    Args:
        target: the token, with its PIN.
        options: what to run.
        waivers: results that are known.
        tell: is told each result as it comes, before waivers.
        begin: is told how many checks there are, once the login has worked.

    Raises:
        UnavailableError: no module, no token, or no login; the PIN was tried once at most.
        HsmbridgeError: the token cannot be described.
    """
    start, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    digest_key = secrets.token_bytes(32)
    with private_directory() as directory:
        current = ChapterRuns(target=target, directory=directory, hang_seconds=options.hang_seconds, tell=tell)
        before = current.ask("describe", digest_key=digest_key.hex())
        mark = RunMark(before["token"]["serial"])
        chosen = options.chosen()
        begin(len(chosen))
        for name in CHAPTERS:
            checks = [entry for entry in chosen if entry.chapter == name]
            if checks and not current.locked_out:
                current.run(name, checks, mark.prefix)
        _leave_as_it_was(current, before, digest_key, mark)
    results = current.results
    if waivers is not None:
        results, unused = waivers.among({entry.id for entry in chosen}).apply(results)
        current.problems += unused
    if options.exact:
        current.problems += unnamed(results)
    return Report(
        suite=__version__,
        started=started,
        seconds=round(time.monotonic() - start, 2),
        module=before["module"],
        token=before["token"],
        results=tuple(results),
        problems=tuple(current.problems),
        options={
            "level": str(options.level),
            "only": list(options.only),
            "scratch": options.scratch,
            "exact": options.exact,
        },
    )


def _leave_as_it_was(current: ChapterRuns, before: dict[str, Any], digest_key: bytes, mark: RunMark) -> None:
    """Remove what dead workers left, and compare the token with what it was."""
    if current.locked_out:
        current.problems.append("the run ended there without another login, and the token was not looked at again")
        return
    try:
        cleaned = current.ask("clean", prefixes=[mark.prefix.hex()])
        after = current.ask("describe", digest_key=digest_key.hex())
    except HsmbridgeError as error:
        current.problems.append(f"the token could not be looked at again: {error}")
        return
    if cleaned["kept"]:
        current.problems += [f"not removed: {name}" for name in cleaned["kept"]]
        return
    gone, new = difference(before["inventory"], after["inventory"])
    if gone or new:
        current.problems.append(f"the token is not what it was: {gone} objects gone or changed, {new} new or changed")
        return
    mark.remove()
