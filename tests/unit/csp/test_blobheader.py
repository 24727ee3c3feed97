"""BLOBHEADER: the eight bytes in front of every CryptoAPI blob."""

from __future__ import annotations

import pytest
from hsmbridge_csp.blobheader import AlgId, BlobHeader, BlobType, looks_like_blob
from hsmbridge_csp.errors import NTE, BlobError
from hypothesis import given
from hypothesis import strategies as st

from hsmbridge.errors import InputError


def test_fields_are_little_endian() -> None:
    """The layout is bType, bVersion, two reserved bytes, then the ALG_ID with its low byte first."""
    header = BlobHeader.parse(bytes.fromhex("0802000001660000"))
    assert header == BlobHeader(type=BlobType.PLAINTEXTKEYBLOB, version=2, algorithm=AlgId.DES)
    assert header.to_bytes().hex() == "0802000001660000"


@given(st.binary(min_size=8, max_size=8))
def test_what_parses_is_written_back(data: bytes) -> None:
    """A header that is accepted is the only encoding of its value; any other eight bytes are a BlobError."""
    try:
        header = BlobHeader.parse(data)
    except BlobError:
        return
    assert header.to_bytes() == data


@given(
    st.sampled_from([t for t in BlobType if t != BlobType.OPAQUEKEYBLOB]),
    st.sampled_from([2, 3]),
    st.integers(0, 2**32 - 1),
)
def test_valid_headers_survive(blob_type: BlobType, version: int, algorithm: int) -> None:
    """Every known type in versions 2 and 3, with any ALG_ID, is written and read without a change."""
    header = BlobHeader(type=blob_type, version=version, algorithm=AlgId(algorithm))
    assert BlobHeader.parse(header.to_bytes()) == header
    assert looks_like_blob(header.to_bytes())


@pytest.mark.parametrize(
    ("data", "nte"),
    [
        ("", NTE.BAD_LEN),
        ("08020000016600", NTE.BAD_LEN),
        ("0801000001660000", NTE.BAD_VER),
        ("0804000001660000", NTE.BAD_VER),
        ("0903000001660000", NTE.BAD_VER),
        ("0802010001660000", NTE.BAD_DATA),
        ("0802000101660000", NTE.BAD_DATA),
    ],
)
def test_bad_headers_are_refused(data: str, nte: NTE) -> None:
    """Short input, versions other than 2 and 3 (2 only where the format is ours) and set reserved bytes are refused."""
    with pytest.raises(BlobError) as caught:
        BlobHeader.parse(bytes.fromhex(data))
    assert caught.value.nte == nte
    assert caught.value.hint
    assert isinstance(caught.value, InputError)


def test_type_must_fit_into_its_byte() -> None:
    """A header that could not be written cannot be made."""
    with pytest.raises(BlobError) as caught:
        BlobHeader(type=BlobType(0x108), algorithm=AlgId.NONE)
    assert caught.value.nte == NTE.BAD_TYPE


def test_unknown_numbers_survive() -> None:
    """An ALG_ID or type without a name keeps its number, compares equal by it, and adds nothing to the enumeration."""
    before = len(AlgId)
    vendor = AlgId(0x1234)
    assert vendor == 0x1234
    assert vendor == AlgId(0x1234)
    assert not vendor.known
    assert vendor.label == "0x00001234"
    assert len(AlgId) == before
    assert not BlobType(0x42).known
    with pytest.raises(ValueError, match="not a valid AlgId"):
        AlgId(1 << 32)
    with pytest.raises(ValueError, match="not a valid AlgId"):
        AlgId(-1)


def test_labels_are_those_of_wincrypt() -> None:
    """Names are shown as a CryptoAPI user knows them, also those that are no Python identifiers."""
    assert AlgId.AES_256.label == "CALG_AES_256"
    assert AlgId.TRIPLE_DES.label == "CALG_3DES"
    assert AlgId.TRIPLE_DES_112.label == "CALG_3DES_112"
    assert AlgId.NONE.label == "none"


@pytest.mark.parametrize("data", ["", "0802", "0502000001660000", "0801000001660000", "0802000101660000"])
def test_other_bytes_do_not_look_like_a_blob(data: str) -> None:
    """Short input, an unknown type, an unknown version or set reserved bytes do not look like a blob."""
    assert not looks_like_blob(bytes.fromhex(data))
