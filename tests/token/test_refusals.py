"""Blobs that must not be imported: the log of every C_ call shows that nothing of them reached the token's keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hsmbridge.dialects import Dialect
from tests.support.children import run_child
from tests.support.spylog import parse
from tests.support.tokens import requires, requires_entry

if TYPE_CHECKING:
    from pathlib import Path

    from hsmbridge.token import Token
    from tests.token.conftest import Spy, TokenEnv

USES_A_KEY = {
    "C_UnwrapKey", "C_DecryptInit", "C_Decrypt", "C_DeriveKey", "C_CreateObject", "C_CopyObject", "C_GenerateKey",
    "C_EncryptInit", "C_SignInit", "C_WrapKey", "C_SetAttributeValue",
}  # fmt: skip
POLICY = ("unsigned", "by a stranger", "unsigned move", "another KEK of the same label", "unsigned, another KEK")
GOOD = "as it was exported"


def of_case(log: bytes, case: dict[str, Any]) -> list[str]:
    """Return the functions that were called during one import."""
    text = log[case["begin"] : case["end"]].decode("utf-8", "replace")
    return [call.function for call in parse(text)] if text else []


def test_nothing_is_unwrapped(token: Token, token_env: TokenEnv, spy_env: Spy, tmp_path: Path) -> None:
    """Unsigned, from strangers, changed, with another KEK: refused as documented, no key used, nothing left."""
    requires(token, Dialect.AES_KW)
    requires_entry(token)
    output = tmp_path / "spy.log"
    report = run_child("refusals", token_env, {"PKCS11_MODULE": spy_env.module, **spy_env.environment(output)})
    log = output.read_bytes()
    good = {name: case for name, case in report.items() if name.endswith(GOOD)}
    bad = {name: case for name, case in report.items() if name not in good}
    assert len(good) == 2
    assert len(bad) > 200
    for name, case in good.items():
        assert case["error"] == [], name
        assert "C_UnwrapKey" in of_case(log, case), name
    for name, case in bad.items():
        family = "PolicyError" if name.split(": ", 1)[1] in POLICY else "InputError"
        assert family in case["error"], (name, case["error"])
        assert case["hint"], name
        # What the believed sender signed is opened with the named KEK; the seal then shows the changed clear part.
        by_the_seal = "blob id" in name and name.endswith(", signed")
        assert USES_A_KEY.isdisjoint(of_case(log, case)) is not by_the_seal, name
        assert case["left"] == 0, name


@pytest.mark.parametrize("used", ["C_UnwrapKey", "C_Decrypt"])
def test_a_use_would_be_seen(used: str) -> None:
    """A call in the bracket of an import is found."""
    before = b"1: C_Login\n[in] hSession = 0x1\nReturned:  0 CKR_OK\n\n"
    call = f"2: {used}\n[in] hSession = 0x1\nReturned:  5 CKR_GENERAL_ERROR\n\n".encode()
    case = {"begin": len(before), "end": len(before) + len(call)}
    assert of_case(before + call, case) == [used]
    assert not USES_A_KEY.isdisjoint(of_case(before + call, case))
