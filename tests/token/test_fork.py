"""A fork of a process that has a module open may not use it; a spawned process may."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.children import run_child
from tests.support.tokens import token_key

if TYPE_CHECKING:
    from hsmbridge.token import Token
    from tests.token.conftest import Pkcs11Tool, TokenEnv

ATTEMPTS = {
    "search", "read", "classify", "destroy", "keys", "set", "mechanisms", "probe", "tokens", "open",
}  # fmt: skip


_reports: dict[str, dict[str, Any]] = {}


def requires_second_process(pkcs11_tool: Pkcs11Tool) -> None:
    """Skip where no other process can log in now: a TPM without resource manager has room for one."""
    done = pkcs11_tool("--list-objects", "--type", "data", check=False)
    if done.returncode != 0:
        pytest.skip(f"the token has no room for a second process: {done.stderr}")


@pytest.fixture
def report(token_env: TokenEnv, pkcs11_tool: Pkcs11Tool) -> dict[str, Any]:
    """What a process that forks, and its children, had to say; it is run once."""
    if token_env.label not in _reports:
        requires_second_process(pkcs11_tool)
        _reports[token_env.label] = run_child("forking_child", token_env)
    return _reports[token_env.label]


def test_a_fork_is_refused(report: dict[str, Any]) -> None:
    """In the child of a fork every operation is a ForkError with a hint.

    None reaches the module, where it works by accident.
    """
    assert report["child"] == dict.fromkeys(ATTEMPTS, "ForkError")


def test_a_fork_in_the_middle_of_an_operation_is_refused(report: dict[str, Any]) -> None:
    """A child that is forked while its parent's thread holds a session gets a ForkError too."""
    assert report["child inside an operation"] == dict.fromkeys(ATTEMPTS, "ForkError")


def test_the_parent_goes_on(report: dict[str, Any]) -> None:
    """The parent's sessions, login and objects are as they were after its children have ended."""
    assert report["parent"] is True


def test_spawn_works(token: Token, token_env: TokenEnv, pkcs11_tool: Pkcs11Tool) -> None:
    """A spawned process opens the token that its parent has open, logs in and works."""
    token_key(token)
    requires_second_process(pkcs11_tool)
    assert run_child("forking_child", token_env, {"HSMBRIDGE_SPAWN": "1"})["spawned"] is True
