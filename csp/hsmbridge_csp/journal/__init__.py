"""The journal of handoffs: what was intended, what was done, and what each side has promised.

One SQLite file for each user and host. It never holds a secret or a handle.

Source: docs/handoff.md; the atomic-commit documentation of SQLite (WAL, synchronous=FULL).
"""

from __future__ import annotations

from hsmbridge_csp.journal.entries import Entry, KeyEntry, Phase, Role
from hsmbridge_csp.journal.file import JournalError, journal_path
from hsmbridge_csp.journal.owner import Owner
from hsmbridge_csp.journal.store import Journal

__all__ = ["Entry", "Journal", "JournalError", "KeyEntry", "Owner", "Phase", "Role", "journal_path"]
