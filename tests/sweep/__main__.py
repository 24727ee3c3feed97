"""The sweep as a command: ``python -m tests.sweep``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.sweep.operations import OPERATIONS
from tests.sweep.report import print_report, print_sabotage, record
from tests.sweep.runner import find_sabotage, sweep


def main() -> int:
    """Run it.

    Returns: 0 without a violation, or if each sabotage was found; else 1.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.sweep", description=__doc__)
    parser.add_argument(
        "--reduced", action="store_true", help="a sample: each kind of fault once in each kind of process"
    )
    parser.add_argument("--only", action="append", choices=sorted(OPERATIONS), help="this operation (repeatable)")
    parser.add_argument("--jobs", type=int, default=2, help="processes that work at the same time")
    parser.add_argument("--case", action="append", help="this case alone, by name; its files are kept (repeatable)")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the summary there (docs/faults.md)")
    parser.add_argument("--sabotage", action="store_true", help="judge the judges: make mistakes that must be found")
    options = parser.parse_args()
    if options.sabotage:
        return print_sabotage(find_sabotage())
    result = sweep(
        options.only or list(OPERATIONS), jobs=options.jobs, sample=options.reduced,
        names=options.case or [],
    )  # fmt: skip
    print_report(result)
    if options.record is not None:
        record(result, options.record)
    return 1 if result.violations or not result.cases else 0


if __name__ == "__main__":
    sys.exit(main())
