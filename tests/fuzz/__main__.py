"""Run the fuzz targets: ``python -m tests.fuzz --count 1000000``.

A seed gives the same mutations of the same places in each run; keys, nonces and signatures differ. What is found is
printed with the input, and the status is 1.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from tests.fuzz.targets import TARGETS, UNCHANGED, Finding

if TYPE_CHECKING:
    from collections.abc import Mapping

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


def _parts(blobs: int, seed: int, jobs: int) -> list[Part]:
    whole = sum(SHARES[name] for name in BLOBS)
    counts = {name: -(-blobs * share // whole // jobs) for name, share in SHARES.items()}
    return [Part(seed=seed * 1000 + number, counts=counts) for number in range(jobs)]


def _report(results: list[Result], seconds: float) -> bool:
    outcomes: Counter[tuple[str, str]] = sum((result.outcomes for result in results), Counter())
    mutations: Counter[str] = sum((result.mutations for result in results), Counter())
    spent: Counter[str] = sum((result.seconds for result in results), Counter())
    findings = [finding for result in results for finding in result.findings]
    for name in TARGETS:
        of_target = {outcome: count for (target, outcome), count in outcomes.items() if target == name}
        total = sum(of_target.values())
        print(f"{name}: {total} inputs, {spent[name] / max(total, 1):.0f} us each")
        for outcome, count in sorted(of_target.items(), key=lambda item: -item[1]):
            print(f"  {count:>9}  {outcome}")
    print("mutations: " + ", ".join(f"{name} {count}" for name, count in sorted(mutations.items())))
    blobs = sum(count for (target, _), count in outcomes.items() if target in BLOBS)
    same = sum(count for (target, outcome), count in outcomes.items() if target in BLOBS and outcome == UNCHANGED)
    growth = max(result.growth for result in results)
    print(f"{blobs} blobs of {outcomes.total()} inputs in {seconds:.1f} s, {len(results)} processes")
    print(f"blobs taken: {same}, each of them the original to the byte; changed blobs taken: 0" if not findings else "")
    print(f"memory after the first tenth: +{growth / (1 << 20):.1f} MiB")
    for finding in findings[:20]:
        print(f"FOUND: {finding}", file=sys.stderr)
    if growth > ALLOWED_GROWTH:
        print(f"FOUND: memory grows, more than {ALLOWED_GROWTH >> 20} MiB", file=sys.stderr)
    print(f"findings: {len(findings)}")
    return not findings and growth <= ALLOWED_GROWTH


def main() -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Mutate inputs of every parser.")
    parser.add_argument("--count", type=int, default=1_000_000, help="mutated blobs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    chosen = parser.parse_args()
    begun = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(chosen.jobs) as pool:
        results = pool.map(run, _parts(chosen.count, chosen.seed, chosen.jobs), chunksize=1)
    print(f"seed {chosen.seed}")
    return 0 if _report(results, time.perf_counter() - begun) else 1


if __name__ == "__main__":
    sys.exit(main())
