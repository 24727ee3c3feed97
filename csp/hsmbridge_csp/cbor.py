"""Deterministic CBOR: a decoder that takes nothing else, and an encoder in RFC 8949's order of map keys.

cbor2 reads more than we want (trailing bytes, duplicate keys, floating-point numbers, dates, shared values), and some
tags make it work hard before anybody can look at the result. So decoding is our own: one pass that checks each byte and
builds at once. cbor2 encodes; its ``canonical`` sorts map keys by length first, which is not RFC 8949's order, so we
give it maps that are in order.

Source: RFC 8949 sections 3 and 4.2.1 (core deterministic encoding).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NoReturn

import cbor2

from hsmbridge_csp.errors import NTE, BlobError

__all__ = ["MAX_DEPTH", "MAX_ITEMS", "decode", "encode"]

MAX_DEPTH = 12
"""Nesting that a blob never reaches: COSE_Sign1 around COSE_Encrypt around recipients needs seven."""

MAX_ITEMS = 10_000
"""Data items in one blob; a key with every attribute has fewer than two hundred."""

_HINT = "the blob was damaged or not made by hsmbridge; have the sender export the key again"

# The first byte of an item: three bits of major type, five of information (RFC 8949 section 3).
_NEGINT, _BYTES, _TEXT, _ARRAY, _MAP, _TAG = (major << 5 for major in range(1, 7))
_INFORMATION = 31
_IN_ONE_BYTE = 24
"""Information below this is the argument itself."""

_WHOLE_ITEMS = {
    **{number: number for number in range(_IN_ONE_BYTE)},
    **{_NEGINT | number: -1 - number for number in range(_IN_ONE_BYTE)},
    0xF4: False,
    0xF5: True,
    0xF6: None,
}
"""Items that are one byte: what they stand for. Of the simple values there are no others for us."""

_LONG_ARGUMENTS = {24: (1, 24), 25: (2, 1 << 8), 26: (4, 1 << 16), 27: (8, 1 << 32)}
"""By information: the argument's bytes, and the smallest number that needs so many."""

_INDEFINITE = (0, 1)
"""For all other information: no number is large enough."""

_LEAVES = frozenset({int, bytes, str, bool, bytearray, type(None)})
_KEYS = (int, str, bytes)
_FEW_KEYS = 32
"""Maps with more keys are not worth remembering."""


def encode(value: Any) -> bytes:  # noqa: ANN401 - any CBOR value
    """Encode with map keys in the bytewise order of their encodings."""
    return cbor2.dumps(value if type(value) in _LEAVES or _in_order(value) else _ordered(value))


def _in_order(value: Any) -> bool:  # noqa: ANN401
    if isinstance(value, dict):
        if len(value) > _FEW_KEYS or not _keys_in_order(*value):
            return False
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return True
    for item in value:  # noqa: SIM110 - `all` would take twice the time
        if type(item) not in _LEAVES and not _in_order(item):
            return False
    return True


@lru_cache(maxsize=256, typed=True)  # True and 1 are equal, and encoded differently
def _keys_in_order(*keys: object) -> bool:
    if not all(isinstance(key, _KEYS) for key in keys):
        return False
    encoded = [cbor2.dumps(key) for key in keys]
    return encoded == sorted(encoded)


def _ordered(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        if len(value) > 1:
            value = dict(sorted(value.items(), key=lambda item: cbor2.dumps(item[0])))
        return {key: _ordered(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_ordered(item) for item in value]
    return value


def decode(data: bytes) -> Any:  # noqa: ANN401 - any CBOR value
    """Decode one data item that must be the whole of *data*, in deterministic encoding and without tags.

    Strings in the result are the only copies that are made of what they hold.

    Raises:
        BlobError: anything else, whatever it is.
    """
    try:
        value, end = _Decoder(data).item(0, 0)
    except IndexError:
        problem = "truncated"
    except UnicodeDecodeError:
        problem = "text is not UTF-8"
    else:
        if end == len(data):
            return value
        problem = f"{len(data) - end} bytes behind the end"
    # Raised here and not above: an error remembers the one it came from, and that one the text, which may be secret.
    raise BlobError(f"not a blob of ours: {problem}", nte=NTE.BAD_DATA, hint=_HINT)


class _Decoder:
    """One pass over the bytes. What is asked for most comes first: half of all items are labels and small numbers."""

    __slots__ = ("_data", "_left", "_size")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._size = len(data)
        self._left = MAX_ITEMS - 1

    def item(self, at: int, depth: int) -> tuple[Any, int]:
        """Decode the item at offset *at*; IndexError and UnicodeDecodeError are the caller's to translate.

        Returns: the value, and the offset behind it.
        """
        data = self._data
        head = data[at]
        if head in _WHOLE_ITEMS:
            return _WHOLE_ITEMS[head], at + 1
        argument, after = head & _INFORMATION, at + 1
        if argument >= _IN_ONE_BYTE:
            size, smallest = _LONG_ARGUMENTS.get(argument, _INDEFINITE)
            argument, after = int.from_bytes(data[after : after + size], "big"), after + size
            if argument < smallest or after > self._size:
                _refuse(_why(size, complete=after <= self._size), at)
        if head < _BYTES:
            return (argument if head < _NEGINT else -1 - argument), after
        if head >= _ARRAY:
            return self._container(head, argument, after, depth)
        end = after + argument
        if end > self._size:
            _refuse("a string runs past the end", at)
        return (data[after:end] if head < _TEXT else str(data[after:end], "utf-8")), end

    def _container(self, head: int, count: int, at: int, depth: int) -> tuple[Any, int]:
        if head >= _TAG:
            _refuse("tags, floating-point numbers and other simple values do not belong here", at)
        # Counted before they are read: a count that cannot be true costs nothing.
        self._left -= count if head < _MAP else 2 * count
        if self._left < 0 or (count and depth >= MAX_DEPTH):
            _refuse("nested too deeply or too many items", at)
        return (self._array if head < _MAP else self._map)(count, at, depth + 1)

    def _array(self, count: int, at: int, depth: int) -> tuple[list[Any], int]:
        items = []
        for _ in range(count):
            value, at = self.item(at, depth)
            items.append(value)
        return items, at

    def _map(self, pairs: int, at: int, depth: int) -> tuple[dict[Any, Any], int]:
        data, item, fields = self._data, self.item, {}
        small, last = -1, b""
        for _ in range(pairs):
            start, head = at, data[at]
            if head < _IN_ONE_BYTE:  # most keys are labels: these need no comparison of bytes
                if head <= small:
                    _refuse("map keys are doubled or out of order", at)
                key = small = head
                at += 1
            else:
                if head >= _ARRAY:  # Python takes true for 1: as a map key it would pass for the label 1
                    _refuse("a map key is neither a number nor a string", at)
                key, at = item(at, depth)
                encoded = data[start:at]
                if encoded <= last:
                    _refuse("map keys are doubled or out of order", start)
                small, last = _IN_ONE_BYTE, encoded
            head = data[at]
            if head in _WHOLE_ITEMS:
                fields[key] = _WHOLE_ITEMS[head]
                at += 1
            else:
                fields[key], at = item(at, depth)
        return fields, at


def _why(size: int, *, complete: bool) -> str:
    if not size:
        return "indefinite lengths do not belong here"
    return "a number is not in its shortest form" if complete else "truncated"


def _refuse(why: str, at: int) -> NoReturn:
    raise BlobError(f"not a blob of ours: {why} (byte {at})", nte=NTE.BAD_DATA, hint=_HINT)
