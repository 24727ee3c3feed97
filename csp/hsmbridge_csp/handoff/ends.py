"""What a handoff is for its sender once the keys have left, and once it is over.

Source: docs/handoff.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hsmbridge_csp.disposition import Disposition
    from hsmbridge_csp.handoff.source import Source
    from hsmbridge_csp.journal import Entry

__all__ = ["Moved", "Pending"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A handoff that came to its end.

    Attributes:
        handoff: its id.
        dispositions: what became of each key at the source, in order.
        persisted: whether the keys outlive the recipient's process.
    """

    handoff: bytes
    dispositions: tuple[Disposition, ...]
    persisted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A handoff whose keys have left, sealed, and whose end is not known yet.

    Attributes:
        entry: as it is in the journal.
        sources: frozen.
    """

    entry: Entry
    sources: tuple[Source, ...]
