"""The chapters of a run: one worker after the other, and what becomes of those that do not come back.

A module that crashes or hangs costs the check in which it does so, and not the run. Where it does so while a wrapping
mechanism is tried, that mechanism is tried no more, and each check of it fails with the reason. A function that hangs
again and again is not called any more, since each time costs the whole time limit.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hsmbridge_conformance.orders import ask
from hsmbridge_conformance.process import WorkerProcess
from hsmbridge_conformance.verdict import Call, Level, Result, Subject, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hsmbridge_conformance.catalogue import Check
    from hsmbridge_conformance.target import Target

__all__ = ["ChapterRuns"]

_HANGS = 3
"""How often a function may hang in one run before it is not called any more."""


@dataclass(slots=True, kw_only=True)
class ChapterRuns:
    """The results of one run in the making.

    Attributes:
        target: the token.
        directory: the run's own.
        hang_seconds: silence that counts as a hang.
        tell: is told each result.
        results, problems: so far; a problem is one of the run itself.
        locked_out: a login failed that had worked before: nobody may log in again.
    """

    target: Target
    directory: Path
    hang_seconds: float
    tell: Callable[[Result], None]
    results: list[Result] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    locked_out: bool = False
    _deadly: dict[str, str] = field(default_factory=dict)
    _hangs: Counter[str] = field(default_factory=Counter)

    def ask(self, task: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """Have a worker do something that has one answer."""
        return ask(self.target, self.directory, task, self.hang_seconds, **fields)

    def run(self, name: str, checks: list[Check], prefix: bytes) -> None:
        """Run one chapter; whenever the worker ends early, note why and go on behind the check that it died in.

        Args:
            name: of the chapter.
            checks: those of its checks that were asked for.
            prefix: first bytes of every CKA_ID of this run.
        """
        entries = {entry.id: entry for entry in checks}
        done: list[tuple[str, str]] = []
        going = True
        while going:
            order = {
                "task": "check",
                "target": self.target.message(),
                "chapter": name,
                "checks": list(entries),
                "done": done,
                "deadly": self._deadly,
                "given_up": [function for function, times in self._hangs.items() if times >= _HANGS],
                "prefix": prefix.hex(),
                "directory": str(self.directory),
            }
            with WorkerProcess(order, self.directory, self.hang_seconds) as worker:
                going = self._listen(name, worker, done) and self._bury(name, worker, entries, done)

    def _listen(self, name: str, worker: WorkerProcess, done: list[tuple[str, str]]) -> bool:
        """Take what the worker says; return whether it ended early."""
        for message in worker.messages():
            if "result" in message:
                result = _result(message["result"])
                done.append((result.id, result.parameter))
                self._add(result)
            elif "stopped" in message:
                self.problems.append(f"chapter {name} stopped: {message['text']}")
                self.locked_out = message["stopped"] == "unavailable"
                return False
        return bool(worker.ended)

    def _bury(self, name: str, worker: WorkerProcess, entries: dict[str, Check], done: list[tuple[str, str]]) -> bool:
        """Note where the worker ended; return whether another one can go on from there."""
        where, function, tried = worker.position
        check_id, _, parameter = where.partition(" ")
        if worker.hung:
            self._hangs[function] += 1
        if tried and function and tried not in self._deadly:
            self._deadly[tried] = f"{worker.ended} in {function} when {tried} was tried"
            return True
        if check_id not in entries or (check_id, parameter) in done:
            self.problems.append(f"chapter {name}: {worker.ended} outside of a check, in {function or 'Python'}")
            return False
        done.append((check_id, parameter))
        self._add(_death(entries[check_id], parameter, worker.ended, function))
        return True

    def _add(self, result: Result) -> None:
        self.results.append(result)
        self.tell(result)


def _result(message: dict[str, Any]) -> Result:
    return Result(
        **{
            **message,
            "subject": Subject(message["subject"]),
            "level": Level(message["level"]),
            "verdict": Verdict(message["verdict"]),
            "calls": tuple(Call(**call) for call in message["calls"]),
        }
    )


def _death(entry: Check, parameter: str, ended: str, function: str) -> Result:
    """A worker that ends inside a C function was ended by the module, whoever the check is about."""
    inside = function.startswith("C_")
    return Result(
        id=entry.id,
        parameter="" if parameter == "*" else parameter,
        subject=Subject.MODULE if inside else entry.subject,
        level=entry.level,
        verdict=Verdict.FAIL if inside else Verdict.ERROR,
        reason=f"{ended} in {function or 'Python'}",
        calls=(Call(function=function, ckr=None),) if inside else (),
    )
