"""The file of pinned keys, as people leave it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsmbridge_csp.identity import FileIdentity
from hsmbridge_csp.trust import Role, TrustStore, make_pin

if TYPE_CHECKING:
    from pathlib import Path


def test_a_pin_is_added_behind_a_last_line_without_an_end(tmp_path: Path) -> None:
    """An editor left no newline at the end: the next pin gets a line of its own, and both are read back."""
    first, second = (make_pin(Role.SENDER, name, FileIdentity.generate().public_key) for name in ("one", "two"))
    path = tmp_path / "trusted"
    path.write_text(first.line)
    path.chmod(0o600)
    added = TrustStore.load(path).add(path, second)
    assert [pin.line for pin in added.pins] == [first.line, second.line]
    assert [pin.line for pin in TrustStore.load(path).pins] == [first.line, second.line]
