"""Runs cases on several workers and gathers what they say."""

from __future__ import annotations

import itertools
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.sweep.bench import ROOT, Bench
from tests.sweep.cases import Case, Fault
from tests.sweep.enumeration import cases_of, preceding, reduced
from tests.sweep.operations import OPERATIONS
from tests.sweep.sabotage import SABOTAGE, VARIABLE
from tests.sweep.scene import Scene

__all__ = ["Result", "find_sabotage", "sweep"]

_MEMORY = Path("/dev/shm")  # noqa: S108 - token files are ten times faster there, and mkdtemp makes the directory


@dataclass(kw_only=True)
class Result:
    """What a sweep found.

    Attributes:
        rows: for each case the worker's answer.
        calls: distinct calls and steps by operation.
        seconds: it took.
        kept: directory of cases that were kept.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    kept: str = ""

    @property
    def cases(self) -> list[dict[str, Any]]:
        """The cases whose fault happened."""
        return [row for row in self.rows if row["struck"]]

    @property
    def violations(self) -> list[tuple[str, str]]:
        """Case and violation."""
        return [(row["case"], violation) for row in self.rows for violation in row["violations"]]


class Crew:
    """Workers that take cases from a queue."""

    def __init__(self, bench: Bench, base: Path, jobs: int, sabotage: str = "") -> None:
        self._base, self._jobs, self._bench = base, jobs, bench
        self._names = itertools.count()
        self._sabotage = {VARIABLE: sabotage} if sabotage else {}

    def run(self, tasks: list[tuple[Case, dict[str, str]]], *, keep: bool = False) -> list[dict[str, Any]]:
        """Run cases; the answers come in the order of the cases.

        Args:
            tasks: each with what precedes it.
            keep: do not remove their directories; an answer names its own.
        """
        todo: queue.SimpleQueue[tuple[int, Case, dict[str, str]]] = queue.SimpleQueue()
        for index, (case, before) in enumerate(tasks):
            todo.put((index, case, before))
        answers: dict[int, dict[str, Any]] = {}
        threads = [threading.Thread(target=self._work, args=(todo, answers, keep)) for _ in range(self._jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [answers[index] for index in sorted(answers)]

    def _work(self, todo: Any, answers: dict[int, dict[str, Any]], keep: bool) -> None:  # noqa: ANN401, FBT001 - of run()
        worker = subprocess.Popen(
            [sys.executable, "-m", "tests.sweep.worker", self._bench.directory],
            env={**os.environ, "LD_PRELOAD": self._bench.interposer, "HSMBRIDGE_STATE": str(self._base / "state")}
            | self._sabotage,
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        if worker.stdin is None or worker.stdout is None:
            raise RuntimeError("a worker without pipes")
        with worker:
            while True:
                try:
                    index, case, before = todo.get_nowait()
                except queue.Empty:
                    worker.stdin.close()
                    return
                root = self._base / str(next(self._names))
                worker.stdin.write(json.dumps([str(root), case.name, before, keep]) + "\n")
                worker.stdin.flush()
                answers[index] = {**json.loads(worker.stdout.readline()), "root": str(root)}


def _make_base() -> Path:
    return Path(tempfile.mkdtemp(prefix="hsmbridge-sweep.", dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None))


def find_sabotage() -> dict[str, list[str]]:
    """Make each mistake and run the case that is hit by it.

    Returns: by mistake the violations that were found.
    """
    base, found = _make_base(), dict[str, list[str]]()
    try:
        bench = Bench.prepare(base / "bench")
        for number, (name, mistake) in enumerate(SABOTAGE.items()):
            crew = Crew(bench, base / str(number), 1, name)
            (row,) = crew.run([(Case.parse(mistake.case), {})])
            found[name] = row["violations"]
    finally:
        shutil.rmtree(base)
    return found


def sweep(names_of_operations: list[str], *, jobs: int, sample: bool, names: list[str]) -> Result:
    """Sweep.

    Args:
        names_of_operations: which.
        jobs: workers.
        sample: a few cases only, of each kind of fault.
        names: cases to run instead, whose directories are kept.
    """
    started = time.monotonic()
    base = _make_base()
    result = Result()
    try:
        bench = Bench.prepare(base / "bench")
        crew = Crew(bench, base / "cases", jobs)
        if names:
            names_of_operations = sorted({Case.parse(name).operation for name in names})
        before, cases = _enumerate(crew, bench, names_of_operations, result)
        if names:
            cases = [Case.parse(name) for name in names]
            result.kept = str(base / "cases")
        elif sample:
            cases = reduced(cases)
        tasks = [(case, before[case.operation]) for case in cases]
        result.rows += crew.run(tasks, keep=bool(names))
    finally:
        if not result.kept:
            shutil.rmtree(base)
    result.seconds = time.monotonic() - started
    return result


def _enumerate(
    crew: Crew, bench: Bench, names: list[str], result: Result
) -> tuple[dict[str, dict[str, str]], list[Case]]:
    """Run each operation without a fault, then with what precedes its cases, and derive the cases."""
    nothing = Fault(text="")
    operations = [OPERATIONS[name] for name in names]
    plain = [(Case(operation=one.name, process="none", fault=nothing), dict[str, str]()) for one in operations]
    dry = dict(zip(names, crew.run(plain, keep=True), strict=True))
    result.rows += dry.values()
    before = {one.name: preceding(one, _scene(bench, dry[one.name], {})) for one in operations}
    again = [(Case(operation=name, process="none", fault=nothing), what) for name, what in before.items() if what]
    disturbed = crew.run(again, keep=True)
    result.rows += disturbed
    dry.update({case.operation: row for (case, _), row in zip(again, disturbed, strict=True)})
    cases = []
    for one in operations:
        found = list(cases_of(one, _scene(bench, dry[one.name], before[one.name])))
        result.calls[one.name] = len(
            {(case.process, case.fault.where) for case in found if "+" not in case.fault.where}
        )
        cases += found
    return before, cases


def _scene(bench: Bench, row: dict[str, Any], before: dict[str, str]) -> Scene:
    faults = {process: Fault(text=text) for process, text in before.items()}
    return Scene(bench=bench, root=Path(row["root"]), fault=faults)
