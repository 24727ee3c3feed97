"""A sample of the fault sweeps, and the proof that they find what they should (docs/faults.md)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.token.conftest import TokenEnv

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 240


@pytest.fixture(autouse=True)
def on_softhsm(token_env: TokenEnv) -> None:
    """Skip on another token: the sweeps make their own SoftHSM, and need to be run once only."""
    if token_env.name != "softhsm":
        pytest.skip("the sweeps run on a SoftHSM of their own")


def sweep(*options: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own: this one has a module open."""
    command = [sys.executable, "-m", "tests.sweep", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)


def test_a_sample_of_the_sweep() -> None:
    """Each operation undisturbed, and each kind of fault once in each kind of process: no violation."""
    done = sweep("--reduced")
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 violations" in done.stdout


def test_deliberate_mistakes_are_found() -> None:
    """With each of the mistakes made in the package on purpose, the case that is hit by it has the violation."""
    done = sweep("--sabotage")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 of 6 mistakes were found" in done.stdout
