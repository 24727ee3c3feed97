"""The examples of README.md and docs/ are run, and print what the page shows.

Every ``console`` and ``python`` block of a page runs, in order, on a private SoftHSM, in a new directory. In a console
block, what stands below a command must be what it prints; a command with nothing below it must only succeed. Numbers
and identifiers of a run are not compared; ``…`` stands for any text, on a line of its own for any lines. In a Python
block, what stands behind ``print(...)  # `` must be printed. Other blocks (``text``, ``mermaid``) are for the reader.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
READABLE_LINES = 160
COMMAND_SECONDS = 120

FENCE = re.compile(r"^```(?P<kind>\w*)[^\n]*\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
KINDS = {"console", "python", "text", "mermaid", "cddl"}
# Process ids, serials, slots, random identifiers: four digits or more, or at least 16 hexadecimal ones.
OF_THE_RUN = re.compile(r"\b(?:[0-9a-f]{16,}|\d{4,})\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fenced block of a page."""

    kind: str
    body: str
    line: int


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = page.read_text("utf-8")
    return [
        Block(kind=found["kind"], body=found["body"], line=text.count("\n", 0, found.start()) + 1)
        for found in FENCE.finditer(text)
    ]


def steps_of(block: Block) -> Iterator[tuple[str, list[str]]]:
    """Yield each command of a console block with the output that the page shows."""
    command, shown = "", list[str]()
    for line in block.body.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, shown
            command, shown = line.removeprefix("$ "), []
        else:
            shown.append(line)
    yield command, shown


def pattern_of(shown: list[str]) -> re.Pattern[str]:
    """Turn shown output into what real output must match."""
    lines = []
    for line in shown:
        if line == "…":
            lines.append(r"(?:.*\n)*?")
        else:
            plain = OF_THE_RUN.sub("N", line).rstrip()
            lines.append(r"[^\n]*".join(re.escape(part) for part in plain.split("…")) + r"\n")
    return re.compile("".join(lines))


def printed_by(block: Block) -> list[str]:
    """Return what a Python block says that its print calls print."""
    return re.findall(r"^ *print\(.*\)  # (.*)$", block.body, re.MULTILINE)


RUNNABLE = [page for page in PAGES if any(block.kind in ("console", "python") for block in blocks_of(page))]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What a reader has: this command on the path, and a token of their own in the environment."""
    start = subprocess.run(
        [str(ROOT / "ci" / "softhsm" / "start"), str(tmp_path / "softhsm")],
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=True,
    )
    # each line is a shell command: export NAME='VALUE'
    token = dict(shlex.split(line)[1].split("=", 1) for line in start.stdout.splitlines())
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {name: value for name, value in os.environ.items() if not name.startswith("PKCS11_")}
    home = {"HOME": str(tmp_path), "HSMBRIDGE_HOME": str(tmp_path / "hsmbridge-home")}
    return {**own, **token, **home, "PATH": path, "LC_ALL": "C.UTF-8", "NO_COLOR": "1", "PYTHONWARNINGS": "error"}


def run(command: list[str], environment: dict[str, str], place: Path, *, source: str = "") -> tuple[int, str]:
    """Run a command in *place*; return its status and both its outputs as a terminal would show them."""
    done = subprocess.run(
        command,
        input=source,
        env=environment,
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_examples_do_what_the_page_shows(page: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """Every example of the page runs, and prints what is printed there."""
    place = tmp_path / "reader"
    place.mkdir()
    for block in blocks_of(page):
        where = f"{page.name}, block at line {block.line}"
        if block.kind == "console":
            for command, shown in steps_of(block):
                status, output = run(["bash", "-c", command], environment, place)
                assert status == 0, f"{where}: {command} ended with {status}:\n{output}"
                real = "".join(f"{OF_THE_RUN.sub('N', line).rstrip()}\n" for line in output.splitlines())
                assert not shown or pattern_of(shown).fullmatch(real), f"{where}: {command} printed:\n{output}"
        elif block.kind == "python":
            status, output = run([sys.executable, "-"], environment, place, source=block.body)
            assert status == 0, f"{where} ended with {status}:\n{output}"
            assert output.splitlines() == printed_by(block), f"{where} printed other things"


def test_each_block_says_what_it_is() -> None:
    """No block of a page is left unmarked: an example that nobody runs must say so."""
    wrong = [f"{page.name}:{block.line}" for page in PAGES for block in blocks_of(page) if block.kind not in KINDS]
    assert not wrong


def test_the_readme_shows_commands_and_a_program() -> None:
    """The README has the demo, a wrap, an unwrap and a Python program; else the test above proves nothing about it."""
    console = "".join(block.body for block in blocks_of(README) if block.kind == "console")
    for command in ("$ hsmbridge demo\n", "$ hsmbridge wrap ", "$ hsmbridge unwrap "):
        assert command in console
    assert any(block.kind == "python" and len(printed_by(block)) > 1 for block in blocks_of(README))


def test_the_readme_stays_short() -> None:
    """The README is read in one go."""
    assert len(README.read_text("utf-8").splitlines()) < READABLE_LINES


@pytest.mark.parametrize(
    ("shown", "real", "fits"),
    [
        (["a …"], "a b\n", True),
        (["a …"], "b b\n", False),
        (["…", "z"], "a\nb\nz\n", True),
        (["…", "z"], "a\nb\n", False),
        (["pid 4711"], "pid N\n", True),
        (["one"], "one\ntwo\n", False),
        (["a.c"], "abc\n", False),
    ],
)
def test_shown_output_is_compared(shown: list[str], real: str, *, fits: bool) -> None:
    """The comparison of outputs tells right from wrong: dots are dots, lines too many or too few are noticed."""
    assert bool(pattern_of(shown).fullmatch(real)) is fits
