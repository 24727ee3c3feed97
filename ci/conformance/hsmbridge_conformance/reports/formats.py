"""The forms by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsmbridge.errors import UsageError
from hsmbridge_conformance.reports import as_json, as_waivers, html, junit, markdown

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsmbridge_conformance.report import Report

__all__ = ["FORMATS", "parse_destination", "render"]

FORMATS: dict[str, Callable[[Report], str]] = {
    "html": html.render,
    "junit": junit.render,
    "md": markdown.render,
    "json": as_json.render,
    "waivers": as_waivers.render,
}
"""Name, as ``--report`` takes it, to the function that makes the text."""


def render(report: Report, name: str) -> bytes:
    """Return a report in one of the forms, UTF-8."""
    return FORMATS[name](report).encode()


def parse_destination(text: str) -> tuple[str, str]:
    """Read ``FORMAT:PATH``.

    Returns: the two.

    Raises:
        UsageError: there is no such form, or no path.
    """
    name, _, path = text.partition(":")
    if name not in FORMATS or not path:
        raise UsageError(
            f"{text!r} is not FORMAT:PATH", hint=f"write --report html:report.html; there are {', '.join(FORMATS)}"
        )
    return name, path
