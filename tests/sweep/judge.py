"""The oracle: what must hold after each case, decided from what fresh processes saw and said.

At most one side holds a moved key; exactly one, where the key outlives a process; nothing is destroyed without a
receipt; nothing is left over; recovery changes nothing the second time; hardware keys are untouched; no secret is in
anything that was written down.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from tests.sweep.bench import HARDWARE, MOVING, answer_of
from tests.sweep.judge_handoff import judge_handoff

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.sweep.play import Evidence

__all__ = ["judge", "left_over"]

_KEY_FILES = ("keys/", "arrived/")


def judge(evidence: Evidence) -> list[str]:
    """Return all violations, one sentence each."""
    particular = judge_handoff(evidence) if evidence.operation.is_handoff else _single(evidence)
    return [*particular, *_hardware(evidence), *_destroys(evidence), *_secrets(evidence), *_crashes(evidence)]


def _hardware(evidence: Evidence) -> Iterator[str]:
    """The KEK, the hardware key and the nameless bystander are there, and are what they were."""
    for seen in evidence.seen:
        answers = [answer for on_token, *_, answer in seen["objects"] if on_token]
        if answers.count(answer_of(evidence.scene.bench.key(HARDWARE))) != 1:
            yield "the hardware key is not there, or twice"
        moved = answer_of(evidence.scene.bench.key(MOVING))
        kept = sum(answer != moved for answer in answers)
        if kept != 3:
            yield f"{kept} token objects instead of KEK, hardware key and bystander"


def _destroys(evidence: Evidence) -> Iterator[str]:
    """C_DestroyObject was never called for an object that was there before, and never twice for one handle."""
    for process, reports in evidence.reports.items():
        ready = reports.get("ready")
        destroyed = [
            entry.facts["object"]
            for entry in evidence.scene.entries(process)
            if entry.function == "C_DestroyObject" and entry.event == "call"
        ]
        if len(set(destroyed)) != len(destroyed):
            yield f"{process} called C_DestroyObject twice for one handle"
        if ready is not None and set(destroyed) & set(ready["hardware"]):
            yield f"{process} called C_DestroyObject for a token object that was there before"


def _secrets(evidence: Evidence) -> Iterator[str]:
    """No known key and no PIN in anything that was written: journals, logs, what the processes printed, the bundle."""
    bench = evidence.scene.bench
    secrets = {f"the key {name!r}": bench.key(name) for name in bench.keys}
    secrets["the PIN"] = bench.pin.encode()
    needles = [(name, form) for name, secret in secrets.items() for form in _forms(secret)]
    for path in evidence.scene.root.rglob("*"):
        inside = str(path.relative_to(evidence.scene.root / "work")) if path.is_relative_to(evidence.scene.work) else ""
        if not path.is_file() or inside.startswith(_KEY_FILES):
            continue
        content = path.read_bytes()
        yield from (f"{name} is in {path.name}" for name, form in needles if form in content)


def _forms(secret: bytes) -> list[bytes]:
    if secret.isdigit():  # the PIN
        return [secret]
    return [secret, secret.hex().encode(), secret.hex().upper().encode(), base64.b64encode(secret)[:40]]


def _crashes(evidence: Evidence) -> Iterator[str]:
    """Processes end by themselves, or by their fault; none crashes, and none fails with an error that is not ours."""
    for process, status in evidence.status.items():
        fault = evidence.scene.fault.get(process)
        allowed = {0, -9} if fault is not None and (fault.kills or fault.hangs) else {0}
        if status not in allowed:
            tail = evidence.scene.output(process).read_text("utf-8", "replace").strip().splitlines()[-1:]
            yield f"{process} ended with {status}: {''.join(tail)}"
    for process, reports in evidence.reports.items():
        for report in reports.values():
            if report.get("typed") is False:
                yield f"{process} failed with an error that is not ours: {report['error']}"


def left_over(evidence: Evidence) -> int:
    """Return how many session objects were left in a process whose token had failed; they die with it.

    They are objects whose handle the token kept from us, or whose removal it refused: not a moved key.
    """
    moved = answer_of(evidence.scene.bench.key(MOVING))
    done = evidence.said("actor", "done") or evidence.said("receiver", "end") or {}
    return sum(not on_token and answer != moved for on_token, _, _, answer in done.get("new", []))


def _single(evidence: Evidence) -> Iterator[str]:
    operation, scene = evidence.operation.name, evidence.scene
    fault = scene.fault.get("actor")
    moved = answer_of(scene.bench.key(MOVING))
    done = evidence.said("actor", "done")
    lied = fault is not None and fault.lies
    arrived = [found for found in evidence.last["objects"] if found[-1] == moved]
    if operation != "import-token" and arrived:
        yield "a token object was left"
    if evidence.later is not None and evidence.later["answer"] != moved and not (lied and operation == "export"):
        yield f"the blob does not open any more: {evidence.later['error']}"
    if len(arrived) > 1:
        yield "the key arrived twice"
    if done is None:
        return
    if done["outcome"] == "done" and not lied:
        yield from _success(evidence, done, arrived)
    harmed = fault is not None and fault.harms_session
    if operation == "export" and moved not in _answers_of(done) and not harmed:
        yield "an export took its source away"
    yield from _said(evidence, done)


def _said(evidence: Evidence, done: dict[str, Any]) -> Iterator[str]:
    """What was said of a failed import, and of a destroy, is so."""
    moved = answer_of(evidence.scene.bench.key(MOVING))
    failed = evidence.operation.name in {"import-token", "import-session"} and done["outcome"] == "failed"
    left = [new for new in done["new"] if new[-1] == moved]
    if failed and left and not done["notes"] and not _unreachable(evidence):
        yield f"a failed import left the key, and said nothing of it: {done['error']}"
    destroyed = "destroyed" in done.get("disposition", "") and "absent" in done["disposition"]
    if destroyed and moved in _answers_of(done):
        yield "a key is said to be destroyed and absent, and is there"


def _answers_of(done: dict[str, object]) -> list[str]:
    key = done["key"]
    return [key["answer"]] if isinstance(key, dict) else []


def _unreachable(evidence: Evidence) -> bool:
    fault = evidence.scene.fault.get("actor")
    return fault is not None and fault.lasts


def _success(evidence: Evidence, done: dict[str, object], arrived: list[object]) -> Iterator[str]:
    operation = evidence.operation.name
    moved = answer_of(evidence.scene.bench.key(MOVING))
    if operation == "export" and evidence.later is None:
        yield "an export succeeded and left no blob"
    fault = evidence.scene.fault.get("actor")
    # A process that was logged out cannot look at its private key any more; a fresh one has, where it is in the token.
    blind = fault is not None and fault.harms_session and bool(arrived)
    if operation.startswith("import-") and _answers_of(done) != [moved] and not blind:
        yield "an import succeeded, and it is not the key"
    if operation == "import-token" and not arrived:
        yield "an import into the token succeeded, and no token object is there"
    if operation == "destroy-hardware" and "retained" not in str(done.get("disposition")):
        yield "a hardware key was not retained"
