"""The clear part: what stands in a blob's protected header, and every way in which it can be wrong."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hsmbridge_csp.clearpart import ClearPart, Purpose
from hsmbridge_csp.errors import NTE, BlobError
from hypothesis import given
from hypothesis import strategies as st

# docs/blob-format.md: the labels, in the order of RFC 8949 section 4.2.1
VERSION, BLOB_ID, CREATED, KEY_TYPE, BITS, BY_REFERENCE, PURPOSE, SENDER, RECIPIENT = range(-65537, -65546, -1)
ALG, CRIT, CONTENT_TYPE = 1, 2, 3
OWN = [VERSION, BLOB_ID, CREATED, KEY_TYPE, BITS, BY_REFERENCE, PURPOSE, SENDER, RECIPIENT]


def header(**changes: object) -> dict[int, Any]:
    """Return a protected header as it must be, put together by hand; *changes* by the names above."""
    names = {name: globals()[name] for name in changes}
    return {
        ALG: 3,
        CRIT: OWN,
        CONTENT_TYPE: "application/cbor",
        VERSION: 1,
        BLOB_ID: bytes(range(16)),
        CREATED: 1_700_000_000,
        KEY_TYPE: "AES",
        BITS: 256,
        BY_REFERENCE: False,
        PURPOSE: "copy",
        SENDER: b"",
        RECIPIENT: b"r" * 16,
        **{names[name]: value for name, value in changes.items()},
    }


def test_the_documented_header_is_read() -> None:
    """A header put together by hand is read field by field, and written with the same bytes."""
    encoded = cbor2.dumps(header())
    clear = ClearPart.decode(encoded)
    assert clear == ClearPart(
        blob_id=bytes(range(16)),
        created=1_700_000_000,
        key_type="AES",
        bits=256,
        by_reference=False,
        purpose=Purpose.COPY,
        sender=b"",
        recipient=b"r" * 16,
    )
    assert clear.encode() == encoded


def test_every_label_is_critical_and_private() -> None:
    """All labels of ours are below -65536, where RFC 9052 leaves room, and `crit` lists each."""
    written = cbor2.loads(ClearPart.decode(cbor2.dumps(header())).encode())
    ours = {label for label in written if label not in (ALG, CRIT, CONTENT_TYPE)}
    assert ours == set(written[CRIT]) == set(OWN)
    assert max(ours) < -65536


@given(
    clear=st.builds(
        ClearPart,
        blob_id=st.binary(min_size=16, max_size=16),
        created=st.integers(0, 2**64 - 1),
        key_type=st.text(min_size=1, max_size=64),
        bits=st.integers(0, 2**32),
        by_reference=st.booleans(),
        purpose=st.sampled_from(Purpose),
        sender=st.binary(max_size=64),
        recipient=st.binary(max_size=64),
    )
)
def test_what_is_written_is_read(clear: ClearPart) -> None:
    """Every clear part comes back equal."""
    assert ClearPart.decode(clear.encode()) == clear


@pytest.mark.parametrize("version", [0, 2, -1, "1", b"\x01", None, 2**64 - 1])
def test_an_unknown_version(version: object) -> None:
    """A blob of another version is NTE_BAD_VER, and nothing else of it is looked at."""
    refuse(header(VERSION=version, KEY_TYPE=5), NTE.BAD_VER)


@pytest.mark.parametrize(
    "crit",
    [
        [*OWN, -65546],
        [*OWN, 4],
        OWN[:-1],
        [OWN[-1], *OWN[:-1]],
        [*OWN, OWN[-1]],
        [],
        "all",
        None,
    ],
)
def test_unknown_critical_labels(crit: object) -> None:
    """A label that is critical and not known, or one of ours that is not critical, is NTE_BAD_VER."""
    refuse(header(CRIT=crit), NTE.BAD_VER)


def test_an_unknown_critical_label_with_its_field() -> None:
    """A later format's additional critical field is refused, not skipped."""
    refuse({**header(CRIT=[*OWN, -65546]), -65546: 1}, NTE.BAD_VER)


@pytest.mark.parametrize("algorithm", [1, 2, 24, -5, 0, "A256GCM", None])
def test_another_content_algorithm(algorithm: object) -> None:
    """Nothing but A256GCM, which no attacker can turn into a weaker one: NTE_BAD_ALGID."""
    refuse(header(ALG=algorithm), NTE.BAD_ALGID)


@pytest.mark.parametrize("missing", [ALG, CRIT, CONTENT_TYPE, *OWN])
def test_a_missing_field(missing: int) -> None:
    """No field is optional."""
    refuse({label: value for label, value in header().items() if label != missing})


@pytest.mark.parametrize("label", [4, 5, 0, -1, -65536, -65546, "x", b"x"])
def test_a_field_too_many(label: object) -> None:
    """A field that is not known is refused, critical or not."""
    refuse({**header(), label: b"x"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"BLOB_ID": b"x" * 15},
        {"BLOB_ID": b"x" * 17},
        {"BLOB_ID": "x" * 16},
        {"CREATED": -1},
        {"CREATED": "now"},
        {"CREATED": True},
        {"CREATED": None},
        {"KEY_TYPE": ""},
        {"KEY_TYPE": "x" * 65},
        {"KEY_TYPE": b"AES"},
        {"KEY_TYPE": 1},
        {"BITS": -1},
        {"BITS": "256"},
        {"BITS": False},
        {"BY_REFERENCE": 0},
        {"BY_REFERENCE": 1},
        {"BY_REFERENCE": None},
        {"PURPOSE": "steal"},
        {"PURPOSE": b"copy"},
        {"PURPOSE": []},
        {"PURPOSE": {}},
        {"SENDER": "me"},
        {"SENDER": b"x" * 65},
        {"RECIPIENT": None},
        {"RECIPIENT": b"x" * 65},
        {"CONTENT_TYPE": "application/cose"},
        {"CONTENT_TYPE": 60},
    ],
    ids=str,
)
def test_a_field_of_the_wrong_kind(wrong: dict[str, object]) -> None:
    """A field of the wrong type, length or value is NTE_BAD_DATA."""
    refuse(header(**wrong), NTE.BAD_DATA)


def test_true_is_not_one() -> None:
    """CBOR's `true` is not the number 1, neither as the version nor as a label, though Python's True == 1."""
    refuse(header(VERSION=True))
    rest = {label: value for label, value in header().items() if label != ALG}
    refuse({**rest, True: 3})


@pytest.mark.parametrize("value", [b"", b"\xa0", b"\x80", b"\x01", b"\xff", cbor2.dumps(header()) + b"\0"])
def test_no_map(value: bytes) -> None:
    """Whatever is no header is a BlobError."""
    with pytest.raises(BlobError):
        ClearPart.decode(value)


def test_another_order() -> None:
    """The same fields in another order of keys are another encoding, and refused."""
    refuse(dict(reversed(header().items())))


@given(data=st.data())
def test_mutated(data: st.DataObject) -> None:
    """Changed bytes give BlobError or a clear part that is written just as it was read."""
    changed = bytearray(cbor2.dumps(header()))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    try:
        clear = ClearPart.decode(bytes(changed))
    except BlobError:
        return
    assert clear.encode() == changed


@given(fields=st.dictionaries(st.sampled_from([ALG, CRIT, CONTENT_TYPE, *OWN]), st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.binary(max_size=4), st.text(max_size=4),
    st.lists(st.integers(0, 3), max_size=3), st.dictionaries(st.integers(0, 3), st.none(), max_size=2),
)))  # fmt: skip
def test_any_types(fields: dict[int, Any]) -> None:
    """Any CBOR types in the fields raise BlobError only."""
    changed = {**header(), **fields}
    try:
        clear = ClearPart.decode(cbor2.dumps(changed))
    except BlobError:
        return
    assert cbor2.loads(clear.encode()) == changed


def refuse(fields: dict[Any, Any], nte: NTE | None = None) -> None:
    """Check that it is a BlobError with a hint, and with this code where one is named."""
    with pytest.raises(BlobError) as caught:
        ClearPart.decode(cbor2.dumps(fields))
    assert caught.value.hint
    assert nte is None or caught.value.nte == nte
