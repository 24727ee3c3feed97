"""The installed command on a token: the one that ci/with-token gave, else a private SoftHSM for each pytest process."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).resolve().parents[2]
COMMAND = Path(sys.executable).with_name("hsmbridge")
MEMORY = Path("/dev/shm")  # noqa: S108 # token objects are ten times faster there, and mkdtemp makes the directory
SECONDS = 60
OF_A_TOKEN = ("PKCS11_", "SOFTHSM2_", "TPM2_PKCS11_", "HSMBRIDGE_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A finished run.

    Attributes:
        status: the exit code.
        out: standard output; err: standard error.
    """

    status: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.out.decode()

    @property
    def document(self) -> dict[str, Any]:
        """Standard output as the one JSON document that it must be."""
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def hint(self) -> str:
        """What the error's hint says."""
        return next(line for line in self.err.splitlines() if line.startswith("hsmbridge: hint: "))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cli:
    """The command in a directory of its own, with a token's environment.

    Attributes:
        directory: working directory.
        variables: the environment, whole.
    """

    directory: Path
    variables: Mapping[str, str] = field(repr=False)

    def without(self, *names: str) -> Cli:
        """Return the command with an environment that lacks these."""
        return replace(self, variables={name: value for name, value in self.variables.items() if name not in names})

    def having(self, **more: str) -> Cli:
        """Return the command with an environment that has these too."""
        return replace(self, variables={**self.variables, **more})

    def __call__(self, *arguments: str | Path, status: int | None = 0, stdin: bytes = b"") -> Result:
        """Run ``hsmbridge arguments``, and fail the test on another status than *status* or on a traceback."""
        done = subprocess.run(
            [COMMAND, *arguments],
            cwd=self.directory,
            env=dict(self.variables),
            input=stdin,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
        err = done.stderr.decode()
        assert "Traceback" not in err
        if status is not None and done.returncode != status:
            pytest.fail(f"hsmbridge {shlex.join(map(str, arguments))}: {done.returncode} instead of {status}\n{err}")
        return Result(status=done.returncode, out=done.stdout, err=err)

    def json(self, *arguments: str | Path, status: int = 0, stdin: bytes = b"") -> dict[str, Any]:
        """Run with --json and return the document."""
        return self(*arguments, "--json", status=status, stdin=stdin).document

    def tool(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run pkcs11-tool, logged in: a judge of what is in the token."""
        command = [
            "pkcs11-tool",
            "--module",
            self.variables["PKCS11_JUDGE_MODULE"],
            "--login",
            "--pin",
            "env:PKCS11_PIN",
        ]
        command += ["--token-label", self.variables["PKCS11_TOKEN_LABEL"], *map(str, arguments)]
        done = subprocess.run(
            command,
            cwd=self.directory,
            env=dict(self.variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        if check and done.returncode != 0:
            pytest.fail(f"{shlex.join(command)}: {done.stderr}")
        return done

    def inventory(self) -> list[str]:
        """List the token's objects as pkcs11-tool does, in no particular order."""
        return sorted(line.strip() for line in self.tool("-O").stdout.splitlines())

    def put(self, value: bytes, key_type: str = "AES", **attributes: str | bool) -> str:
        """Put a secret key of known bytes, or an RSA public key of known modulus, into the token.

        Returns:
            Its label, which is random unless given.
        """
        named = {"LABEL": f"known-{secrets.token_hex(6)}", "ID": f"hex:{secrets.token_hex(16)}", **attributes}
        order = [{"key_type": key_type, "value": value.hex(), "attributes": named}]
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.put_key"],
            cwd=ROOT,
            env=dict(self.variables),
            input=json.dumps(order),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        if done.returncode != 0:
            pytest.skip(f"the token takes no such key: {done.stderr.splitlines()[-1]}")
        return str(named["LABEL"])

    def put_recipient(self, modulus: int) -> str:
        """Put an RSA public key into the token that may wrap, and nothing else."""
        return self.put(modulus.to_bytes((modulus.bit_length() + 7) // 8, "big"), "RSA", WRAP=True)

    def put_kek(self, value: bytes, **attributes: str | bool) -> str:
        """Put a KEK of known bytes into the token that may wrap and unwrap, and nothing else."""
        return self.put(value, "AES", **{"WRAP": True, "UNWRAP": True, "EXTRACTABLE": False, **attributes})

    def put_key(self, value: bytes, key_type: str = "AES", **attributes: str | bool) -> str:
        """Put an extractable key of known bytes into the token."""
        return self.put(value, key_type, **{"EXTRACTABLE": True, **attributes})


def _plain() -> dict[str, str]:
    """Return the environment without anything that names a token."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(OF_A_TOKEN)},
        "LC_ALL": "C.UTF-8",
        "COLUMNS": "100",
    }


def _started(token: str, directory: str) -> dict[str, str]:
    start = ROOT / "ci" / token / "start"
    printed = subprocess.run([start, directory], env=_plain(), capture_output=True, text=True, check=True).stdout
    # each line is a shell command: export NAME='VALUE'
    return dict(shlex.split(line)[1].split("=", 1) for line in printed.splitlines())


def _instance() -> Iterator[dict[str, str]]:
    base = MEMORY if os.access(MEMORY, os.W_OK) else None
    directory = tempfile.mkdtemp(prefix="hsmbridge-cli.", dir=base)
    try:
        yield {**_plain(), **_started("softhsm", directory)}
    finally:
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def shared_variables() -> Iterator[dict[str, str]]:
    """The environment of the token under test; tests that share it name their keys at random."""
    if "HSMBRIDGE_TEST_TOKEN" in os.environ:
        yield {**os.environ, "LC_ALL": "C.UTF-8", "COLUMNS": "100"}
        return
    yield from _instance()


@pytest.fixture
def cli(tmp_path: Path, shared_variables: dict[str, str]) -> Cli:
    """The command on the token under test."""
    return Cli(directory=tmp_path, variables=shared_variables)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Cli]:
    """The command on a SoftHSM token of this test alone, whatever token is under test."""
    for variables in _instance():
        yield Cli(directory=tmp_path, variables=variables)


@pytest.fixture
def another(tmp_path: Path) -> Iterator[Cli]:
    """The command on a second SoftHSM token, in the same directory."""
    for variables in _instance():
        yield Cli(directory=tmp_path, variables=variables)


@pytest.fixture
def softokn(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """The command on an NSS token of this test alone, in the same directory."""
    if subprocess.run([ROOT / "ci" / "softokn" / "install", "--check"], capture_output=True, check=False).returncode:
        pytest.skip("NSS softokn is not installed")
    return Cli(directory=tmp_path, variables={**_plain(), **_started("softokn", str(tmp_path_factory.mktemp("nss")))})


@pytest.fixture
def plain(tmp_path: Path) -> Cli:
    """The command without any token."""
    return Cli(directory=tmp_path, variables=_plain())


@pytest.fixture(scope="session")
def probed(shared_variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What `token show --probe` found, by dialect: tests ask the token what it can do."""
    found = Cli(directory=tmp_path_factory.mktemp("probe"), variables=shared_variables).json("token", "show", "--probe")
    return {entry["dialect"]: entry for entry in found["dialects"]}
