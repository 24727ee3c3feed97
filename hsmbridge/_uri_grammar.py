"""The lexical half of ``pkcs11:`` URIs: attribute names, character sets, percent-encoding.

Source: RFC 7512 section 2.3; RFC 3986 section 2.1.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from hsmbridge.errors import UriError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["NAME", "PATH", "PCHARS", "QCHARS", "QUERY", "read_attributes", "read_path_value", "read_text"]

PATH: Final = (
    "token",
    "manufacturer",
    "serial",
    "model",
    "library-manufacturer",
    "library-version",
    "library-description",
    "object",
    "type",
    "id",
    "slot-manufacturer",
    "slot-description",
    "slot-id",
)
QUERY: Final = ("module-name", "module-path", "pin-source", "pin-value")
# The ABNF's pk11-res-avail, then what it adds to it for each component.
_RES_AVAIL: Final = r"A-Za-z0-9\-._~:\[\]@!$'()*+,="
PCHARS: Final = re.compile(rf"(?:[{_RES_AVAIL}&]|%[0-9A-Fa-f]{{2}})*")
QCHARS: Final = re.compile(rf"(?:[{_RES_AVAIL}/?|]|%[0-9A-Fa-f]{{2}})*")
NAME: Final = re.compile(r"[A-Za-z0-9_-]+")


def read_attributes(
    component: str, separator: str, start: int, chars: re.Pattern[str]
) -> Iterator[tuple[int, str, bytes]]:
    """Yield (position, name, decoded value) of each attribute; *start* is where the component starts in the URI."""
    pieces = component.split(separator) if component else []
    seen = set()
    where = start
    for piece in pieces:
        name, equals, raw = piece.partition("=")
        if not equals or not NAME.fullmatch(name):
            raise UriError(
                f"no attribute at position {where}", hint=f"write name=value, with '{separator}' only between two"
            )
        end = re.match(chars, raw).end()  # type: ignore[union-attr]  # the pattern matches the empty string
        if end != len(raw):
            what = "bad percent escape" if raw[end] == "%" else "character that must be percent-encoded"
            raise UriError(
                f"attribute '{name}': {what} at position {where + len(name) + 1 + end}",
                hint="write '%' and two hexadecimal digits for each byte: %20 is a blank, %25 a percent sign",
            )
        if name in seen and (separator == ";" or name in QUERY):
            raise UriError(f"attribute '{name}' at position {where} is given twice", hint="give each attribute once")
        seen.add(name)
        yield where, name, unquote_to_bytes(raw)
        where += len(piece) + 1


def read_path_value(name: str, raw: bytes, where: int) -> str | bytes | int | tuple[int, int]:
    """Turn a path attribute's bytes into the type of its field."""
    if name == "id":
        return raw
    text = read_text(name, raw, where)
    if name == "slot-id":
        return _number(name, text, where)
    if name == "library-version":
        major, dot, minor = text.partition(".")
        return _number(name, major, where), _number(name, minor, where) if dot else 0
    return text


def _number(name: str, text: str, where: int) -> int:
    # The length bound comes first: int() raises ValueError beyond 4300 digits. Twenty digits hold any CK_ULONG.
    if not re.fullmatch(r"[0-9]{1,20}", text):
        raise UriError(
            f"attribute '{name}' at position {where} is not a number", hint="write decimal digits, as in 1 or 1.23"
        )
    return int(text)


def read_text(name: str, raw: bytes, where: int) -> str:
    """Turn an attribute's bytes into text."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        pass
    # Raised out here: the caught exception holds the value, which may be a PIN.
    raise UriError(
        f"attribute '{name}' at position {where} is not UTF-8", hint="percent-encode the UTF-8 bytes of the text"
    )
