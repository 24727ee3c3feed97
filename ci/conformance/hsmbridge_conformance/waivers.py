"""Waivers: results that a vendor knows of, each with its evidence; and expected results, which are the same thing.

One line each: ID, parameter (``*`` and ``?`` match as in a shell; ``-`` where the check has none), verdict, evidence.

    HSB-WRAP-001  CKM_AES_KEY_WRAP*  fail  C_WrapKey -> CKR_OK for a key with CKA_EXTRACTABLE=false

Waivers are strict: one whose check passes, a pattern that also fits a check that passes, and one that fits nothing at
all fail the run, so that a file never says more than what is so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from hsmbridge.errors import InputError
from hsmbridge_conformance.catalogue import all_checks
from hsmbridge_conformance.verdict import Level, Result, Verdict

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

__all__ = ["Waiver", "Waivers", "parse_waivers", "unnamed"]

_LINE = re.compile(r"(HSB-[A-Z0-9]+-[0-9]{3})\s+(\S+)\s+(fail|finding|unsupported)\s+(\S.*)")
_WAIVABLE = frozenset({Verdict.FAIL, Verdict.FINDING, Verdict.UNSUPPORTED})
_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiver:
    """One line.

    Attributes:
        line: its number in the file; id, parameter, verdict, evidence: its fields.
    """

    line: int
    id: str
    parameter: str
    verdict: Verdict
    evidence: str

    def fits(self, result: Result) -> bool:
        """Whether the line is about this check and parameter, whatever the verdict."""
        return self.id == result.id and fnmatchcase(result.parameter or "-", self.parameter)

    def __str__(self) -> str:
        return f"line {self.line}: {self.id} {self.parameter} {self.verdict}"


class Waivers:
    """A file of waivers.

    Args:
        entries: its lines.
        name: the file's, for messages.
    """

    def __init__(self, entries: Sequence[Waiver], name: str) -> None:
        self._entries = tuple(entries)
        self._name = name

    def among(self, chosen: Collection[str]) -> Waivers:
        """Return the lines that a run of some checks can be held to: those about others of the catalogue wait.

        Args:
            chosen: IDs.
        """
        others = {entry.id for entry in all_checks()} - set(chosen)
        return Waivers([entry for entry in self._entries if entry.id not in others], self._name)

    def apply(self, results: Sequence[Result]) -> tuple[list[Result], list[str]]:
        """Waive what is waived.

        Args:
            results: of the run.

        Returns: the results with the waived ones marked, and one sentence for each line that is not so.
        """
        used: set[Waiver] = set()
        waived = []
        for result in results:
            entry = next(
                (
                    entry
                    for entry in self._entries
                    if entry.fits(result) and entry.verdict is result.verdict and result.verdict in _WAIVABLE
                ),
                None,
            )
            if entry is None:
                waived.append(result)
                continue
            used.add(entry)
            verdict = Verdict.WAIVED if result.verdict is not Verdict.UNSUPPORTED else Verdict.UNSUPPORTED
            waived.append(replace(result, verdict=verdict, waiver=entry.evidence))
        problems = [self._why_not_so(entry, results, used=entry in used) for entry in self._entries]
        return waived, [problem for problem in problems if problem is not None]

    def _why_not_so(self, entry: Waiver, results: Sequence[Result], *, used: bool) -> str | None:
        fitting = [result for result in results if entry.fits(result)]
        if used:
            passing = next((result.name for result in fitting if result.verdict is Verdict.PASS), None)
            return passing and f"{self._name}, {entry}: it also fits {passing}, which passes; write a narrower line"
        seen = sorted({str(result.verdict) for result in fitting})
        what = f"its checks say {', '.join(seen)}" if seen else "no check of the run fits it"
        return f"{self._name}, {entry}: {what}; take the line out"


def unnamed(results: Sequence[Result]) -> list[str]:
    """Return one sentence for each result but a pass that no waiver names; what fails the run anyway is left out."""
    return [
        f"{result.name}: {result.verdict}, which no line of the waivers expects"
        for result in results
        if not result.waiver
        and result.verdict is not Verdict.PASS
        and not (result.level is Level.MUST and result.verdict in (Verdict.FAIL, Verdict.ERROR))
    ]


def parse_waivers(path: Path) -> Waivers:
    """Read a file of waivers or expected results.

    Raises:
        InputError: it cannot be read, or a line is malformed.
    """
    try:
        raw = path.read_bytes()
        if len(raw) > _MAX_BYTES:
            raise InputError(f"{path} is too long for a file of waivers", hint="it holds one line for each result")
        text = raw.decode()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", hint="--waivers takes a text file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text", hint="--waivers takes a text file in UTF-8") from None
    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None:
            raise InputError(
                f"{path}, line {number}: not a waiver",
                hint="a line is: ID PARAMETER fail|finding|unsupported EVIDENCE, with - for no parameter",
            )
        check_id, parameter, verdict, evidence = found.groups()
        entries.append(
            Waiver(line=number, id=check_id, parameter=parameter, verdict=Verdict(verdict), evidence=evidence)
        )
    return Waivers(entries, str(path))
