"""The report as JSON, and back: ``hsmbridge.conformance/1``, whose schema is docs/conformance/report.schema.json."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from hsmbridge.errors import InputError
from hsmbridge_conformance.report import SCHEMA, Report
from hsmbridge_conformance.verdict import Call, Level, Result, Subject, Verdict

if TYPE_CHECKING:
    from enum import StrEnum

__all__ = ["MAX_BYTES", "parse", "render"]

MAX_BYTES = 32 << 20
"""Ours: a whole run has about a thousand results of half a kilobyte each."""

_ID = re.compile(r"HSB-[A-Z0-9]+-[0-9]{3}")
_E = TypeVar("_E", bound="StrEnum")


def render(report: Report) -> str:
    """Return the document."""
    return json.dumps(report.document(), indent=2) + "\n"


def parse(data: bytes, name: str) -> Report:
    """Read a report that :func:`render` wrote, of this version or of a later one that only adds members.

    Args:
        data: the file's content.
        name: the file's, for messages.

    Raises:
        InputError: it is none, whatever the bytes.
    """
    try:
        document = json.loads(data.decode(), parse_constant=_refuse_constant)
        return _report(document)
    except (ValueError, RecursionError) as error:
        why = "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error) or type(error).__name__
        raise InputError(
            f"{name} is not a report of a conformance run: {why}",
            hint="a report is made by `hsmbridge conformance run --report json:PATH`",
        ) from None


def _report(document: Any) -> Report:  # noqa: ANN401 - JSON
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise ValueError(f"its schema is not {SCHEMA}")
    return Report(
        suite=_text(document, "suite"),
        started=_text(document, "started"),
        seconds=_number(document, "seconds"),
        module=_take(document, "module", dict),
        token=_take(document, "token", dict),
        options=_options(_take(document, "options", dict)),
        results=tuple(_result(entry) for entry in _take(document, "checks", list)),
        problems=tuple(_texts(document, "problems")),
    )


def _options(options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "level": str(_one_of(Level, options, "level")), "only": _texts(options, "only")}


def _result(entry: Any) -> Result:  # noqa: ANN401 - JSON
    if not isinstance(entry, dict):
        raise ValueError("a check is no object")  # noqa: TRY004 - parse() has one kind of error
    check_id = _text(entry, "id")
    if not _ID.fullmatch(check_id):
        raise ValueError(f"{check_id!r} is no check's ID")
    return Result(
        id=check_id,
        parameter=_text(entry, "parameter"),
        subject=_one_of(Subject, entry, "subject"),
        level=_one_of(Level, entry, "level"),
        verdict=_one_of(Verdict, entry, "verdict"),
        reason=_text(entry, "reason"),
        calls=tuple(_call(call) for call in _take(entry, "calls", list)),
        seconds=_number(entry, "seconds"),
        waiver=_text(entry, "waiver"),
    )


def _call(call: Any) -> Call:  # noqa: ANN401 - JSON
    if not isinstance(call, dict):
        raise ValueError("a call is no object")  # noqa: TRY004 - parse() has one kind of error
    ckr = None if call.get("ckr", "") is None else _text(call, "ckr")
    return Call(function=_text(call, "function"), ckr=ckr, times=_take(call, "times", int))


def _take(document: dict[str, Any], name: str, kind: type) -> Any:  # noqa: ANN401 - JSON
    value = document.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{name!r} is missing or malformed")  # noqa: TRY004 - parse() has one kind of error
    return value


def _text(document: dict[str, Any], name: str) -> str:
    value: str = _take(document, name, str)
    return value


def _texts(document: dict[str, Any], name: str) -> list[str]:
    values: list[Any] = _take(document, name, list)
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f"{name!r} is malformed")
    return values


def _number(document: dict[str, Any], name: str) -> float:
    value = document.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:  # noqa: PLR2004 - 30 years
        raise ValueError(f"{name!r} is missing or malformed")
    return float(value)


def _one_of(kind: type[_E], document: dict[str, Any], name: str) -> _E:
    value = _text(document, name)
    if value not in set(kind):
        raise ValueError(f"{name!r} is {value!r}")
    return kind(value)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
