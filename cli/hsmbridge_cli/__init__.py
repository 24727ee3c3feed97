"""The command ``hsmbridge``."""

from __future__ import annotations
