"""The conformance suite is tested: behind each wrong module it fails the checks that it should, and no others.

A run behind the shim is compared with one on the plain SoftHSM. What differs has to be what the table says. A line of
the table that is more than the wrong behaviour's own check says why in its comment.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.conformance import Run, matches, once_for_all_workers
from tests.support.conformance import bench as make_bench
from tests.support.shim import WRONG, build_shim, read_journal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.conformance import Bench, Outcome
    from tests.token.conftest import TokenEnv

DEADLINE = 30
UNAVAILABLE = 5

NOTHING = "C_UnwrapKey answered CKR_OK, but its handle stands for nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrong:
    """What a wrong behaviour does to a run.

    Attributes:
        only: IDs that are run, or their beginnings: those that must notice, and some that must not.
        noticed: ``ID`` or ``ID[parameter]``, with ``*``, to the verdict of every such result, and a part of its reason.
        spared: those among them that are as on the plain module.
        timeout: seconds of silence that are a hang.
        problem: a part of what is wrong with the run itself.
    """

    only: tuple[str, ...]
    noticed: dict[str, Outcome]
    spared: tuple[str, ...] = ()
    timeout: float = 60.0
    problem: str = ""


TABLE = {
    "accepts-flipped-bits": Wrong(
        only=("KAT-004", "UNWRAP-001", "UNWRAP-002", "UNWRAP-003", "UNWRAP-008", "BLOB-004", "SEP-005"),
        noticed={
            "UNWRAP-002[CKM_AES_KEY_WRAP*/flips]": ("fail", "accepted 192 of 192"),
            # There is no refusal whose return value could be right.
            "UNWRAP-008[CKM_AES_KEY_WRAP*/damaged]": ("fail", "it was not refused at all"),
            # The toolkit's own checks damage a wrap, too: it has nothing but the module's integrity check to go by.
            "BLOB-004": ("fail", "a blob was imported that must be refused"),
            "SEP-005": ("fail", "a damaged wrap was opened"),
        },
    ),
    "crashes": Wrong(
        only=("WRAP-001", "WRAP-003", "WRAP-009", "UNWRAP-001", "DESTROY-001", "DESTROY-006"),
        noticed={
            # C_WrapKey cannot be looked at under any mechanism that the module lists, those included that only refuse.
            "WRAP": ("fail", "not done: SIGSEGV ended the process in C_WrapKey when CKM_"),
            # A key has to be wrapped before it can be unwrapped.
            "UNWRAP-001": ("fail", "not done: SIGSEGV ended the process in C_WrapKey when CKM_"),
            # An export wraps.
            "DESTROY-006": ("fail", "SIGSEGV ended the process in C_WrapKey"),
        },
    ),
    "destroy-does-nothing": Wrong(
        only=("WRAP-005", "KAT-004", "DESTROY", "SEP-008", "SEP-012"),
        noticed={
            "DESTROY-001": ("fail", "C_DestroyObject answered CKR_OK, and a process that was started afterwards finds"),
            "DESTROY-002": ("fail", "an attribute was read by the handle of a destroyed object"),
            # CKR_OK is what the module says to that as well.
            "DESTROY-003": ("fail", "an object with CKA_DESTROYABLE=false was destroyed"),
            "DESTROY-004": ("fail", "changed which others there are"),
            "WRAP-005": ("fail", "a handle of a destroyed key was taken as the key"),
            # hsmbridge removes what it made for an import that fails, and cannot.
            "SEP-008": ("fail", "a refused unwrap left an object behind"),
            "SEP-012": ("fail", "a key was found that had been removed"),
        },
        problem="the token is not what it was: 0 objects gone or changed, ",
    ),
    "destroys-neighbour": Wrong(
        only=("WRAP-001", "KAT-001", "DESTROY"),
        noticed={
            "DESTROY-001": ("fail", "a token object is not there for a process that starts afterwards"),
            "DESTROY-004": ("fail", "C_DestroyObject of one session object changed which others there are"),
        },
    ),
    "hangs": Wrong(
        only=("WRAP-001", "KAT-001", "UNWRAP-001", "DESTROY-003", "DESTROY-006"),
        noticed={
            # The first three hang. Then C_UnwrapKey is not called any more, and whatever needs it fails at once. A key
            # of 20 bytes fails before it is unwrapped, on this module.
            "KAT-001[*/aes:*]": ("fail", "it did not come back within 2 s in C_UnwrapKey"),
            "KAT-001": ("fail", "not done: C_UnwrapKey is not called any more"),
            "UNWRAP-001": ("fail", "not done: C_UnwrapKey is not called any more"),
            # An import unwraps.
            "DESTROY-006": ("fail", "not done: C_UnwrapKey is not called any more"),
        },
        spared=("KAT-001[*/generic:20]",),
        timeout=2.0,
    ),
    "ignores-destroyable": Wrong(
        only=("WRAP-001", "DESTROY"),
        noticed={"DESTROY-003": ("fail", "an object with CKA_DESTROYABLE=false was destroyed")},
    ),
    "ignores-extractable": Wrong(
        only=("WRAP-001", "WRAP-002", "ATTR-002", "ATTR-004", "ATTR-005", "DESTROY-003"),
        noticed={
            "WRAP-001": ("fail", "a key with CKA_EXTRACTABLE=false was wrapped"),
            # The attribute keeps the value of a key that is not sensitive from being read, too.
            "ATTR-005[*/unwrapped]": ("fail", "CKA_VALUE of a key with CKA_EXTRACTABLE=false can be read"),
            # The generated one is sensitive. A copy may be asked for that is extractable, and claims not to be.
            "ATTR-005[generated]": ("finding", "C_CopyObject with CKA_EXTRACTABLE=true: CKR_OK, and nothing changes"),
        },
    ),
    "ignores-wrap-flag": Wrong(
        only=("WRAP-001", "WRAP-002", "UNWRAP-001", "SEP-002"),
        noticed={"WRAP-002": ("fail", "a KEK with CKA_WRAP=false wrapped a key")},
    ),
    "leaves-debris": Wrong(
        only=("KAT-004", "UNWRAP-001", "UNWRAP-005", "SEP-008", "DESTROY"),
        noticed={
            # SoftHSM leaves something after most refusals by itself; not after that of a damaged wrapped key.
            "UNWRAP-005": ("fail", "an object is left after a refusal of a flipped bit (CKR_GENERAL_ERROR)"),
            "KAT-004": ("fail", "refused, but an object is left"),
            # The one conflict that the module refuses by itself.
            "SEP-008[aes-as-des3]": ("fail", "a refused unwrap left an object behind"),
        },
        spared=("KAT-004[CKM_AES_KEY_WRAP_PAD/one-block]",),
    ),
    "loses-attributes": Wrong(
        only=("KAT-001", "UNWRAP-001", "ATTR", "DESTROY-003", "E2E-008", "DESTROY-006", "BLOB-001"),
        noticed={
            "ATTR-001[*/usage]": ("fail", "CKA_DERIVE=true answered with CKR_OK, reads false"),
            "ATTR-001[*/names]": ("fail", "answered with CKR_OK, reads ''"),
            "ATTR-008[*/usage]": ("fail", "after the unwrap CKA_DERIVE reads False, not True"),
            "ATTR-008[*/names]": ("fail", "after the unwrap CKA_LABEL reads ''"),
        },
    ),
    "overruns-buffer": Wrong(
        only=("WRAP-001", "WRAP-003", "WRAP-004", "KAT-001"),
        noticed={
            "WRAP-003": ("fail", "bytes were written behind a buffer of "),
            "WRAP-004": ("fail", "bytes were written behind a buffer that was too short"),
        },
    ),
    "pads-lengths": Wrong(
        only=("KAT-001", "KAT-005", "UNWRAP-007", "E2E-001"),
        noticed={
            "KAT-005[*+SHA_1/generic:20]": ("fail", "20 bytes were unwrapped to 32"),
            "E2E-001[*+SHA_1/generic:20]": ("fail", "a key of 20 bytes came back as 32 bytes, changed"),
            # SoftHSM's AES key wrap has made 24 bytes of 20 already.
            "E2E-001[CKM_AES_KEY_WRAP*/generic:20]": ("fail", "a key of 20 bytes came back as 32 bytes, changed"),
        },
    ),
    "readable-sensitive": Wrong(
        only=("ATTR", "WRAP-001", "DESTROY"),
        noticed={
            "ATTR-004[generated]": ("fail", "CKA_VALUE of a key with CKA_SENSITIVE=true can be read"),
            # SoftHSM makes what it unwraps unextractable, which keeps the value; a copy claims what it is not.
            "ATTR-004[*/unwrapped]": ("finding", "C_CopyObject with CKA_SENSITIVE=false: CKR_OK, and nothing changes"),
        },
    ),
    "reuses-handles": Wrong(
        only=("WRAP-005", "DESTROY", "UNWRAP-005"),
        noticed={"DESTROY-002": ("finding", "handles are reused")},
    ),
    "settable-local": Wrong(
        only=("ATTR-001", "ATTR-002", "ATTR-003", "UNWRAP-001"),
        noticed={
            "ATTR-002": ("fail", "after an unwrap CKA_LOCAL reads true"),
            "ATTR-003[*/CKA_LOCAL]": ("fail", "CKA_LOCAL=true in the template of an unwrap is obeyed"),
        },
    ),
    "size-query-too-small": Wrong(
        only=("WRAP-001", "WRAP-003", "WRAP-004", "KAT-001"),
        noticed={"WRAP-003": ("fail", "the size query said ")},
    ),
    "unwrap-does-nothing": Wrong(
        only=("WRAP-001", "KAT-001", "KAT-004", "KAT-005", "UNWRAP-001", "ATTR", "DESTROY-003", "DESTROY-006"),
        noticed={
            # Whatever unwraps, and looks at what there is.
            "KAT-001": ("fail", NOTHING),
            "KAT-004": ("fail", NOTHING),
            "KAT-005": ("fail", NOTHING),
            "UNWRAP-001": ("fail", NOTHING),
            "ATTR": ("fail", NOTHING),
            # hsmbridge does not use a mechanism that does not work.
            "DESTROY-006": ("unsupported", "no blob can be sealed for this token"),
        },
        # Done with generated keys, or failing on this module before they unwrap.
        spared=(
            "ATTR-004[generated]",
            "ATTR-005[generated]",
            "ATTR-008[*/dates]",
            "KAT-001[*/generic:20]",
            "KAT-004[CKM_AES_KEY_WRAP_PAD/one-block]",
        ),
    ),
    "wrong-login": Wrong(
        only=("ATTR-004", "SEP-009", "ACCESS"),
        noticed={"ACCESS-001": ("fail", "an object with CKA_PRIVATE=true is found without a login")},
    ),
}


_NAMED = {check for wrong in TABLE.values() for check in wrong.only}
JUDGED = tuple(sorted(check for check in _NAMED if not any(check != one and check.startswith(one) for one in _NAMED)))
"""What is run on the plain module, to compare with: each that some wrong module is judged by, named once."""


@pytest.fixture(scope="module")
def suite(token_env: TokenEnv, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A token for runs, plain or behind the shim."""
    if token_env.name != "softhsm":
        pytest.skip("the wrong modules were made of SoftHSM")
    shared = for_all_workers(tmp_path_factory)
    shim = Path(once_for_all_workers(shared / "shim", lambda: str(build_shim(tmp_path_factory.mktemp("shim")))))
    with make_bench(shim, shared / "compiled") as made:
        yield made


def for_all_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory that the test processes of one session share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="module")
def baseline(suite: Bench, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """What the plain SoftHSM does: two runs, each made once; of two test processes one begins with either."""
    shared = for_all_workers(tmp_path_factory)
    halves = {"first": JUDGED[: len(JUDGED) // 2], "second": JUDGED[len(JUDGED) // 2 :]}

    def make(half: str) -> str:
        return json.dumps(suite.run("run", *only(halves[half])).document)

    found = {
        half: json.loads(once_for_all_workers(shared / f"{half}.json", partial(make, half)))
        for half in sorted(halves, reverse=os.environ.get("PYTEST_XDIST_WORKER") == "gw1")
    }
    together: dict[str, Any] = {**found["first"], "checks": [*found["first"]["checks"], *found["second"]["checks"]]}
    return Run(returncode=1, stdout=json.dumps(together), stderr="")


def only(chapters: tuple[str, ...]) -> list[str]:
    """Return the options that choose these."""
    return [word for chapter in chapters for word in ("--only", chapter)]


def chosen(results: dict[str, Outcome], chapters: tuple[str, ...]) -> dict[str, Outcome]:
    """Return the results of these chapters."""
    return {name: outcome for name, outcome in results.items() if name.removeprefix("HSB-").startswith(chapters)}


def test_the_table_is_complete() -> None:
    """Every wrong behaviour that the shim has is in the table."""
    assert sorted(TABLE) == sorted(WRONG)


@pytest.mark.parametrize("name", TABLE)
def test_exactly_what_should_notice_it_does(suite: Bench, baseline: Run, name: str) -> None:
    """Behind a wrong module every check fails that should, for the right reason, and no other result changes.

    The run ends with 1 and leaves the token as it was, byte for byte, also where the module crashed or hung. Where the
    module made that impossible, and the run says so, `clean` does it with the plain one.
    """
    wrong = TABLE[name]
    before = suite.objects()
    run = suite.run("run", *only(wrong.only), "--timeout", str(wrong.timeout), **suite.behind(wrong=name))
    plain, found = chosen(baseline.results, wrong.only), run.results
    assert plain.keys() <= found.keys()
    differs = {
        result: outcome
        for result, outcome in found.items()
        if outcome[0] != plain.get(result, ("", ""))[0] and expected(wrong, result) is None
    }
    assert not differs, "results that should be as on the plain module"
    for pattern, (verdict, reason) in wrong.noticed.items():
        seen = {result: found[result] for result in found if expected(wrong, result) == pattern}
        assert seen, f"nothing is called {pattern}"
        missed = {
            result: outcome for result, outcome in seen.items() if outcome[0] != verdict or reason not in outcome[1]
        }
        assert not missed, f"results that should say {verdict}: {reason}"
        assert all(plain.get(result) != outcome for result, outcome in seen.items()), "the plain module does it as well"
    problems = run.document["problems"]
    assert [wrong.problem in problem for problem in problems] == ([True] if wrong.problem else [])
    assert run.returncode == (0 if run.document["summary"]["ok"] else 1)
    assert run.document["summary"]["ok"] is False
    if wrong.problem:
        assert suite.objects() != before
        assert suite.run("clean").returncode == 0
    assert suite.objects() == before


def expected(wrong: Wrong, result: str) -> str | None:
    """Return the first line of the table that speaks of this result."""
    if any(matches(result, pattern) for pattern in wrong.spared):
        return None
    return next((pattern for pattern in wrong.noticed if matches(result, pattern)), None)


def test_diff_names_what_a_wrong_module_made_worse(suite: Bench, baseline: Run, tmp_path: Path) -> None:
    """`conformance diff` of the plain module's report and a wrong one's ends with 1 and names the regressions only."""
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(baseline.stdout)
    new.write_text(suite.run("run", *only(("WRAP-001", "WRAP-002")), **suite.behind(wrong="ignores-wrap-flag")).stdout)
    compared = suite.run("diff", str(old), str(new))
    worse = [change["name"] for change in compared.document["changes"] if change["kind"] == "regression"]
    assert compared.returncode == 1
    assert worse
    assert {name.partition("[")[0] for name in worse} == {"HSB-WRAP-002"}
    assert {name for name in baseline.results if name.startswith("HSB-WRAP-002")} == set(worse)
    back = suite.run("diff", str(new), str(new))
    assert (back.returncode, back.document["changes"]) == (0, [])


# ---- a module that cannot be used at all


def refused(run: Run, *said: str) -> None:
    """Insist on status 5, and one line that says why, with a hint."""
    assert run.returncode == UNAVAILABLE, run.stderr
    assert run.stdout == ""
    error, hint = run.stderr.splitlines()[:2]
    assert error.startswith("hsmbridge: error: ")
    assert hint.startswith("hsmbridge: hint: ")
    assert all(part in error for part in said), error


def loaded_libc() -> str:
    """Return the path of the C library."""
    maps = Path("/proc/self/maps").read_text("utf-8").split()
    return next(word for word in maps if re.fullmatch(r"/\S*/libc[.-]\S*", word))


@pytest.mark.parametrize("what", ["program", "text", "library", "directory", "nothing"])
def test_what_is_no_module_is_refused(suite: Bench, tmp_path: Path, what: str) -> None:
    """A program, a text, a library without C_GetFunctionList, a directory and no file at all: status 5, and why."""
    text = tmp_path / "module.so"
    text.write_text("not a module")
    paths = {"program": "/bin/true", "text": str(text), "library": loaded_libc(), "directory": str(tmp_path)}
    path = paths.get(what, str(tmp_path / "nowhere.so"))
    refused(suite.run("run", PKCS11_MODULE=path), path)


@pytest.mark.parametrize(
    ("actions", "said"),
    [
        ("C_Initialize=before:0x5", "CKR_GENERAL_ERROR"),
        ("C_Initialize=kill-before", "SIGKILL ended the process in C_Initialize"),
        ("C_GetSlotList=before:0x30", "CKR_DEVICE_ERROR"),
        ("C_GetTokenInfo=kill-after", "SIGKILL ended the process in C_GetTokenInfo"),
        ("C_OpenSession=before:0xE2", "CKR_TOKEN_WRITE_PROTECTED"),
        ("C_Login=before:0xA4", "CKR_PIN_LOCKED"),
        ("C_Login=before:0x102", "CKR_USER_PIN_NOT_INITIALIZED"),
        ("C_Login=hang", "it did not come back within 1 s in C_Login"),
        ("C_FindObjectsInit=before:0x32", "CKR_DEVICE_REMOVED"),
    ],
)
def test_a_module_that_does_not_let_one_in_is_refused(suite: Bench, actions: str, said: str) -> None:
    """A module that fails, dies or hangs before the first check: status 5 and why, after one C_Login at most."""
    refused(suite.run("run", "--timeout", "1", **suite.behind(actions=actions)), said)
    assert logins(suite) <= 1


def logins(suite: Bench, answer: int | None = None) -> int:
    """Return how many calls of C_Login the journal has, all or those with this answer."""
    entries = [entry for entry in read_journal(suite.journal) if entry.function == "C_Login"]
    if answer is None:
        return sum(entry.event == "call" for entry in entries)
    return sum(entry.ckr == answer for entry in entries if entry.event == "return")


def test_an_empty_slot_is_refused(suite: Bench, tmp_path: Path) -> None:
    """A module whose only token was never initialised: status 5, without a login."""
    (tmp_path / "tokens").mkdir()
    config = tmp_path / "softhsm2.conf"
    config.write_text(f"directories.tokendir = {tmp_path / 'tokens'}\n")
    refused(suite.run("run", **suite.behind(), SOFTHSM2_CONF=str(config)), "token")
    refused(suite.run("run", **suite.behind(), SOFTHSM2_CONF=str(config), PKCS11_TOKEN_LABEL=""), "token")
    assert logins(suite) == 0


# ---- a token that takes nothing more


MAKING = ("C_CreateObject", "C_GenerateKey", "C_GenerateKeyPair", "C_CopyObject", "C_UnwrapKey", "C_DeriveKey")


@pytest.mark.parametrize("ckr", [0x31, 0xE2])
def test_a_token_that_makes_no_objects_says_nothing(suite: Bench, ckr: int) -> None:
    """A full token, and a read-only one: no check could be done, which is no good run, and no failure of the module."""
    before = suite.objects()
    actions = " ".join(f"{function}=before:{ckr:#x}" for function in MAKING)
    run = suite.run("run", *only(("WRAP-001", "UNWRAP-001", "DESTROY-002")), **suite.behind(actions=actions))
    assert run.returncode == 1
    assert {verdict for verdict, _ in run.results.values()} == {"unsupported"}
    assert run.document["summary"]["why"] == ["no check of level MUST could be executed: the run says nothing"]
    assert suite.objects() == before


def test_a_token_that_is_full_soon_is_told_from_a_wrong_one(suite: Bench) -> None:
    """Room for some keys and no more: what cannot be done is unsupported with CKR_DEVICE_MEMORY, and nothing fails."""
    actions = "C_GenerateKey#14+=before:0x31"
    run = suite.run("run", *only(("WRAP-001", "WRAP-002")), **suite.behind(actions=actions))
    full = [
        reason for verdict, reason in run.results.values() if verdict == "unsupported" and "DEVICE_MEMORY" in reason
    ]
    assert full
    assert {verdict for verdict, _ in run.results.values()} == {"pass", "unsupported"}
    assert run.document["problems"] == []


# ---- a run that is cut short


def test_a_pin_that_stops_working_is_not_tried_again(suite: Bench, tmp_path: Path) -> None:
    """Somebody changes the PIN during a run: the next login fails, no other is tried, and the run says so."""
    armed = tmp_path / "armed"
    changes = suite.behind(actions="C_Login=before:0xA0", armed=armed)
    running = suite.start("run", *only(("WRAP", "KAT-001", "DESTROY-002")), **changes)
    await_journal(suite, b"C_WrapKey")
    armed.touch()
    run = suite.finish(running)
    assert logins(suite, 0xA0) == 1
    assert run.returncode == 1
    assert len(run.document["problems"]) == 2
    assert "CKR_PIN_INCORRECT" in run.document["problems"][0]
    assert "without another login" in run.document["problems"][1]
    assert all(name.startswith("HSB-WRAP") for name in run.results)


def test_a_crash_costs_its_check_only(suite: Bench, baseline: Run) -> None:
    """Killed in its 15th C_WrapKey, the worker leaves one failed result; all others are as on the plain module."""
    checks = ("WRAP-001", "WRAP-002", "WRAP-003")  # the next worker makes less than 15
    run = suite.run("run", *only(checks), **suite.behind(actions="C_WrapKey#15=kill-before"))
    plain = chosen(baseline.results, checks)
    differs = {name: outcome for name, outcome in run.results.items() if outcome[0] != plain[name][0]}
    assert run.results.keys() == plain.keys()
    assert list(differs.values()) == [("fail", "SIGKILL ended the process in C_WrapKey")]


def test_a_mechanism_that_hangs_costs_no_other(suite: Bench, baseline: Run, tmp_path: Path) -> None:
    """The first mechanism hangs when it is tried: its checks fail with the call, those of all others are done."""
    armed = tmp_path / "armed"
    armed.touch()
    changes = suite.behind(actions="C_WrapKey=hang", armed=armed)
    checks = ("WRAP-001", "WRAP-002")
    running = suite.start("run", *only(checks), "--timeout", "2", **changes)
    await_journal(suite, b" action hang")
    armed.unlink()  # the next worker meets a module that is well
    run = suite.finish(running)
    plain = chosen(baseline.results, checks)
    first = next(iter(plain)).partition("[")[2]
    mine = {name: outcome for name, outcome in run.results.items() if name.endswith("[" + first)}
    why = f"not done: it did not come back within 2 s in C_WrapKey when {first[:-1]} was tried"
    assert set(mine.values()) == {("fail", why)}
    rest = run.results.keys() - mine.keys()
    assert rest
    assert {name: run.results[name][0] for name in rest} == {name: plain[name][0] for name in rest}
    assert plain.keys() == run.results.keys()


def await_journal(suite: Bench, text: bytes) -> None:
    """Wait until the shim has written this."""
    deadline = time.monotonic() + DEADLINE
    while not (suite.journal.exists() and text in suite.journal.read_bytes()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
