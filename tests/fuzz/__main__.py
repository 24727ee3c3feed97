"""Run the fuzz targets: ``python -m tests.fuzz --count 20000``.

A seed gives the same mutations of the same places in each run; keys, nonces and signatures differ. What is found is
printed with the input, and the status is 1.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from tests.fuzz.campaign import ALLOWED_GROWTH, BLOBS, Result, parts, run
from tests.fuzz.targets import TARGETS, UNCHANGED

SHOWN = 20
"""Findings; one bug makes many."""

ENOUGH = 1_020_000
"""Blobs: a hundredth of them or so comes out of its mutation as it went in, and more than a million must not."""


def say(text: str) -> None:
    """Write a line of the report."""
    sys.stdout.write(f"{text}\n")


def _report(results: list[Result], seconds: float) -> bool:
    outcomes: Counter[tuple[str, str]] = sum((result.outcomes for result in results), Counter())
    mutations: Counter[str] = sum((result.mutations for result in results), Counter())
    spent: Counter[str] = sum((result.seconds for result in results), Counter())
    for name in TARGETS:
        of_target = {outcome: count for (target, outcome), count in outcomes.items() if target == name}
        total = sum(of_target.values())
        say(f"{name}: {total} inputs, {spent[name] / max(total, 1):.0f} us each")
        for outcome, count in sorted(of_target.items(), key=lambda item: -item[1]):
            say(f"  {count:>9}  {outcome}")
    say("mutations: " + ", ".join(f"{name} {count}" for name, count in sorted(mutations.items())))
    blobs = sum(count for (target, _), count in outcomes.items() if target in BLOBS)
    same = sum(count for (target, outcome), count in outcomes.items() if target in BLOBS and outcome == UNCHANGED)
    growth = max(result.growth for result in results)
    findings = [finding for result in results for finding in result.findings]
    if growth > ALLOWED_GROWTH:
        findings.append(f"memory grows by more than {ALLOWED_GROWTH >> 20} MiB")
    say(f"{outcomes.total()} inputs in {seconds:.1f} s, {len(results)} processes")
    say(f"memory after the first tenth: +{growth / (1 << 20):.1f} MiB")
    say(f"changed blobs refused: {blobs - same}; same as the original by chance, and taken: {same}")
    say(f"findings: {len(findings)}")
    for finding in findings[:SHOWN]:
        sys.stderr.write(f"FOUND: {finding}\n")
    return not findings


def main() -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Mutate inputs of every parser.")
    parser.add_argument("--count", type=int, default=ENOUGH, help="mutated blobs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    chosen = parser.parse_args()
    begun = time.perf_counter()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(chosen.jobs, mp_context=spawn) as pool:
        results = list(pool.map(run, parts(chosen.count, chosen.seed, chosen.jobs)))
    say(f"seed {chosen.seed}")
    return 0 if _report(results, time.perf_counter() - begun) else 1


if __name__ == "__main__":
    sys.exit(main())
