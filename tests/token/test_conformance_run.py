"""What a run of the conformance suite does to a token: nothing that is left afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hsmbridge.codes import CKA, CKO
from hsmbridge.template import PackedTemplate
from tests.support.shim import build_shim, shim_environment

if TYPE_CHECKING:
    from hsmbridge.token import Token
    from tests.token.conftest import Pkcs11Tool, TokenEnv

FOREIGN = 200
DEADLINE = 60


@pytest.fixture
def softhsm_only(token_env: TokenEnv) -> None:
    """The files of a token can be compared where they are files of ours."""
    if token_env.name != "softhsm":
        pytest.skip("compares the files of SoftHSM's object store, which is the judge here")


@pytest.fixture
def environment(token_env: TokenEnv, tmp_path: Path) -> dict[str, str]:
    """The environment of a run with a state directory of its own."""
    pin = tmp_path / "pin"
    pin.touch(mode=0o600)
    pin.write_text(token_env.pin)
    args = {} if token_env.module_args is None else {"PKCS11_MODULE_ARGS": token_env.module_args}
    return {
        **os.environ,
        **args,
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "PKCS11_MODULE": token_env.module,
        "PKCS11_TOKEN_LABEL": token_env.label,
        "HSMBRIDGE_PIN_FILE": str(pin),
    }


def command(environment: dict[str, str], *arguments: str) -> list[str]:
    """Return the installed command with the PIN file."""
    tool = Path(sys.executable).with_name("hsmbridge")
    return [str(tool), "conformance", *arguments, "--pin-file", environment["HSMBRIDGE_PIN_FILE"]]


def object_files(token_env: TokenEnv) -> dict[str, str]:
    """Return the digests of all object files of the token under test, without SoftHSM's own state."""
    folder = token_env.directory / "tokens"
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*.object")
        if path.name != "token.object"
    }


def make_foreign(token: Token, count: int) -> None:
    """Put data objects of another application into the token."""
    for number in range(count):
        template = PackedTemplate(
            {
                CKA.CLASS: CKO.DATA,
                CKA.TOKEN: True,
                CKA.LABEL: f"foreign {number}",
                CKA.APPLICATION: "somebody else",
                CKA.VALUE: secrets.token_bytes(32),
            }
        )
        with token.sessions as session:
            token.calls.create_object(session, template)


@pytest.mark.usefixtures("softhsm_only")
def test_a_run_leaves_the_token_as_it_was(
    token: Token, token_env: TokenEnv, environment: dict[str, str], pkcs11_tool: Pkcs11Tool
) -> None:
    """With 200 foreign objects: every file of the object store is byte for byte the same, pkcs11-tool's list too."""
    make_foreign(token, FOREIGN)
    before, listed = object_files(token_env), pkcs11_tool("-O").stdout
    done = subprocess.run(
        command(environment, "run", "--json"), env=environment, capture_output=True, text=True, check=False
    )
    report = json.loads(done.stdout)
    assert report["summary"]["module"]["pass"] > FOREIGN // 10, done.stderr
    assert not [reason for reason in report["summary"]["why"] if "token is not what it was" in reason]
    assert len(before) >= FOREIGN
    assert object_files(token_env) == before
    assert pkcs11_tool("-O").stdout == listed


def descendants(pid: int) -> list[int]:
    """Return the processes that *pid* started, and those that they started."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found = parents.get(pid, [])
    return found + [deeper for child in found for deeper in descendants(child)]


@pytest.mark.usefixtures("softhsm_only")
def test_clean_removes_what_a_killed_run_left_and_nothing_else(
    token: Token, token_env: TokenEnv, environment: dict[str, str]
) -> None:
    """With 200 foreign objects: a run is killed while it has objects of its own; `clean` leaves the files as before."""
    make_foreign(token, FOREIGN)
    before = object_files(token_env)
    running = subprocess.Popen(
        command(environment, "run", "--only", "HSB-E2E", "--json"),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + DEADLINE
    while object_files(token_env).keys() <= before.keys():
        assert running.poll() is None, "the run ended before it made an object"
        assert time.monotonic() < deadline
    for pid in (running.pid, *descendants(running.pid)):
        os.kill(pid, signal.SIGKILL)
    running.wait()
    left = object_files(token_env).keys() - before.keys()
    cleaned = subprocess.run(
        command(environment, "clean", "--json"), env=environment, capture_output=True, text=True, check=False
    )
    assert cleaned.returncode == 0, cleaned.stderr
    assert object_files(token_env) == before
    assert len(json.loads(cleaned.stdout)["removed"]) == len(left)


@pytest.mark.usefixtures("softhsm_only")
def test_a_wrong_pin_is_tried_once(
    environment: dict[str, str], token_env: TokenEnv, tmp_path: Path, pkcs11_tool: Pkcs11Tool
) -> None:
    """A wrong PIN ends a run with 5 after one C_Login; the next run is refused until another tool has logged in."""
    journal = tmp_path / "calls"
    variables = {
        **environment,
        **shim_environment(token_env.module, journal=journal),
        "PKCS11_MODULE": str(build_shim(tmp_path)),
    }

    def attempt(pin: str) -> subprocess.CompletedProcess[str]:
        Path(environment["HSMBRIDGE_PIN_FILE"]).write_text(pin)
        return subprocess.run(
            command(environment, "run", "--only", "HSB-WRAP-001"),
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )

    def logins() -> int:
        return sum(" C_Login#" in line and " call" in line for line in journal.read_text().splitlines())

    wrong = attempt("00000000")
    assert (wrong.returncode, logins()) == (5, 1)
    assert "CKR_PIN_INCORRECT" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    refused = attempt(token_env.pin)
    assert (refused.returncode, logins()) == (5, 1)
    assert "that resets the counter" in refused.stderr
    pkcs11_tool("-O")
    assert attempt(token_env.pin).returncode == 0
