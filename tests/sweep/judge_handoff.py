"""The oracle for handoffs: who holds which key, on what proof, and whether everything is settled."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tests.sweep.bench import FILE, HARDWARE, MOVING, answer_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.sweep.play import Evidence

__all__ = ["judge_handoff"]

_UNFINISHED = re.compile(r"\.(arriving|frozen|unfinished)-")
_PROVEN = {"committed", "done"}


def judge_handoff(evidence: Evidence) -> Iterator[str]:
    """Yield violations."""
    for index, seen in enumerate(evidence.seen):
        for name in evidence.operation.sources:
            source, destination = _at_source(evidence, name, seen), _at_destination(evidence, name, seen)
            if source and destination:
                yield f"{name} has two usable holders (seen in look {index + 1})"
    yield from _lost(evidence)
    yield from _promises(evidence)
    yield from _proofs(evidence)
    yield from _unsettled(evidence)
    yield from _residue(evidence)
    if evidence.seen[-1] != evidence.seen[-2]:
        yield "the second recovery changed something"


def _answer(evidence: Evidence, name: str) -> str:
    return answer_of(evidence.scene.bench.key(name))


def _state(evidence: Evidence, name: str) -> dict[str, Any]:
    """What the sender's process said at its end of its key object; empty where it did not live to say it."""
    said = evidence.said("sender", "end") or {"keys": []}
    return next((key for key in said["keys"] if key["name"] == name), {})


def _at_source(evidence: Evidence, name: str, seen: dict[str, Any]) -> bool:
    """Whether the source may use the key: the file has its name, or the living process is not refused."""
    if name == FILE:
        return bool(seen["files"].get("keys/file.key") == evidence.scene.bench.keys[FILE])
    return bool(_state(evidence, name).get("usable"))


def _at_destination(evidence: Evidence, name: str, seen: dict[str, Any]) -> bool:
    """Whether the destination has the key: in its process, in the token or in a file, under whatever name.

    A key that is still arriving counts once the handoff is settled.
    """
    answer, receiver = (
        _answer(evidence, name),
        evidence.said("receiver", "end") or {"held": False, "keys": [], "new": []},
    )
    in_process = receiver["held"] and any(key["answer"] == answer and key["usable"] for key in receiver["keys"])
    if name == HARDWARE:
        return in_process
    settled = all(entry["settled"] for entry in seen["receiver"])
    objects = seen["objects"] if settled else []
    in_token = any(found[-1] == answer for found in objects)
    key = evidence.scene.bench.keys[name]
    in_file = any(
        path.startswith("arrived/") and content == key and (settled or not _UNFINISHED.search(path))
        for path, content in seen["files"].items()
    )
    return in_process or in_token or in_file


def _lost(evidence: Evidence) -> Iterator[str]:
    """What outlives a process has exactly one holder in the end; so has what lives in processes that both live."""
    for name in evidence.operation.sources:
        if _at_source(evidence, name, evidence.last) or _at_destination(evidence, name, evidence.last):
            continue
        if name == FILE and evidence.operation.destination != "process":
            yield f"{name} is lost"
        elif name == FILE and not _receipt(evidence):
            yield f"{name} is lost without a receipt"
        elif evidence.operation.offline and evidence.scene.bundle.exists() and not _lied(evidence):
            yield f"{name} is in the bundle, which cannot be received"
        elif not evidence.operation.offline and _both_lived(evidence):
            yield f"{name} is usable nowhere, though both processes live"


def _both_lived(evidence: Evidence) -> bool:
    """Whether both processes came to their end undisturbed enough to still have their keys.

    A receiver that failed has ended before the sender asked; if its journal then says that it had imported, since a
    write that was reported as failed had reached the disk, its keys died with it.
    """
    received = evidence.said("receiver", "done")
    if received is None or (received["outcome"] != "received" and _receipt(evidence)):
        return False
    disturbed = any(fault.harms_session or fault.lasts or fault.lies for fault in evidence.scene.fault.values())
    return not disturbed and all(evidence.said(side, "end") is not None for side in ("sender", "receiver"))


def _receipt(evidence: Evidence) -> bool:
    return any(entry["kind"] == "receipt" for entry in evidence.last["receiver"])


def _promises(evidence: Evidence) -> Iterator[str]:
    """When the receiver's living process has promised that it never imports, it has nothing of the moved key."""
    receiver = evidence.said("receiver", "end")
    if receiver is None or not any(entry["kind"] == "tombstone" for entry in evidence.seen[0]["receiver"]):
        return
    moved = _answer(evidence, MOVING)
    if any(found[-1] == moved for found in (*receiver["new"], *evidence.seen[0]["objects"])):
        yield "the receiver promised never to import, and has the key all the same"


def _proofs(evidence: Evidence) -> Iterator[str]:
    """Nothing is gone from the source without the receiver's receipt in both journals."""
    sent, received = evidence.last["sender"], evidence.last["receiver"]
    kinds = {entry["kind"] for entry in (*sent, *received)}
    if "bad" in kinds:
        yield "a journal holds a statement that does not verify"
    if {"receipt", "tombstone"} <= kinds:
        yield "there is a receipt and a tombstone"
    proven = any(entry["kind"] == "receipt" and entry["phase"] in _PROVEN for entry in sent) and _receipt(evidence)
    files = evidence.last["files"]
    gone = FILE in evidence.operation.sources and not any(path.startswith("keys/") for path in files)
    dead = any(_state(evidence, name).get("dead") for name in evidence.operation.sources)
    if (gone or dead) and not proven:
        yield "a source was destroyed without a receipt"


def _unsettled(evidence: Evidence) -> Iterator[str]:
    """With both processes gone and both journals there, everything is settled, but what a bundle waits for."""
    for side in ("sender", "receiver"):
        for entry in evidence.last[side]:
            waits = evidence.operation.offline and entry["phase"] in {"sent", "offered"}
            if not entry["settled"] and not waits:
                yield f"the {side}'s handoff stays {entry['phase']}: {entry['remark']}"


def _residue(evidence: Evidence) -> Iterator[str]:
    """No file and no object under a passing name; no object but what was there and what arrived."""
    waiting = not all(entry["settled"] for entry in evidence.last["sender"])
    for path in evidence.last["files"]:
        frozen = ".frozen-" in path and waiting
        if _UNFINISHED.search(path) and not frozen:
            yield f"{_UNFINISHED.split(path)[0]} is left under a passing name"
    moved = _answer(evidence, MOVING)
    arrived = [found for found in evidence.last["objects"] if found[-1] == moved]
    if len(arrived) > 1:
        yield "the key is in the token twice"
    if arrived and not _receipt(evidence):
        yield "a key is in the token, and the receiver never signed for it"
    if arrived and bytes.fromhex(arrived[0][3]) != b"moving key's id" and not _lied(evidence):
        yield "the key did not get its own CKA_ID"


def _lied(evidence: Evidence) -> bool:
    return any(fault.lies for fault in evidence.scene.fault.values())
