"""The progress bar: items come once and in order; nothing is drawn without a terminal, or in the first second."""

from __future__ import annotations

import io
import sys
import time

import pytest
from hsmbridge_cli import progress


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.mark.parametrize(
    ("stream", "pause", "drawn"), [(Terminal, 0.4, True), (Terminal, 0, False), (io.StringIO, 0.4, False)]
)
def test_every_item_comes_once(
    monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO], pause: float, *, drawn: bool
) -> None:
    """Items come once and in order; a bar appears in a terminal, after a second."""
    terminal = stream()
    monkeypatch.setattr(sys, "stderr", terminal)
    seen = []
    for item in progress.watched(range(5), "counting"):
        seen.append(item)
        time.sleep(pause)
    assert seen == list(range(5))
    assert ("counting" in terminal.getvalue()) == drawn
