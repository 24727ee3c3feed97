"""The OPAQUEKEYBLOB as a whole: put together by cbor2 and taken apart by us, and everything that is none."""

from __future__ import annotations

import functools
from typing import Any

import cbor2
import pytest
from hsmbridge_csp.blob import MAX_BLOB, Blob, describe_opaque, header_for
from hsmbridge_csp.blobheader import AlgId
from hsmbridge_csp.clearpart import ClearPart, Purpose
from hsmbridge_csp.errors import NTE, BlobError
from hypothesis import given
from hypothesis import strategies as st

OWN = list(range(-65537, -65546, -1))
BLOB_ID, KID = bytes(range(16)), b"kid of the KEK.."
# BLOBHEADER: OPAQUEKEYBLOB, version 2, reserved, CALG_AES_256, little-endian (wincrypt.h)
HEADER = bytes.fromhex("0902000010660000")


def clear_map(**changes: object) -> dict[Any, Any]:
    """Return a protected header, put together by hand; ``L65540=…`` changes the field -65540."""
    values = [1, BLOB_ID, 1_700_000_000, "AES", 256, False, "move", b"", KID]
    changed = {-int(name[1:]): value for name, value in changes.items()}
    return {1: 3, 2: OWN, 3: "application/cbor", **dict(zip(OWN, values, strict=True)), **changed}


def encrypt_of(protected: dict[Any, Any]) -> bytes:
    """Return a COSE_Encrypt around it; nobody can open it."""
    recipient = [b"", {1: -5, 4: KID}, b"w" * 40]
    return cbor2.dumps(cbor2.CBORTag(96, [cbor2.dumps(protected), {5: b"i" * 12}, b"c" * 60, [recipient]]))


@functools.cache
def whole() -> bytes:
    """Return a blob, put together by hand."""
    return HEADER + encrypt_of(clear_map())


def signed() -> bytes:
    """Return the same with a COSE_Sign1 around the COSE_Encrypt."""
    body = [cbor2.dumps({1: -8}), {4: b"signer"}, encrypt_of(clear_map()), b"s" * 64]
    return HEADER + cbor2.dumps(cbor2.CBORTag(18, body))


def refuse(data: bytes, nte: NTE | None = None) -> None:
    """Check that both readers refuse *data* with a hint, and with this code where one is named."""
    for reader in (Blob.parse, describe_opaque):
        with pytest.raises(BlobError) as caught:
            reader(data)
        assert caught.value.hint
        assert nte is None or caught.value.nte == nte


def test_a_blob_is_read() -> None:
    """A blob put together by hand is taken apart, and written with the same bytes."""
    blob = Blob.parse(whole())
    assert blob.header == HEADER
    assert (blob.clear.blob_id, blob.clear.key_type, blob.clear.bits) == (BLOB_ID, "AES", 256)
    assert (blob.clear.purpose, blob.clear.by_reference) == (Purpose.MOVE, False)
    assert [recipient.kid for recipient in blob.encrypted.recipients] == [KID]
    assert blob.signed is None
    assert blob.encode() == whole()


def test_a_signed_blob_is_read() -> None:
    """A COSE_Sign1 around it is seen, and what it signs is the same COSE_Encrypt."""
    blob = Blob.parse(signed())
    assert blob.signed is not None
    assert (blob.signed.kid, blob.signed.signature) == (b"signer", b"s" * 64)
    assert blob.clear == Blob.parse(whole()).clear
    assert blob.encode() == signed()


def test_what_inspect_says() -> None:
    """The description names what stands in clear, and nothing else."""
    told = describe_opaque(whole())
    assert told["type"] == "OPAQUEKEYBLOB"
    assert (told["algorithm"], told["bits"], told["purpose"]) == ("AES", 256, "move")
    assert (told["blob_id"], told["signed"]) == (BLOB_ID.hex(), False)
    assert KID.hex() in str(told["recipients"])
    assert describe_opaque(signed())["signed"] is True


@pytest.mark.parametrize("data", [whole(), signed()], ids=["unsigned", "signed"])
def test_every_truncation(data: bytes) -> None:
    """Cut off anywhere, it is refused."""
    for length in range(len(data)):
        refuse(data[:length])


@pytest.mark.parametrize("data", [whole(), signed()], ids=["unsigned", "signed"])
def test_anything_behind_it(data: bytes) -> None:
    """With anything behind it, it is refused."""
    for tail in (b"\0", b"\xf6", b"\xff", data, bytes(64)):
        refuse(data + tail)


@pytest.mark.parametrize("data", [whole(), signed()], ids=["unsigned", "signed"])
def test_every_bit_flip(data: bytes) -> None:
    """With any bit flipped it is refused, or read as exactly the changed bytes: nothing is mended or skipped."""
    for position in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            exact(bytes(changed))


@given(data=st.data(), original=st.sampled_from([whole(), signed()]))
def test_mutated(original: bytes, data: st.DataObject) -> None:
    """So it is with several bytes changed, taken out or put in."""
    changed = bytearray(original)
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    exact(bytes(changed))


@given(data=st.binary(max_size=100), front=st.sampled_from([b"", HEADER, HEADER + b"\xd8\x60", HEADER + b"\xd2\x84"]))
def test_random_bytes(front: bytes, data: bytes) -> None:
    """Random bytes, behind a right beginning too, raise BlobError only."""
    refuse(front + data)


@pytest.mark.parametrize("version", [0, 1, 3, 255])
def test_an_unknown_blob_version(version: int) -> None:
    """A BLOBHEADER of another version than 2 is refused."""
    refuse(whole()[:1] + bytes([version]) + whole()[2:], NTE.BAD_VER)


def test_an_unknown_format_version() -> None:
    """A later version of the format is NTE_BAD_VER."""
    refuse(HEADER + encrypt_of(clear_map(L65537=2)), NTE.BAD_VER)


def test_an_unknown_critical_label() -> None:
    """A critical label that we do not know is NTE_BAD_VER, with its field there or not."""
    refuse(HEADER + encrypt_of({**clear_map(), 2: [*OWN, -65546]}), NTE.BAD_VER)
    refuse(HEADER + encrypt_of({**clear_map(), 2: [*OWN, -65546], -65546: 1}), NTE.BAD_VER)


@pytest.mark.parametrize("kind", [0x00, 0x01, 0x06, 0x07, 0x08, 0x0A, 0x0B, 0x0C, 0xFF])
def test_another_type_of_blob(kind: int) -> None:
    """A CryptoAPI blob of another type is not taken for ours, whatever is inside."""
    refuse(bytes([kind]) + whole()[1:], NTE.BAD_TYPE)


def test_reserved_bytes() -> None:
    """The header's reserved bytes are zero."""
    refuse(whole()[:2] + b"\x01\x00" + whole()[4:], NTE.BAD_DATA)


@pytest.mark.parametrize(
    "algorithm", [AlgId.AES_128, AlgId.TRIPLE_DES, AlgId.RSA_KEYX, AlgId.NONE, AlgId.AES, 0xFFFFFFFF]
)
def test_header_and_clear_part_disagree(algorithm: int) -> None:
    """A BLOBHEADER that names another algorithm than the clear part is NTE_BAD_ALGID."""
    refuse(whole()[:4] + int(algorithm).to_bytes(4, "little") + whole()[8:], NTE.BAD_ALGID)


@pytest.mark.parametrize(
    "change", [{"L65541": 128}, {"L65540": "3DES"}, {"L65540": "RSA", "L65541": 2048}, {"L65540": "EC"}], ids=str
)
def test_clear_part_and_header_disagree(change: dict[str, Any]) -> None:
    """So it is when the clear part was changed and the header was not."""
    refuse(HEADER + encrypt_of(clear_map(**change)), NTE.BAD_ALGID)


@pytest.mark.parametrize(
    ("key_type", "bits", "algorithm"),
    [
        ("AES", 128, 0x660E),
        ("AES", 192, 0x660F),
        ("AES", 256, 0x6610),
        ("3DES", 192, 0x6603),
        ("RSA", 3072, 0xA400),
        ("HMAC", 160, 0x8009),
        ("Ed25519", 255, 0),
    ],
)
def test_the_header_names_the_key(key_type: str, bits: int, algorithm: int) -> None:
    """The eight bytes in front are wincrypt.h's: 09 02 00 00 and the ALG_ID, 0 where CryptoAPI has none."""
    clear = ClearPart(
        blob_id=BLOB_ID,
        created=0,
        key_type=key_type,
        bits=bits,
        by_reference=False,
        purpose=Purpose.COPY,
        sender=b"",
        recipient=b"",
    )
    assert header_for(clear) == b"\x09\x02\x00\x00" + algorithm.to_bytes(4, "little")


def test_oversized() -> None:
    """More than MAX_BLOB bytes are refused before anything else is looked at: NTE_BAD_LEN."""
    refuse(whole() + bytes(MAX_BLOB), NTE.BAD_LEN)


@pytest.mark.parametrize("body", [b"", b"\xd8\x60", b"\xd2", b"\xf6", b"\xd0\x83\x40\xa0\x40"])
def test_a_header_with_something_else_behind(body: bytes) -> None:
    """A right header makes no blob."""
    refuse(HEADER + body)


def test_a_signature_inside_a_signature() -> None:
    """A COSE_Sign1 around a COSE_Sign1 is refused: there is one sender."""
    body = [cbor2.dumps({1: -8}), {4: b"signer"}, signed()[8:], b"s" * 64]
    refuse(HEADER + cbor2.dumps(cbor2.CBORTag(18, body)))


def exact(data: bytes) -> None:
    """Check that *data* is refused, or read and written as it is."""
    try:
        blob = Blob.parse(data)
    except BlobError:
        return
    assert blob.encode() == data
