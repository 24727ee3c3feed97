"""The token under test: the one that ci/with-token put into the environment, else a private SoftHSM."""

from __future__ import annotations

import ctypes
import os
import secrets
import shlex
import shutil
import subprocess
import tempfile
from ctypes import byref, c_ubyte, c_ulong
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hsmbridge.module import Module
    from hsmbridge.token import Token

CI = Path(__file__).parents[2] / "ci"
MEMORY = Path("/dev/shm")  # noqa: S108 # token objects are ten times faster there, and mkdtemp makes the directory
COMMAND_SECONDS = 60

# PKCS#11 v3.1 section 3 and 5.6
CKF_RW_SESSION, CKF_SERIAL_SESSION, CKU_SO, CKU_USER = 2, 4, 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEnv:
    """A throw-away token.

    Attributes:
        name: softhsm, softokn, softokn-fips, opencryptoki or tpm2.
        module: path of the PKCS#11 module.
        module_args: string for C_Initialize's pReserved.
        label: the token's label.
        pin: the user's PIN.
        so_pin: the security officer's PIN; NSS has none.
        judge_module: path of a module with the same token for programs that call C_Initialize(NULL).
        directory: the instance's private directory.
    """

    name: str
    module: str
    module_args: str | None
    label: str
    pin: str = field(repr=False)
    so_pin: str | None = field(repr=False)
    judge_module: str
    directory: Path


class Pkcs11Tool(Protocol):
    """Runs pkcs11-tool on a token, by default logged in on the one under test; fails the test if the tool fails."""

    def __call__(
        self, *arguments: str, login: bool = True, check: bool = True, on: TokenEnv | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``pkcs11-tool arguments``.

        Args:
            arguments: what follows the module, the token and the login.
            login: log the user in.
            check: fail the test if the status is not 0.
            on: another token than the one under test.

        Returns:
            The finished process with stdout and stderr as text.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Spy:
    """OpenSC's pkcs11-spy: a module that logs each call and passes it on.

    Attributes:
        module: path of pkcs11-spy.so.
        target: path of the module that does the work.
    """

    module: str
    target: str

    def environment(self, output: Path) -> dict[str, str]:
        """Return what a process must find in its environment.

        Args:
            output: the log; each process appends to it.
        """
        return {"PKCS11SPY": self.target, "PKCS11SPY_OUTPUT": str(output)}


def _token_env(variables: Mapping[str, str]) -> TokenEnv:
    return TokenEnv(
        name=variables["HSMBRIDGE_TEST_TOKEN"],
        module=variables["PKCS11_MODULE"],
        module_args=variables.get("PKCS11_MODULE_ARGS"),
        label=variables["PKCS11_TOKEN_LABEL"],
        pin=variables["PKCS11_PIN"],
        so_pin=variables.get("PKCS11_SO_PIN"),
        judge_module=variables["PKCS11_JUDGE_MODULE"],
        directory=Path(variables["HSMBRIDGE_TEST_DIR"]),
    )


def _run(
    command: list[str], environment: Mapping[str, str] | None = None, *, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run *command* without PINs in its arguments, and show its stderr if it fails."""
    done = subprocess.run(
        command,
        env={**os.environ, "LC_ALL": "C", **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    if check and done.returncode != 0:
        pytest.fail(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stderr or done.stdout}")
    return done


@pytest.fixture(scope="session")
def token_env() -> Iterator[TokenEnv]:
    """The token under test; without ci/with-token, each pytest process (each xdist worker) makes its own SoftHSM."""
    if "HSMBRIDGE_TEST_TOKEN" in os.environ:
        yield _token_env(os.environ)
        return
    base = MEMORY if os.access(MEMORY, os.W_OK) else None
    directory = tempfile.mkdtemp(prefix="hsmbridge-pytest.", dir=base)
    with pytest.MonkeyPatch.context() as patch:
        try:
            printed = _run([str(CI / "softhsm" / "start"), directory]).stdout
            # each line is a shell command: export NAME='VALUE'
            variables = dict(shlex.split(line)[1].split("=", 1) for line in printed.splitlines())
            # The module reads this when it is initialised, in this process and in those that tests start.
            patch.setenv("SOFTHSM2_CONF", variables["SOFTHSM2_CONF"])
            yield _token_env(variables)
        finally:
            shutil.rmtree(directory)


@pytest.fixture(scope="session")
def module(token_env: TokenEnv) -> Module:
    """The module under test, open in this process."""
    from hsmbridge.module import Module  # noqa: PLC0415 # tests without a token need not load it

    return Module.open(token_env.module, init_args=token_env.module_args)


@pytest.fixture(scope="session")
def token(module: Module, token_env: TokenEnv) -> Iterator[Token]:
    """The token under test, with the user logged in for the whole session."""
    found = module.token(label=token_env.label)
    found.login(token_env.pin)
    yield found
    found.close()


@pytest.fixture(autouse=True)
def _unloaded(request: pytest.FixtureRequest, token_env: TokenEnv) -> Iterator[None]:
    """After each test a TPM gets back the room of the keys that the test used: at C_Logout, and not before."""
    yield
    if token_env.name == "tpm2" and "token" in request.fixturenames:
        found: Token = request.getfixturevalue("token")
        _log_in_anew(ctypes.CDLL(token_env.module), found.slot_id, token_env.pin.encode())


@pytest.fixture
def pkcs11_tool(token_env: TokenEnv) -> Pkcs11Tool:
    """OpenSC's pkcs11-tool, an independent judge, on the token under test."""

    def run(
        *arguments: str, login: bool = True, check: bool = True, on: TokenEnv | None = None
    ) -> subprocess.CompletedProcess[str]:
        target = on or token_env
        command = ["pkcs11-tool", "--module", target.judge_module, "--token-label", target.label]
        if login:
            command += ["--login", "--pin", "env:PKCS11_PIN"]
        return _run([*command, *arguments], {"PKCS11_PIN": target.pin}, check=check)

    return run


def _call(library: ctypes.CDLL, name: str, *arguments: object) -> None:
    ckr = getattr(library, name)(*arguments)
    assert ckr == 0, f"{name} returned {ckr:#x}"


def _log_in_anew(library: ctypes.CDLL, slot: int, pin: bytes) -> None:
    """Log the process out and in again; its sessions stay open."""
    flags, session = c_ulong(CKF_SERIAL_SESSION | CKF_RW_SESSION), c_ulong()
    _call(library, "C_OpenSession", c_ulong(slot), flags, None, None, byref(session))
    _call(library, "C_Logout", session)
    _call(library, "C_Login", session, c_ulong(CKU_USER), pin, c_ulong(len(pin)))
    _call(library, "C_CloseSession", session)


def _make_token(library: ctypes.CDLL, label: str, so_pin: bytes, pin: bytes) -> None:
    """Turn the blank token that SoftHSM always shows in its last slot into one with this label and these PINs.

    Not with a tool: this process would not see a token that another one has made until it initialises the module again.
    """
    call = partial(_call, library)
    count, session = c_ulong(), c_ulong()
    call("C_GetSlotList", c_ubyte(0), None, byref(count))
    slots = (c_ulong * count.value)()
    call("C_GetSlotList", c_ubyte(0), slots, byref(count))
    blank = c_ulong(slots[count.value - 1])
    call("C_InitToken", blank, so_pin, c_ulong(len(so_pin)), label.ljust(32).encode())
    call("C_OpenSession", blank, c_ulong(CKF_SERIAL_SESSION | CKF_RW_SESSION), None, None, byref(session))
    call("C_Login", session, c_ulong(CKU_SO), so_pin, c_ulong(len(so_pin)))
    call("C_InitPIN", session, pin, c_ulong(len(pin)))
    call("C_Logout", session)
    call("C_CloseSession", session)


@pytest.fixture
def new_token(module: Module, token_env: TokenEnv) -> Callable[[], TokenEnv]:
    """Return a function that makes one more token in the same module, with its own label and PINs."""
    if token_env.name != "softhsm":
        pytest.skip(f"{token_env.name} holds one token only; a second one is made in SoftHSM")

    def make() -> TokenEnv:
        label = f"hsmb-more-{secrets.token_hex(6)}"
        so_pin, pin = (f"{secrets.randbelow(10**8):08}" for _ in range(2))
        _make_token(ctypes.CDLL(module.path), label, so_pin.encode(), pin.encode())
        return replace(token_env, label=label, pin=pin, so_pin=so_pin)

    return make


@pytest.fixture
def spy_env(token_env: TokenEnv) -> Spy:
    """OpenSC's pkcs11-spy in front of the module under test."""
    for pattern in ("*/pkcs11-spy.so", "*/pkcs11/pkcs11-spy.so"):
        for path in sorted(Path("/usr/lib").glob(pattern)):
            return Spy(module=str(path), target=token_env.module)
    pytest.skip("pkcs11-spy.so is not installed (Debian package opensc)")
