"""What holds for every command: help, options on both sides, usage errors, one JSON document, a fast start."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from hsmbridge_cli.lazy import LazyGroup
from hsmbridge_cli.main import COMMANDS
from hsmbridge_cli.main import cli as program
from hsmbridge_cli.options import DIALECTS

from hsmbridge.dialects import Dialect
from tests.cli.conftest import COMMAND

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

SUBCOMMANDS = [
    ("token", "ls"),
    ("token", "show"),
    ("key", "ls"),
    ("key", "show"),
    ("key", "generate"),
    ("key", "destroy"),
    ("identity", "new"),
    ("identity", "show"),
    ("identity", "trust"),
    ("identity", "ls"),
    ("identity", "forget"),
    ("conformance", "run"),
    ("conformance", "list"),
    ("conformance", "explain"),
    ("conformance", "diff"),
    ("conformance", "clean"),
]
EVERY = [(), *((name,) for name in COMMANDS), *SUBCOMMANDS]
HEAVY = ("rich", "cryptography", "pkcs11", "cbor2", "ctypes")


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_every_command_has_help(plain: Cli, path: tuple[str, ...]) -> None:
    """--help of each command ends with 0, names the command, and needs no token."""
    shown = plain(*path, "--help").text
    assert shown.startswith(f"Usage: {' '.join(('hsmbridge', *path))} ")
    assert "--json" in shown


@pytest.mark.parametrize("path", [path for path in EVERY if path not in {(), ("demo",)}], ids=" ".join)
def test_help_tables_agree_with_commands(path: tuple[str, ...]) -> None:
    """The line that a group shows for a command is the first line of that command's own help."""
    group: click.Command = program
    context = click.Context(program)
    for name in path:
        assert isinstance(group, LazyGroup)
        line = group.lazy[name][1]
        command = group.get_command(context, name)
        assert command is not None
        assert (command.help or "").splitlines()[0] == line
        group = command


def test_completion_knows_the_dialects() -> None:
    """The names that --mechanism completes are those that the library takes."""
    assert [str(dialect) for dialect in Dialect] == list(DIALECTS)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(plain: Cli, shell: str) -> None:
    """`completion` prints a script for the shell, which calls the command back."""
    script = plain("completion", shell).text
    assert "_HSMBRIDGE_COMPLETE" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_completion_answers(plain: Cli) -> None:
    """The completion that bash asks for lists commands, and mechanisms behind --mechanism."""
    asked = plain.having(_HSMBRIDGE_COMPLETE="bash_complete", COMP_WORDS="hsmbridge in", COMP_CWORD="1")
    assert "inspect" in asked(status=None).text
    words = "hsmbridge wrap --mechanism rsa-oaep"
    asked = plain.having(_HSMBRIDGE_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD="3")
    assert "rsa-oaep-sha256" in asked(status=None).text


def test_version_starts_fast(plain: Cli) -> None:
    """--version loads click and the version: no table drawing, no cryptography, no binding, not even the errors."""
    assert plain("--version").text.startswith("hsmbridge ")
    assert loaded(plain, "--version") <= {
        "hsmbridge._version",
        "hsmbridge_cli.main",
        "hsmbridge_cli.lazy",
        "hsmbridge_cli.options",
    }


def test_inspect_starts_fast(plain: Cli) -> None:
    """`inspect` of one blob loads neither the token layer nor a cryptographic library."""
    (plain.directory / "plain.blob").write_bytes(bytes.fromhex("080200001066000020000000") + bytes(32))
    assert not loaded(plain, "inspect", "plain.blob") & {"hsmbridge.module", "hsmbridge.dialects", "hsmbridge.token"}


def loaded(plain: Cli, *arguments: str) -> set[str]:
    """Return our modules that a run imports, after checking that it imports none of the heavy ones."""
    code = (
        "import sys; from hsmbridge_cli.main import main; status = main(sys.argv[1:]);"
        "sys.stderr.write('\\n'.join(sys.modules)); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=plain.directory, env=dict(plain.variables), capture_output=True, text=True, check=True,
    )  # fmt: skip
    modules = set(done.stderr.splitlines())
    assert not [name for name in modules if name.split(".")[0] in HEAVY]
    return {name for name in modules if name.startswith("hsmbridge") and "." in name}


def test_options_before_and_after(cli: Cli) -> None:
    """Token options may stand before the command, between group and command, and after it; the last one wins."""
    without = cli.without("PKCS11_MODULE", "PKCS11_TOKEN_LABEL")
    module, label = cli.variables["PKCS11_MODULE"], cli.variables["PKCS11_TOKEN_LABEL"]
    before = without("--json", "--module", module, "--token-label", label, "token", "show").document
    between = without("token", "--json", "--module", module, "--token", label, "show").document
    after = without("token", "show", "--json", "--module", module, "--token-label", label).document
    wins = without("--module", "/nonexistent", "token", "show", "--token", label, "--module", module, "--json").document
    assert before == between == after == wins


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["token", "frobnicate"],
        ["wrap"],
        ["wrap", "label:a", "--key", "label:b", "--kek", "label:k", "-o", "f"],
        ["wrap", "payroll", "--kek", "label:k", "-o", "f"],
        ["wrap", "label:a", "--kek", "id:xyz", "-o", "f"],
        ["wrap", "label:a", "--kek", "pkcs11:token=%zz", "-o", "f"],
        ["wrap", "label:a", "--kek", "pkcs11:token=t", "-o", "f"],
        ["wrap", "label:a", "--kek", "pkcs11:object=k?pin-value=1234", "-o", "f"],
        ["wrap", "label:a", "--kek", "label:k", "-o", "/nonexistent/f"],
        ["wrap", "label:a", "--kek", "label:k", "-o", "-", "--json"],
        ["unwrap", "--kek", "label:k", "-i", "f", "--key-type", "aes"],
        ["unwrap", "--kek", "label:k", "-i", "f", "--key-type", "aes", "--persist", "--dry-run"],
        ["unwrap", "--kek", "label:k", "-i", "f", "--key-type", "aes:255", "--persist"],
        ["unwrap", "--kek", "label:k", "-i", "f", "--key-type", "rsa:2048", "--persist"],
        ["unwrap", "--kek", "label:k", "-i", "f", "--key-type", "aes", "--persist", "-a", "FROB=1"],
        ["unwrap", "--kek", "label:k", "-i", "f", "--key-type", "aes", "--persist", "-a", "WRAP=maybe"],
        ["unwrap", "--kek", "label:k", "-i", "nonexistent", "--key-type", "aes", "--persist"],
        ["unwrap", "--kek", "label:k", "-i", "-", "--pin-file", "-", "--key-type", "aes", "--persist"],
        ["key", "show", "nothing"],
        ["key", "show", "file:nonexistent"],
        ["key", "show", "label:k", "--key-type", "aes"],
        ["key", "generate", "--type", "aes", "--label", "l"],
        ["key", "generate", "--type", "aes:256", "--label", "l", "--kek", "--extractable"],
        ["key", "generate", "--type", "aes:256", "--label", "l", "--no-unwrap-template"],
        ["inspect"],
        ["inspect", "nonexistent"],
        ["completion", "tcsh"],
        ["conformance", "run", "--exact"],
        ["conformance", "run", "--level", "most"],
        ["conformance", "run", "--only", "HSB-NOTHING"],
        ["conformance", "run", "--report", "pdf:report.pdf"],
        ["conformance", "run", "--report", "html"],
        ["conformance", "run", "--report", "html:/nonexistent/report.html"],
        ["conformance", "run", "--report", "html:r", "--report", "md:./r"],
        ["conformance", "run", "--report", "md:-", "--json"],
        ["conformance", "run", "--timeout", "0"],
        ["conformance", "run", "--uri", "pkcs11:serial=1"],
        ["conformance", "explain", "HSB-NOTHING-001"],
        ["conformance", "diff", "nonexistent", "nonexistent"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_usage_errors(cli: Cli, arguments: list[str]) -> None:
    """What makes no sense ends with 2, one error and one hint, nothing on standard output, and no file."""
    done = cli(*arguments, status=2)
    assert done.err.startswith("hsmbridge: error: ")
    assert done.hint
    assert done.out == b""
    assert "1234" not in done.err
    assert list(cli.directory.iterdir()) == []


def test_errors_under_json_are_text(cli: Cli) -> None:
    """With --json an error is still text on standard error, and standard output stays empty."""
    done = cli("key", "show", "label:nobody", "--json", status=2)
    assert done.out == b""
    assert done.err.startswith("hsmbridge: error: no key with label 'nobody'")


def test_broken_pipe_is_quiet(plain: Cli) -> None:
    """A reader that goes away ends the command without a word, with the status of SIGPIPE."""
    (plain.directory / "blob").write_bytes(bytes(40))
    command = f"{COMMAND} inspect {' '.join(['blob'] * 3000)}; echo $? >status"
    reader = subprocess.Popen(
        ["bash", "-c", f"set -o pipefail; ({command}) | head -n 1 >/dev/null"],
        cwd=plain.directory, env=dict(plain.variables), stderr=subprocess.PIPE,
    )  # fmt: skip
    _, complaint = reader.communicate(timeout=60)
    assert complaint == b""
    assert (plain.directory / "status").read_text() == "141\n"


def test_interrupt(plain: Cli) -> None:
    """Ctrl-C ends the command with 130 and without a traceback."""
    running = subprocess.Popen(
        [COMMAND, "inspect", "-"], env=dict(plain.variables), stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    wait_for_read(running.pid)
    running.send_signal(signal.SIGINT)
    _, complaint = running.communicate(timeout=30)
    assert running.returncode == 130
    assert b"Traceback" not in complaint


def wait_for_read(pid: int) -> None:
    """Wait until a process sleeps with the command's modules loaded, which is when it waits for its input."""
    for _ in range(1000):
        state = Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()[0]
        call = Path(f"/proc/{pid}/syscall").read_text("ascii").split()
        if state == "S" and call[:2] == ["0", "0x0"]:
            return
        time.sleep(0.02)
    pytest.fail("the command never read its input")


def test_binary_is_refused_on_a_terminal(cli: Cli) -> None:
    """`-o -` on a terminal is refused before the token is touched: wrapped bytes would garble it."""
    leader, follower = pty.openpty()
    try:
        done = subprocess.run(
            [COMMAND, "wrap", "label:a", "--kek", "label:k", "-o", "-"],
            cwd=cli.directory, env=dict(cli.variables), stdin=subprocess.DEVNULL, stdout=follower,
            stderr=subprocess.PIPE, check=False, timeout=60,
        )  # fmt: skip
    finally:
        os.close(follower)
        os.close(leader)
    assert done.returncode == 2
    assert b"terminal" in done.stderr


def test_no_core_files(cli: Cli) -> None:
    """A command that opens a token cannot be dumped: its memory holds a PIN."""
    code = (
        "import resource, sys; from hsmbridge_cli.main import main; status = main(['token', 'ls', '--json']);"
        "sys.stderr.write(str(resource.getrlimit(resource.RLIMIT_CORE)[0])); "
        "import ctypes; sys.stderr.write(str(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=dict(cli.variables), capture_output=True, text=True, check=True
    )
    assert done.stderr.endswith("00")
    assert json.loads(done.stdout)["schema"] == "hsmbridge.token.ls/1"


def test_control_characters_do_not_reach_the_terminal(plain: Cli, tmp_path: Path) -> None:
    """A file name with an escape sequence is shown escaped."""
    (tmp_path / "a\x1b[31mb").write_bytes(bytes(40))
    shown = plain("inspect", "a\x1b[31mb")
    assert b"\x1b" not in shown.out
    assert b"a\\x1b[31mb" in shown.out
