"""The documentation agrees with the code, and its links lead somewhere."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from hsmbridge_cli.failures import exit_code
from hsmbridge_cli.main import cli

from hsmbridge import errors
from hsmbridge.dialects import Dialect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsmbridge.errors import HsmbridgeError

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted({*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("[!.]*/README.md")})
SOURCES = [path for package in ("hsmbridge", "csp", "cli") for path in sorted((ROOT / package).rglob("*.py"))]

LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
# Words that promise instead of saying.
PRAISE = re.compile(
    r"\b(?:seamless\w*|blazing\w*|powerful|robust|cutting-edge|state-of-the-art|enterprise-grade|effortless\w*|simply)\b",
    re.IGNORECASE,
)


def prose(page: Path) -> str:
    """Return a page without its code blocks."""
    return CODE.sub("", page.read_text("utf-8"))


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return the anchors of a page's headings: lower case, blanks to hyphens, punctuation dropped."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


def commands(group: click.Group = cli, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield every command that is no group, by its whole name."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def table(page: Path, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, its first two rows left out."""
    section = page.read_text("utf-8").split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page names a file that is there, and an anchor that is in it."""
    for found in LINK.finditer(prose(page)):
        target, _, anchor = found["target"].partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), found["target"]
        assert not anchor or anchor in anchors(file), found["target"]


def test_every_page_is_in_the_index() -> None:
    """docs/README.md leads to every page of docs/."""
    index = DOCS / "README.md"
    linked = {(DOCS / found["target"].partition("#")[0]).resolve() for found in LINK.finditer(prose(index))}
    assert set(DOCS.rglob("*.md")) - {index} <= linked


def test_pages_that_the_code_names_are_there() -> None:
    """A docstring that says docs/NAME.md names a page that exists."""
    named = {name for path in SOURCES for name in re.findall(r"docs/[\w./-]+?\.md", path.read_text("utf-8"))}
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_pages_are_plain(page: Path) -> None:
    """No page praises, and none has pictographs."""
    text = page.read_text("utf-8")
    assert not PRAISE.search(text)
    assert not [char for char in text if 0x2600 <= ord(char) <= 0x27BF or ord(char) >= 0x1F000]


@pytest.mark.parametrize(("name", "command"), [pytest.param(*each, id=each[0]) for each in commands()])
def test_the_reference_has_every_command_and_option(name: str, command: click.Command) -> None:
    """docs/cli.md names each command and each of its options as the command itself does."""
    text = (DOCS / "cli.md").read_text("utf-8")
    assert re.search(rf"^\| `{re.escape(name)}[ `]", text, re.MULTILINE)
    for param in command.params:
        if isinstance(param, click.Option):
            missing = [option for option in (*param.opts, *param.secondary_opts) if not _is_named(option, text)]
            # -o and --output are one option: one of the two names is enough
            assert len(missing) < len(param.opts) + len(param.secondary_opts), missing
            assert not [option for option in param.secondary_opts if option in missing]


def test_the_reference_names_no_option_that_is_not_there() -> None:
    """Every option in the tables of docs/cli.md is one of a command's."""
    known = {option for _, command in commands() for param in command.params for option in param.opts}
    known |= {option for _, command in commands() for param in command.params for option in param.secondary_opts}
    known |= {"--help"}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", prose(DOCS / "cli.md")))
    assert named - known == set()


def test_exit_codes_are_those_of_the_code() -> None:
    """The table of exit codes lists each error class once, beside the code that it really ends with."""
    listed = {
        name: int(cells[0])
        for cells in table(DOCS / "cli.md", "Exit codes")
        for name in re.findall(r"\w+Error\b", cells[-1])
    }
    classes = {name: getattr(errors, name) for name in errors.__all__ if name != "HsmbridgeError"}
    assert listed.keys() == classes.keys()
    for name, cls in classes.items():
        assert exit_code(_made(cls)) == listed[name], name


def test_the_wrapping_page_lists_the_dialects() -> None:
    """The table of dialects in docs/wrapping.md is the allow-list, in its order."""
    rows = table(DOCS / "wrapping.md", "Dialects, not mechanism numbers")
    assert [cells[0].strip("` ") for cells in rows] == [str(dialect) for dialect in Dialect]
    for cells, dialect in zip(rows, Dialect, strict=True):
        assert cells[2] == ("RSA" if dialect.is_rsa else "AES")


def test_the_reference_lists_every_json_document() -> None:
    """Each command with --json output has its schema in docs/cli.md; completion prints a script and has none."""
    listed = {cells[0].strip("` ") for cells in table(DOCS / "cli.md", "JSON")}
    names = {name.replace(" ", ".") for name, _ in commands()} - {"completion"}
    # a report is one whoever made it: the command line, or a library call
    names = {"conformance" if name == "conformance.run" else name for name in names}
    assert listed == {f"hsmbridge.{name}/1" for name in names}


def _is_named(option: str, text: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text) is not None


def _made(cls: type[HsmbridgeError]) -> HsmbridgeError:
    error = cls.__new__(cls)
    Exception.__init__(error, "for its class only")
    return error
