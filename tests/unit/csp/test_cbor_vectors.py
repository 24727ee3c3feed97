"""RFC 8949 appendix A, each example: what a blob may contain is read and written as printed, all else is refused.

Source: RFC 8949 appendix A, table 6, in its order.
"""

from __future__ import annotations

import pytest
from hsmbridge_csp import cbor
from hsmbridge_csp.errors import NTE, BlobError

ONE_TO_25 = "0102030405060708090a0b0c0d0e0f101112131415161718181819"
TAKEN: list[tuple[object, str]] = [
    (0, "00"),
    (1, "01"),
    (10, "0a"),
    (23, "17"),
    (24, "1818"),
    (25, "1819"),
    (100, "1864"),
    (1000, "1903e8"),
    (1000000, "1a000f4240"),
    (1000000000000, "1b000000e8d4a51000"),
    (18446744073709551615, "1bffffffffffffffff"),
    (-18446744073709551616, "3bffffffffffffffff"),
    (-1, "20"),
    (-10, "29"),
    (-100, "3863"),
    (-1000, "3903e7"),
    (False, "f4"),
    (True, "f5"),
    (None, "f6"),
    (b"", "40"),
    (b"\x01\x02\x03\x04", "4401020304"),
    ("", "60"),
    ("a", "6161"),
    ("IETF", "6449455446"),
    ('"\\', "62225c"),
    ("\u00fc", "62c3bc"),
    ("\u6c34", "63e6b0b4"),
    ("\U00010151", "64f0908591"),
    ([], "80"),
    ([1, 2, 3], "83010203"),
    ([1, [2, 3], [4, 5]], "8301820203820405"),
    (list(range(1, 26)), "9819" + ONE_TO_25),
    ({}, "a0"),
    ({1: 2, 3: 4}, "a201020304"),
    ({"a": 1, "b": [2, 3]}, "a26161016162820203"),
    (["a", {"b": "c"}], "826161a161626163"),
    ({"a": "A", "b": "B", "c": "C", "d": "D", "e": "E"}, "a56161614161626142616361436164614461656145"),
]
REFUSED = {
    "18446744073709551616": "c249010000000000000000",
    "-18446744073709551617": "c349010000000000000000",
    "0.0": "f90000",
    "-0.0": "f98000",
    "1.0": "f93c00",
    "1.1": "fb3ff199999999999a",
    "1.5": "f93e00",
    "65504.0": "f97bff",
    "100000.0": "fa47c35000",
    "3.4028234663852886e+38": "fa7f7fffff",
    "1.0e+300": "fb7e37e43c8800759c",
    "5.960464477539063e-8": "f90001",
    "0.00006103515625": "f90400",
    "-4.0": "f9c400",
    "-4.1": "fbc010666666666666",
    "Infinity": "f97c00",
    "NaN": "f97e00",
    "-Infinity": "f9fc00",
    "Infinity, single": "fa7f800000",
    "NaN, single": "fa7fc00000",
    "-Infinity, single": "faff800000",
    "Infinity, double": "fb7ff0000000000000",
    "NaN, double": "fb7ff8000000000000",
    "-Infinity, double": "fbfff0000000000000",
    "undefined": "f7",
    "simple(16)": "f0",
    "simple(255)": "f8ff",
    "0(2013-03-21T20:04:00Z)": "c074323031332d30332d32315432303a30343a30305a",
    "1(1363896240)": "c11a514b67b0",
    "1(1363896240.5)": "c1fb41d452d9ec200000",
    "23(h'01020304')": "d74401020304",
    "24(h'6449455446')": "d818456449455446",
    "32(http://www.example.com)": "d82076687474703a2f2f7777772e6578616d706c652e636f6d",
    "(_ h'0102', h'030405')": "5f42010243030405ff",
    "(_ 'strea', 'ming')": "7f657374726561646d696e67ff",
    "[_ ]": "9fff",
    "[_ 1, [2, 3], [_ 4, 5]]": "9f018202039f0405ffff",
    "[_ 1, [2, 3], [4, 5]]": "9f01820203820405ff",
    "[1, [2, 3], [_ 4, 5]]": "83018202039f0405ff",
    "[1, [_ 2, 3], [4, 5]]": "83019f0203ff820405",
    "[_ 1 to 25]": "9f" + ONE_TO_25 + "ff",
    "{_ a: 1, b: [_ 2, 3]}": "bf61610161629f0203ffff",
    "[a, {_ b: c}]": "826161bf61626163ff",
    "{_ Fun: true, Amt: -2}": "bf6346756ef563416d7421ff",
}


@pytest.mark.parametrize(("value", "encoded"), TAKEN, ids=[encoded[:24] for _, encoded in TAKEN])
def test_taken(value: object, encoded: str) -> None:
    """The example is written and read as printed, and with its type."""
    assert cbor.encode(value).hex() == encoded
    read = cbor.decode(bytes.fromhex(encoded))
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize("encoded", REFUSED.values(), ids=REFUSED)
def test_refused(encoded: str) -> None:
    """An example of what a blob never contains is refused: floats, tags, indefinite lengths, other simple values."""
    with pytest.raises(BlobError) as caught:
        cbor.decode(bytes.fromhex(encoded))
    assert caught.value.nte == NTE.BAD_DATA
    with pytest.raises(BlobError):
        cbor.decode(b"\x81" + bytes.fromhex(encoded))
