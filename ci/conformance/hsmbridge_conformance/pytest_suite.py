"""The items of a pytest run: one for each check, with no test file needed.

The suite runs once, for the checks that are selected, when the first of them is reached; the items then report what it
found.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hsmbridge_csp.hardening import disable_core_dumps

from hsmbridge.errors import HsmbridgeError
from hsmbridge.pin import Pin, resolve_pin
from hsmbridge_conformance.reports.wording import call_names, visible
from hsmbridge_conformance.runner import Options, run
from hsmbridge_conformance.target import Target
from hsmbridge_conformance.verdict import Level, Verdict
from hsmbridge_conformance.waivers import parse_waivers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hsmbridge_conformance.catalogue import Check
    from hsmbridge_conformance.report import Report
    from hsmbridge_conformance.verdict import Result

__all__ = ["SuitePlugin"]

_NAME = "hsmbridge"


class SuitePlugin:
    """Adds the items, and runs the suite for them.

    Args:
        config: with the options of :mod:`hsmbridge_conformance.pytest_plugin`.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._report: Report | None = None
        self._unavailable = ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Add an item for each check, before -k and -m choose among them."""
        parent = _Checks.from_parent(session, name=_NAME, nodeid=_NAME)
        items.extend(
            _CheckItem.from_parent(parent, name=entry.id, entry=entry, plugin=self)
            for entry in Options(level=self._level).chosen()
        )
        items.append(_RunItem.from_parent(parent, name="run", plugin=self))

    def pytest_report_header(self) -> str:
        """Name the module at the top of the output."""
        return f"{_NAME}: judging {visible(self._option('module'))}"

    def report(self, session: pytest.Session) -> Report:
        """Run the suite at the first call. The PIN is tried once, whatever comes of it."""
        if self._unavailable:
            pytest.skip(f"the run could not begin: {self._unavailable}")
        if self._report is None:
            selected = [item.name for item in session.items if isinstance(item, _CheckItem)]
            try:
                self._report = self._run(tuple(selected))
            except HsmbridgeError as error:
                self._unavailable = visible(error)
                raise FoundError(f"{visible(error)}\n{visible(error.hint or '')}") from None
        return self._report

    def _run(self, selected: tuple[str, ...]) -> Report:
        waivers = self._option("waivers")
        known = parse_waivers(Path(waivers)) if waivers else None
        disable_core_dumps()
        pin = resolve_pin(pin_file=self._option("pin-file"), environ=os.environ)
        target = Target(
            module=self._option("module") or "",
            module_args=self._option("module-args") or os.environ.get("PKCS11_MODULE_ARGS") or None,
            label=self._option("token-label") or os.environ.get("PKCS11_TOKEN_LABEL") or None,
            pin=pin.reveal() if isinstance(pin, Pin) else None,
        )
        return run(target, Options(level=self._level, only=selected), waivers=known)

    @property
    def _level(self) -> Level:
        return Level(self._option("level") or Level.INFO)

    def _option(self, name: str) -> str | None:
        value: str | None = self._config.getoption(f"--hsmbridge-{name}")
        return value


class FoundError(Exception):
    """An item fails: the message is what it has to say."""


class _Checks(pytest.Collector):
    """Stands where a test file would: the parent of the items."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """Give nothing: the items are added when everything else has been collected."""
        return ()


class _SuiteItem(pytest.Item):
    """One line of pytest's report."""

    def __init__(self, *, plugin: SuitePlugin, **keywords: Any) -> None:  # noqa: ANN401 - pytest's own
        super().__init__(**keywords)
        self._plugin = plugin

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:  # noqa: ANN401 - pytest's own
        """Show what was found, without the suite's own stack."""
        return str(excinfo.value) if excinfo.errisinstance(FoundError) else super().repr_failure(excinfo, style)


class _CheckItem(_SuiteItem):
    """One check, with whatever it was done with."""

    def __init__(self, *, entry: Check, **keywords: Any) -> None:  # noqa: ANN401 - pytest's own
        super().__init__(**keywords)
        self._entry = entry

    def runtest(self) -> None:
        """Report the check's results: failed if one failed, skipped if all are unsupported or waived."""
        results = [one for one in self._plugin.report(self.session).results if one.id == self._entry.id]
        bad = [one for one in results if one.verdict in (Verdict.FAIL, Verdict.ERROR)]
        if bad:
            raise FoundError(f"{self._entry.title}\n\n{_told(bad)}")
        found = [one for one in results if one.verdict is Verdict.FINDING]
        if found:
            self.add_report_section("call", "finding", _told(found))
        if all(one.verdict in (Verdict.UNSUPPORTED, Verdict.WAIVED) for one in results):
            reasons = dict.fromkeys(f"waived: {one.waiver}" if one.waiver else one.reason for one in results)
            pytest.skip(visible("; ".join(reasons)) or "the run did not come to this check")

    def reportinfo(self) -> tuple[str, int | None, str]:
        """Name the check with its title."""
        return _NAME, None, f"{self._entry.id}: {self._entry.title}"


class _RunItem(_SuiteItem):
    """What no check can say: whether the run was one, the waivers are so, the token is as it was."""

    def runtest(self) -> None:
        """Fail where the run itself failed."""
        report = self._plugin.report(self.session)
        failed = {f"{one.name}: {one.reason}" for one in report.failed}
        reasons = [visible(reason) for reason in report.why_failed if reason not in failed]
        if reasons:
            raise FoundError("\n".join(reasons))

    def reportinfo(self) -> tuple[str, int | None, str]:
        """Name it."""
        return _NAME, None, "run: the run as a whole"


def _told(results: Iterable[Result]) -> str:
    lines = []
    for result in results:
        lines.append(f"{visible(result.name)}: {result.verdict}: {visible(result.reason)}")
        lines += [f"    {call}" for call in call_names(result.calls)]
    return "\n".join(lines)
