"""What a check can find, and the words in which it says so.

A token that refuses what it must refuse, but with another return value than the specification's, is a *finding*; one
that accepts it *fails*. Not being able to do a thing at all is *unsupported*. That the suite itself went wrong is an
*error*, and says nothing about the module.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Call", "Failed", "Finding", "Level", "Result", "Subject", "Unsupported", "Verdict"]


class Level(StrEnum):
    """How much a check weighs."""

    MUST = "must"
    SHOULD = "should"
    INFO = "info"


class Subject(StrEnum):
    """Who is judged: the vendor's module, or hsmbridge on that module."""

    MODULE = "module"
    TOOLKIT = "toolkit"


class Verdict(StrEnum):
    """The outcome of one check with one parameter."""

    PASS = "pass"  # noqa: S105 - a verdict
    FAIL = "fail"
    FINDING = "finding"
    UNSUPPORTED = "unsupported"
    WAIVED = "waived"
    ERROR = "error"


class _Outcome(Exception):  # noqa: N818 - an answer, not an error of the program
    """A check ends early with a verdict; the message is its reason."""

    verdict: Verdict


class Failed(_Outcome):
    """The subject does what it must not do, or does not do what it must."""

    verdict = Verdict.FAIL


class Finding(_Outcome):
    """The right refusal with another return value than the specification names."""

    verdict = Verdict.FINDING


class Unsupported(_Outcome):
    """The module cannot do what the check would look at; the reason says what it answered."""

    verdict = Verdict.UNSUPPORTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Evidence: one PKCS#11 call, or several in a row that answered the same.

    Attributes:
        function: the C function.
        ckr: the name of its return value; None where it never returned.
        times: how often in a row.
    """

    function: str
    ckr: str | None
    times: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One check with one parameter.

    Attributes:
        id: the check's stable ID.
        parameter: what it was done with, without blanks; empty where a check is done once.
        subject, level: those of the check; a crash inside a call of a toolkit check is the module's.
        verdict: see :class:`Verdict`.
        reason: why, for a person; empty on a plain pass.
        calls: the last calls before the verdict.
        seconds: how long it took.
        waiver: the evidence that a waiver cites, where one applied.
    """

    id: str
    parameter: str
    subject: Subject
    level: Level
    verdict: Verdict
    reason: str = ""
    calls: tuple[Call, ...] = ()
    seconds: float = 0.0
    waiver: str = ""

    @property
    def name(self) -> str:
        """ID and parameter, as a person writes them."""
        return f"{self.id}[{self.parameter}]" if self.parameter else self.id
