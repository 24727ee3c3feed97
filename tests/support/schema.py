"""A reader of JSON Schema that knows as much as our schema uses, and refuses a schema that uses more."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["complaints"]

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}
_NOTES = frozenset({"$schema", "$defs", "title", "description"})


def complaints(schema: dict[str, Any], value: object) -> list[str]:
    """Return what is wrong with a value, nothing if it follows the schema.

    Raises:
        NotImplementedError: the schema has a keyword that is not known here.
    """
    return list(_Reader(schema).walk(schema, value, "$"))


class _Reader:
    """Walks a value along a schema; as the standard has it, a keyword about one type of value holds for that only."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._keywords: dict[str, Callable[[Any, Any, str], Iterator[str]]] = {
            "$ref": self._ref,
            "type": self._type,
            "const": lambda rule, value, where: self._enum([rule], value, where),
            "enum": self._enum,
            "pattern": self._pattern,
            "minimum": self._minimum,
            "required": self._required,
            "properties": self._properties,
            "additionalProperties": self._additional,
            "items": self._items,
        }

    def walk(self, schema: dict[str, Any], value: object, where: str) -> Iterator[str]:
        for keyword, rule in schema.items():
            if keyword in _NOTES:
                continue
            if keyword not in self._keywords:
                raise NotImplementedError(keyword)
            if keyword == "additionalProperties" and "properties" in schema:
                raise NotImplementedError("both kinds of properties")
            yield from self._keywords[keyword](rule, value, where)

    def _ref(self, rule: str, value: object, where: str) -> Iterator[str]:
        yield from self.walk(self._root["$defs"][rule.removeprefix("#/$defs/")], value, where)

    def _type(self, rule: str | list[str], value: object, where: str) -> Iterator[str]:
        names = [rule] if isinstance(rule, str) else rule
        allowed = [kind for name in names for kind in _TYPES[name]]
        # In Python a bool is an int, in JSON it is not.
        if not any(type(value) is kind for kind in allowed):
            yield f"{where}: {value!r} is not {rule}"

    def _enum(self, rule: list[object], value: object, where: str) -> Iterator[str]:
        if value not in rule:
            yield f"{where}: {value!r} is not one of {rule}"

    def _pattern(self, rule: str, value: object, where: str) -> Iterator[str]:
        if isinstance(value, str) and not re.search(rule, value):
            yield f"{where}: {value!r} does not match {rule}"

    def _minimum(self, rule: float, value: object, where: str) -> Iterator[str]:
        if isinstance(value, int | float) and value < rule:
            yield f"{where}: {value} is less than {rule}"

    def _required(self, rule: list[str], value: object, where: str) -> Iterator[str]:
        if isinstance(value, dict):
            yield from (f"{where}: no {name}" for name in rule if name not in value)

    def _properties(self, rule: dict[str, dict[str, Any]], value: object, where: str) -> Iterator[str]:
        if isinstance(value, dict):
            for name in rule.keys() & value.keys():
                yield from self.walk(rule[name], value[name], f"{where}.{name}")

    def _additional(self, rule: dict[str, Any], value: object, where: str) -> Iterator[str]:
        if isinstance(value, dict):
            for name, member in value.items():
                yield from self.walk(rule, member, f"{where}.{name}")

    def _items(self, rule: dict[str, Any], value: object, where: str) -> Iterator[str]:
        if isinstance(value, list):
            for number, item in enumerate(value):
                yield from self.walk(rule, item, f"{where}[{number}]")
