"""What one process of the fuzzer does: so many mutated inputs for each target.

Source: getrusage(2) for the peak of memory.
"""

from __future__ import annotations

import resource
import time
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from tests.fuzz.targets import TARGETS, Finding

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ALLOWED_GROWTH", "BLOBS", "Part", "Result", "parts", "run"]

SHARES = {
    "signed blob": 60,
    "unsigned blob": 12,
    "blob signed again": 8,
    "key record": 8,
    "CryptoAPI blob": 6,
    "URI": 4,
    "trust file": 2,
}
"""Of a hundred inputs; on top of the number of blobs that was asked for come those of the other parsers."""

BLOBS = ("signed blob", "unsigned blob", "blob signed again")
ALLOWED_GROWTH = 32 << 20
"""Bytes by which a process may grow after its warm-up. The largest single input has 1 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one process does: so many inputs for each target, from one seed."""

    seed: int
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one process saw.

    Attributes:
        outcomes: how often each target ended in each way.
        mutations: how often each mutation was tried.
        findings: broken promises.
        growth: bytes by which the peak of its memory rose after the first tenth.
        seconds: by target.
    """

    outcomes: Counter[tuple[str, str]]
    mutations: Counter[str]
    findings: list[str]
    growth: int
    seconds: Counter[str]


def run(part: Part) -> Result:
    """Attack all targets."""
    result = Result(outcomes=Counter(), mutations=Counter(), findings=[], growth=0, seconds=Counter())
    targets = {name: make() for name, make in TARGETS.items()}
    settled = 0
    for tenth in range(10):
        for name, target in targets.items():
            random = Random(f"{part.seed} {tenth} {name}")  # noqa: S311 - to be repeated, not to be unpredictable
            begun = time.perf_counter()
            for _ in range(part.counts[name] // 10 + (tenth < part.counts[name] % 10)):
                try:
                    mutation, outcome = target.attack(random)
                except Finding as finding:
                    result.findings.append(f"{name}: {finding}")
                    continue
                result.mutations[mutation] += 1
                result.outcomes[name, outcome] += 1
            result.seconds[name] += int(1e6 * (time.perf_counter() - begun))
        settled = settled or _peak()
    return Result(
        outcomes=result.outcomes,
        mutations=result.mutations,
        findings=result.findings,
        growth=_peak() - settled,
        seconds=result.seconds,
    )


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def parts(blobs: int, seed: int, jobs: int) -> list[Part]:
    """Share the work among processes.

    Args:
        blobs: mutated blobs; the other parsers' inputs come on top.
        seed: of the whole run.
        jobs: processes.
    """
    whole = sum(SHARES[name] for name in BLOBS)
    counts = {name: -(-blobs * share // whole // jobs) for name, share in SHARES.items()}
    return [Part(seed=seed * 1000 + number, counts=counts) for number in range(jobs)]
