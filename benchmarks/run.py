"""Compare hsmbridge with the bare calls, in C and in Python, and its start-up with that of its command-line library.

    make bench        or        python benchmarks/run.py [--json FILE] [--strict] [--quick] [--keys N] [--rounds N]

`over_channel.py` measures the rows of the channel. Last, `export_import.py` tells what the export and import of keys
with their state costs.

Runs on a throw-away SoftHSM token. The rounds of both sides alternate, each round gives one ratio, and the median ratio
is held against the budget.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SOURCE = HERE / "wrap_unwrap.c"
PROGRAM = HERE / "bin" / "wrap_unwrap"
HSMBRIDGE = Path(sys.executable).with_name("hsmbridge")

PLAINTEXT_KEY_BLOB = bytes.fromhex("08020000 10660000 20000000") + bytes(range(32))
"""A CryptoAPI PLAINTEXTKEYBLOB (BLOBHEADER with CALG_AES_256, a DWORD of length, the key), for ``inspect``."""


_SLOW_ROUNDS = 7
"""Rounds of what waits for the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One comparison.

    Attributes:
        name: what is compared.
        unit: of ours and theirs.
        ours: median figure of hsmbridge; theirs: of what it is compared with.
        against: what that is.
        ratio: median over the rounds of ours divided by theirs.
        budget: what the ratio shall be at least (rates) or at most (times); None where the row only explains another.
        at_least: which of the two.
        met: whether it is.
    """

    name: str
    unit: str
    ours: float
    theirs: float
    against: str
    ratio: float
    budget: float | None
    at_least: bool
    met: bool


def compare(  # noqa: PLR0913 - a row has this many parts
    name: str, unit: str, pairs: list[tuple[float, float]], against: str, budget: float | None, *, at_least: bool
) -> Row:
    """Make a row of the (ours, theirs) pairs of all rounds."""
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    return Row(
        name=name,
        unit=unit,
        ours=statistics.median(ours for ours, _ in pairs),
        theirs=statistics.median(theirs for _, theirs in pairs),
        against=against,
        ratio=ratio,
        budget=budget,
        at_least=at_least,
        met=budget is None or (ratio >= budget if at_least else ratio <= budget),
    )


def compile_program() -> None:
    """Compile the C side if its source is newer than the program."""
    if PROGRAM.exists() and PROGRAM.stat().st_mtime >= SOURCE.stat().st_mtime:
        return
    PROGRAM.parent.mkdir(exist_ok=True)
    warnings = ["-Wall", "-Wextra", "-Werror"]
    subprocess.run(["cc", "-std=gnu11", *warnings, "-O2", "-o", PROGRAM, SOURCE, "-ldl"], check=True)


@contextmanager
def worker(*command: str) -> Iterator[Callable[[], dict[str, float]]]:
    """Start one side.

    Yields: a function that reads its next JSON line, after asking for a round where there is none yet.
    """
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def ask() -> dict[str, float]:
        stdin.write("\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            sys.exit(f"{command[0]} ended with {process.wait()}")
        answer: dict[str, float] = json.loads(line)
        return answer

    with process:
        yield ask
    assert process.returncode == 0, f"{command[0]} ended with {process.returncode}"


def wrapping(rounds: int, keys: int) -> list[Row]:
    """Wrap and unwrap *keys* keys in each round, here and in C, with the mechanism that hsmbridge chooses."""
    with worker(sys.executable, str(HERE / "through_hsmbridge.py"), str(keys)) as ours:
        mechanism = int(ours()["mechanism"])  # its first round warms it up as well
        with worker(str(PROGRAM), str(keys), str(mechanism)) as theirs:
            theirs()
            answers = [(ours(), theirs()) if number % 2 else (theirs(), ours())[::-1] for number in range(rounds)]
    wraps = [(mine["wrap"], other["wrap"]) for mine, other in answers]
    looked = [(mine["wrap"], other["looked"]) for mine, other in answers]
    unwraps = [(mine["unwrap"], other["unwrap"]) for mine, other in answers]
    return [
        compare("wrap session keys, all checks", "keys/s", wraps, "C, one C_WrapKey", 0.6, at_least=True),
        compare("the same", "keys/s", looked, "C, the same looks, too", None, at_least=True),
        compare("unwrap to session objects, read back", "keys/s", unwraps, "C, bare C_UnwrapKey", 0.5, at_least=True),
    ]


def seconds(command: list[str]) -> float:
    """Run a command that must succeed.

    Returns: how long it took.
    """
    start = perf_counter()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return perf_counter() - start


def start_up(rounds: int) -> list[Row]:
    """Time ``hsmbridge --version`` and ``hsmbridge inspect`` against an interpreter that imports click."""
    against = "python -c 'import click'"
    with tempfile.TemporaryDirectory() as directory:
        blob = Path(directory, "key.blob")
        blob.write_bytes(PLAINTEXT_KEY_BLOB)
        commands = [
            [sys.executable, "-c", "import click"],
            [str(HSMBRIDGE), "--version"],
            [str(HSMBRIDGE), "inspect", str(blob)],
        ]
        for command in commands:
            seconds(command)  # writes the .pyc files and fills the page cache
        times = [[1000 * seconds(command) for command in commands] for _ in range(rounds)]
    versions = [(version, click) for click, version, _ in times]
    inspections = [(inspect, click) for click, _, inspect in times]
    return [
        compare("hsmbridge --version", "ms", versions, against, 1.3, at_least=False),
        compare("hsmbridge inspect, one blob", "ms", inspections, against, 2.0, at_least=False),
    ]


def over_channel(rounds: int, keys: int) -> list[Row]:
    """Hand *keys* record keys over a channel in each round, and do the cryptography and the CBOR of it alone."""
    answers: list[dict[str, float]] = figures_of("over_channel.py", "--keys", str(keys), "--rounds", str(rounds))
    blobs = [(answer["ours"], answer["blobs"]) for answer in answers]
    frames = [(answer["ours"], answer["frames"]) for answer in answers]
    return [
        compare("record keys over a channel", "keys/s", blobs, "AESGCM + cbor2 alone", 0.33, at_least=True),
        compare("the same", "keys/s", frames, "and frames, sockets", None, at_least=True),
    ]


def handoffs(rounds: int, keys: int, *, quick: bool) -> list[Row]:
    """Take *keys* record keys through whole handoffs in each round, grouped and one by one; it prints the memory."""
    stream = "10000" if quick else "100000"
    arguments = ["--keys", str(keys), "--rounds", str(min(rounds, _SLOW_ROUNDS)), "--stream", stream]
    answers: list[dict[str, float]] = figures_of("handoff.py", *arguments)["rounds"]
    grouped = [(answer["grouped"], answer["channel"]) for answer in answers]
    single = [(answer["single"], answer["channel"]) for answer in answers]
    return [
        compare("record keys, one handoff", "keys/s", grouped, "over a channel alone", 0.5, at_least=True),
        compare("a handoff for each key", "keys/s", single, "over a channel alone", None, at_least=True),
    ]


def tls_records(rounds: int) -> list[Row]:
    """Seal and open TLS records in place in each round, and call the AEAD alone."""
    name = "TLS 1.3, AES-128-GCM"
    answers = figures_of("tls_records.py", "--records", "1000", "--rounds", str(min(rounds, _SLOW_ROUNDS)))
    pairs = [(answer[name]["ours"], answer[name]["direct"]) for answer in answers]
    return [compare(f"{name}: seal, open", "records/s", pairs, "AESGCM alone", 0.6, at_least=True)]


def figures_of(script: str, *arguments: str) -> Any:  # noqa: ANN401 - each script has its own form
    """Run another benchmark in a process of its own, whose memory is then its own too.

    Returns: its figures.
    """
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "figures.json")
        command = [sys.executable, str(HERE / script), "--json", str(file), *arguments]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        return json.loads(file.read_text(encoding="utf-8"))


def table(rows: list[Row]) -> str:
    """Lay the rows out as a Markdown table that is a readable table on a terminal too."""
    cells = [["what", "hsmbridge", "compared with", "its figure", "ratio", "budget", ""]]
    cells += [
        [
            row.name,
            f"{row.ours:,.0f} {row.unit}",
            row.against,
            f"{row.theirs:,.0f} {row.unit}",
            f"{row.ratio:.2f}",
            f"at {'least' if row.at_least else 'most'} {row.budget}" if row.budget else "",
            ("met" if row.met else "missed") if row.budget else "",
        ]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |" for line in cells
    )


def main() -> int:
    """Run the benchmarks; start again under a throw-away token if there is none."""
    parser = argparse.ArgumentParser(description="Compare hsmbridge with a C program that makes the bare calls.")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures here as well")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a budget is missed")
    parser.add_argument("--keys", metavar="N", type=int, default=1000, help="keys in a round (default: %(default)s)")
    parser.add_argument("--rounds", metavar="N", type=int, default=21, help="rounds (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="export, import and hand over fewer keys")
    options = parser.parse_args()
    if "HSMBRIDGE_TEST_TOKEN" not in os.environ:
        with_token = str(ROOT / "ci" / "with-token")
        os.execv(with_token, [with_token, "softhsm", "--", sys.executable, __file__, *sys.argv[1:]])  # noqa: S606 - ours
    compile_program()
    rows = wrapping(options.rounds, options.keys) + over_channel(options.rounds, options.keys)
    rows += handoffs(options.rounds, options.keys, quick=options.quick)
    rows += tls_records(options.rounds)
    failure = ""
    try:
        rows += start_up(options.rounds)
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        failure = f"start-up not measured: {error} (`make setup` installs the command)"
    print(table(rows))
    print(
        f"\nMedians of {options.rounds} rounds of {options.keys} keys; ratios vary with load, and with Python's build.",
        end="\n\n",
        flush=True,
    )
    exported = figures_of("export_import.py", *(["--quick"] if options.quick else []))
    if failure:
        print(failure, file=sys.stderr)
    if options.json:
        document = {
            "schema": "hsmbridge.bench/1",
            "python": platform.python_version(),
            "token": os.environ["HSMBRIDGE_TEST_TOKEN"],
            "keys": options.keys,
            "rounds": options.rounds,
            "rows": [asdict(row) for row in rows],
            "export_import": exported,
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    missed = options.strict and not all(row.met for row in rows)
    return 1 if failure or missed else 0


if __name__ == "__main__":
    sys.exit(main())
