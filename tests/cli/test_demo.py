"""`hsmbridge demo`: the story in one command, and nothing of it is left behind."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).resolve().parents[2]
COMMAND = str(Path(sys.executable).with_name("hsmbridge"))
OF_A_TOKEN = ("PKCS11_", "SOFTHSM2_", "TPM2_PKCS11_", "HSMBRIDGE_")
SECONDS = 120


class Demo:
    """Runs the installed command in a session of its own, with a private directory for temporary files.

    Attributes:
        directory: that directory; its path is short, since a Unix socket's path is.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def environment(self) -> dict[str, str]:
        """Return the environment of the run: no token of ours in it."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(OF_A_TOKEN)}
        return {**kept, "TMPDIR": str(self.directory)}

    def __call__(
        self, *arguments: str, status: int = 0, more: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``hsmbridge demo arguments``; check its status, and that no process of its session outlives it."""
        process = subprocess.Popen(
            [COMMAND, "demo", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**self.environment(), **(more or {})},
            cwd=self.directory,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        assert process.returncode == status, err
        assert "Traceback" not in err
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
        self.pid = process.pid
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture
def demo() -> Iterator[Demo]:
    """The command."""
    directory = Path(tempfile.mkdtemp(prefix="hd."))
    try:
        yield Demo(directory)
    finally:
        shutil.rmtree(directory)


def check_document(document: dict[str, Any]) -> None:
    """Check what `--json` promises, and that the story was told right."""
    assert document["schema"] == "hsmbridge.demo/1"
    assert document["ok"] is True
    assert set(document) == {"schema", "ok", "secure_pid", "application_pid", "keys"}
    for key in document["keys"]:
        assert {
            "name",
            "algorithm",
            "residency",
            "evidence",
            "transfer",
            "source",
            "state_continued",
        } <= set(key)
        assert key["state_continued"] is True
        assert key["evidence"]
        assert all(isinstance(piece, str) for piece in key["evidence"])
        assert (key["residency"], key["transfer"], key["source"]) in (
            ("software", "value", "destroyed"),
            ("hardware", "reference", "retained"),
        )
        if "CKA_TOKEN=true" in key["evidence"]:
            assert key["residency"] == "hardware"
    of_name = {key["name"]: key for key in document["keys"]}
    assert len(of_name) == len(document["keys"])
    assert "CKA_TOKEN=false" in of_name["session"]["evidence"]
    assert of_name["session"]["source"] == "destroyed"
    assert "CKA_TOKEN=true" in of_name["token"]["evidence"]
    in_memory = [key for key in document["keys"] if not any("CKA_" in piece for piece in key["evidence"])]
    assert any(key["algorithm"] == "AES-256-CBC" for key in in_memory)


def test_the_document(demo: Demo) -> None:
    """`--json` gives one document on standard output with the promised fields, and nothing on standard error."""
    done = demo("--json")
    check_document(json.loads(done.stdout))
    assert done.stderr == ""


def test_two_processes(demo: Demo) -> None:
    """The secure and the application process are two, neither is the command itself, and both are gone."""
    document = json.loads(demo("--json").stdout)
    pids = {document["secure_pid"], document["application_pid"], demo.pid, os.getpid()}
    assert len(pids) == 4
    for pid in (document["secure_pid"], document["application_pid"]):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_nothing_is_left(demo: Demo) -> None:
    """The private directory with the token, the streams and the socket is gone afterwards."""
    demo()
    assert list(demo.directory.iterdir()) == []


def test_one_screen(demo: Demo) -> None:
    """The text fits on a screen of 120 columns and 24 lines, has no colour when piped, and says how it ended."""
    lines = demo().stdout.splitlines()
    assert max(map(len, lines)) <= 120
    assert len(lines) <= 24
    assert not any("\x1b" in line for line in lines)
    assert lines[-1].startswith("ok")
    for column in ("lives in", "why", "crossed by", "source now"):
        assert any(column in line for line in lines)


def test_no_key_and_no_pin_is_shown(demo: Demo) -> None:
    """Neither the software key nor the token's PIN is printed, with --keep neither."""
    kept = demo.directory / "kept"
    done = demo("--keep", str(kept))
    for path in secrets_in(kept):
        secret = path.read_text().strip()
        assert secret
        assert secret not in done.stdout + done.stderr
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700


def secrets_in(kept: Path) -> list[Path]:
    """Return the files that hold a key or the PIN."""
    found = [kept / "pin", *kept.glob("*.key")]
    assert len(found) > 1
    return found


def test_kept_secrets_are_private(demo: Demo) -> None:
    """The kept PIN and software keys are for their owner only, so that `--pin-file` takes the PIN's file too."""
    kept = demo.directory / "kept"
    demo("--keep", str(kept))
    assert [path.name for path in secrets_in(kept) if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


def commands_of(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the commands that were printed: the indented lines below the word "repeat"."""
    _, _, after = done.stdout.partition("repeat")
    return [line.strip() for line in after.splitlines() if line.startswith("  ")]


def test_the_printed_commands_repeat_the_judgments(demo: Demo) -> None:
    """Each printed command succeeds in the kept directory and is silent; a changed bit in a stream is noticed."""
    kept = demo.directory / "kept"
    done = demo("--json", "--keep", str(kept))
    names = [key["name"] for key in json.loads(done.stdout)["keys"]]
    shutil.rmtree(kept)
    commands = commands_of(demo("--keep", str(kept)))
    assert len(commands) == len(names)
    for command, name in zip(commands, names, strict=True):
        right = repeat(demo, kept, command, name)
        assert right.returncode == 0, right.stderr
        assert not noticed(right)
        streams = [kept / f"{name}.out"] if (kept / f"{name}.out").exists() else sorted(kept.glob(f"{name}.*.sig"))
        assert streams
        for stream in streams:
            good = stream.read_bytes()
            stream.write_bytes(good[:50] + bytes([good[50] ^ 1]) + good[51:])
            assert noticed(repeat(demo, kept, command, name)), f"{command}: a changed {stream.name} goes unnoticed"
            stream.write_bytes(good)


def repeat(demo: Demo, kept: Path, command: str, name: str) -> subprocess.CompletedProcess[str]:
    """Run a printed command, without what an earlier judgment left."""
    (kept / f"{name}.judged").unlink(missing_ok=True)
    return shell(demo, kept, command)


def noticed(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether a person would see that the judgment failed."""
    said = (done.stdout + done.stderr).lower()
    return done.returncode != 0 or any(word in said for word in ("differ", "false", "failure"))


def shell(demo: Demo, directory: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run what a reader would type."""
    return subprocess.run(
        ["sh", "-c", command],
        cwd=directory,
        env=demo.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_keep_takes_an_empty_directory(demo: Demo) -> None:
    """A directory that is there and empty will do."""
    kept = demo.directory / "kept"
    kept.mkdir(mode=0o755)
    demo("--keep", str(kept))
    assert secrets_in(kept)


def test_keep_takes_nobody_elses_directory(demo: Demo) -> None:
    """A directory that is not empty is a usage error, and stays as it is."""
    kept = demo.directory / "kept"
    kept.mkdir(mode=0o755)
    (kept / "mine").write_text("mine")
    done = demo("--keep", str(kept), status=2)
    assert done.stdout == ""
    assert "hsmbridge: error: " in done.stderr
    assert "hsmbridge: hint: " in done.stderr
    assert [path.name for path in kept.iterdir()] == ["mine"]
    assert stat.S_IMODE(kept.stat().st_mode) == 0o755


def test_a_directory_with_a_long_name(demo: Demo) -> None:
    """A Unix socket's path has 107 bytes at most; a longer directory works all the same."""
    kept = demo.directory / ("x" * 120)
    demo("--keep", str(kept))
    assert secrets_in(kept)


def test_a_module_without_a_token_label(demo: Demo) -> None:
    """The demo makes keys, so a module alone does not say where it may: exit 2 with a hint."""
    done = demo("--module", "/nonexistent.so", status=2)
    assert "hsmbridge: hint: " in done.stderr
    assert list(demo.directory.iterdir()) == []


def test_a_module_that_is_not_there(demo: Demo) -> None:
    """A module that cannot be loaded is exit 5 with a hint, and nothing is left."""
    pin = demo.directory / "pin"
    pin.touch(mode=0o600)
    pin.write_text("1234")
    arguments = ("--module", "/nonexistent.so", "--token-label", "none", "--pin-file", str(pin))
    done = demo(*arguments, status=5)
    assert "hsmbridge: error: " in done.stderr
    assert "hsmbridge: hint: " in done.stderr
    assert list(demo.directory.iterdir()) == [pin]


def test_the_environment_names_no_token(demo: Demo) -> None:
    """PKCS11_MODULE and PKCS11_TOKEN_LABEL are not obeyed: the demo makes keys only where its arguments say so."""
    more = {"PKCS11_MODULE": "/nonexistent.so", "PKCS11_TOKEN_LABEL": "mine", "PKCS11_PIN": "1234"}
    check_document(json.loads(demo("--json", more=more).stdout))


# What runs beside a throw-away token of ci/with-token: the inventory by pkcs11-tool, the demo, the inventory again.
BESIDE = """
import json, os, pathlib, subprocess, sys
environ, command = os.environ, sys.argv[1]
pin = pathlib.Path(environ["HSMBRIDGE_TEST_DIR"], "pin-file")
pin.touch(mode=0o600)
pin.write_text(environ["PKCS11_PIN"])

arguments = [command, "demo", "--json", "--module", environ["PKCS11_MODULE"], "--pin-file", str(pin)]
arguments += ["--token-label", environ["PKCS11_TOKEN_LABEL"], "--judge-module", environ["PKCS11_JUDGE_MODULE"]]
if "PKCS11_MODULE_ARGS" in environ:
    arguments += ["--module-args", environ["PKCS11_MODULE_ARGS"]]
tool = ["pkcs11-tool", "--module", environ["PKCS11_JUDGE_MODULE"], "--token-label", environ["PKCS11_TOKEN_LABEL"]]
tool += ["--login", "--pin", "env:PKCS11_PIN"]
keygen = ["--keygen", "--key-type", "AES:32", "--label", "bystander", "--id", "0b57", "--sensitive", "--usage-decrypt"]
subprocess.run([*tool, *keygen], capture_output=True, check=True)
listing = lambda: subprocess.run([*tool, "--list-objects"], capture_output=True, text=True, check=True).stdout
before = listing()
del environ["PKCS11_PIN"]
done = subprocess.run(arguments, capture_output=True, text=True)
environ["PKCS11_PIN"] = pin.read_text()
print(json.dumps({"before": before, "after": listing(), "out": done.stdout, "err": done.stderr,
                  "status": done.returncode}))
"""


@pytest.mark.parametrize("name", ["softhsm", "softokn", "softokn-fips"])
def test_on_a_token_of_yours(demo: Demo, name: str) -> None:
    """On a named token the story is the same, and pkcs11-tool lists the same objects before and after."""
    runner = str(ROOT / "ci" / "with-token")
    installed = subprocess.run([runner, name, "--check"], capture_output=True, timeout=SECONDS, check=False)
    if installed.returncode != 0:
        pytest.skip(f"{name} is not installed here")
    done = subprocess.run(
        [runner, name, "--", sys.executable, "-c", BESIDE, COMMAND],
        env=demo.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["status"] == 0, told["err"]
    check_document(json.loads(told["out"]))
    assert "bystander" in told["before"]
    assert told["after"] == told["before"]
    assert list(demo.directory.iterdir()) == []
