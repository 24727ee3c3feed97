"""What a page of HTML holds, by the standard library's parser: elements, their attributes, the text of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Self

__all__ = ["Page"]

_VOID = frozenset({"meta", "input", "br", "wbr", "img", "link", "hr"})


@dataclass(slots=True)
class Page:
    """A page.

    Attributes:
        elements: name and attributes, in their order.
        texts: text by the name of the innermost element.
        unbalanced: end tags that fit no open element, and elements that were never closed.
    """

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: dict[str, list[str]] = field(default_factory=dict)
    unbalanced: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, text: str) -> Self:
        """Parse a page."""
        page = cls()
        reader = _Reader(page)
        reader.feed(text)
        reader.close()
        page.unbalanced += reader.open
        return page

    @property
    def text(self) -> str:
        """All text but that of styles and scripts."""
        return "".join(part for name, parts in self.texts.items() if name not in {"style", "script"} for part in parts)

    @property
    def ids(self) -> list[str]:
        """All fragments that a link can lead to."""
        return [attributes["id"] or "" for _, attributes in self.elements if "id" in attributes]

    def all(self, name: str) -> list[dict[str, str | None]]:
        """Return the attributes of all elements of a name."""
        return [attributes for element, attributes in self.elements if element == name]


class _Reader(HTMLParser):
    def __init__(self, page: Page) -> None:
        super().__init__(convert_charrefs=True)
        self._page = page
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._page.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._page.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()
        else:
            self._page.unbalanced.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        self._page.texts.setdefault(self.open[-1] if self.open else "", []).append(data)
