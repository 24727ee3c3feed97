"""Blobs that are sealed for a channel: what goes in comes out once and in order, and nothing else comes out."""

from __future__ import annotations

import os
import secrets
from dataclasses import replace
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hsmbridge_csp import channel_blob
from hsmbridge_csp.blob import MAX_BLOB, Blob, describe_opaque
from hsmbridge_csp.channel_blob import ChannelOpener, ChannelSealer
from hsmbridge_csp.clearpart import ClearPart, Purpose
from hsmbridge_csp.cose_encrypt0 import CoseEncrypt0
from hsmbridge_csp.errors import NTE, BlobError
from hsmbridge_csp.record import KeyRecord, Transfer
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cwt import CwtRefusedError, open_channel_blob_with_cwt

KEY = bytes(range(32))
SENDER, RECIPIENT = b"s" * 32, b"r" * 32
OWN = list(range(-65537, -65546, -1))


def clear_part(**changes: Any) -> ClearPart:  # noqa: ANN401 - the fields of ClearPart
    """Return the clear part of a key that moves, with a fresh blob id."""
    fields: dict[str, Any] = {
        "blob_id": secrets.token_bytes(16),
        "created": 1_767_225_600,
        "key_type": "AES-GCM",
        "bits": 256,
        "by_reference": False,
        "purpose": Purpose.MOVE,
        "sender": SENDER,
        "recipient": RECIPIENT,
    }
    return ClearPart(**{**fields, **changes})


def record_of(clear: ClearPart, key: bytes = b"k" * 32, **changes: Any) -> KeyRecord:  # noqa: ANN401 - likewise
    """Return a record that agrees with a clear part."""
    fields: dict[str, Any] = {"transfer": Transfer.VALUE, "permissions": 0x3F, "key": key, "state": {1: b"i" * 12}}
    return KeyRecord(**{"algorithm": clear.key_type, **fields, **changes})


def sealer(key: bytes = KEY) -> ChannelSealer:
    """Return the sender's end of a new handoff."""
    return ChannelSealer(bytes(bytearray(key)), SENDER, RECIPIENT)


def opener(key: bytes = KEY) -> ChannelOpener:
    """Return the recipient's end."""
    return ChannelOpener(bytes(bytearray(key)), SENDER, RECIPIENT)


def several(count: int) -> list[bytes]:
    """Return the blobs of a handoff of keys of one kind."""
    one = sealer()
    clears = [clear_part() for _ in range(count)]
    return [one.seal(clear, record_of(clear, bytes([number & 0xFF]) * 32)) for number, clear in enumerate(clears)]


def by_hand(number: int, record: object = None, header: object = "0902000000000000", **changes: object) -> bytes:
    """Put a blob together with cbor2 and ``cryptography`` alone; ``L65540=…`` changes the field -65540."""
    own = [1, b"i" * 16, 1_767_225_600, "AES-GCM", 256, False, "move", SENDER, RECIPIENT]
    changed = {-int(name[1:]): value for name, value in changes.items()}
    fields = {1: 3, 2: OWN, 3: "application/cbor", **dict(zip(OWN, own, strict=True)), **changed}
    raw_header, protected, iv = bytes.fromhex(str(header)), cbor2.dumps(fields), number.to_bytes(12, "big")
    if record is None:
        record = {1: fields[-65540], 2: 1, 3: b"k" * 32, 11: {1: b"i" * 12}, 13: 0x3F}
    aad = cbor2.dumps(["Encrypt0", protected, raw_header])
    ciphertext = AESGCM(KEY).encrypt(iv, cbor2.dumps(record), aad)
    return raw_header + cbor2.dumps(cbor2.CBORTag(16, [protected, {5: iv}, ciphertext]))


def refuse(data: bytes, one: ChannelOpener | None = None, nte: NTE | None = None) -> None:
    """Check that an opener refuses *data* with a hint, and with this code where one is named."""
    with pytest.raises(BlobError) as caught:
        (one or opener()).open(data)
    assert caught.value.hint
    assert nte is None or caught.value.nte == nte


def test_what_goes_in_comes_out() -> None:
    """Clear parts and records of keys of several kinds come out equal, in the order in which they went in."""
    clears = [
        clear_part(),
        clear_part(),
        clear_part(key_type="AES", bits=128),
        clear_part(key_type="HMAC-SHA256", created=1 << 40),
        clear_part(),
    ]
    records = [record_of(clear, secrets.token_bytes(32)) for clear in clears]
    out, into = sealer(), opener()
    blobs = [out.seal(clear, record) for clear, record in zip(clears, records, strict=True)]
    assert [into.open(blob) for blob in blobs] == list(zip(clears, records, strict=True))


def test_it_is_cose() -> None:
    """Each blob is, byte by byte, what cbor2 and AES-GCM make of the documented fields: the mould changes nothing."""
    out = sealer()
    for number in range(3):
        clear = clear_part(blob_id=b"i" * 16)
        assert out.seal(clear, record_of(clear)) == by_hand(number)


def test_what_others_made_is_opened() -> None:
    """Blobs that were put together by hand are opened."""
    into = opener()
    for number in range(3):
        clear, record = into.open(by_hand(number))
        assert (clear, record) == (clear_part(blob_id=b"i" * 16), record_of(clear))


def test_another_implementation_opens_it() -> None:
    """Judged by cwt: it opens each blob of a handoff with its content key, and none that was changed."""
    out = sealer()
    clear = clear_part()
    record = record_of(clear)
    first, second = out.seal(clear, record), out.seal(clear, record)
    assert open_channel_blob_with_cwt(first, KEY) == record.encode()
    assert open_channel_blob_with_cwt(second, KEY) == record.encode()
    with pytest.raises(CwtRefusedError):
        open_channel_blob_with_cwt(first, KEY[::-1])
    for changed in (4, 60, len(first) - 1):  # header, clear part, tag
        with pytest.raises(CwtRefusedError):
            open_channel_blob_with_cwt(first[:changed] + bytes([first[changed] ^ 1]) + first[changed + 1 :], KEY)


def test_no_iv_comes_twice() -> None:
    """The IV counts the blobs from zero, so that no two blobs of one key have the same."""
    ivs = [cbor2.loads(blob[8:]).value[1][5] for blob in several(300)]
    assert ivs == [number.to_bytes(12, "big") for number in range(300)]


@pytest.mark.parametrize("seal_first", [True, False], ids=["second", "first"])
def test_a_nonce_is_used_up_by_trying(seal_first: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001 - a parameter of the test
    """A sealing that fails after its nonce was chosen does not give that nonce to the next one."""
    out, clear = sealer(), clear_part()
    if seal_first:
        out.seal(clear, record_of(clear))
    with monkeypatch.context() as patch:
        patch.setattr(channel_blob, "wipe", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            out.seal(clear, record_of(clear))
    blob = out.seal(clear, record_of(clear))
    assert cbor2.loads(blob[8:]).value[1][5] == (1 + seal_first).to_bytes(12, "big")


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_used_up_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the last number a key seals and opens nothing more, and begins nowhere again."""
    monkeypatch.setattr(channel_blob, "MAX_BLOBS", 2)
    out, into, clear = sealer(), opener(), clear_part()
    blobs = [out.seal(clear, record_of(clear)) for _ in range(2)]
    for blob in blobs:
        into.open(blob)
    for _ in range(2):
        with pytest.raises(BlobError) as caught:
            out.seal(clear, record_of(clear))
        assert caught.value.nte == NTE.BAD_KEY
        refuse(by_hand(2), into, NTE.BAD_KEY)


def test_a_forked_child() -> None:
    """A forked child can seal nothing with its parent's key: it would use the parent's next nonce."""
    out, clear = sealer(), clear_part()
    child = os.fork()
    if not child:
        status = 1
        try:
            out.seal(clear, record_of(clear))
        except BlobError:
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    opener().open(out.seal(clear, record_of(clear)))


def test_a_forgotten_key() -> None:
    """When a handoff is over, its key is overwritten, and both ends are of no more use."""
    key = bytes(bytearray(KEY))
    out, into, clear = ChannelSealer(key, SENDER, RECIPIENT), opener(), clear_part()
    blob = out.seal(clear, record_of(clear))
    out.forget()
    into.forget()
    assert key == bytes(32)
    refuse(blob, into, NTE.BAD_KEY)
    with pytest.raises(BlobError):
        out.seal(clear, record_of(clear))


def test_order() -> None:
    """A blob that was replayed, left out or brought forward is refused, and the right one is opened all the same."""
    blobs = several(4)
    for number in range(4):
        into = opener()
        for blob in blobs[:number]:
            into.open(blob)
        for other in (*blobs[:number], *blobs[number + 1 :]):
            refuse(other, into, NTE.BAD_DATA)
        into.open(blobs[number])


def test_another_handoff() -> None:
    """A blob of another key is not authentic; one that names other ends is refused, authentic or not."""
    (blob,) = several(1)
    refuse(blob, opener(KEY[::-1]), NTE.BAD_DATA)
    refuse(blob, ChannelOpener(bytes(bytearray(KEY)), RECIPIENT, SENDER), NTE.BAD_DATA)  # reflected
    for name in ("L65544", "L65545"):
        for end in (b"", b"x" * 32, SENDER[:16]):
            refuse(by_hand(0, **{name: end}), nte=NTE.BAD_DATA)


def test_after_the_first() -> None:
    """Where the first blob has made the mould, the second is checked as strictly: ends, purpose, kind of key."""
    changes: list[dict[str, object]] = [
        {"L65544": b"x" * 32}, {"L65545": b"x" * 32}, {"L65543": "copy"}, {"L65537": 2}, {"L65542": True},
        {"L65540": "CHACHA20-POLY1305", "record": {1: "AES-GCM", 2: 1, 3: b"k", 13: 1}}, {"header": "0902000010660000"},
    ]  # fmt: skip
    for change in changes:
        into = opener()
        into.open(by_hand(0))
        refuse(by_hand(1, **change), into)
        into.open(by_hand(1))


def test_a_copy() -> None:
    """A key over a channel moves: a blob that says it is a copy is neither made nor taken."""
    refuse(by_hand(0, L65543="copy"), nte=NTE.BAD_DATA)
    clear = clear_part(purpose=Purpose.COPY)
    with pytest.raises(BlobError):
        sealer().seal(clear, record_of(clear))


def test_other_ends_are_not_sealed_for() -> None:
    """Nothing is sealed with a clear part that names other ends than the channel has, not after a right one either."""
    right = clear_part()
    for wrong in (clear_part(sender=b"x" * 32), clear_part(recipient=b""), clear_part(purpose=Purpose.COPY)):
        out = sealer()
        for _ in range(2):
            with pytest.raises(BlobError):
                out.seal(wrong, record_of(wrong))
            out.seal(right, record_of(right))


@pytest.mark.parametrize(
    "record",
    [
        {1: "AES", 2: 1, 3: b"k" * 32, 13: 1},  # another algorithm than the clear part says
        {1: "AES-GCM", 2: 3, 4: "x", 13: 1},  # no record
        {},
        b"",
        {1: "AES-GCM", 2: 1, 3: b"k" * 32, 13: True},
    ],
    ids=str,
)
def test_an_authentic_record_that_does_not_fit(record: object) -> None:
    """What is authentic must still be a record, and of the key that the clear part names."""
    refuse(by_hand(0, record))


def test_by_reference_must_agree() -> None:
    """A record by value is refused where the clear part says by reference."""
    refuse(by_hand(0, L65542=True), nte=NTE.BAD_ALGID)


@pytest.mark.parametrize("first", [True, False], ids=["parsed", "moulded"])
def test_every_bit_flip(first: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """With any bit flipped a blob is refused, as the first of a handoff and behind another one of its kind."""
    blobs = several(2)
    into = opener()
    if not first:
        into.open(blobs[0])
    data = blobs[0 if first else 1]
    for position in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            refuse(bytes(changed), into)
    into.open(data)


@pytest.mark.parametrize("first", [True, False], ids=["parsed", "moulded"])
def test_cut_off_and_added_to(first: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Cut off anywhere, or with anything behind it, it is refused."""
    blobs = several(2)
    into = opener()
    if not first:
        into.open(blobs[0])
    data = blobs[0 if first else 1]
    for length in range(len(data)):
        refuse(data[:length], into)
    for tail in (b"\0", b"\xf6", bytes(64), data):
        refuse(data + tail, into)
    refuse(data + bytes(MAX_BLOB), into, NTE.BAD_LEN)
    into.open(data)


@given(data=st.data())
def test_mutated(data: st.DataObject) -> None:
    """Several bytes changed, taken out or put in: BlobError only."""
    blobs = several(2)
    into = opener()
    number = data.draw(st.integers(0, 1))
    if number:
        into.open(blobs[0])
    changed = bytearray(blobs[number])
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    if bytes(changed) != blobs[number]:
        refuse(bytes(changed), into)


@given(rest=st.binary(max_size=100), front=st.sampled_from([b"", b"\xd0", b"\xd0\x83", b"\xd0\x83\x40\xa1\x05\x4c"]))
def test_random_bytes(front: bytes, rest: bytes) -> None:
    """Random bytes behind a right beginning raise BlobError only."""
    refuse(bytes.fromhex("0902000000000000") + front + rest)


@pytest.mark.parametrize("number", [0, 1], ids=["parsed", "moulded"])
def test_another_encoding_of_the_same(number: int) -> None:
    """A head that is longer than it must be is refused, though a CBOR library reads the same from it."""
    blobs = several(2)
    into = opener()
    for blob in blobs[:number]:
        into.open(blob)
    data = blobs[number]
    protected, unprotected, ciphertext = cbor2.loads(data[8:]).value
    for string in (protected, unprotected[5], ciphertext):
        head = cbor2.dumps(string)[: -len(string)]
        longer = {1: b"\x58", 2: b"\x59\0"}[len(head)] + len(string).to_bytes(1, "big")
        changed = data.replace(head + string, longer + string)
        assert len(changed) == len(data) + 1
        assert list(cbor2.loads(changed[8:]).value) == [protected, unprotected, ciphertext]
        refuse(changed, into, NTE.BAD_DATA)
    into.open(data)


def test_other_shapes() -> None:
    """A COSE_Encrypt0 has three elements, one IV of 12 bytes, a tag's length at least, and its own tag."""
    protected = cbor2.loads(by_hand(0)[8:]).value[0]
    iv, ciphertext = bytes(12), b"c" * 40
    for value in (
        [protected, {5: iv}],
        [protected, {5: iv}, ciphertext, []],
        [protected, {}, ciphertext],
        [protected, {5: iv[1:]}, ciphertext],
        [protected, {4: b"", 5: iv}, ciphertext],
        [protected, {5: iv}, b"c" * 15],
        [protected, {5: iv}, None],
        [b"", {5: iv}, ciphertext],
        [{}, {5: iv}, ciphertext],
    ):
        refuse(by_hand(0)[:8] + cbor2.dumps(cbor2.CBORTag(16, value)))
    for tag in (96, 18, 17):
        refuse(by_hand(0)[:8] + cbor2.dumps(cbor2.CBORTag(tag, [protected, {5: iv}, ciphertext])))
    assert CoseEncrypt0.decode(by_hand(0)[8:]).encode() == by_hand(0)[8:]


def test_plaintexts_are_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was in clear for a moment is handed to `wipe` at both ends, also when a record is refused."""
    wiped: list[bytes] = []
    monkeypatch.setattr(channel_blob, "wipe", wiped.append)
    out, into, clear = sealer(), opener(), clear_part()
    encoded = record_of(clear).encode()
    into.open(out.seal(clear, record_of(clear)))
    refuse(by_hand(1, {1: "no record"}), into)
    assert wiped == [encoded, encoded, cbor2.dumps({1: "no record"})]


def test_inspect_and_import() -> None:
    """A file with such a blob is described, and its import refused with a hint: its key is gone with the channel."""
    (blob,) = several(1)
    told = describe_opaque(blob)
    assert (told["algorithm"], told["purpose"], told["signed"]) == ("AES-GCM", "move", False)
    assert "one channel" in str(told["sealed_for"])
    assert told["recipients"] == [{"algorithm": "channel", "kid": RECIPIENT.hex()}]
    with pytest.raises(BlobError) as caught:
        Blob.parse(blob)
    assert caught.value.nte == NTE.BAD_TYPE
    assert "channel" in str(caught.value)
    assert "export" in str(caught.value.hint)


def test_a_representation_shows_no_key() -> None:
    """repr() of either end says how far it is, and shows no key."""
    out = sealer()
    clear = clear_part()
    out.seal(replace(clear, created=0), record_of(clear))
    assert repr(out) == "<ChannelSealer at 1>"
    assert repr(opener()) == "<ChannelOpener at 0>"
