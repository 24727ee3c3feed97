"""``-a NAME=VALUE``: attributes of a new key, by the specification's names without CKA_ in front."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hsmbridge.codes import CKA, CKM
from hsmbridge.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hsmbridge.template import Value

__all__ = ["parse_attributes"]

_BOOLS = (
    CKA.PRIVATE, CKA.SENSITIVE, CKA.EXTRACTABLE, CKA.MODIFIABLE, CKA.COPYABLE, CKA.DESTROYABLE, CKA.ENCRYPT,
    CKA.DECRYPT, CKA.SIGN, CKA.SIGN_RECOVER, CKA.VERIFY, CKA.VERIFY_RECOVER, CKA.WRAP, CKA.UNWRAP, CKA.DERIVE,
    CKA.WRAP_WITH_TRUSTED, CKA.ALWAYS_AUTHENTICATE, CKA.TRUSTED,
)  # fmt: skip
_DECIDED_ELSEWHERE = {
    CKA.TOKEN: "--persist and --dry-run say where the key lives",
    CKA.CLASS: "the key type says it",
    CKA.KEY_TYPE: "the key type says it",
    CKA.VALUE_LEN: "the key type says it",
    CKA.VALUE: "a key's bytes are never an argument",
}
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_DATE = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})", re.ASCII)
_MAX_NUMBER = 0xFFFFFFFFFFFFFFFF


def parse_attributes(items: Iterable[str]) -> dict[int, Value]:
    """Parse all -a options of a command.

    Args:
        items: ``NAME=VALUE``: ``true`` or ``false``, text, ``hex:…``, a date as YYYY-MM-DD, mechanisms separated by
            commas. A vendor's attribute is written as its number, ``0x80000001=hex:00``, or with a number as value.

    Raises:
        UsageError: an unknown name, a value that does not fit it, a name given twice.
    """
    found: dict[int, Value] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"{item!r} is not NAME=VALUE", hint=f"for example -a SIGN=false; names are {_names()}")
        kind = _kind(name)
        if kind in found:
            raise UsageError(f"attribute {name} is given twice", hint="give it once")
        found[kind] = _PARSERS.get(kind, _vendor)(name, value)
    return found


def _kind(name: str) -> int:
    short = name.strip().upper().removeprefix("CKA_")
    kind = CKA.__members__.get(short)
    if kind in _DECIDED_ELSEWHERE:
        raise UsageError(f"attribute {name} is not set with -a", hint=_DECIDED_ELSEWHERE[kind])
    if kind is not None and kind in _PARSERS:
        return kind
    if re.fullmatch(r"0X[0-9A-F]{1,16}", short):
        number = int(short, 16)
        if number not in list(CKA):
            return number
    raise UsageError(
        f"{name!r} is no attribute that can be set", hint=f"names are {_names()}, or a vendor's number as 0x…"
    )


def _names() -> str:
    return ", ".join(sorted(CKA(kind).name for kind in _PARSERS))


def _bad(name: str, wanted: str) -> UsageError:
    return UsageError(f"the value of attribute {name} does not fit", hint=f"write {wanted}")


def _boolean(name: str, value: str) -> bool:
    try:
        return _TRUTH[value.lower()]
    except KeyError:
        raise _bad(name, f"{name}=true or {name}=false") from None


def _hex(name: str, value: str) -> bytes:
    try:
        return bytes.fromhex(value[len("hex:") :])
    except ValueError:
        raise _bad(name, f"{name}=hex: and two hexadecimal digits for each byte") from None


def _bytes(name: str, value: str) -> bytes:
    return _hex(name, value) if value.startswith("hex:") else value.encode("utf-8", "surrogateescape")


def _text(name: str, value: str) -> str:
    del name
    return value


def _date(name: str, value: str) -> bytes:
    from datetime import date

    match = _DATE.fullmatch(value)
    if match is None:
        raise _bad(name, f"{name}=YYYY-MM-DD")
    try:
        date(int(match[1]), int(match[2]), int(match[3]))
    except ValueError:
        raise _bad(name, f"{name}=YYYY-MM-DD, a day that there is") from None
    return "".join(match.groups()).encode()


def _mechanisms(name: str, value: str) -> tuple[int, ...]:
    found = []
    for part in value.split(","):
        member = CKM.__members__.get(part.strip().upper().removeprefix("CKM_"))
        number = member if member is not None else _number(part)
        if number is None:
            raise _bad(name, f"{name}=CKM_AES_CBC,CKM_AES_GCM or numbers as 0x1085")
        found.append(int(number))
    return tuple(found)


def _vendor(name: str, value: str) -> Value:
    """A vendor's attribute: bytes as ``hex:…``, a truth value, or a number."""
    if value.startswith("hex:"):
        return _hex(name, value)
    if value.lower() in ("true", "false"):
        return _boolean(name, value)
    number = _number(value)
    if number is None:
        raise _bad(name, f"{name}=hex:…, true, false or a number")
    return number


def _number(text: str) -> int | None:
    try:
        number = int(text.strip(), 0)
    except ValueError:
        return None
    return number if 0 <= number <= _MAX_NUMBER else None


_PARSERS: dict[int, Callable[[str, str], Value]] = {
    **dict.fromkeys(_BOOLS, _boolean),
    CKA.LABEL: _text,
    CKA.ID: _bytes,
    CKA.SUBJECT: _bytes,
    CKA.START_DATE: _date,
    CKA.END_DATE: _date,
    CKA.ALLOWED_MECHANISMS: _mechanisms,
}
