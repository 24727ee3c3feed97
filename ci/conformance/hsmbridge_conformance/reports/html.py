"""The report as one HTML page that holds all it needs: it can be mailed, archived and opened from a disk.

Source: Content Security Policy Level 3 section 2.3.1 (hashes): the page runs its own style and script, nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from hsmbridge_conformance.reports.htmlchecks import check_list, filter_form, worth_reading
from hsmbridge_conformance.reports.htmlmatrix import matrix_section
from hsmbridge_conformance.reports.markup import Markup, element, joined, safe, symbol
from hsmbridge_conformance.reports.wording import BY_WEIGHT, facts, module_name, standings
from hsmbridge_conformance.verdict import Verdict

if TYPE_CHECKING:
    from hsmbridge_conformance.report import Report
    from hsmbridge_conformance.reports.wording import Standing

__all__ = ["render"]

_WORD_VERDICT = {"passes": Verdict.PASS, "fails": Verdict.FAIL, "not judged": Verdict.UNSUPPORTED}


def render(report: Report) -> str:
    """Return the page."""
    style, script = _resource("page.css"), _resource("page.js")
    module, toolkit = standings(report)
    parts = {
        "policy": safe(
            f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
            "base-uri 'none'; form-action 'none'"
        ),
        "title": safe(f"{module_name(report)} {module.word} - hsmbridge conformance"),
        "style": Markup(style.encode()),
        "script": Markup(script.encode()),
        "header": _header(report),
        "standings": joined(_card(module, main=True), _card(toolkit, main=False)),
        "why": _why(report),
        "facts": _facts(report),
        "matrix": matrix_section(report),
        "worth": worth_reading(report),
        "filter": filter_form(report),
        "checks": check_list(report),
    }
    return Template(_resource("page.html")).substitute({key: part.decode() for key, part in parts.items()})


def _header(report: Report) -> Markup:
    token = report.token
    return joined(
        element("p", "hsmbridge conformance", class_="over"),
        element("h1", module_name(report)),
        element(
            "p",
            "token ",
            element("strong", token.get("label") or "-"),
            f", {token.get('model') or 'no model'}, firmware {token.get('firmware') or '-'}. ",
            f"{report.started.replace('T', ' ').replace('+00:00', ' UTC')}, {report.seconds:.1f} s.",
            class_="sub",
        ),
    )


def _card(standing: Standing, *, main: bool) -> Markup:
    verdict = _WORD_VERDICT[standing.word]
    counts = [
        element(
            "li", symbol(shown), f"{standing.counts[shown]} ", element("span", str(shown)), class_=f"chip v-{shown}"
        )
        for shown in BY_WEIGHT
        if standing.counts[shown]
    ]
    return element(
        "section",
        element("h2", standing.title, element("span", " "), element("strong", symbol(verdict), standing.word)),
        element("p", f"{standing.sentence[:1].upper()}{standing.sentence[1:]}."),
        _bar(standing),
        element("ul", *counts, class_="chips"),
        class_=f"card v-{verdict}" + (" main" if main else ""),
    )


def _bar(standing: Standing) -> Markup:
    """A bar whose parts are as long as the verdicts are many, the good ones first."""
    total = sum(standing.counts.values())
    if not total:
        return Markup(b"")
    parts, left = [], 0.0
    for verdict in reversed(BY_WEIGHT):
        width = 100 * standing.counts[verdict] / total
        if width:
            parts.append(element("rect", x=f"{left:.3f}", width=f"{width:.3f}", height=1, class_=f"v-{verdict}"))
        left += width
    told = ", ".join(f"{count} {verdict}" for verdict, count in standing.counts.items() if count)
    return element(
        "svg", *parts, class_="bar", viewBox="0 0 100 1", preserveAspectRatio="none", role="img", aria_label=told
    )


def _why(report: Report) -> Markup:
    """What makes the whole run fail besides results: those are told below, with their evidence."""
    failed = {f"{result.name}: {result.reason}" for result in report.failed}
    reasons = [reason for reason in report.why_failed if reason not in failed]
    if not reasons:
        return Markup(b"")
    items = (element("li", reason) for reason in reasons)
    return element("section", element("h2", "The run itself fails"), element("ul", *items), class_="card v-fail")


def _facts(report: Report) -> Markup:
    return joined(*(element("div", element("dt", name), element("dd", value)) for name, value in facts(report)))


def _resource(name: str) -> str:
    return files("hsmbridge_conformance.reports").joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
