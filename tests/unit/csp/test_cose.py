"""COSE structures: the shapes of RFC 9052, put together by cbor2, and nothing but them."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hsmbridge_csp.cose import CoseEncrypt, CoseSign1
from hsmbridge_csp.errors import BlobError
from hypothesis import given
from hypothesis import strategies as st

PROTECTED = bytes.fromhex("a10103")  # {1: 3}, A256GCM
IV, CIPHERTEXT, KID, WRAPPED = b"i" * 12, b"c" * 40, b"kid of the KEK..", b"w" * 40
RECIPIENT = [b"", {1: -5, 4: KID}, WRAPPED]
ENCRYPT = [PROTECTED, {5: IV}, CIPHERTEXT, [RECIPIENT]]
TAG_ENCRYPT, TAG_ENCRYPT0, TAG_SIGN1 = 96, 16, 18
SIGN1 = [bytes.fromhex("a10127"), {4: KID}, b"payload", b"s" * 64]  # {1: -8}, EdDSA


def tagged(tag: int, value: object) -> bytes:
    """Encode with cbor2, which keeps the order in which a map was written."""
    return cbor2.dumps(cbor2.CBORTag(tag, value))


def byte_string(value: bytes) -> bytes:
    """Return the CBOR of a short byte string, by hand."""
    return bytes([0x40 + len(value)]) + value if len(value) < 24 else bytes([0x58, len(value)]) + value


def test_an_encrypt_is_read_field_by_field() -> None:
    """A COSE_Encrypt that cbor2 wrote is read, and written with the same bytes."""
    data = tagged(TAG_ENCRYPT, ENCRYPT)
    read = CoseEncrypt.decode(data)
    assert (read.protected, read.iv, read.ciphertext) == (PROTECTED, IV, CIPHERTEXT)
    (recipient,) = read.recipients
    assert (recipient.protected, recipient.algorithm, recipient.kid) == (b"", -5, KID)
    assert recipient.ciphertext == WRAPPED
    assert read.encode() == data


def test_many_recipients_stay_in_order() -> None:
    """Recipients come in the order in which they stand, each with the algorithm of whichever header has it."""
    protected = cbor2.dumps({1: -41})
    data = tagged(TAG_ENCRYPT, [PROTECTED, {5: IV}, CIPHERTEXT, [RECIPIENT, [protected, {4: b"rsa"}, b"x" * 384]]])
    read = CoseEncrypt.decode(data)
    assert [(one.algorithm, one.kid) for one in read.recipients] == [(-5, KID), (-41, b"rsa")]
    assert read.encode() == data


def test_what_gcm_authenticates() -> None:
    """The Enc_structure is RFC 9052 section 5.3's: the array ["Encrypt", protected, external_aad], byte by byte."""
    read = CoseEncrypt.decode(tagged(TAG_ENCRYPT, ENCRYPT))
    header = bytes.fromhex("0902000010660000")
    assert read.aad(header) == b"\x83\x67Encrypt" + byte_string(PROTECTED) + byte_string(header)


def test_a_sign1_is_read_field_by_field() -> None:
    """A COSE_Sign1 that cbor2 wrote is read, and its Sig_structure is RFC 9052 section 4.4's, byte by byte."""
    data = tagged(TAG_SIGN1, SIGN1)
    read = CoseSign1.decode(data)
    assert (read.algorithm, read.kid, read.payload, read.signature) == (-8, KID, b"payload", b"s" * 64)
    assert read.encode() == data
    expected = b"\x84\x6aSignature1" + byte_string(read.protected) + byte_string(b"header") + byte_string(b"payload")
    assert read.to_be_signed(b"header") == expected


NOT_ENCRYPT: dict[str, Any] = {
    "three elements": ENCRYPT[:3],
    "five elements": [*ENCRYPT, b""],
    "a map": {1: 2},
    "no IV": [PROTECTED, {}, CIPHERTEXT, [RECIPIENT]],
    "IV of 11 bytes": [PROTECTED, {5: b"i" * 11}, CIPHERTEXT, [RECIPIENT]],
    "IV of 13 bytes": [PROTECTED, {5: b"i" * 13}, CIPHERTEXT, [RECIPIENT]],
    "IV as text": [PROTECTED, {5: "i" * 12}, CIPHERTEXT, [RECIPIENT]],
    "partial IV": [PROTECTED, {6: IV}, CIPHERTEXT, [RECIPIENT]],
    "more in the unprotected header": [PROTECTED, {4: KID, 5: IV}, CIPHERTEXT, [RECIPIENT]],
    "algorithm unprotected": [PROTECTED, {1: 3, 5: IV}, CIPHERTEXT, [RECIPIENT]],
    "detached ciphertext": [PROTECTED, {5: IV}, None, [RECIPIENT]],
    "shorter than the tag": [PROTECTED, {5: IV}, b"c" * 15, [RECIPIENT]],
    "no recipient": [PROTECTED, {5: IV}, CIPHERTEXT, []],
    "recipients are no list": [PROTECTED, {5: IV}, CIPHERTEXT, b"x"],
    "recipient is no list": [PROTECTED, {5: IV}, CIPHERTEXT, [b"x"]],
    "recipient of two": [PROTECTED, {5: IV}, CIPHERTEXT, [RECIPIENT[:2]]],
    "recipient of four": [PROTECTED, {5: IV}, CIPHERTEXT, [[*RECIPIENT, []]]],
    "recipient without algorithm": [PROTECTED, {5: IV}, CIPHERTEXT, [[b"", {4: KID}, WRAPPED]]],
    "recipient with an algorithm by name": [PROTECTED, {5: IV}, CIPHERTEXT, [[b"", {1: "A256KW", 4: KID}, WRAPPED]]],
    "recipient's protected header is no map": [PROTECTED, {5: IV}, CIPHERTEXT, [[b"\x01", {4: KID}, WRAPPED]]],
    "recipient's protected header is no CBOR": [PROTECTED, {5: IV}, CIPHERTEXT, [[b"\xff", {4: KID}, WRAPPED]]],
    "second recipient is wrong": [PROTECTED, {5: IV}, CIPHERTEXT, [RECIPIENT, []]],
    "protected is a map, not its bytes": [{1: 3}, {5: IV}, CIPHERTEXT, [RECIPIENT]],
    "protected is no map inside": [b"\x01", {5: IV}, CIPHERTEXT, [RECIPIENT]],
    "protected is no CBOR inside": [b"\xa1", {5: IV}, CIPHERTEXT, [RECIPIENT]],
    "protected is empty": [b"", {5: IV}, CIPHERTEXT, [RECIPIENT]],
    "protected has a doubled key": [bytes.fromhex("a201030103"), {5: IV}, CIPHERTEXT, [RECIPIENT]],
    "tagged inside": cbor2.CBORTag(96, ENCRYPT),
}


@pytest.mark.parametrize("value", NOT_ENCRYPT.values(), ids=NOT_ENCRYPT)
def test_what_is_no_encrypt_of_a_blob(value: object) -> None:
    """COSE that a blob never contains is refused, though cbor2 reads it."""
    data = tagged(TAG_ENCRYPT, value)
    cbor2.loads(data)
    refuse(CoseEncrypt, data)


@pytest.mark.parametrize("tag", [TAG_ENCRYPT0, TAG_SIGN1, 97, 98, 55799])
def test_another_tag(tag: int) -> None:
    """The tag says what it is: another one, or none, is refused."""
    refuse(CoseEncrypt, tagged(tag, ENCRYPT))
    refuse(CoseEncrypt, cbor2.dumps(ENCRYPT))
    if tag != TAG_SIGN1:
        refuse(CoseSign1, tagged(tag, SIGN1))
    refuse(CoseSign1, cbor2.dumps(SIGN1))


def test_a_tag_in_another_form() -> None:
    """The tag in three bytes instead of two is another encoding of the same, and refused."""
    refuse(CoseEncrypt, b"\xd9\x00\x60" + cbor2.dumps(ENCRYPT))
    refuse(CoseSign1, b"\xd8\x12" + cbor2.dumps(SIGN1))


@pytest.mark.parametrize(
    "value",
    [
        SIGN1[:3],
        [*SIGN1, b""],
        [SIGN1[0], {}, b"payload", b"s" * 64],
        [SIGN1[0], {4: "name"}, b"payload", b"s" * 64],
        [SIGN1[0], {1: -8, 4: KID}, b"payload", b"s" * 64],
        [bytes.fromhex("a0"), {4: KID}, b"payload", b"s" * 64],
        [b"", {4: KID}, b"payload", b"s" * 64],
        [SIGN1[0], {4: KID}, None, b"s" * 64],
        [SIGN1[0], {4: KID}, b"payload", "signature"],
    ],
    ids=range(9),
)
def test_what_is_no_sign1_of_a_blob(value: object) -> None:
    """A COSE_Sign1 with fields too many, too few or of another type is refused."""
    refuse(CoseSign1, tagged(TAG_SIGN1, value))


@pytest.mark.parametrize(("kind", "whole"), [(CoseEncrypt, tagged(96, ENCRYPT)), (CoseSign1, tagged(18, SIGN1))])
def test_truncated_and_extended(kind: type[CoseEncrypt | CoseSign1], whole: bytes) -> None:
    """Cut off anywhere, or with anything behind it, it is refused."""
    for length in range(len(whole)):
        refuse(kind, whole[:length])
    for tail in (b"\0", b"\xff", whole, b"\xf6"):
        refuse(kind, whole + tail)


@pytest.mark.parametrize(("kind", "whole"), [(CoseEncrypt, tagged(96, ENCRYPT)), (CoseSign1, tagged(18, SIGN1))])
@given(data=st.data())
def test_mutated(kind: type[CoseEncrypt | CoseSign1], whole: bytes, data: st.DataObject) -> None:
    """Changed bytes give BlobError or a structure that is written just as it was read; never another error."""
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    try:
        read = kind.decode(bytes(changed))
    except BlobError:
        return
    assert read.encode() == changed


@given(data=st.binary(max_size=80), tag=st.sampled_from([b"", b"\xd8\x60", b"\xd2", b"\xd8\x60\x84", b"\xd2\x84"]))
def test_random_bytes(tag: bytes, data: bytes) -> None:
    """Random bytes behind the right tag raise BlobError only."""
    for kind in (CoseEncrypt, CoseSign1):
        refuse(kind, tag + data)


def refuse(kind: type[CoseEncrypt | CoseSign1], data: bytes) -> None:
    """Check that it is a BlobError with a hint."""
    with pytest.raises(BlobError) as caught:
        kind.decode(data)
    assert caught.value.hint
