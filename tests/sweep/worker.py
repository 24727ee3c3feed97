"""A worker: takes cases by name, one a line, plays and judges them, and prints one line of JSON for each.

It is started with the interposer preloaded, and never opens a PKCS#11 module itself: each process of a case is its
fork.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

from tests.sweep.bench import Bench
from tests.sweep.cases import Case, Fault
from tests.sweep.judge import judge, left_over
from tests.sweep.operations import OPERATIONS
from tests.sweep.play import Evidence, play
from tests.sweep.sabotage import SABOTAGE, VARIABLE
from tests.sweep.scene import Scene

__all__ = ["main"]


def main() -> None:
    """Work until there are no more lines.

    A line is a JSON array: the directory to use, the case's name, what precedes it by process, and whether to keep the
    directory.
    """
    bench = Bench.load(Path(sys.argv[1]))
    if VARIABLE in os.environ:
        SABOTAGE[os.environ[VARIABLE]].make()
    for line in sys.stdin:
        root, name, before, keep = json.loads(line)
        started = time.monotonic()
        result = {"case": name, **_run(bench, Path(root), Case.parse(name), before)}
        result["seconds"] = time.monotonic() - started
        if not keep:
            shutil.rmtree(root)
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()


def _run(bench: Bench, root: Path, case: Case, before: dict[str, str]) -> dict[str, object]:
    texts = {**before, **({case.process: case.fault.text} if case.fault.text else {})}
    faults = {process: Fault(text=text) for process, text in texts.items()}
    operation = OPERATIONS[case.operation]
    scene = Scene.make(bench, root, faults)
    try:
        evidence = play(operation, scene)
        violations = judge(evidence)
        (root / "log" / "evidence.json").write_text(json.dumps([evidence.reports, evidence.seen], indent=1), "utf-8")
        if not faults:
            violations += _undisturbed(evidence)
    except (RuntimeError, OSError, KeyError) as error:
        return {"violations": [f"the sweep itself failed: {type(error).__name__}: {error}"], "struck": True, "left": 0}
    return {"violations": violations, "struck": _struck(evidence, case), "left": left_over(evidence)}


def _undisturbed(evidence: Evidence) -> list[str]:
    """Without a fault everything must work: else the sweep would prove nothing."""
    wanted = {"actor": "done", "sender": "sent" if evidence.operation.offline else "moved", "receiver": "received"}
    processes = ("sender", "receiver") if evidence.operation.is_handoff else ("actor",)
    outcomes = {process: evidence.said(process, "done") or {} for process in processes}
    return [
        f"undisturbed, the {process} said {said.get('outcome')}: {said.get('error')}"
        for process, said in outcomes.items()
        if said.get("outcome") != wanted[process]
    ]


def _struck(evidence: Evidence, case: Case) -> bool:
    """Whether the fault happened: a call or step that did not come this time proves nothing."""
    last = case.fault.text.split()[-1] if case.fault.text else ""
    if not last.startswith("step#"):
        damaged = "nothing to damage"
        actions = [entry.action or "" for entry in evidence.scene.entries(case.process) if entry.event == "action"]
        wanted = last.partition("=")[2]
        return not last or any(action.startswith(wanted) and damaged not in action for action in actions)
    path = evidence.scene.steps(case.process)
    return path.exists() and len(path.read_text("utf-8").splitlines()) >= case.fault.step[1]


if __name__ == "__main__":
    main()
