"""Receipts and tombstones: only the recipient's own word about this very handoff ends it.

The judges are cwt, and docs/handoff.md written down once more with hashlib, hmac and cbor2.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cbor2
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hsmbridge_csp.cose import Algorithm
from hsmbridge_csp.disposition import Outcome
from hsmbridge_csp.errors import BadKeyError
from hsmbridge_csp.handoff.errors import InDoubtError, RefusedError, StatementError
from hsmbridge_csp.handoff.parties import Party
from hsmbridge_csp.handoff.proof import RunningDigest, prove_all
from hsmbridge_csp.handoff.receiver import Receiver
from hsmbridge_csp.handoff.recovery import Recovery
from hsmbridge_csp.handoff.sender import Sender
from hsmbridge_csp.handoff.statement import MAX_STATEMENT, Kind, peek_handoff, read_statement, sign_statement
from hsmbridge_csp.identity import FileIdentity, VerifyingKey
from hsmbridge_csp.journal import Entry, Owner, Phase
from hsmbridge_csp.journal import Role as Side
from hsmbridge_csp.trust import Role, TrustStore, make_pin
from hypothesis import given
from hypothesis import strategies as st

from hsmbridge.publickeys import spki_fingerprint
from tests.support.channels import ALICE, BOB, open_pair
from tests.support.cwt import CwtRefusedError, requires_cwt, verify_with_cwt
from tests.support.handoffs import Sides, live, record_key, statement_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hsmbridge_csp.handoff.ends import Pending
    from hsmbridge_csp.record_key import RecordKey

CONTEXT = b"hsmbridge statement/1"
MALLORY = FileIdentity.generate()


class P256Identity:
    """An identity that signs ES256, of ``cryptography`` alone."""

    algorithm = Algorithm.ES256

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.public_key: VerifyingKey = self._key.public_key()
        self.fingerprint = spki_fingerprint(self.public_key)

    def sign(self, message: bytes) -> bytes:
        """Sign: r and s."""
        r, s = decode_dss_signature(self._key.sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[Sides]:
    """Alice and Bob; Alice has pinned Mallory too, who takes part in other handoffs."""
    both = Sides(tmp_path)
    pins = (*both.alice.trust.pins, make_pin(Role.RECIPIENT, "mallory", MALLORY.public_key))
    both.alice = replace(both.alice, trust=TrustStore(pins))
    yield both
    both.close()


@pytest.fixture
def waiting(sides: Sides) -> tuple[Sides, list[RecordKey], Pending]:
    """A handoff of two keys that waits for its receipt."""
    keys = [record_key(), record_key()]
    assert isinstance(sides.doubted(keys), InDoubtError)
    return sides, keys, sides.pending(keys)


def untouched(sides: Sides, keys: list[RecordKey], values: list[bytes]) -> None:
    """Check that the keys are frozen, whole, and still wait for their receipt."""
    assert [key.frozen for key in keys] == [True] * len(keys)
    assert [bytes(key.value) for key in keys] == values
    (entry,) = sides.alice.journal.entries(open_only=True)
    assert (str(entry.phase), entry.statement) == ("sent", b"")


def signed(change: Callable[[Entry], dict[str, Any]], identity: Any = BOB) -> Callable[[Entry], bytes]:  # noqa: ANN401 - what signs
    """Return what makes a receipt with changes, signed."""
    return lambda entry: sign_statement(statement_for(entry, **change(entry)), identity)


def raw_sign1(payload: bytes, kid: bytes, key: ed25519.Ed25519PrivateKey, context: bytes = CONTEXT) -> bytes:
    """Sign with cbor2 and ``cryptography`` (RFC 9052 section 4.4)."""
    protected = cbor2.dumps({1: -8})
    signature = key.sign(cbor2.dumps(["Signature1", protected, context, payload]))
    return cbor2.dumps(cbor2.CBORTag(18, [protected, {4: kid}, payload, signature]))


BOBS = BOB._key  # noqa: SLF001 - a dishonest Bob signs what our code would not


def fields_of(entry: Entry) -> dict[int, Any]:
    """Return the right receipt's map, by docs/handoff.md."""
    return {
        1: 1, 2: entry.handoff, 3: entry.digest, 4: entry.count, 5: ALICE.fingerprint, 6: BOB.fingerprint,
        7: entry.nonce, 8: False, 9: entry.proof,
    }  # fmt: skip


def odd(change: dict[int, Any], *, without: int = 0, context: bytes = CONTEXT) -> Callable[[Entry], bytes]:
    """Return what makes a receipt of an odd shape that Bob really signs."""

    def make(entry: Entry) -> bytes:
        fields = {**fields_of(entry), **change}
        fields.pop(without, None)
        return raw_sign1(cbor2.dumps(dict(sorted(fields.items()))), BOB.fingerprint, BOBS, context)

    return make


def changed_bit(at: int) -> Callable[[Entry], bytes]:
    """Return what flips a bit of the right receipt."""

    def make(entry: Entry) -> bytes:
        raw = bytearray(sign_statement(statement_for(entry), BOB))
        raw[at % len(raw)] ^= 1
        return bytes(raw)

    return make


OTHER = bytes(range(32))
FORGERIES: dict[str, Callable[[Entry], bytes]] = {
    "another handoff": signed(lambda _: {"handoff": OTHER[:16]}),
    "other blobs": signed(lambda _: {"digest": OTHER}),
    "one key less": signed(lambda entry: {"count": entry.count - 1}),
    "one key more": signed(lambda entry: {"count": entry.count + 1}),
    "another sender": signed(lambda _: {"sender": BOB.fingerprint}),
    "another recipient": signed(lambda _: {"recipient": ALICE.fingerprint}),
    "another nonce": signed(lambda _: {"nonce": OTHER}),
    "another proof": signed(lambda _: {"proof": OTHER}),
    "no proof": signed(lambda _: {"proof": b""}),
    "no digest": signed(lambda _: {"digest": b""}),
    "a short handoff": signed(lambda entry: {"handoff": entry.handoff[:15]}),
    "a tombstone of another handoff": signed(lambda _: {"kind": Kind.TOMBSTONE, "proof": b"", "handoff": OTHER[:16]}),
    "a tombstone with another nonce": signed(lambda _: {"kind": Kind.TOMBSTONE, "proof": b"", "nonce": OTHER}),
    "a tombstone without a nonce": signed(lambda _: {"kind": Kind.TOMBSTONE, "proof": b"", "nonce": b""}),
    "a stranger": signed(lambda _: {}, FileIdentity.generate()),
    "somebody else who is pinned": signed(lambda _: {}, MALLORY),
    "the same, and says so": signed(lambda _: {"recipient": MALLORY.fingerprint}, MALLORY),
    "the sender itself": signed(lambda _: {}, ALICE),
    "somebody else under Bob's name": lambda entry: raw_sign1(
        cbor2.dumps(fields_of(entry)), BOB.fingerprint, MALLORY._key  # noqa: SLF001 - Mallory signs what our code would not
    ),
    "a tombstone by somebody else": signed(lambda _: {"kind": Kind.TOMBSTONE, "proof": b""}, MALLORY),
    "the context of a blob": odd({}, context=bytes.fromhex("0902000000000000")),
    "the context of a bundle": odd({}, context=b"hsmbridge bundle/1"),
    "no context": odd({}, context=b""),
    "a third kind": odd({1: 3}),
    "a true kind": odd({1: True}),
    "a true count": odd({4: True}),
    "a number for persisted": odd({8: 1}),
    "one field more": odd({10: 0}),
    "one field less": odd({}, without=8),
    "text for bytes": odd({9: "proof"}),
    "bytes behind": lambda entry: sign_statement(statement_for(entry), BOB) + b"\0",
    "the payload alone": lambda entry: statement_for(entry).encode(),
    "too long": lambda _: bytes(MAX_STATEMENT + 1),
    "nothing": lambda _: b"",
    **{f"a flipped bit at {at}": changed_bit(at) for at in (0, 1, 4, 9, 30, 60, 120, 200, -70, -33, -1)},
}  # fmt: skip


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_statement_destroys_nothing(waiting: tuple[Sides, list[RecordKey], Pending], name: str) -> None:
    """Each field, signer and shape: one error, and the source is frozen, whole and waits for the right receipt.

    The forger knows all that the sender's journal knows, the expected proof too.
    """
    sides, keys, pending = waiting
    values = [bytes(key.value) for key in keys]
    forged = FORGERIES[name](pending.entry)
    with pytest.raises(StatementError) as caught:
        Sender(sides.alice).settle(pending, forged)
    assert caught.value.hint
    untouched(sides, keys, values)
    with pytest.raises(StatementError):
        Recovery(sides.alice).apply(forged, pending.entry)
    untouched(sides, keys, values)
    moved = Sender(sides.alice).settle(pending, sign_statement(statement_for(pending.entry), BOB))
    assert [found.outcome for found in moved.dispositions] == [Outcome.DESTROYED] * 2


@pytest.mark.parametrize(
    "name", ["another proof", "another nonce", "somebody else who is pinned", "a flipped bit at -1"]
)
def test_a_forged_statement_over_a_channel(sides: Sides, name: str) -> None:
    """The same over a live channel, from a peer that has shaken hands as Bob."""
    keys = [record_key(), record_key()]
    values = [bytes(key.value) for key in keys]
    assert isinstance(sides.doubted(keys, FORGERIES[name]), StatementError)
    untouched(sides, keys, values)


def test_another_frame_is_no_answer(sides: Sides) -> None:
    """A frame of another type in place of the statement leaves the sender in doubt."""
    keys = [record_key()]
    values = [bytes(key.value) for key in keys]
    with open_pair() as (out, into):
        into.send(19, b"")
        ends = sides.over(out, into, keys)
    assert isinstance(ends.sent, InDoubtError)
    assert keys[0].frozen
    assert [bytes(key.value) for key in keys] == values


def test_a_receipt_of_another_handoff(waiting: tuple[Sides, list[RecordKey], Pending]) -> None:
    """A true receipt, replayed for another handoff of the same two parties, ends nothing."""
    sides, keys, pending = waiting
    values = [bytes(key.value) for key in keys]
    _, received = sides.hand_over([record_key(), record_key()]).both()
    with pytest.raises(StatementError):
        Sender(sides.alice).settle(pending, received.statement)
    untouched(sides, keys, values)


def test_of_two_statements_the_first_counts(waiting: tuple[Sides, list[RecordKey], Pending]) -> None:
    """After a tombstone a receipt destroys nothing, should a recipient sign both: the keys go on."""
    sides, keys, pending = waiting
    tombstone = sign_statement(statement_for(pending.entry, Kind.TOMBSTONE), BOB)
    receipt = sign_statement(statement_for(pending.entry), BOB)
    with pytest.raises(RefusedError):
        Sender(sides.alice).settle(pending, tombstone)
    for statement in (receipt, tombstone, receipt):
        with pytest.raises(InDoubtError):
            Sender(sides.alice).settle(pending, statement)
        Recovery(sides.alice).apply(statement, sides.alice.journal.entries()[0])
    for key in keys:
        assert key.seal(b"")
    assert sides.phases() == (["thawed"], [])


def test_a_receipt_destroys_once(waiting: tuple[Sides, list[RecordKey], Pending]) -> None:
    """A receipt that comes again, or a tombstone behind it, changes nothing any more."""
    sides, keys, pending = waiting
    receipt = sign_statement(statement_for(pending.entry), BOB)
    Sender(sides.alice).settle(pending, receipt)
    steps = sides.alice.journal.entries()
    for statement in (receipt, sign_statement(statement_for(pending.entry, Kind.TOMBSTONE), BOB)):
        with pytest.raises(InDoubtError):
            Sender(sides.alice).settle(pending, statement)
        Recovery(sides.alice).apply(statement, steps[0])
    assert sides.alice.journal.entries() == steps
    for key in keys:
        with pytest.raises(BadKeyError):
            key.check_usable()


def test_bob_never_signs_both(sides: Sides) -> None:
    """A handoff that was imported is not refused any more: who asks for a tombstone gets the receipt."""
    _, received = sides.hand_over([record_key()]).both()
    (entry,) = sides.bob.journal.entries()
    assert Receiver(sides.bob).refuse(entry, "no") == received.statement == entry.statement
    assert sides.phases()[1] == ["done"]


def test_es256_statements(sides: Sides) -> None:
    """A recipient with a P-256 identity signs ES256; with the algorithm's name exchanged it does not verify."""
    carol = P256Identity()
    entry = replace(entry_of(sides), peer=carol.fingerprint)
    pins = TrustStore((make_pin(Role.RECIPIENT, "carol", carol.public_key),))
    alice = Party(identity=ALICE, journal=sides.alice.journal, trust=pins)
    raw = sign_statement(statement_for(entry), carol)
    assert alice.read_answer(entry, raw).kind is Kind.RECEIPT
    head = cbor2.dumps(cbor2.dumps({1: -7}))
    assert raw.count(head) == 1
    with pytest.raises(StatementError):
        alice.read_answer(entry, raw.replace(head, cbor2.dumps(cbor2.dumps({1: -8}))))


def entry_of(sides: Sides) -> Entry:
    """Return Alice's entry of a handoff that waits."""
    assert isinstance(sides.doubted([record_key()]), InDoubtError)
    return sides.alice.journal.entries()[0]


# ---- judged by others


def hkdf(key: bytes) -> bytes:
    """HKDF-SHA-256 to 32 bytes, salt and info ``hsmbridge receipt/1`` (RFC 5869), with hmac alone."""
    extracted = hmac.digest(b"hsmbridge receipt/1", key, "sha256")
    return hmac.digest(extracted, b"hsmbridge receipt/1\x01", "sha256")


def test_running_hash_and_proof_by_the_document(sides: Sides) -> None:
    """Running hash and proof of a real handoff are what docs/handoff.md says, computed with hashlib and hmac.

    With an attachment, which is under the same hash.
    """
    keys = [record_key(5), record_key(9)]
    held = [(bytes(key.value), key.state) for key in keys]
    blobs: list[bytes] = []
    with open_pair() as (out, into), ThreadPoolExecutor(1) as pool:
        sent = pool.submit(Sender(sides.alice).send, live(keys), out, attachment=b"unread")
        offer = cbor2.loads(into.receive().payload)
        payload = into.receive().payload
        while payload:
            size = int.from_bytes(payload[:4], "big")
            blobs.append(payload[4 : 4 + size])
            payload = payload[4 + size :]
        (entry,) = sides.alice.journal.entries()
        into.send(18, sign_statement(statement_for(entry), BOB))
        sent.result()
    attached = hashlib.sha256(b"unread").digest()
    digests = b"".join(hashlib.sha256(blob).digest() for blob in blobs)
    running = hashlib.sha256(b"hsmbridge blobs/1" + entry.handoff + attached + digests).digest()
    assert offer == [1, entry.handoff, entry.nonce, 2, running, b"unread"]
    assert entry.digest == running
    answers = b""
    for value, state in held:
        fields = {1: state.iv, 2: state.sequence, 3: "encrypt", 4: state.used, 5: state.limit}
        about = entry.handoff + running + entry.nonce
        answers += b"\x01" + hmac.digest(hkdf(value + cbor2.dumps(fields)), about, "sha256")
    assert entry.proof == hashlib.sha256(b"hsmbridge proofs/1" + answers).digest()


def test_a_receipt_by_the_document_is_taken(waiting: tuple[Sides, list[RecordKey], Pending]) -> None:
    """A receipt that cbor2 and ``cryptography`` made by docs/handoff.md ends the handoff."""
    sides, _, pending = waiting
    raw = raw_sign1(cbor2.dumps(fields_of(pending.entry)), BOB.fingerprint, BOBS)
    assert raw == sign_statement(statement_for(pending.entry), BOB), "Ed25519 is deterministic, and so is CBOR"
    assert Sender(sides.alice).settle(pending, raw).dispositions[0].outcome is Outcome.DESTROYED


@pytest.mark.parametrize("identity", [BOB, P256Identity()])
def test_cwt_verifies_statements(identity: Any) -> None:  # noqa: ANN401 - what signs
    """Another COSE implementation verifies what we sign, and refuses it in another context or changed."""
    requires_cwt()
    statement = statement_for(an_entry(identity.fingerprint))
    raw = sign_statement(statement, identity)
    payload = verify_with_cwt(raw, CONTEXT, identity.public_key)
    assert cbor2.loads(payload) == {**fields_of(an_entry(b"")), 6: identity.fingerprint}
    with pytest.raises(CwtRefusedError):
        verify_with_cwt(raw, b"hsmbridge bundle/1", identity.public_key)
    with pytest.raises(CwtRefusedError):
        verify_with_cwt(raw[:-1] + bytes([raw[-1] ^ 1]), CONTEXT, identity.public_key)


def an_entry(peer: bytes) -> Entry:
    """Return an entry of round numbers."""
    return Entry(
        handoff=bytes(16), role=Side.SENDER, phase=Phase.SENT, peer=peer, nonce=OTHER, count=2, digest=OTHER[::-1],
        proof=bytes(32), bundle="", owner=Owner.current(), created=0, statement=b"", remark="",
    )  # fmt: skip


# ---- whatever bytes come

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 1 << 70) | st.binary(max_size=40) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.integers(0, 10), inner, max_size=9),
    max_leaves=12,
)
SIZED = st.sampled_from([b"", bytes(15), bytes(16), OTHER, BOB.fingerprint])
NEAR = st.fixed_dictionaries(
    {
        1: st.sampled_from([1, 2, True, 3]) | VALUES,
        2: SIZED | VALUES,
        3: SIZED | VALUES,
        4: VALUES,
        5: SIZED | VALUES,
        6: SIZED | VALUES,
        7: SIZED | VALUES,
        8: st.booleans() | VALUES,
        9: SIZED | VALUES,
    }
)


def read(raw: bytes) -> None:
    """Read bytes as Bob's statement, in both ways there are; StatementError is all that may be raised."""
    try:
        statement = read_statement(raw, BOB.fingerprint, lambda _: BOB.public_key)
    except StatementError:
        pass
    else:
        assert sign_statement(statement, BOB) == raw, "what parses is what it encodes to"
        assert peek_handoff(raw) == statement.handoff
    with contextlib.suppress(StatementError):
        peek_handoff(raw)


@given(
    st.binary(max_size=300) | VALUES.map(cbor2.dumps) | VALUES.map(lambda value: cbor2.dumps(cbor2.CBORTag(18, value)))
)
def test_random_bytes(raw: bytes) -> None:
    """Random bytes and random CBOR: StatementError and nothing else."""
    read(raw)


@given(NEAR | VALUES)
def test_nearly_right_statements(fields: object) -> None:
    """What Bob really signed, of nearly the right shape: StatementError, or what encodes to the same bytes again."""
    read(raw_sign1(cbor2.dumps(fields), BOB.fingerprint, BOBS))


@given(st.lists(VALUES, min_size=4, max_size=4), st.sampled_from([b"", cbor2.dumps({1: -8}), b"\xa1\x01\x80"]))
def test_nearly_right_envelopes(parts: list[object], protected: bytes) -> None:
    """A COSE_Sign1 whose parts are of any type: StatementError and nothing else."""
    read(cbor2.dumps(cbor2.CBORTag(18, [protected, {4: BOB.fingerprint}, *parts[2:]])))
    read(cbor2.dumps(cbor2.CBORTag(18, parts)))


@given(st.data())
def test_truncated_statements(data: st.DataObject) -> None:
    """Every beginning of a statement is refused."""
    raw = sign_statement(statement_for(an_entry(BOB.fingerprint)), BOB)
    cut = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(StatementError):
        read_statement(raw[:cut], BOB.fingerprint, lambda _: BOB.public_key)


def test_keys_that_nobody_reads_prove_nothing() -> None:
    """The proof of no keys, and the order of keys, are part of the hash: 33 bytes for each, as the document says."""
    keys = [record_key(), record_key()]
    about = os.urandom(80)
    assert prove_all([], about) == hashlib.sha256(b"hsmbridge proofs/1").digest()
    assert prove_all(keys, about) != prove_all(keys[::-1], about)
    nothing = hashlib.sha256(b"").digest()
    assert RunningDigest(bytes(16)).digest() == hashlib.sha256(b"hsmbridge blobs/1" + bytes(16) + nothing).digest()
