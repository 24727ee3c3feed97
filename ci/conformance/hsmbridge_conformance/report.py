"""A run's report as data, and what it means: the one document from which every format is made.

Its JSON form is ``hsmbridge.conformance/1``; the schema is published in docs/conformance/report.schema.json.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from hsmbridge_conformance.verdict import Level, Result, Subject, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SCHEMA", "Report"]

SCHEMA = "hsmbridge.conformance/1"

_EXECUTED = frozenset({Verdict.PASS, Verdict.FAIL, Verdict.FINDING, Verdict.WAIVED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one run found.

    Attributes:
        suite: version of the suite.
        started: ISO 8601, UTC; seconds: how long it took.
        module, token: as the module describes itself and the token.
        results: in the order of the catalogue.
        problems: what is wrong with the run itself: waivers that are not so, objects that were left or changed.
        options: what was asked for (level, chapters).
    """

    suite: str
    started: str
    seconds: float
    module: Mapping[str, Any]
    token: Mapping[str, Any]
    results: tuple[Result, ...]
    problems: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def count(self, subject: Subject) -> dict[str, int]:
        """Return how often each verdict was given about *subject*, all verdicts named."""
        counted = Counter(result.verdict for result in self.results if result.subject is subject)
        return {str(verdict): counted[verdict] for verdict in Verdict}

    @property
    def failed(self) -> list[Result]:
        """The results that fail the run: a MUST that failed, or one that could not be judged."""
        bad = (Verdict.FAIL, Verdict.ERROR)
        return [result for result in self.results if result.level is Level.MUST and result.verdict in bad]

    @property
    def why_failed(self) -> list[str]:
        """Everything that makes this a failed run, one sentence each; empty for a good one."""
        reasons = [f"{result.name}: {result.reason}" for result in self.failed]
        if not any(result.level is Level.MUST and result.verdict in _EXECUTED for result in self.results):
            reasons.append("no check of level MUST could be executed: the run says nothing")
        return [*reasons, *self.problems]

    @property
    def ok(self) -> bool:
        """Whether the run is a good one."""
        return not self.why_failed

    def document(self) -> dict[str, Any]:
        """Return the JSON document."""
        return {
            "schema": SCHEMA,
            "suite": self.suite,
            "started": self.started,
            "seconds": self.seconds,
            "module": dict(self.module),
            "token": dict(self.token),
            "options": dict(self.options),
            "checks": [asdict(result) for result in self.results],
            "problems": list(self.problems),
            "summary": {
                "ok": self.ok,
                "why": self.why_failed,
                "module": self.count(Subject.MODULE),
                "toolkit": self.count(Subject.TOOLKIT),
            },
        }
