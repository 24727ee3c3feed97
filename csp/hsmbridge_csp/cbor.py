"""Deterministic CBOR, and a validator that lets nothing else through.

cbor2 reads more than we want (trailing bytes, duplicate keys, dates, shared values) and its ``canonical`` sorts map
keys by length first, which is not RFC 8949's order. So a byte-level pass runs before it, and what it reads must
encode to the same bytes.

Source: RFC 8949 sections 3 and 4.2.1 (core deterministic encoding).
"""

from __future__ import annotations

from typing import Any, NoReturn

import cbor2

from hsmbridge_csp.errors import NTE, BlobError
from hsmbridge_csp.wipe import wipe

__all__ = ["MAX_DEPTH", "MAX_ITEMS", "decode", "encode"]

MAX_DEPTH = 12
"""Nesting that a blob never reaches: COSE_Sign1 around COSE_Encrypt around recipients needs seven."""

MAX_ITEMS = 10_000
"""Data items in one blob; a key with every attribute has fewer than two hundred."""

_UINT, _NEGINT, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_SIMPLE_VALUES = {20, 21, 22}  # false, true, null
_ONE_BYTE, _EIGHT_BYTES = 24, 27
_HINT = "the blob was damaged or not made by hsmbridge; have the sender export the key again"


def encode(value: Any) -> bytes:  # noqa: ANN401 - any CBOR value
    """Encode with map keys in the bytewise order of their encodings."""
    return cbor2.dumps(_ordered(value))


def _ordered(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        if len(value) > 1:
            value = dict(sorted(value.items(), key=lambda item: cbor2.dumps(item[0])))
        return {key: _ordered(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_ordered(item) for item in value]
    return value


def decode(data: bytes, *, secret: bool = False) -> Any:  # noqa: ANN401 - any CBOR value
    """Decode one data item that must be the whole of *data*, in deterministic encoding and without tags.

    Args:
        data: the bytes.
        secret: overwrite the copy that the comparison makes.

    Raises:
        BlobError: anything else, whatever it is.
    """
    end = _Validator(data).item(0, 0)
    if end != len(data):
        raise BlobError(f"{len(data) - end} bytes behind the end of the CBOR", nte=NTE.BAD_DATA, hint=_HINT)
    try:
        value = cbor2.loads(data)
        again = encode(value)
    except (cbor2.CBORError, ValueError, TypeError, RecursionError):
        raise BlobError("not readable as CBOR", nte=NTE.BAD_DATA, hint=_HINT) from None
    same = again == data
    if secret:
        wipe(again)
    if not same:
        raise BlobError("not in deterministic encoding", nte=NTE.BAD_DATA, hint=_HINT)
    return value


class _Validator:
    """Walks over the encoded bytes without building anything."""

    __slots__ = ("_data", "_items")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._items = 0

    def item(self, at: int, depth: int) -> int:
        """Check the item at offset *at*.

        Returns: the offset behind it.
        """
        self._items += 1
        if depth > MAX_DEPTH or self._items > MAX_ITEMS:
            self._refuse("nested too deeply or too many items", at)
        major, argument, after = self._head(at)
        if major in (_UINT, _NEGINT):
            return after
        if major in (_BYTES, _TEXT):
            end = after + argument
            if end > len(self._data):
                self._refuse("a string runs past the end", at)
            if major == _TEXT:
                self._check_utf8(after, end)
            return end
        if major == _ARRAY:
            for _ in range(self._count(argument, after)):
                after = self.item(after, depth + 1)
            return after
        if major == _MAP:
            return self._map(self._count(argument, after), after, depth)
        if major == _TAG or argument not in _SIMPLE_VALUES:
            self._refuse("tags, floating-point numbers and other simple values do not belong here", at)
        return after

    def _map(self, pairs: int, after: int, depth: int) -> int:
        last = b""
        for _ in range(pairs):
            start = after
            after = self.item(start, depth + 1)
            key = self._data[start:after]
            if key[0] >> 5 == _SIMPLE:  # Python takes true for 1, so it must not stand for a label
                self._refuse("a map key is no number and no string", start)
            if key[0] >> 5 > _TEXT:
                # Python takes true for 1: as a map key it would pass for the label 1.
                self._refuse("a map key is neither a number nor a string", start)
            if key <= last:
                self._refuse("map keys are doubled or out of order", start)
            last = key
            after = self.item(after, depth + 1)
        return after

    def _head(self, at: int) -> tuple[int, int, int]:
        data = self._data
        if at >= len(data):
            self._refuse("truncated", at)
        major, info = data[at] >> 5, data[at] & 31
        if info < _ONE_BYTE:
            return major, info, at + 1
        if info > _EIGHT_BYTES:
            self._refuse("indefinite lengths do not belong here", at)
        size = 1 << (info - _ONE_BYTE)
        end = at + 1 + size
        if end > len(data):
            self._refuse("truncated", at)
        argument = int.from_bytes(data[at + 1 : end], "big")
        # The shortest form only; a simple value in two bytes is one that we do not take anyway.
        smallest = _ONE_BYTE if size == 1 else 1 << (4 * size)
        if argument < smallest or major == _SIMPLE:
            self._refuse("a number is not in its shortest form", at)
        return major, argument, end

    def _count(self, argument: int, after: int) -> int:
        # Every item takes at least a byte, so a count beyond the rest cannot be true and must not cost time.
        if argument > len(self._data) - after:
            self._refuse("an array or map runs past the end", after)
        return argument

    def _check_utf8(self, start: int, end: int) -> None:
        try:
            self._data[start:end].decode("utf-8")
        except UnicodeDecodeError:
            self._refuse("text is not UTF-8", start)

    def _refuse(self, why: str, at: int) -> NoReturn:
        raise BlobError(f"not a blob of ours: {why} (byte {at})", nte=NTE.BAD_DATA, hint=_HINT)
