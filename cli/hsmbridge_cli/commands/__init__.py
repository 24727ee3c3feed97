"""One module per command, loaded when the command is used."""

from __future__ import annotations
