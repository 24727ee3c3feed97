"""Dozens of threads share one provider."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hsmbridge.dialects import Dialect
from tests.support.children import run_child
from tests.support.tokens import requires, requires_entry

if TYPE_CHECKING:
    from hsmbridge.token import Token
    from tests.token.conftest import TokenEnv

SECONDS = float(os.environ.get("HSMBRIDGE_THREAD_SECONDS", "5"))


def test_48_threads_on_one_provider(token: Token, token_env: TokenEnv) -> None:
    """48 threads export, import, compare and destroy at once: no crash, no error, no wrong value, nothing left.

    They share one provider and one KEK; their keys are software keys and session objects, stopped inside a block.
    All run in a process of their own, so that a crash of the module is this test's failure and not the end of the run.
    """
    requires(token, Dialect.AES_KW)
    requires_entry(token)
    environment = {"HSMBRIDGE_THREAD_SECONDS": str(SECONDS)}
    report = run_child("provider_threads_child", token_env, environment, seconds=SECONDS + 120)
    assert report["complaints"] == []
    assert report["left"] == 0
    counts = report["counts"]
    assert counts["software"] == counts["session"] >= 48
