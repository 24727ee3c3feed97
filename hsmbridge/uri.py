"""``pkcs11:`` URIs: how people and configuration files name a module, a token and an object.

The parser takes what RFC 7512 allows and nothing else; its errors name a place and an attribute, never a value, since a
value may be a PIN. The writer has one canonical form, and whatever it writes is parsed back to an equal value.

Source: RFC 7512 sections 2.3 (syntax), 2.4 (query attributes), 2.5 (matching); RFC 3986 sections 2.1 (percent-encoding)
and 3.1 (scheme).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote_from_bytes

from hsmbridge._uri_grammar import NAME, PATH, PCHARS, QCHARS, QUERY, read_attributes, read_path_value, read_text
from hsmbridge.errors import UriError

__all__ = ["MAX_URI_LENGTH", "MAX_VENDOR_ATTRIBUTES", "OBJECT_TYPES", "Pkcs11Uri", "parse_uri"]

MAX_URI_LENGTH: Final = 8192
"""Characters in a URI. Ours: RFC 7512 has no limit; the longest sensible URI has a few hundred."""

MAX_VENDOR_ATTRIBUTES: Final = 32
"""Vendor attributes in each of path and query. Ours: RFC 7512 has no limit."""

OBJECT_TYPES: Final = frozenset({"cert", "data", "private", "public", "secret-key"})
"""The values of ``type``. Source: RFC 7512 section 2.3, pk11-type."""

# What the writer leaves as it is, beside the unreserved characters: less than the grammar allows, so that of the
# characters that a shell takes for its own only ';', '?' and '&' remain, where the grammar demands them.
_PATH_SAFE: Final = ":,+@"
_QUERY_SAFE: Final = "/:,+@"
_MAX_VERSION: Final = 0xFF  # CK_VERSION holds two CK_BYTEs
_MAX_SLOT_ID: Final = 0xFFFFFFFFFFFFFFFF  # CK_SLOT_ID is a CK_ULONG


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Pkcs11Uri:
    """What a ``pkcs11:`` URI says; an attribute that it does not give is None, which is not the same as an empty one.

    Attributes:
        token, manufacturer, serial, model: of the token (CK_TOKEN_INFO).
        library_manufacturer, library_version, library_description: of the module (CK_INFO);
            the version as (major, minor).
        object: the object's CKA_LABEL.
        type: one of OBJECT_TYPES.
        id: CKA_ID, any bytes.
        slot_manufacturer, slot_description, slot_id: of the slot (CK_SLOT_INFO).
        module_name, module_path: which PKCS#11 module to load.
        pin_source: where the PIN is; see :func:`hsmbridge.pin.resolve_pin`.
        pin_value: the PIN itself. Never in ``repr()`` and ``str()``.
        path_vendor, query_vendor: every other attribute as (name, value), in the order given.

    Raises:
        UriError: a value that no URI can express, so whatever exists can be written and read back.

    Source: RFC 7512 section 2.3.
    """

    token: str | None = None
    manufacturer: str | None = None
    serial: str | None = None
    model: str | None = None
    library_manufacturer: str | None = None
    library_version: tuple[int, int] | None = None
    library_description: str | None = None
    object: str | None = None
    type: str | None = None
    id: bytes | None = None
    slot_manufacturer: str | None = None
    slot_description: str | None = None
    slot_id: int | None = None
    module_name: str | None = None
    module_path: str | None = None
    pin_source: str | None = None
    pin_value: str | None = None
    path_vendor: tuple[tuple[str, str], ...] = ()
    query_vendor: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be written as a URI."""
        self._check_fields()
        self._check_vendor()
        if len(self.to_uri(include_pin=True)) > MAX_URI_LENGTH:
            raise UriError(f"longer than {MAX_URI_LENGTH} characters when written out", hint="name fewer attributes")

    def to_uri(self, *, include_pin: bool = False) -> str:
        """Write the canonical form.

        Args:
            include_pin: also write pin-value, which is otherwise left out.

        Returns:
            The URI, attributes in a fixed order, vendor attributes last, ``id`` percent-encoded throughout.

        Source: RFC 7512 section 2.3.
        """
        path = [f"{name}={self._encoded(name)}" for name in PATH if self._value(name) is not None]
        path += [f"{name}={_encode(name, value, _PATH_SAFE)}" for name, value in self.path_vendor]
        shown = QUERY if include_pin else QUERY[:-1]
        query = [
            f"{name}={_encode(name, self._value(name), _QUERY_SAFE)}" for name in shown if self._value(name) is not None
        ]
        query += [f"{name}={_encode(name, value, _QUERY_SAFE)}" for name, value in self.query_vendor]
        return "pkcs11:" + ";".join(path) + ("?" + "&".join(query) if query else "")

    def __str__(self) -> str:
        """Write the canonical form without the PIN."""
        return self.to_uri()

    def __repr__(self) -> str:
        """Show the URI, and of the PIN only that there is one."""
        return f"Pkcs11Uri({self.to_uri()!r}{'' if self.pin_value is None else ', pin_value=<redacted>'})"

    def matches_token(self, *, label: str, serial: str, manufacturer: str, model: str) -> bool:
        """Say whether a token is one that this URI names.

        Only the attributes that the URI gives are compared, all of them; trailing blanks do not count, since
        CK_TOKEN_INFO pads its fields with them. A path attribute that we do not know never matches: ignoring it would
        name more tokens than meant.

        Source: RFC 7512 section 2.5; PKCS#11 v3.1 section 3.2 (CK_TOKEN_INFO).
        """
        pairs = (
            (self.token, label),
            (self.serial, serial),
            (self.manufacturer, manufacturer),
            (self.model, model),
        )
        return not self.path_vendor and all(wanted is None or _unpad(wanted) == _unpad(seen) for wanted, seen in pairs)

    def _check_fields(self) -> None:
        if self.type is not None and self.type not in OBJECT_TYPES:
            raise UriError(
                "attribute 'type' has an unknown value", hint=f"use one of {', '.join(sorted(OBJECT_TYPES))}"
            )
        if self.library_version is not None and not all(0 <= part <= _MAX_VERSION for part in self.library_version):
            raise UriError("attribute 'library-version' is out of range", hint="each part is at most 255")
        if self.slot_id is not None and not 0 <= self.slot_id <= _MAX_SLOT_ID:
            raise UriError("attribute 'slot-id' is out of range", hint="name the token with token= or serial= instead")
        if self.pin_source is not None and self.pin_value is not None:
            raise UriError("both 'pin-source' and 'pin-value' are given", hint="keep pin-source, drop pin-value")
        for name in QUERY:
            # These end as C strings and file names, where NUL would cut them short unseen.
            if "\0" in (self._value(name) or ""):
                raise UriError(f"attribute '{name}' contains a NUL character", hint="remove %00")

    def _check_vendor(self) -> None:
        names = [name for name, _ in self.path_vendor]
        if len(set(names)) != len(names):
            raise UriError("a vendor attribute is given twice in the path", hint="only the query may repeat them")
        for name, _ in (*self.path_vendor, *self.query_vendor):
            if not NAME.fullmatch(name) or name in PATH or name in QUERY:
                raise UriError("a vendor attribute has a bad or reserved name", hint="use letters, digits, '-' and '_'")
        for component in (self.path_vendor, self.query_vendor):
            if len(component) > MAX_VENDOR_ATTRIBUTES:
                raise UriError(f"more than {MAX_VENDOR_ATTRIBUTES} vendor attributes", hint="name fewer attributes")

    def _value(self, name: str) -> Any:  # noqa: ANN401  # str, bytes, int or tuple: as the field of that name
        return getattr(self, name.replace("-", "_"))

    def _encoded(self, name: str) -> str:
        value = self._value(name)
        match value:
            case bytes():
                return "".join(f"%{byte:02X}" for byte in value)
            case (major, minor):
                return f"{major}.{minor}"
            case int():
                return str(value)
        return _encode(name, value, _PATH_SAFE)


def parse_uri(text: str) -> Pkcs11Uri:
    """Parse a ``pkcs11:`` URI.

    Args:
        text: the URI, percent-encoded, at most MAX_URI_LENGTH characters.

    Returns:
        What it says. ``pin-value`` is accepted, so that the caller can refuse it with a hint that fits.

    Raises:
        UriError: anything that RFC 7512 does not allow; an attribute given twice (vendor attributes of the query may
            be); both pin-source and pin-value; a query attribute in the path or the reverse.

    Source: RFC 7512 section 2.3.
    """
    if len(text) > MAX_URI_LENGTH:
        raise UriError(f"the URI is longer than {MAX_URI_LENGTH} characters", hint="name fewer attributes")
    scheme, colon, rest = text.partition(":")
    # isascii: lower() maps the Kelvin sign to 'k'.
    if not colon or not scheme.isascii() or scheme.lower() != "pkcs11":
        raise UriError("not a PKCS#11 URI", hint="it starts with 'pkcs11:', for example pkcs11:token=NAME;object=LABEL")
    path, _, query = rest.partition("?")
    start = len("pkcs11:")
    fields: dict[str, Any] = {}
    path_vendor, query_vendor = [], []
    for where, name, raw in read_attributes(path, ";", start, PCHARS):
        if name in QUERY:
            raise UriError(
                f"attribute '{name}' at position {where} belongs after '?'", hint=f"write pkcs11:...?{name}=..."
            )
        if name in PATH:
            fields[name.replace("-", "_")] = read_path_value(name, raw, where)
        else:
            path_vendor.append((name, read_text(name, raw, where)))
    for where, name, raw in read_attributes(query, "&", start + len(path) + 1, QCHARS):
        if name in PATH:
            raise UriError(
                f"attribute '{name}' at position {where} belongs before '?'", hint=f"write pkcs11:{name}=...?..."
            )
        if name in QUERY:
            fields[name.replace("-", "_")] = read_text(name, raw, where)
        else:
            query_vendor.append((name, read_text(name, raw, where)))
    return Pkcs11Uri(**fields, path_vendor=tuple(path_vendor), query_vendor=tuple(query_vendor))


def _encode(name: str, value: str, safe: str) -> str:
    try:
        return quote_from_bytes(value.encode(), safe=safe)
    except UnicodeEncodeError:
        pass
    raise UriError(f"attribute '{name}' is not Unicode text", hint="a lone surrogate has no UTF-8 form")


def _unpad(text: str) -> str:
    return text.rstrip(" \0")
