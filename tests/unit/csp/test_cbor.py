"""Deterministic CBOR: what cbor2 reads and a blob must not contain, and one error for all of it."""

from __future__ import annotations

import time
from typing import Any

import cbor2
import pytest
from hsmbridge_csp import cbor
from hsmbridge_csp.errors import NTE, BlobError
from hypothesis import given
from hypothesis import strategies as st

# RFC 8949 section 4.2.1: the keys of its example, in the bytewise lexicographic order that it demands.
RFC_8949_KEYS = ["0a", "1864", "20", "617a", "626161", "811864", "8120", "f4"]
# RFC 8949 section 4.2.3: the same keys in the older length-first order.
LENGTH_FIRST_KEYS = ["0a", "20", "f4", "1864", "617a", "8120", "626161", "811864"]

MUST_REFUSE = {
    "trailing byte": "0100",
    "trailing item": "a1010200",
    "two items": "8080",
    "doubled key": "a201010102",
    "doubled key, other length": "a20101180102",
    "length-first order of keys": "a22001181802",
    "keys in descending order": "a202000100",
    "keys in descending order, inside": "81a202000100",
    "indefinite byte string": "5f4101ff",
    "indefinite text": "7f6161ff",
    "indefinite array": "9f01ff",
    "indefinite map": "bf0101ff",
    "date tag": "c074323031332d30332d32315432303a30343a30305a",
    "epoch tag": "c101",
    "bignum": "c249010000000000000000",
    "small bignum": "c24101",
    "shared value": "d81c81d81d00",
    "self-described": "d9d9f701",
    "COSE tag inside": "81d86080",
    "half float": "f93c00",
    "single float": "fa3f800000",
    "double float": "fb3ff0000000000000",
    "infinity": "f97c00",
    "not a number": "f97e00",
    "1 in two bytes": "1801",
    "23 in two bytes": "1817",
    "255 in three bytes": "1900ff",
    "65535 in five bytes": "1a0000ffff",
    "2^32-1 in nine bytes": "1b00000000ffffffff",
    "-1 in two bytes": "3800",
    "length in two bytes": "5801aa",
    "text length in two bytes": "780161",
    "array count in two bytes": "980101",
    "map count in two bytes": "b8010101",
    "true as a key, which Python takes for 1": "a1f500",
    "array as a key": "a18000",
    "undefined": "f7",
    "simple value 0": "e0",
    "simple value 32": "f820",
    "simple value 255": "f8ff",
}
NOT_CBOR = {
    "nothing": "",
    "lone break": "ff",
    "reserved 28": "1c",
    "reserved 30": "5e",
    "cut-off number": "19ff",
    "cut-off string": "43aabb",
    "cut-off array": "8201",
    "cut-off map": "a101",
    "tag without item": "c1",
    "text that is not UTF-8": "61ff",
    "surrogate in text": "63eda080",
    "overlong UTF-8": "62c080",
    "UTF-8 cut off": "62e282",
    "false in two bytes": "f814",
    "endless array": "9f",
}
BOMBS = {
    "arrays in arrays": b"\x81" * 200_000 + b"\x01",
    "maps in maps": b"\xa1\x01" * 200_000 + b"\x01",
    "arrays as keys": b"\xa1" + b"\x81" * 200_000,
    "2^64-1 items": b"\x9b" + b"\xff" * 8,
    "2^32-1 pairs": b"\xba" + b"\xff" * 4 + bytes(64),
    "2^63 bytes": b"\x5b\x80" + bytes(7) + b"x" * 64,
    "2^31 characters": b"\x7a\x80\x00\x00\x00" + b"x" * 64,
    "a count at each depth": b"\x9a\x00\x0f\xff\xff" * 13 + bytes(1 << 20),
    "a million items": b"\x9a\x00\x0f\x42\x40" + bytes(1_000_000),
}


def depth_of(value: object) -> int:
    """Return how many items the deepest item is inside of."""
    inner = [*value.values(), *value] if isinstance(value, dict) else value if isinstance(value, list) else []
    return max((1 + depth_of(item) for item in inner), default=0)


KEYS = st.one_of(st.integers(-(2**64), 2**64 - 1), st.text(max_size=6), st.binary(max_size=6))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), KEYS),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(KEYS, inner, max_size=5)),
    max_leaves=25,
).filter(lambda value: depth_of(value) <= cbor.MAX_DEPTH)


def refuse(data: bytes) -> None:
    """Check that *data* is refused, with a code and a hint."""
    with pytest.raises(BlobError) as caught:
        cbor.decode(data)
    assert caught.value.nte == NTE.BAD_DATA
    assert caught.value.hint


@pytest.mark.parametrize("encoded", MUST_REFUSE.values(), ids=MUST_REFUSE)
def test_what_cbor2_reads_and_we_refuse(encoded: str) -> None:
    """cbor2 takes it, so our own pass over the bytes is what refuses it."""
    data = bytes.fromhex(encoded)
    cbor2.loads(data)
    refuse(data)


@pytest.mark.parametrize("encoded", NOT_CBOR.values(), ids=NOT_CBOR)
def test_what_is_no_cbor(encoded: str) -> None:
    """Bytes that are not well-formed or not valid are refused with the same error."""
    refuse(bytes.fromhex(encoded))


@pytest.mark.parametrize("encoded", ["64736563ff", "8263ff6563ff", "826373656363736563ff", "8263736563"])
def test_an_error_remembers_no_text(encoded: str) -> None:
    """A refusal is not chained to an error that holds what was to be decoded: that may be a key record."""
    with pytest.raises(BlobError) as caught:
        cbor.decode(bytes.fromhex(encoded))
    assert caught.value.__context__ is None


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_bombs(bomb: bytes) -> None:
    """Depths and counts that cannot be a blob's are refused in less than a second, whatever they claim."""
    start = time.process_time()
    refuse(bomb)
    assert time.process_time() - start < 1


def test_the_limits_are_where_they_are_said_to_be() -> None:
    """MAX_DEPTH levels and MAX_ITEMS items are read, one more is not."""
    assert depth_of(cbor.decode(b"\x81" * cbor.MAX_DEPTH + b"\x01")) == cbor.MAX_DEPTH
    refuse(b"\x81" * (cbor.MAX_DEPTH + 1) + b"\x01")
    fitting = cbor.MAX_ITEMS - 1
    assert cbor.decode(b"\x99" + fitting.to_bytes(2, "big") + bytes(fitting)) == [0] * fitting
    refuse(b"\x99" + (fitting + 1).to_bytes(2, "big") + bytes(fitting + 1))


def test_the_order_of_rfc_8949() -> None:
    """The eight keys of RFC 8949 section 4.2.1 are written in its order, whatever order they are given in."""
    expected = bytes([0xA0 + 8]) + b"".join(bytes.fromhex(key) + b"\x00" for key in RFC_8949_KEYS)
    given_keys = [False, (-1,), "aa", 100, (100,), "z", -1, 10]
    assert cbor.encode(dict.fromkeys(given_keys, 0)) == expected


def test_the_other_order_of_rfc_8949() -> None:
    """The length-first order of section 4.2.3 is what cbor2's `canonical` writes, and it is refused."""
    other = bytes([0xA0 + 8]) + b"".join(bytes.fromhex(key) + b"\x00" for key in LENGTH_FIRST_KEYS)
    assert len(cbor2.loads(other)) == 8
    refuse(other)
    refuse(cbor2.dumps({100: 0, -1: 0}, canonical=True))


def test_keys_that_are_equal_to_python() -> None:
    """True and 1 are one key to Python and two to CBOR: what was found out about one is not applied to the other."""
    for _ in range(2):
        assert cbor.encode({1: 0, 2: 0}).hex() == "a201000200"
        assert cbor.encode({True: 0, 2: 0}).hex() == "a20200f500"
        assert cbor.encode({(1,): 0, (2,): 0}).hex() == "a2810100810200"
        assert cbor.encode({(True,): 0, (2,): 0}).hex() == "a281020081f500"


def test_a_large_map() -> None:
    """A map of any size is sorted, at any depth."""
    numbers = list(range(-300, 300))
    expected = sorted(cbor2.dumps(number) for number in numbers)
    for wrapped in (dict.fromkeys(numbers), dict.fromkeys(reversed(numbers))):
        encoded = cbor.encode([{"a": wrapped}])
        assert encoded == bytes.fromhex("81a16161b90258") + b"".join(key + b"\xf6" for key in expected)
        assert cbor.decode(encoded) == [{"a": wrapped}]


@given(value=VALUES)
def test_what_is_written_is_read(value: Any) -> None:  # noqa: ANN401 - any CBOR value
    """What is written is read back equal, with the same types and in the same order as cbor2 reads it."""
    encoded = cbor.encode(value)
    read = cbor.decode(encoded)
    assert read == value
    assert repr(read) == repr(cbor2.loads(encoded))


@given(value=VALUES, data=st.data())
def test_mutated(value: Any, data: st.DataObject) -> None:  # noqa: ANN401 - any CBOR value
    """Valid CBOR with a byte changed, taken out or put in is read only if it is deterministic again; else BlobError."""
    encoded = bytearray(cbor.encode(value))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(encoded)))
        encoded[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    only_canonical(bytes(encoded))


@given(data=st.binary(max_size=64))
def test_random_bytes(data: bytes) -> None:
    """Random bytes raise BlobError or nothing."""
    only_canonical(data)


@given(heads=st.lists(st.sampled_from([bytes([head]) for head in range(256)]), max_size=12), rest=st.binary(max_size=8))
def test_random_heads(heads: list[bytes], rest: bytes) -> None:
    """So do random heads of items, which get further in."""
    only_canonical(b"".join(heads) + rest)


def only_canonical(data: bytes) -> None:
    """Check that what is deterministic is read as cbor2 reads it, and that all else is a BlobError.

    What is deterministic is found out with cbor2 alone.
    """
    expected = None
    try:
        expected = cbor2.loads(data, semantic_decoders=dict.fromkeys(range(300), no_tag))
        deterministic = of_our_types(expected) and depth_of(expected) <= cbor.MAX_DEPTH and written(expected) == data
    except (cbor2.CBORError, ValueError, TypeError, RecursionError):
        deterministic = False
    if not deterministic:
        refuse(data)
        return
    read = cbor.decode(data)
    assert repr(read) == repr(expected)
    assert cbor.encode(read) == data


def no_tag(*_: object) -> None:
    """Refuse a tag: some make cbor2 work long before anybody can look at the result."""
    raise ValueError


def of_our_types(value: object) -> bool:
    """Tell whether a value holds nothing but what a blob may hold."""
    if type(value) is dict:
        return all(type(key) in (int, str, bytes) for key in value) and all(map(of_our_types, value.values()))
    if type(value) is list:
        return all(map(of_our_types, value))
    return type(value) in (int, str, bytes, bool, type(None))


def written(value: object) -> bytes:
    """Write a value as RFC 8949 section 4.2.1 says: heads and leaves by cbor2, the order of keys by hand."""
    if isinstance(value, dict):
        pairs = sorted((cbor2.dumps(key), written(item)) for key, item in value.items())
        return head_of(0xA0, len(value)) + b"".join(key + item for key, item in pairs)
    if isinstance(value, list):
        return head_of(0x80, len(value)) + b"".join(map(written, value))
    return cbor2.dumps(value)


def head_of(major: int, count: int) -> bytes:
    """Return the head of a container: that of the number, in another major type."""
    number = cbor2.dumps(count)
    return bytes([major | number[0]]) + number[1:]
