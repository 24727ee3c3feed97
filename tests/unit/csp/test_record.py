"""The key record: everything that a key is, out and in again, and what is no record."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hsmbridge_csp import cbor
from hsmbridge_csp.errors import NTE, BlobError
from hsmbridge_csp.record import KeyRecord, Transfer
from hypothesis import given
from hypothesis import strategies as st

from hsmbridge.capture import PROVENANCE, SETTABLE, Capture
from hsmbridge.codes import CKA, CKK, CKO

# docs/blob-format.md
ALGORITHM, TRANSFER, KEY, DIALECT, CLASS, KEY_TYPE, SIZE = range(1, 8)
ON_TOKEN, ATTRIBUTES, PROVENANCES, STATE, REFERENCE, PERMISSIONS, EC_POINT = range(8, 15)

VALUE_RECORD = {ALGORITHM: "AES", TRANSFER: 1, KEY: b"k" * 32, STATE: {1: "ECB"}, PERMISSIONS: 0x3F}
CAPTURED = {CLASS: 4, KEY_TYPE: 0x1F, SIZE: 32, ON_TOKEN: False, ATTRIBUTES: {3: "label"}, PROVENANCES: {0x163: True}}
WRAPPED_RECORD = {**VALUE_RECORD, TRANSFER: 2, KEY: b"w" * 40, DIALECT: "aes-kwp", **CAPTURED}
REFERENCE_RECORD = {
    **{label: value for label, value in VALUE_RECORD.items() if label != KEY},
    TRANSFER: 3,
    REFERENCE: {1: "token"},
    **CAPTURED,
}
ALL = {"value": VALUE_RECORD, "wrapped": WRAPPED_RECORD, "reference": REFERENCE_RECORD}


def write(fields: dict[Any, Any]) -> bytes:
    """Encode by cbor2 with the keys in order (all keys here are small numbers, or what a test puts behind them)."""
    return cbor2.dumps(dict(sorted(fields.items(), key=lambda item: cbor2.dumps(item[0]))))


def without(fields: dict[Any, Any], *labels: int) -> dict[Any, Any]:
    """Leave fields out."""
    return {label: value for label, value in fields.items() if label not in labels}


@pytest.mark.parametrize("fields", ALL.values(), ids=ALL)
def test_the_documented_form(fields: dict[Any, Any]) -> None:
    """A record put together by hand is read, and written with the same bytes."""
    encoded = write(fields)
    record = KeyRecord.decode(encoded)
    assert (record.algorithm, record.transfer, record.permissions) == ("AES", fields[TRANSFER], 0x3F)
    assert (record.key, record.dialect) == (fields.get(KEY, b""), fields.get(DIALECT, ""))
    assert (record.state, record.reference) == ({1: "ECB"}, fields.get(REFERENCE, {}))
    if CLASS in fields:
        assert record.captured is not None
        assert (record.captured.cls, record.captured.key_type) == (CKO.SECRET_KEY, CKK.AES)
        assert record.captured.settable == {CKA.LABEL: "label"}
        assert record.captured.provenance == {CKA.LOCAL: True}
    assert record.encode() == encoded


FLAT = st.one_of(
    st.booleans(),
    st.integers(0, 2**64 - 1),
    st.binary(max_size=8),
    st.text(max_size=8),
    st.lists(st.integers(0, 2**64 - 1), max_size=4).map(tuple),
)
ATTRIBUTE_MAPS = st.dictionaries(
    st.sampled_from([kind for kind in SETTABLE[CKO.SECRET_KEY] if kind != CKA.LABEL]),
    st.one_of(FLAT, st.dictionaries(st.sampled_from([CKA.SENSITIVE, CKA.EXTRACTABLE, CKA.ID]), FLAT, max_size=3)),
    max_size=6,
)
# A label is text, but tokens give whatever bytes were put in; Python's surrogateescape carries those.
LABELS = st.binary(max_size=12).map(lambda raw: raw.decode("utf-8", "surrogateescape"))


CAPTURES = st.builds(
    Capture,
    cls=st.just(CKO.SECRET_KEY),
    key_type=st.sampled_from([CKK.AES, CKK.DES3, CKK.GENERIC_SECRET]),
    size=st.one_of(st.none(), st.integers(1, 16_384)),
    on_token=st.booleans(),
    settable=st.builds(lambda rest, label: {**rest, CKA.LABEL: label}, ATTRIBUTE_MAPS, LABELS),
    provenance=st.dictionaries(st.sampled_from(PROVENANCE), FLAT, max_size=3),
)


@given(captured=CAPTURES)
def test_attributes_come_back(captured: Capture) -> None:
    """Attributes of every kind come back equal and of the same type; a label too that is not UTF-8."""
    record = KeyRecord(
        algorithm="AES",
        transfer=Transfer.WRAPPED,
        permissions=1,
        key=b"w" * 24,
        dialect="aes-kw",
        captured=captured,
    )
    read = KeyRecord.decode(record.encode())
    assert read == record
    assert read.captured is not None
    for kind, value in captured.settable.items():
        assert type(read.captured.settable[kind]) is type(value)


DISAGREEMENTS: dict[str, dict[Any, Any]] = {
    "no algorithm": without(VALUE_RECORD, ALGORITHM),
    "no transfer": without(VALUE_RECORD, TRANSFER),
    "no permissions": without(VALUE_RECORD, PERMISSIONS),
    "by value without a key": without(VALUE_RECORD, KEY),
    "by value with an empty key": {**VALUE_RECORD, KEY: b""},
    "by value with a reference": {**VALUE_RECORD, REFERENCE: {1: "token"}},
    "by value with a dialect": {**VALUE_RECORD, DIALECT: "aes-kw"},
    "wrapped without a dialect": without(WRAPPED_RECORD, DIALECT),
    "wrapped without attributes": without(WRAPPED_RECORD, *CAPTURED),
    "wrapped with a reference": {**WRAPPED_RECORD, REFERENCE: {1: "token"}},
    "by reference with a key": {**REFERENCE_RECORD, KEY: b"k" * 32},
    "by reference without a reference": without(REFERENCE_RECORD, REFERENCE),
    "by reference without attributes": without(REFERENCE_RECORD, *CAPTURED),
    "unknown transfer": {**VALUE_RECORD, TRANSFER: 4},
    "transfer 0": {**VALUE_RECORD, TRANSFER: 0},
    "key too long": {**VALUE_RECORD, KEY: bytes(16_385)},
    "unknown field": {**VALUE_RECORD, 99: b""},
    "field by name": {**VALUE_RECORD, "key": b""},
    "permissions of 33 bits": {**VALUE_RECORD, PERMISSIONS: 1 << 32},
    "negative permissions": {**VALUE_RECORD, PERMISSIONS: -1},
    "unknown class": {**WRAPPED_RECORD, CLASS: 99},
    "unknown key type": {**WRAPPED_RECORD, KEY_TYPE: 0xFFFF},
    "negative size": {**WRAPPED_RECORD, SIZE: -1},
    "size of a gigabyte": {**WRAPPED_RECORD, SIZE: 1 << 30},
    "half of the attributes": without(WRAPPED_RECORD, ATTRIBUTES),
    "no provenance": without(WRAPPED_RECORD, PROVENANCES),
    "attribute by name": {**WRAPPED_RECORD, ATTRIBUTES: {"label": "x"}},
    "attribute type of 65 bits": {**WRAPPED_RECORD, ATTRIBUTES: {1 << 64: b""}},
    "negative attribute type": {**WRAPPED_RECORD, ATTRIBUTES: {-1: b""}},
    "attribute type true": {**WRAPPED_RECORD, ATTRIBUTES: {True: b""}},
    "negative attribute value": {**WRAPPED_RECORD, ATTRIBUTES: {3: -1}},
    "attribute without a value": {**WRAPPED_RECORD, ATTRIBUTES: {3: None}},
    "list of strings": {**WRAPPED_RECORD, ATTRIBUTES: {0x40000600: ["x"]}},
    "list of booleans": {**WRAPPED_RECORD, ATTRIBUTES: {0x40000600: [True]}},
    "attribute by name in a template": {**WRAPPED_RECORD, ATTRIBUTES: {0x40000212: {"x": True}}},
}


@pytest.mark.parametrize("fields", DISAGREEMENTS.values(), ids=DISAGREEMENTS)
def test_what_is_no_record(fields: dict[Any, Any]) -> None:
    """Fields that are missing, of the wrong kind, or that contradict each other are NTE_BAD_DATA with a hint."""
    with pytest.raises(BlobError) as caught:
        KeyRecord.decode(write(fields))
    assert caught.value.nte == NTE.BAD_DATA
    assert caught.value.hint


@pytest.mark.parametrize("label", range(1, 15))
@pytest.mark.parametrize("value", [None, True, -1, "x", b"x", [], {1: 2}])
def test_a_field_of_any_type(label: int, value: object) -> None:
    """Any field with any type is a BlobError, or a record that is written just as it was read."""
    encoded = write({**WRAPPED_RECORD, label: value})
    try:
        record = KeyRecord.decode(encoded)
    except BlobError:
        return
    assert record.encode() == encoded


def test_true_is_not_label_one() -> None:
    """CBOR's `true` is not the label 1, though Python's True == 1: what is read would be written otherwise."""
    with pytest.raises(BlobError):
        KeyRecord.decode(write({**without(VALUE_RECORD, ALGORITHM), True: "AES"}))


@pytest.mark.parametrize("fields", ALL.values(), ids=ALL)
@given(data=st.data())
def test_mutated(fields: dict[Any, Any], data: st.DataObject) -> None:
    """Changed bytes give BlobError or a record that is written just as it was read; never another error."""
    changed = bytearray(write(fields))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    try:
        record = KeyRecord.decode(bytes(changed))
    except BlobError:
        return
    assert cbor.decode(record.encode()) == cbor.decode(bytes(changed))


@given(data=st.binary(max_size=64))
def test_random_bytes(data: bytes) -> None:
    """Random bytes raise BlobError only."""
    with pytest.raises(BlobError):
        KeyRecord.decode(data)


def test_a_representation_shows_no_secret() -> None:
    """repr() of a record shows neither the key nor the state nor the reference's answer."""
    shown = repr(
        KeyRecord(
            algorithm="AES",
            transfer=Transfer.VALUE,
            permissions=1,
            key=b"secret of the key",
            state={6: b"secret of the state"},
            reference={12: b"secret of the reference"},
        )
    )
    assert "AES" in shown
    assert "secret" not in shown
