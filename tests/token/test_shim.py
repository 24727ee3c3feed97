"""The shim does what docs/shim.md says: it passes calls on, writes them down, and does harm where it is told to.

The programs that use it here are pkcs11-tool, and children of their own that load it with ctypes.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from hsmbridge.codes import CKA, CKM, CKR
from tests.support.children import ROOT, run_child
from tests.support.shim import WRONG, build_shim, calls, completed, read_journal, shim_environment, through
from tests.support.tokens import requires

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hsmbridge.token import Token
    from tests.support.shim import Entry
    from tests.token.conftest import Pkcs11Tool, TokenEnv

DATA = b"what is hashed"


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shim, compiled."""
    return build_shim(tmp_path_factory.mktemp("shim"))


class Tool:
    """pkcs11-tool on the token under test, through the shim.

    Attributes:
        journal: the shim's; a new run begins an empty one.
    """

    def __init__(self, shim: Path, token_env: TokenEnv, directory: Path) -> None:
        self._shim, self._token, self._directory = shim, token_env, directory
        self.journal, self.data, self.hashed = (directory / name for name in ("journal", "data", "hashed"))
        self.data.write_bytes(DATA)

    def run(
        self, *arguments: str, actions: str = "", armed: Path | None = None, login: bool = True, seconds: float = 30
    ) -> subprocess.CompletedProcess[str]:
        """Run it, whatever its status."""
        self.journal.unlink(missing_ok=True)
        command = ["pkcs11-tool", "--module", str(self._shim), "--token-label", self._token.label, *arguments]
        if login:
            command += ["--login", "--pin", "env:PKCS11_PIN"]
        environment = shim_environment(self._token.judge_module, journal=self.journal, actions=actions, armed=armed)
        return subprocess.run(
            command,
            env={**os.environ, **environment, "LC_ALL": "C", "PKCS11_PIN": self._token.pin},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def hash(self, actions: str = "", armed: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Hash DATA in the token; needs no key, and leaves nothing."""
        self.hashed.unlink(missing_ok=True)
        arguments = ("--hash", "-m", "SHA256", "-i", str(self.data), "-o", str(self.hashed))
        return self.run(*arguments, actions=actions, armed=armed, login=False)

    def entries(self, *events: str) -> list[Entry]:
        """Return what the journal says."""
        return [entry for entry in read_journal(self.journal) if not events or entry.event in events]


@pytest.fixture
def tool(shim: Path, token_env: TokenEnv, tmp_path: Path) -> Tool:
    """pkcs11-tool through the shim."""
    return Tool(shim, token_env, tmp_path)


@pytest.fixture
def hashes(tool: Tool, pkcs11_tool: Pkcs11Tool) -> None:
    """Skip the test on a token that does not hash without a login."""
    arguments = ("--hash", "-m", "SHA256", "-i", str(tool.data), "-o", str(tool.hashed))
    if pkcs11_tool(*arguments, login=False, check=False).returncode != 0:
        pytest.skip("the token does not hash without a login")


@pytest.fixture
def stores(tool: Tool, pkcs11_tool: Pkcs11Tool) -> None:
    """Skip the test on a token that keeps no data objects."""
    named = ("--type", "data", "--label", f"shim {os.urandom(6).hex()}")
    if pkcs11_tool("--write-object", str(tool.data), *named, check=False).returncode != 0:
        pytest.skip("the token keeps no data objects")
    pkcs11_tool("--delete-object", *named)


def test_a_foreign_program_signs_through_it(tool: Tool, token: Token, pkcs11_tool: Pkcs11Tool, tmp_path: Path) -> None:
    """A pair that is generated, used and removed through the shim is a real one: openssl verifies the signature."""
    requires(token, CKM.EC_KEY_PAIR_GEN, CKM.ECDSA)
    key_id = os.urandom(8).hex()
    made = tool.run("--keypairgen", "--key-type", "EC:prime256v1", "--id", key_id, "--label", "through", "--usage-sign")
    assert made.returncode == 0, made.stderr
    assert any("new" in entry.facts for entry in tool.entries("return") if entry.function == "C_GenerateKeyPair")
    try:
        digest, signature, public = (tmp_path / name for name in ("digest", "signature", "public"))
        digest.write_bytes(hashlib.sha256(DATA).digest())
        sign = ("--sign", "-m", "ECDSA", "--signature-format", "openssl", "-i", str(digest), "-o", str(signature))
        done = tool.run(*sign, "--id", key_id)
        assert done.returncode == 0, done.stderr
        pkcs11_tool("--read-object", "--type", "pubkey", "--id", key_id, "-o", str(public))
        verify = ["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", str(public)]
        subprocess.run([*verify, "-sigfile", str(signature), "-in", str(digest)], check=True, capture_output=True)
        tool.run(*sign, "--id", key_id, actions="C_Sign=corrupt-output C_SignFinal=corrupt-output")
        spoilt = subprocess.run([*verify, "-sigfile", signature, "-in", digest], check=False, capture_output=True)
        assert spoilt.returncode != 0
    finally:
        for kind in ("privkey", "pubkey"):
            tool.run("--delete-object", "--type", kind, "--id", key_id)
    assert token.handles({CKA.ID: bytes.fromhex(key_id)}) == []


def test_the_listing_is_the_same(tool: Tool, pkcs11_tool: Pkcs11Tool, token_env: TokenEnv) -> None:
    """What pkcs11-tool shows of the module, its mechanisms and objects is the same with and without the shim."""
    for question in ("--show-info", "--list-mechanisms", "--list-objects"):
        told = tool.run(question).stdout.replace(str(token_env.module), "")
        assert told == pkcs11_tool(question).stdout.replace(str(token_env.module), "")
        assert told or question == "--list-objects"


@pytest.mark.usefixtures("hashes")
def test_the_journal_has_every_call(tool: Tool, token_env: TokenEnv) -> None:
    """Calls are numbered from 1, each has its return, handles and lengths are there, and the PIN and data are not."""
    assert tool.run("--list-objects").returncode == 0
    entries = tool.entries()
    came = calls(entries)
    assert [entry.number for entry in came] == list(range(1, len(came) + 1))
    assert completed(entries)
    assert came[0].function == "C_Initialize"
    assert came[-1].function == "C_Finalize"
    login = next(entry for entry in came if entry.function == "C_Login")
    opened = next(entry for entry in entries if entry.function == "C_OpenSession" and entry.event == "return")
    assert login.facts == {"session": opened.facts["session"]}
    assert token_env.pin not in tool.journal.read_text("ascii").replace(str(login.pid), "")
    assert tool.hash().returncode == 0
    text = tool.journal.read_text("ascii")
    assert "bytes=32" in text
    assert "what" not in text
    assert tool.hashed.read_bytes().hex() not in text


@pytest.mark.usefixtures("hashes")
def test_before_keeps_the_call_away(tool: Tool) -> None:
    """before:CKR is what the program sees."""
    done = tool.hash("C_DigestInit=before:0x30")
    assert "CKR_DEVICE_ERROR" in done.stderr
    assert [entry.action for entry in tool.entries("action")] == ["before:0x30"]
    answer = next(entry for entry in tool.entries("return") if entry.function == "C_DigestInit")
    assert answer.ckr == CKR.DEVICE_ERROR


@pytest.mark.usefixtures("stores")
@pytest.mark.parametrize(("mode", "effect"), [("before", 0), ("after", 1)])
def test_before_and_after_differ_in_the_effect(tool: Tool, token: Token, mode: str, effect: int) -> None:
    """Under after:CKR the object is written all the same; under before:CKR it is not; the program sees one error."""
    label = f"shim {mode} {os.urandom(6).hex()}"
    named = ("--type", "data", "--label", label)
    done = tool.run("--write-object", str(tool.data), *named, actions=f"C_CreateObject={mode}:0x30")
    try:
        assert "CKR_DEVICE_ERROR" in done.stderr
        answer = next(entry for entry in tool.entries("return") if entry.function == "C_CreateObject")
        assert (answer.ckr, answer.facts) == (CKR.DEVICE_ERROR, {})
        assert len(token.handles({CKA.LABEL: label})) == effect
    finally:
        tool.run("--delete-object", *named)


@pytest.mark.usefixtures("hashes")
@pytest.mark.parametrize("mode", ["kill-before", "kill-after"])
def test_kill_is_a_real_one(tool: Tool, mode: str) -> None:
    """The program ends by SIGKILL in that very call: the journal has it, and no return."""
    done = tool.hash(f"C_DigestInit#1={mode}")
    assert done.returncode == -signal.SIGKILL
    last = tool.entries()[-2:]
    assert [(entry.function, entry.event, entry.action) for entry in last] == [
        ("C_DigestInit", "call", None),
        ("C_DigestInit", "action", mode),
    ]
    assert not completed(tool.entries())


@pytest.mark.usefixtures("stores")
@pytest.mark.parametrize(("mode", "effect"), [("kill-before", 0), ("kill-after", 1)])
def test_kill_after_comes_after_the_effect(tool: Tool, token: Token, mode: str, effect: int) -> None:
    """An object is there if the program was killed after C_CreateObject, and not if it was killed before."""
    label = f"shim {mode} {os.urandom(6).hex()}"
    named = ("--type", "data", "--label", label)
    done = tool.run("--write-object", str(tool.data), *named, actions=f"C_CreateObject={mode}")
    shown = tool.run("--list-objects", "--type", "data").stdout
    tool.run("--delete-object", *named)
    assert done.returncode == -signal.SIGKILL
    assert shown.count(label) == effect
    assert token.handles({CKA.LABEL: label}) == []


@pytest.mark.usefixtures("hashes")
def test_hang_never_returns(tool: Tool) -> None:
    """The call is still under way when the time is up."""
    with pytest.raises(subprocess.TimeoutExpired):
        tool.run("--hash", "-m", "SHA256", "-i", str(tool.data), actions="C_DigestInit=hang", login=False, seconds=1)
    assert [entry.action for entry in tool.entries("action")] == ["hang"]
    assert tool.entries()[-1].event == "action"


@pytest.mark.usefixtures("hashes")
def test_output_is_damaged(tool: Tool) -> None:
    """corrupt-output changes one bit of the hash that openssl computes, short-length takes its last byte off."""
    right = subprocess.run(["openssl", "dgst", "-sha256", "-binary", tool.data], check=True, capture_output=True).stdout
    assert tool.hash().returncode == 0
    assert tool.hashed.read_bytes() == right
    assert tool.hash("C_Digest=corrupt-output,C_DigestFinal=corrupt-output").returncode == 0
    assert tool.hashed.read_bytes() == bytes([right[0] ^ 1]) + right[1:]
    assert tool.hash("C_Digest=short-length;C_DigestFinal=short-length").returncode == 0
    assert tool.hashed.read_bytes() == right[:-1]


def test_what_cannot_be_damaged_is_said(tool: Tool) -> None:
    """A rule on the N-th call that meets one without output lets it be, and the journal says so."""
    assert tool.run("--list-slots", actions="@1=corrupt-output", login=False).returncode == 0
    assert [entry.action for entry in tool.entries("action")] == ["corrupt-output nothing to damage"]


@pytest.mark.usefixtures("stores")
def test_attributes_are_damaged(tool: Tool) -> None:
    """Under corrupt-output an attribute is not read as it was written."""
    label = f"shim value {os.urandom(6).hex()}"
    named = ("--type", "data", "--label", label)
    tool.run("--write-object", str(tool.data), *named)
    read = ("--read-object", *named, "-o", str(tool.hashed))
    try:
        assert tool.run(*read).returncode == 0
        assert tool.hashed.read_bytes() == DATA
        tool.hashed.unlink()
        tool.run(*read, actions="C_GetAttributeValue=corrupt-output")
        assert not tool.hashed.exists() or tool.hashed.read_bytes() != DATA
        assert "corrupt-output" in {entry.action for entry in tool.entries("action")}
    finally:
        tool.run("--delete-object", *named)


def test_logout_and_lost_session_are_real(tool: Tool) -> None:
    """Before the call the user is logged out, or the session is closed, and the module itself then refuses."""
    tool.run("--list-objects", actions="C_FindObjectsInit#1=lose-session")
    refused = next(entry for entry in tool.entries("return") if entry.function == "C_FindObjectsInit")
    assert refused.ckr == CKR.SESSION_HANDLE_INVALID
    label = f"shim logout {os.urandom(6).hex()}"
    done = tool.run(
        "--write-object", str(tool.data), "--type", "data", "--label", label, "--private",
        actions="C_CreateObject=logout",
    )  # fmt: skip
    assert done.returncode != 0
    refused = next(entry for entry in tool.entries("return") if entry.function == "C_CreateObject")
    assert refused.ckr != CKR.OK


def test_onwards_lasts(tool: Tool) -> None:
    """A + makes the rule last: from the third call on the token is gone for good."""
    assert tool.run("--list-slots", actions="@3+=before:0x32", login=False).returncode != 0
    returned = tool.entries("return")
    assert len(returned) > 3
    assert all((entry.ckr == CKR.DEVICE_REMOVED) == (entry.number >= 3) for entry in returned)


@pytest.mark.usefixtures("hashes")
def test_the_first_rule_that_matches_acts(tool: Tool) -> None:
    """Of two rules for one call the first acts, alone."""
    tool.hash("C_DigestInit#2=kill-before C_DigestInit=before:0x30 C_DigestInit#1=before:0x31")
    assert [entry.action for entry in tool.entries("action")] == ["before:0x30"]


@pytest.mark.usefixtures("hashes")
def test_counting_begins_when_armed(tool: Tool, tmp_path: Path) -> None:
    """Until the file exists calls have the number 0 and no rule applies; from then on they count from 1."""
    armed = tmp_path / "armed"
    assert tool.hash("@1=before:0x30", armed=armed).returncode == 0
    assert {(entry.number, entry.nth) for entry in tool.entries()} == {(0, 0)}
    armed.touch()
    tool.hash("@1=before:0x30", armed=armed)
    first = calls(tool.entries())[0]
    assert (first.function, first.number) == ("C_Initialize", 1)
    assert tool.entries("return")[0].ckr == CKR.DEVICE_ERROR


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ("C_Unwrap=hang", "no such function"),
        ("C_UnwrapKey#0=hang", "must be 1 or more"),
        ("C_UnwrapKey#x=hang", "must be 1 or more"),
        ("@=hang", "must be 1 or more"),
        ("@-1=hang", "must be 1 or more"),
        ("C_UnwrapKey+=hang", "+ needs a number"),
        ("C_UnwrapKey", "WHEN=ACTION"),
        ("C_UnwrapKey=explode", "no such action"),
        ("C_UnwrapKey=before", "return value is missing"),
        ("C_UnwrapKey=after:CKR_OK", "return value is missing"),
        ("C_UnwrapKey=before:0x30z", "return value is missing"),
        ("C_UnwrapKey=hang:1", "takes no return value"),
        ("C_UnwrapKey=corrupt-output", "no output buffer"),
        ("C_GetSlotList=logout", "no session"),
        ("C_WrapKey=hang, @3=" + "x" * 100, "too long"),
        (" ".join(["@1=hang"] * 65), "too many rules"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(tool: Tool, rule: str, complaint: str) -> None:
    """The module does not load, and stderr says which rule is wrong and why."""
    done = tool.run("--list-slots", actions=rule, login=False)
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("hsmbridge-shim: error: ")]
    assert len(said) == 1
    assert complaint in said[0]
    assert not tool.journal.exists()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HSMBRIDGE_SHIM_MODULE", ""),
        ("HSMBRIDGE_SHIM_MODULE", "/nowhere/module.so"),
        ("HSMBRIDGE_SHIM_MODULE", "/proc/self/exe"),
        ("HSMBRIDGE_SHIM_JOURNAL", "/nowhere/journal"),
        ("HSMBRIDGE_SHIM_WRONG", "behaves"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(shim: Path, token_env: TokenEnv, variable: str, value: str) -> None:
    """The module does not load, and stderr names the variable."""
    done = subprocess.run(
        ["pkcs11-tool", "--module", shim, "--list-slots"],
        env={**os.environ, **shim_environment(token_env.judge_module), variable: value},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode != 0
    assert done.stderr.startswith(f"hsmbridge-shim: error: {variable}: ")


def test_interfaces_are_forwarded(shim: Path, token_env: TokenEnv, tmp_path: Path) -> None:
    """C_GetInterfaceList and C_GetInterface answer as the real module does, and calls through 3.x lists are seen.

    A real module of v2.40 has neither function; in front of one the shim shows its one list.
    """
    journal = tmp_path / "journal"
    environment = shim_environment(token_env.module, journal=journal, extra={"SHIM_TASK": "interfaces"})
    report = run_child("shim_lists", through(shim, token_env), environment)
    assert report["listed"] == report["singly"]
    assert report["unknown refused"]
    versions = [tuple(version) for _, version, *_ in report["listed"]]
    assert any(version < (3, 0) for version in versions)
    try:
        real = run_child("shim_lists", token_env, {"SHIM_TASK": "interfaces"})
    except pytest.fail.Exception:  # it has no such functions
        assert report["names"] == ["PKCS 11"]
    else:
        assert report == real
    functions = [entry.function for entry in calls(read_journal(journal))]
    assert functions.count("C_GetSessionInfo") == 2 * len(versions)
    assert functions.count("C_SessionCancel") == 2 * sum(version >= (3, 0) for version in versions)


def test_threads_do_not_wait_for_each_other(shim: Path, token_env: TokenEnv, tmp_path: Path) -> None:
    """Of eight threads one hangs in the shim, the others go on; all calls are in the journal, numbered."""
    journal = tmp_path / "journal"
    environment = shim_environment(
        token_env.module, journal=journal, actions="C_GetInfo#5=hang", extra={"SHIM_TASK": "threads"}
    )
    assert run_child("shim_lists", through(shim, token_env), environment)["done"] == 7
    numbers = [entry.number for entry in calls(read_journal(journal))]
    assert len(set(numbers)) == len(numbers) > 7 * 200


@pytest.mark.parametrize("flags", [["-O0"], ["-O3", "-flto"]])
def test_it_compiles_without_headers_or_warnings(tmp_path: Path, flags: list[str]) -> None:
    """The source needs a C11 compiler and the C library: no PKCS#11 header, and nothing that a compiler warns of."""
    flags = [*flags, "-pedantic", "-Wshadow", "-Wstrict-prototypes", "-Wmissing-prototypes"]
    assert build_shim(tmp_path, *flags).stat().st_size > 0
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "ci" / "shim").glob("*.[ch]"))
    assert "p11-kit" not in sources
    assert "pkcs11.h" not in sources


@pytest.fixture
def probe(shim: Path, token_env: TokenEnv) -> Callable[[str, str | None], str]:
    """Run a probe in a process of its own and say what came of it."""

    def run(name: str, wrong: str | None) -> str:
        environment = shim_environment(
            token_env.module, wrong=wrong, extra={"SHIM_PROBE": name, "PYTHONFAULTHANDLER": ""}
        )
        try:
            report = run_child("shim_probes", through(shim, token_env), environment, seconds=5)
        except pytest.fail.Exception as failure:
            if "did not end" in str(failure):
                return "hung"
            if f"ended with {-signal.SIGSEGV}" in str(failure):
                return "crashed"
            raise
        assert not report["unable"], report["unable"]
        return "wrong" if report["wrong"] else "right"

    return run


@pytest.mark.parametrize("name", WRONG)
def test_wrong_behaviour(name: str, probe: Callable[[str, str | None], str], token_env: TokenEnv) -> None:
    """The behaviour shows in a probe, which finds the module right without it."""
    if token_env.name != "softhsm":
        pytest.skip("the wrong modules are made out of SoftHSM, which does right what they do wrong")
    assert probe(name, None) == "right"
    assert probe(name, name) == {"crashes": "crashed", "hangs": "hung"}.get(name, "wrong")


def test_every_wrong_behaviour_is_known() -> None:
    """The table in C was read: if it could not be, the test above would prove nothing."""
    assert len(WRONG) == 18
    assert {"crashes", "hangs", "wrong-login"} < set(WRONG)
