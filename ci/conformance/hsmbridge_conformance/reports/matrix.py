"""The matrix mechanism x key type, read from the results of the checks that carry a key across.

Their parameter is ``CKM_NAME/keytype``, such as ``CKM_AES_KEY_WRAP/aes:256``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hsmbridge_conformance.reports.wording import BY_WEIGHT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hsmbridge_conformance.report import Report
    from hsmbridge_conformance.verdict import Result

__all__ = ["SOURCES", "Matrix", "make_matrix"]

SOURCES = ("HSB-E2E-001", "HSB-E2E-002")
"""The checks that fill it: secret keys, and private keys."""

_FAMILIES = ("aes", "des3", "generic", "rsa", "ec", "ed25519")


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """Rows are mechanisms, columns are types of keys.

    Attributes:
        mechanisms, key_types: the headings.
        cells: the result that counts for a mechanism and a type; what was not tried is not in it.
        without: reasons that the checks gave instead of being done with anything.
    """

    mechanisms: tuple[str, ...]
    key_types: tuple[str, ...]
    cells: dict[tuple[str, str], Result]
    without: tuple[str, ...]


def make_matrix(report: Report) -> Matrix:
    """Read the matrix from a run; where two results meet in one cell, the worse one counts."""
    cells: dict[tuple[str, str], Result] = {}
    without: list[str] = []
    for result in report.results:
        if result.id not in SOURCES:
            continue
        mechanism, slash, key_type = result.parameter.partition("/")
        if not slash:
            without.append(result.reason or str(result.verdict))
            continue
        known = cells.get((mechanism, key_type))
        if known is None or BY_WEIGHT.index(result.verdict) < BY_WEIGHT.index(known.verdict):
            cells[mechanism, key_type] = result
    return Matrix(
        mechanisms=_unique(mechanism for mechanism, _ in cells),
        key_types=tuple(sorted(_unique(key_type for _, key_type in cells), key=_by_family)),
        cells=cells,
        without=_unique(without),
    )


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _by_family(key_type: str) -> tuple[int, str, int, str]:
    family, _, size = key_type.partition(":")
    place = _FAMILIES.index(family) if family in _FAMILIES else len(_FAMILIES)
    digits = "".join(char for char in size if char in "0123456789")[:9]
    return place, family, int(digits or "0"), size
