"""The log of every C_ call, written by OpenSC's pkcs11-spy, shows no destroy that must not be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.children import run_child
from tests.support.spylog import Call, judge, parse
from tests.support.tokens import WayIn, requires_entry

if TYPE_CHECKING:
    from pathlib import Path

    from hsmbridge.token import Token
    from tests.token.conftest import Spy, TokenEnv

MADE = "{n}: C_GenerateKey\n[in] hSession = 0x1\n    CKA_TOKEN             {token}\n[out] hKey = {key}\n"
DESTROYED = "{n}: C_DestroyObject\n[in] hSession = 0x1\n[in] hObject = {key}\n"
READ = "{n}: C_GetAttributeValue\n[in] hSession = 0x1\n[in] hObject = {key}\n    CKA_TOKEN             {token}\n"
FOUND = "{n}: C_FindObjects\n[in] hSession = 0x1\n[out] ulObjectCount = 0x1\nObject {key} matches\n"


def paragraphs(*steps: tuple[str, str, str]) -> str:
    """Write a log by hand: form, handle, CKA_TOKEN."""
    return "".join(
        form.format(n=number, key=key, token=token) + "Returned:  0 CKR_OK\n\n"
        for number, (form, key, token) in enumerate(steps)
    )


def test_all_operations(token: Token, token_env: TokenEnv, spy_env: Spy, tmp_path: Path) -> None:
    """Over all operations each C_DestroyObject hits a session object of this process, once.

    Hardware keys' handles never.
    """
    requires_entry(token)
    WayIn(token)
    output = tmp_path / "spy.log"
    report = run_child("all_operations", token_env, {"PKCS11_MODULE": spy_env.module, **spy_env.environment(output)})
    calls = parse(output.read_text("utf-8", "replace"))
    verdict = judge(calls)
    assert verdict.violations == []
    assert verdict.destroys > 30
    assert {"C_UnwrapKey", "C_WrapKey", "C_GenerateKey", "C_GenerateKeyPair"} <= {call.function for call in calls}
    assert len(report["hardware"]) >= 6
    for handle in report["hardware"]:
        assert last_made(calls, handle) > last_destroyed(calls, handle), hex(handle)
    doctored_logs_are_noticed(output.read_text("utf-8", "replace"), report["hardware"][0])


def last_made(calls: list[Call], handle: int) -> int:
    """Return the number of the last call that returned a handle."""
    return max(call.number for call in calls if handle in call.returned)


def last_destroyed(calls: list[Call], handle: int) -> int:
    """Return the number of the last call that destroyed a handle, -1 if none."""
    return max(
        (call.number for call in calls if call.function == "C_DestroyObject" and handle in call.given), default=-1
    )


def doctored_logs_are_noticed(log: str, hardware: int) -> None:
    """Append to a real log what must not be in it, and have it found."""
    last = [call for call in parse(log) if call.function == "C_DestroyObject"][-1].given[0]
    for handle in (last, hardware, 0xFFFF):
        again = DESTROYED.format(n=999_999, key=hex(handle)) + "Returned:  0 CKR_OK\n\n"
        assert judge(parse(log + again)).violations


@pytest.mark.parametrize(
    ("steps", "complaint"),
    [
        ([(MADE, "0x7", "True"), (DESTROYED, "0x7", "")], "which is token"),
        ([(MADE, "0x7", "False"), (DESTROYED, "0x7", ""), (DESTROYED, "0x7", "")], "dead handle 0x7"),
        ([(MADE, "0x7", "False"), (DESTROYED, "0x7", ""), (READ, "0x7", "False")], "C_GetAttributeValue on the dead"),
        ([(FOUND, "0x7", ""), (DESTROYED, "0x7", "")], "unknown residency"),
        ([(FOUND, "0x7", ""), (READ, "0x7", "False"), (DESTROYED, "0x7", "")], "found, a session object"),
        ([(FOUND, "0x7", ""), (READ, "0x7", "True"), (DESTROYED, "0x7", "")], "which is token"),
        ([(DESTROYED, "0x7", "")], "not known"),
        (
            [(MADE, "0x7", "False"), (DESTROYED, "0x7", ""), (MADE, "0x7", "True"), (DESTROYED, "0x7", "")],
            "which is token",
        ),
    ],
)
def test_the_judge_finds_violations(steps: list[tuple[str, str, str]], complaint: str) -> None:
    """A log with a destroy of a token object, a second destroy, or a dead handle in use is condemned."""
    verdict = judge(parse(paragraphs(*steps)))
    assert any(complaint in violation for violation in verdict.violations), verdict


def test_the_judge_lets_good_logs_pass() -> None:
    """Made, read, destroyed, made again under the same handle and destroyed again: that is as it should be."""
    life = [(MADE, "0x7", "False"), (READ, "0x7", "False"), (DESTROYED, "0x7", "")]
    verdict = judge(parse(paragraphs(*life, (MADE, "0x8", "True"), *life)))
    assert (verdict.violations, verdict.destroys, verdict.reuses, verdict.calls) == ([], 2, 1, 7)


def test_the_parser_overlooks_nothing() -> None:
    """A call without a return value, and a destroy without a handle, are errors and not ignored."""
    log = paragraphs((MADE, "0x7", "False"))
    with pytest.raises(ValueError, match="did not return"):
        parse(log + "5: C_DestroyObject\n[in] hObject = 0x7\n")
    with pytest.raises(ValueError, match="destroys 0 objects"):
        parse(log + "5: C_DestroyObject\nReturned:  0 CKR_OK\n")
    with pytest.raises(ValueError, match="made nothing"):
        parse(log.replace("[out] hKey = 0x7\n", ""))
