"""Handing keys over: export, deliver, prove, destroy as one transaction.

Source: docs/handoff.md.
"""

from __future__ import annotations
