"""Programs of the tests that run in a process of their own, and how they find their token.

A child is a module of this package with a ``main``. The PIN reaches it through the environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hsmbridge.module import Module

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsmbridge.token import Token
    from tests.token.conftest import TokenEnv

__all__ = ["ROOT", "close", "open_token", "run_child"]

ROOT = Path(__file__).resolve().parents[2]


def run_child(
    name: str, token_env: TokenEnv, environment: Mapping[str, str] | None = None, *, seconds: float = 120
) -> dict[str, Any]:
    """Run ``python -m tests.support.NAME`` on a token and return the JSON document that it prints.

    Args:
        name: the module.
        token_env: the token.
        environment: more variables, which win.
        seconds: until it is taken for hung.

    A crash, a status other than 0 and a hang fail the test with what the child wrote.
    """
    variables = {
        **os.environ,
        "PKCS11_MODULE": token_env.module,
        "PKCS11_TOKEN_LABEL": token_env.label,
        "PKCS11_PIN": token_env.pin,
        "PYTHONFAULTHANDLER": "1",
        **({"PKCS11_MODULE_ARGS": token_env.module_args} if token_env.module_args is not None else {}),
        **(environment or {}),
    }
    command = [sys.executable, "-m", f"tests.support.{name}"]
    try:
        done = subprocess.run(
            command, env=variables, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as hung:
        pytest.fail(f"{name} did not end within {seconds} seconds: {hung.stderr!r}")
    if done.returncode != 0:
        pytest.fail(
            f"{name} ended with {done.returncode} (negative: killed by that signal)\n{done.stdout}{done.stderr}"
        )
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def open_token() -> Token:
    """Open and log in to the token that the environment names; for use in a child."""
    module = Module.open(os.environ["PKCS11_MODULE"], init_args=os.environ.get("PKCS11_MODULE_ARGS"))
    token = module.token(label=os.environ["PKCS11_TOKEN_LABEL"])
    token.login(os.environ["PKCS11_PIN"])
    return token


def close(token: Token) -> None:
    """End the use of a token and its module: a TPM keeps what a process has loaded until C_Finalize."""
    token.close()
    token.calls.finalize()
