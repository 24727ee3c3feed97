"""Running the trials of a token, and their outcome as data and as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsmbridge.codes import CKM, name_of
from hsmbridge.dialects import Dialect
from hsmbridge.probe import Probe, Route, probe
from hsmbridge_cli.display import emit_table
from hsmbridge_cli.matrix import KEY_TYPES, Matrix, Trial
from hsmbridge_cli.progress import watched

if TYPE_CHECKING:
    from hsmbridge.token import Token

__all__ = ["Findings", "emit_matrix", "find_out", "mechanism_names", "run_trials", "trial_document"]

Findings = dict[Dialect, Route | str]
"""For each dialect the way to it, or what was tried and what came of it."""


def find_out(token: Token) -> Findings:
    """Probe every dialect, with a progress bar."""
    probed: Probe = probe(token)
    for dialect in watched(list(Dialect), "probing mechanisms"):
        probed.has(dialect)
    return probed.findings()


def run_trials(token: Token, findings: Findings) -> tuple[list[Trial], list[str]]:
    """Carry each type of key through each dialect that works.

    Returns: the trials, and what could not be removed afterwards.
    """
    working = [dialect for dialect, found in findings.items() if isinstance(found, Route)]
    pairs = [(dialect, key_type) for dialect in working for key_type in KEY_TYPES]
    with Matrix(token) as matrix:
        trials = [matrix.try_one(*pair) for pair in watched(pairs, "trying keys")]
    return trials, matrix.debris


def trial_document(findings: Findings, trials: list[Trial], debris: list[str]) -> dict[str, object]:
    """Return the outcome, JSON-ready."""
    dialects = [
        {
            "dialect": str(dialect),
            "source": dialect.source,
            "works": isinstance(found, Route),
            "mechanism": found.mechanism.name if isinstance(found, Route) else None,
            "keeps_length": found.keeps_length if isinstance(found, Route) else None,
            "in_two_calls": isinstance(found, Route) and found.inner is not None,
            "why": "" if isinstance(found, Route) else found,
        }
        for dialect, found in findings.items()
    ]
    matrix = [
        {
            "dialect": trial.dialect,
            "key_type": trial.key_type,
            "wraps": trial.wraps,
            "unwraps": trial.unwraps,
            "why": trial.why,
        }
        for trial in trials
    ]
    return {"dialects": dialects, "matrix": matrix, "debris": debris}


def emit_matrix(findings: Findings, trials: list[Trial]) -> None:
    """Print the matrix: one row for each dialect, one column for each type of key."""
    verdicts = {(trial.dialect, trial.key_type): trial.verdict for trial in trials}
    rows = [
        (
            str(dialect),
            found.mechanism.name if isinstance(found, Route) else "-",
            *(verdicts.get((str(dialect), key_type), "-") for key_type in KEY_TYPES),
        )
        for dialect, found in findings.items()
    ]
    emit_table(("DIALECT", "BY", *KEY_TYPES), rows)


def mechanism_names(token: Token) -> list[str]:
    """Name the mechanisms that the token lists, in the order of their numbers."""
    return [name_of(CKM, number) for number in sorted(token.mechanisms())]
