"""Write the pages of docs/conformance that come from the catalogue and from runs on real modules.

    python -m ci.pages.publish DIRECTORY            write matrix.md and checks.md from DIRECTORY/NAME.json
    python -m ci.pages.publish DIRECTORY --check    say whether they are up to date: 1 if not
    python -m ci.pages.publish --tell FILE          one line about one report

The reports are those of `make conformance`: whole runs that were held to ci/NAME/expected, with --exact.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from hsmbridge_conformance.reports import as_json
from hsmbridge_conformance.verdict import Verdict

from ci.pages.content import ROOT, Module, checks_page, matrix_page

DOCS = ROOT / "docs" / "conformance"
TOKENS = ("softhsm", "softokn", "softokn-fips", "opencryptoki", "tpm2")


def tell(file: Path) -> str:
    """Return one line about a report: what it counts, and how long the run took."""
    report = as_json.parse(file.read_bytes(), str(file))
    counts = Counter(result.verdict for result in report.results)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])
    return f"{file.stem:<13} {'ok' if report.ok else 'FAILED':<7} {report.seconds:5.1f} s  {told}"


def main() -> int:
    """Do what the arguments say.

    Returns: the exit code.
    """
    parser = argparse.ArgumentParser(description="The pages of docs/conformance that are made from runs.")
    parser.add_argument("directory", type=Path, nargs="?")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--tell", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.tell is not None:
        print(tell(arguments.tell))
        return 0
    if arguments.directory is None:
        parser.error("give the directory of the reports")
    modules = [Module.read(arguments.directory, name) for name in TOKENS]
    old = []
    for name, lines in (("matrix.md", matrix_page(modules)), ("checks.md", checks_page())):
        text = "\n".join(lines) + "\n"
        path = DOCS / name
        if not arguments.check:
            path.write_text(text, "utf-8")
        elif not path.is_file() or path.read_text("utf-8") != text:
            old.append(str(path.relative_to(ROOT)))
    if old:
        print(
            f"not up to date: {', '.join(old)}; look at the difference after `make conformance-docs`", file=sys.stderr
        )
    return 1 if old else 0


if __name__ == "__main__":
    raise SystemExit(main())
