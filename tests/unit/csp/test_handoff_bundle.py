"""The bundle: whatever was done to it on its way, it is refused whole, before anything is claimed or made."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import random
import stat
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hsmbridge_csp.blob import Blob
from hsmbridge_csp.disposition import Outcome
from hsmbridge_csp.errors import BlobError
from hsmbridge_csp.handoff import bundle as bundles
from hsmbridge_csp.handoff.bundle import BundleHeader, verify_bundle
from hsmbridge_csp.handoff.destination import InProcess
from hsmbridge_csp.handoff.errors import AlreadyImportedError, KeyFileError
from hsmbridge_csp.handoff.messages import Offer
from hsmbridge_csp.handoff.offline import receive_bundle
from hsmbridge_csp.handoff.parties import Party
from hsmbridge_csp.handoff.proof import RunningDigest
from hsmbridge_csp.handoff.receiver import Receiver
from hsmbridge_csp.handoff.sender import Sender
from hsmbridge_csp.identity import FileIdentity
from hsmbridge_csp.recipient_ecdh import EcdhOpener, EcdhSealer
from hsmbridge_csp.trust import TrustStore, UnknownSenderError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hsmbridge.errors import ExistsError, HsmbridgeError, InputError, KekError
from tests.support.channels import ALICE, BOB
from tests.support.cwt import CwtRefusedError, requires_cwt, verify_with_cwt
from tests.support.handoffs import Sides, record_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hsmbridge_csp.record_key import RecordKey

CONTEXT = b"hsmbridge bundle/1"
MALLORY = FileIdentity.generate()


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[Sides]:
    """Alice and Bob."""
    both = Sides(tmp_path)
    yield both
    both.close()


def items_of(raw: bytes) -> list[bytes]:
    """Read a CBOR sequence with cbor2."""
    file, items = io.BytesIO(raw), []
    while file.tell() < len(raw):
        items.append(cbor2.load(file))
    return items


def joined(items: list[bytes]) -> bytes:
    """Write a CBOR sequence with cbor2."""
    return b"".join(cbor2.dumps(item) for item in items)


def signed_again(items: list[bytes], identity: FileIdentity = ALICE) -> bytes:
    """Put a right trailer behind header and blobs: what a dishonest sender can do."""
    header = BundleHeader.decode(items[0])
    running = RunningDigest(header.handoff)
    for blob in items[1:-1]:
        running.add(blob)
    trailer = bundles._trailer(items[0], running.digest(), identity)  # noqa: SLF001 - as a dishonest sender would
    return joined([*items[:-1], trailer])


def changed_header(items: list[bytes], **changes: Any) -> list[bytes]:  # noqa: ANN401 - fields
    """Exchange fields of the header."""
    return [replace(BundleHeader.decode(items[0]), **changes).encode(), *items[1:]]


def refused(sides: Sides, raw: bytes, kind: type[HsmbridgeError] = BlobError, party: Party | None = None) -> None:
    """Expect that a bundle is refused, and that nothing of it was written down or made."""
    path = sides.directory / "refused"
    path.write_bytes(raw)
    bob, destination = party or sides.bob, InProcess()
    with pytest.raises(kind) as caught:
        receive_bundle(Receiver(bob), bob, path, sides.opener, destination)
    assert caught.value.hint
    assert bob.journal.entries() == []
    assert destination.keys == []
    with bob.journal.reading() as database:
        assert database.execute("SELECT COUNT(*) FROM key").fetchone() == (0,)


def sent(sides: Sides, count: int = 3, name: str = "bundle") -> tuple[list[RecordKey], bytes]:
    """Send a bundle of keys."""
    keys = [record_key() for _ in range(count)]
    return keys, sides.send_bundle(keys, name).read_bytes()


def test_a_bundle_goes_and_its_receipt_comes(sides: Sides) -> None:
    """Keys arrive in their state, in order; the receipt destroys the source; the file is private."""
    keys, _ = sent(sides)
    values = [(bytes(key.value), key.state) for key in keys]
    pending = sides.pending(keys)
    path = sides.directory / "bundle"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {each.name for each in sides.directory.iterdir()} == {"alice", "bob", "bundle"}
    assert all(key.frozen for key in keys)
    received = sides.receive_bundle(path)
    assert [(bytes(key.value), key.state) for key in received.keys] == values  # type: ignore[attr-defined]  # record keys
    moved = Sender(sides.alice).settle(pending, received.statement)
    assert [found.outcome for found in moved.dispositions] == [Outcome.DESTROYED] * 3
    assert sides.phases() == (["done"], ["done"])


def test_a_bundle_by_the_document(sides: Sides) -> None:
    """It is a sequence of byte strings: a map, blobs, and a COSE_Sign1 over their running hash that cwt verifies."""
    requires_cwt()
    keys, raw = sent(sides)
    header, *blobs, trailer = items_of(raw)
    (entry,) = sides.alice.journal.entries()
    assert cbor2.loads(header) == {
        1: 1, 2: entry.handoff, 3: entry.nonce, 4: ALICE.fingerprint, 5: BOB.fingerprint, 6: sides.sealer.fingerprint,
        7: len(keys),
    }  # fmt: skip
    assert len(blobs) == len(keys)
    assert verify_with_cwt(trailer, CONTEXT + header, ALICE.public_key) == entry.digest
    with pytest.raises(CwtRefusedError):
        verify_with_cwt(trailer, CONTEXT, ALICE.public_key)


def test_flipped_bits(sides: Sides) -> None:
    """A bit anywhere: in each byte of the header, at each boundary, and sampled in every blob and in the trailer."""
    _, raw = sent(sides)
    items = items_of(raw)
    header = len(cbor2.dumps(items[0]))
    edges = [len(joined(items[:number])) + at for number in range(len(items)) for at in range(3)]
    chance = random.Random(raw)  # noqa: S311 - a sample, not a secret
    places = {*range(header), *edges, *chance.sample(range(len(raw)), 150), *range(len(raw) - 80, len(raw))}
    assert len(places) > 300
    for at in sorted(places):
        changed = bytearray(raw)
        changed[at] ^= 1 << chance.randrange(8)
        refused(sides, bytes(changed), HsmbridgeError)
    assert sides.receive_bundle(sides.directory / "bundle").keys


def test_flipped_bits_are_input_errors(sides: Sides) -> None:
    """Damage is told from a stranger's bundle: where the sender's name is whole it is a BlobError, always."""
    _, raw = sent(sides, 1)
    sender = raw.index(ALICE.fingerprint)
    for at in range(0, len(raw), 7):
        if not sender <= at < sender + 32:
            changed = bytearray(raw)
            changed[at] ^= 1
            refused(sides, bytes(changed), InputError)


@pytest.mark.parametrize(
    "change",
    [
        lambda items: [*items[:1], items[2], items[1], *items[3:]],
        lambda items: [*items[:2], items[1], *items[3:]],
        lambda items: [*items[:2], items[1], *items[2:]],
        lambda items: [*items[:1], *items[2:]],
        lambda items: [*items[:3], items[-1]],
        lambda items: items[:-1],
        lambda items: [*items, items[-1]],
        lambda items: [*items, b""],
        lambda items: items[1:],
        lambda items: items[:1],
        lambda items: items[:0],
        lambda items: [items[0], *items],
        lambda items: [items[0], b"", *items[2:]],
        lambda items: changed_header(items, count=2),
        lambda items: changed_header(items, count=4),
        lambda items: changed_header(items, nonce=bytes(32)),
        lambda items: changed_header(items, handoff=bytes(16)),
        lambda items: changed_header(items, recipient=bytes(32)),
    ],
)
def test_blobs_in_other_places(sides: Sides, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """Blobs exchanged, doubled, added, left out; parts missing or twice; a header that says something else."""
    _, raw = sent(sides)
    refused(sides, joined(change(items_of(raw))))


def test_a_blob_of_another_bundle(sides: Sides) -> None:
    """A blob, a trailer or a header of another bundle of the same two parties does not pass."""
    one, two = (items_of(sent(sides, name=name)[1]) for name in ("one", "two"))
    for number in range(len(one)):
        refused(sides, joined([*one[:number], two[number], *one[number + 1 :]]))


@pytest.mark.parametrize("name", ["cut", "more", "wider", "indefinite", "text", "array", "too long", "endless"])
def test_other_shapes(sides: Sides, name: str) -> None:
    """Cut off, with bytes behind, not in the shortest form, of another type, or longer than an item may be."""
    _, raw = sent(sides)
    items = items_of(raw)
    head = len(cbor2.dumps(items[0])) - len(items[0])
    shapes = {
        "more": raw + b"\0",
        "wider": b"\x59" + len(items[0]).to_bytes(2, "big") + raw[head:],
        "indefinite": b"\x5f" + raw + b"\xff",
        "text": b"\x78" + raw[1:],
        "array": b"\x9f" + raw + b"\xff",
        "too long": raw[: head + len(items[0])] + b"\x5a\x00\x10\x00\x01" + bytes((1 << 20) + 1),
        "endless": raw[: head + len(items[0])] + b"\x5b" + b"\xff" * 8,
    }
    if name != "cut":
        refused(sides, shapes[name])
        return
    for size in {*range(0, len(raw), 97), *range(200), *range(len(raw) - 120, len(raw))}:
        refused(sides, raw[:size])


def test_a_bundle_of_a_stranger(sides: Sides) -> None:
    """Who is not pinned cannot send, whether in his own name, in Alice's, or with her trailer's name alone."""
    _, raw = sent(sides)
    items = items_of(raw)
    refused(sides, signed_again(changed_header(items, sender=MALLORY.fingerprint), MALLORY), UnknownSenderError)
    refused(sides, signed_again(items, MALLORY))
    refused(sides, signed_again(changed_header(items, sender=MALLORY.fingerprint), ALICE))
    stranger = Party(identity=BOB, journal=sides.bob.journal, trust=TrustStore())
    refused(sides, raw, UnknownSenderError, stranger)


def test_blobs_that_somebody_else_signed(sides: Sides) -> None:
    """Each blob in a sender's bundle must be signed by him too: unsigned, or signed by another, it is not opened."""
    _, raw = sent(sides)
    items = items_of(raw)
    blob = Blob.parse(items[1])
    assert blob.signed is not None
    by_mallory = replace(blob.signed, kid=MALLORY.fingerprint)
    by_mallory = replace(by_mallory, signature=MALLORY.sign(by_mallory.to_be_signed(blob.header)))
    in_her_name = replace(by_mallory, kid=ALICE.fingerprint)
    for number, body in enumerate((blob.encrypted.encode(), by_mallory.encode(), in_her_name.encode())):
        path = sides.directory / f"again {number}"
        path.write_bytes(signed_again([items[0], blob.header + body, *items[2:]]))
        destination = InProcess()
        with pytest.raises((BlobError, UnknownSenderError)):
            sides.receive_bundle(path, destination)
        assert destination.keys == []
        (entry,) = sides.bob.journal.entries()
        assert (str(entry.phase), entry.statement) == ("offered", b"")


def test_one_blob_twice_by_a_dishonest_sender(sides: Sides) -> None:
    """Signed anew with one blob twice: it is claimed once for ever, so nothing is made."""
    _, raw = sent(sides)
    items = items_of(raw)
    path = sides.directory / "twice"
    path.write_bytes(signed_again([*items[:3], items[1], items[-1]]))
    destination = InProcess()
    with pytest.raises(AlreadyImportedError):
        sides.receive_bundle(path, destination)
    assert destination.keys == []
    (entry,) = sides.bob.journal.entries()
    assert entry.statement == b""


def test_one_blob_in_two_bundles(sides: Sides) -> None:
    """A sender who puts an imported blob into another handoff's bundle gets it in no more."""
    _, one = sent(sides, name="one")
    _, two = sent(sides, name="two")
    assert sides.receive_bundle(sides.directory / "one").keys
    first, second = items_of(one), items_of(two)
    path = sides.directory / "mixed"
    path.write_bytes(signed_again([*second[:2], first[2], *second[3:]]))
    destination = InProcess()
    with pytest.raises(AlreadyImportedError):
        sides.receive_bundle(path, destination)
    assert destination.keys == []


def test_a_replay(sides: Sides) -> None:
    """The same bundle, or a copy under another name, imports once; so it does after a refusal."""
    keys, raw = sent(sides)
    received = sides.receive_bundle(sides.directory / "bundle")
    copy = sides.directory / "copy"
    copy.write_bytes(raw)
    for path in (sides.directory / "bundle", copy, copy):
        destination = InProcess()
        with pytest.raises(AlreadyImportedError):
            sides.receive_bundle(path, destination)
        assert destination.keys == []
    (entry,) = sides.bob.journal.entries()
    assert entry.statement == received.statement
    sent(sides, name="other")
    header, digest = verify_bundle(sides.directory / "other", sides.bob.key_of)
    offer = Offer(handoff=header.handoff, nonce=header.nonce, count=header.count, digest=digest)
    receiver = Receiver(sides.bob)
    receiver.refuse(receiver.offered(offer, ALICE.fingerprint, "other"), "by hand")
    with pytest.raises(AlreadyImportedError):
        sides.receive_bundle(sides.directory / "other")
    assert all(key.frozen for key in keys)


def test_for_another_recipient(sides: Sides) -> None:
    """A bundle that wants its receipt from somebody else, or is sealed for another key, is not opened."""
    path = sides.send_bundle([record_key()], "for mallory", peer=MALLORY.fingerprint)
    refused(sides, path.read_bytes(), KekError)
    foreign = EcdhSealer(ec.generate_private_key(ec.SECP256R1()).public_key())
    keys = [record_key()]
    path = sides.send_bundle(keys, "other key", recipient=foreign)
    destination = InProcess()
    with pytest.raises(HsmbridgeError):
        sides.receive_bundle(path, destination)
    assert destination.keys == []
    (entry,) = sides.bob.journal.entries()
    assert (str(entry.phase), entry.statement) == ("offered", b""), "the right key may still open it"


def test_the_right_key_after_a_wrong_one(sides: Sides) -> None:
    """To open a bundle with a wrong key costs nothing: with the right one it is imported, once."""
    sent(sides)
    path = sides.directory / "bundle"
    wrong = EcdhOpener(ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(HsmbridgeError):
        receive_bundle(Receiver(sides.bob), sides.bob, path, wrong, InProcess())
    assert len(sides.receive_bundle(path).keys) == 3


def test_a_name_that_is_taken(sides: Sides) -> None:
    """No file is overwritten: neither one that is there at first, nor one that comes while the bundle is written."""
    key = record_key()
    path = sides.directory / "bundle"
    path.write_bytes(b"mine")
    with pytest.raises(ExistsError):
        sides.send_bundle([key])
    assert path.read_bytes() == b"mine"
    assert key.seal(b"")
    assert sides.phases() == ([], [])


class Interrupted(io.FileIO):
    """A file in which the disk is full after some bytes, or a signal comes.

    Args:
        descriptor: of the file; mode: of it; room: bytes that it takes; error: what happens then.
    """

    def __init__(self, descriptor: int, mode: str, room: int, error: BaseException) -> None:
        super().__init__(descriptor, mode)
        self._room = room
        self._error = error

    def write(self, data: Any) -> int:  # noqa: ANN401 - a buffer
        """Write, as long as there is room."""
        self._room -= len(data)
        if self._room < 0:
            raise self._error
        return super().write(data)


@pytest.mark.parametrize("room", [0, 300, 900, 2100])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_write(
    sides: Sides, monkeypatch: pytest.MonkeyPatch, room: int, error: BaseException
) -> None:  # fmt: skip
    """A disk that is full at any point, or a SIGINT: no bundle is left, not even an unfinished one; the keys go on."""
    keys = [record_key() for _ in range(3)]

    def opened(descriptor: int, mode: str) -> Interrupted:
        return Interrupted(descriptor, mode, room, error)

    with monkeypatch.context() as patch:
        patch.setattr("hsmbridge_csp.handoff.bundle.os.fdopen", opened)
        with pytest.raises((type(error), KeyFileError)):
            sides.send_bundle(keys)
    assert {each.name for each in sides.directory.iterdir()} == {"alice", "bob"}
    for key in keys:
        assert key.seal(b"")
    assert sides.phases() == (["thawed"], [])
    sides.send_bundle(keys)
    assert sides.receive_bundle(sides.directory / "bundle").keys


def test_a_directory_that_is_not_there(sides: Sides) -> None:
    """A bundle that cannot even be begun: the keys go on."""
    key = record_key()
    with pytest.raises((HsmbridgeError, OSError)):
        sides.send_bundle([key], "missing/bundle")
    assert key.seal(b"")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sides, list[bytes]]]:
    """A bundle's items, and whoever may receive it."""
    both = Sides(tmp_path_factory.mktemp("template"))
    yield both, items_of(sent(both, 2)[1])
    both.close()


HEADERS = st.dictionaries(
    st.integers(0, 8),
    st.sampled_from([1, 2, True, bytes(16), bytes(32), ALICE.fingerprint, BOB.fingerprint, "", None, 1 << 64]),
    max_size=9,
).map(cbor2.dumps)
SEQUENCES = st.lists(st.binary(max_size=60) | HEADERS, max_size=5).map(joined)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=400) | SEQUENCES | st.lists(st.integers() | st.text(), max_size=3).map(cbor2.dumps))
def test_random_bundles(template: tuple[Sides, list[bytes]], raw: bytes) -> None:
    """Random bytes, random sequences and nearly right headers: InputError and nothing else; nothing is written down."""
    sides, _ = template
    refused(sides, raw, InputError)


@given(data=st.data())
def test_random_parts(template: tuple[Sides, list[bytes]], data: st.DataObject) -> None:
    """A true bundle in which a part is exchanged for anything, signed anew by its true sender: one family of errors."""
    sides, items = template
    number = data.draw(st.integers(1, len(items) - 2))
    part = data.draw(st.binary(max_size=300) | st.just(items[number][:-1]) | st.just(items[number] + b"\0"))
    raw = signed_again([*items[:number], part, *items[number + 1 :]])
    path = sides.directory / "random"
    path.write_bytes(raw)
    destination = InProcess()
    with pytest.raises(HsmbridgeError):
        sides.receive_bundle(path, destination)
    assert destination.keys == []
    with sides.bob.journal.transaction() as database:
        database.execute("DELETE FROM handoff")


@given(st.binary(max_size=80) | HEADERS)
def test_random_headers(raw: bytes) -> None:
    """A header is refused with BlobError, or encodes to the same bytes again."""
    with contextlib.suppress(BlobError):
        assert BundleHeader.decode(raw).encode() == raw


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_may_not_be_written(sides: Sides) -> None:
    """The same for a directory in which nobody may write."""
    closed = sides.directory / "closed"
    closed.mkdir(0o500)
    key = record_key()
    with pytest.raises((HsmbridgeError, OSError)):
        sides.send_bundle([key], "closed/bundle")
    assert key.seal(b"")
