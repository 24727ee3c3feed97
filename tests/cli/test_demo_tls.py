"""`hsmbridge demo --tls`: live connections change process in one command."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli


@pytest.fixture
def quiet(plain: Cli, tmp_path: Path) -> Cli:
    """The command without a token, with a private folder for temporary files."""
    (tmp_path / "t").mkdir()
    return plain.having(TMPDIR=str(tmp_path / "t"))


def test_the_document(quiet: Cli, tmp_path: Path) -> None:
    """Both versions are served across the handoff; the token's key is retained, record keys are destroyed and gone."""
    document = quiet.json("demo", "--tls")
    assert document["schema"] == "hsmbridge.demo.tls/1"
    assert document["ok"] is True
    assert document["secure_pid"] != document["application_pid"]
    assert document["token_key"]["outcome"] == "retained"
    assert document["token_key"]["still_in_token"] is True
    assert [each["version"] for each in document["connections"]] == ["TLS 1.2", "TLS 1.3"]
    for each in document["connections"]:
        assert each["client"] == ("curl" if shutil.which("curl") else "Python ssl")
        assert (each["connections"], each["requests_before"], each["requests_after"]) == (1, 1, 2)
        assert each["right"] is True
        assert each["record_keys"] == ["destroyed", "destroyed"]
        assert each["refused_afterwards"] is True
        assert not each["found_in_memory"]
        assert all(
            end > start for start, end in zip(each["sequences_at_handoff"], each["sequences_at_end"], strict=True)
        )
    assert list((tmp_path / "t").iterdir()) == []


def test_the_table(quiet: Cli) -> None:
    """The table has a line for each version, and ends with ok."""
    lines = quiet("demo", "--tls").text.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("TLS ")] == ["1.2", "1.3"]
    assert lines[-1].startswith("ok: ")


def test_without_the_library(quiet: Cli, tmp_path: Path) -> None:
    """Without tlslite-ng it is exit 5, and the hint says what to install; nothing is left."""
    (tmp_path / "tlslite").mkdir()
    (tmp_path / "tlslite" / "__init__.py").write_text("raise ImportError('not here')\n")
    done = quiet.having(PYTHONPATH=str(tmp_path))("demo", "--tls", status=5)
    assert "hsmbridge[tls-demo]" in done.hint
    assert done.out == b""
    assert list((tmp_path / "t").iterdir()) == []


def test_it_keeps_nothing(quiet: Cli, tmp_path: Path) -> None:
    """--keep and --tls together are a usage error, and no directory is made."""
    assert quiet("demo", "--tls", "--keep", tmp_path / "kept", status=2).hint
    assert not (tmp_path / "kept").exists()
