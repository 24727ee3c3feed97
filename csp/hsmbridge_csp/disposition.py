"""What became of a key at the source, and the evidence.

Source: CryptoAPI CryptDestroyKey; docs/residency.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hsmbridge.residency import Residency

__all__ = ["Disposition", "Outcome"]


class Outcome(StrEnum):
    """What became of a key at the source."""

    DESTROYED = "destroyed"
    RETAINED = "retained"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disposition:
    """The answer of ``destroy_key``.

    Attributes:
        outcome: destroyed, or retained because it lives in hardware or may do so.
        residency: where its only copy lived.
        evidence: what says so.
    """

    outcome: Outcome
    residency: Residency
    evidence: tuple[str, ...]
