"""Dozens of threads share one token."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.support.children import run_child
from tests.support.tokens import WayIn

if TYPE_CHECKING:
    from hsmbridge.token import Token
    from tests.token.conftest import TokenEnv

SECONDS = float(os.environ.get("HSMBRIDGE_THREAD_SECONDS", "10"))


def test_48_threads_on_one_token(token: Token, token_env: TokenEnv) -> None:
    """48 threads unwrap, wrap, compare and destroy at once: no crash, no error, no wrong value, nothing left.

    They run in a process of their own, so that a crash of the module is this test's failure and not the end of the run.
    """
    WayIn(token)
    report = run_child("threading_child", token_env, {"HSMBRIDGE_THREAD_SECONDS": str(SECONDS)}, seconds=SECONDS + 120)
    assert report["complaints"] == []
    assert report["left"] == 0
    counts = report["counts"]
    assert counts["unwrapped"] == counts["wrapped"] == counts["destroyed"] > 48
    assert counts["refused"] > 0
