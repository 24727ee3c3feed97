"""HTML made so that text is escaped unless it is markup already: what a token says cannot become an element."""

from __future__ import annotations

import html
from typing import NewType

from hsmbridge_conformance.reports.wording import visible

__all__ = ["Markup", "element", "joined", "safe", "symbol"]

Markup = NewType("Markup", bytes)
"""A piece of HTML, UTF-8. It is no str, so that a type checker tells the two apart wherever they meet."""

_VOID = frozenset({"br", "input", "link", "meta", "wbr"})


def safe(text: object) -> Markup:
    """Escape text for an element or a quoted attribute; control characters are shown as such."""
    return Markup(html.escape(visible(text), quote=True).encode())


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """Make an element.

    Args:
        name: of the element.
        children: markup as it is; everything else as text.
        attributes: ``class_`` for class, ``data_x`` for data-x; True for one without a value, False and None for none.
    """
    parts = [name.encode()]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        label = key.rstrip("_").replace("_", "-").encode()
        parts.append(label if value is True else b'%s="%s"' % (label, safe(value)))
    start = b"<" + b" ".join(parts) + b">"
    return Markup(start if name in _VOID else start + joined(*children) + b"</" + name.encode() + b">")


def joined(*children: object) -> Markup:
    """Put pieces behind one another: markup as it is, everything else as text."""
    return Markup(b"".join(child if isinstance(child, bytes) else safe(child) for child in children))


def symbol(verdict: str) -> Markup:
    """Return the picture of a verdict; the word for those who do not see it stands beside it."""
    use = element("use", href=f"#v-{verdict}")
    return element("svg", use, class_="symbol", aria_hidden="true", focusable="false")
