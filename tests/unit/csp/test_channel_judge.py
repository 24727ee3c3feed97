"""The protocol against a peer that was written from its description, with other people's primitives."""

from __future__ import annotations

import hashlib
import hmac
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import cbor2
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hsmbridge_csp.channel import Channel, Frame, Side
from hsmbridge_csp.channel.errors import (
    ChannelError,
    FrameError,
    HandshakeError,
    NotAuthenticError,
    PeerClosedError,
    ProofError,
    UnpinnedPeerError,
)
from hsmbridge_csp.channel.frames import HEADER
from hsmbridge_csp.channel.hello import Hello
from hsmbridge_csp.channel.schedule import Schedule, content_key, hash_hellos, hash_proofs

from tests.support.channels import ALICE, BOB, RawPeer, spki, terms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hsmbridge_csp.identity import FileIdentity

SECRETS = [(Side.SENDER, 0), (Side.RECEIVER, 32)]
MALLORY = ed25519.Ed25519PrivateKey.generate()


def private_key(identity: FileIdentity) -> ed25519.Ed25519PrivateKey:
    """Return an identity's private key."""
    key = serialization.load_pem_private_key(identity.to_pem(), None)
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    return key


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give two connected sockets."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    with ours, theirs:
        yield ours, theirs


def refusal(
    pair: tuple[socket.socket, socket.socket],
    side: Side,
    act: Callable[[RawPeer], None],
    key: ed25519.Ed25519PrivateKey,
) -> BaseException:
    """Let a peer with a key act in a handshake with *side*; return what that end makes of it."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(Channel.over, pair[0], terms(side, handshake_timeout=3.0))
        act(RawPeer(pair[1], side.other.value, key))
        error = future.exception()
    assert error is not None
    return error


@pytest.mark.parametrize("kind", ["Ed25519", "P-256"])
@pytest.mark.parametrize("side", list(Side))
def test_an_independent_peer_understands_us(pair: tuple[socket.socket, socket.socket], side: Side, kind: str) -> None:
    """Transcript, proofs, frames, content keys and the end are what docs/channel.md says, in both parts."""
    key = MALLORY if kind == "Ed25519" else ec.generate_private_key(ec.SECP256R1())
    believed = frozenset({hashlib.sha256(spki(key)).digest()})
    raw = RawPeer(pair[1], side.other.value, key)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(Channel.over, pair[0], terms(side, believed=believed))
        proof = raw.shake()
        channel = future.result()
    me = ALICE if side is Side.SENDER else BOB
    assert hashlib.sha256(proof[1]).digest() == me.fingerprint
    assert proof[2] == -8
    context = cbor2.dumps(["hsmbridge channel/1 proof", side.value, raw.hellos])
    message = cbor2.dumps(["Signature1", cbor2.dumps({1: -8}), context, proof[1]])
    private_key(me).public_key().verify(proof[3], message)
    assert {channel.peer.fingerprint} == believed
    assert channel.transcript == raw.transcript
    for each in Side:
        assert channel.content_key(each, b"a blob") == raw.content_key(each.value, b"a blob")
    for number in range(3):
        raw.send(20 + number, b"to you %d" % number)
        assert channel.receive() == Frame(20 + number, b"to you %d" % number)
        channel.send(200, bytes(1000 * number))
        assert raw.receive() == (200, bytes(1000 * number))
    channel.close()
    assert raw.receive() == (4, b"")


def test_the_peers_close_is_an_orderly_end(pair: tuple[socket.socket, socket.socket]) -> None:
    """Type 4 ends the channel in order; keys of other labels and directions differ."""
    believed = frozenset({hashlib.sha256(spki(MALLORY)).digest()})
    raw = RawPeer(pair[1], "receiver", MALLORY)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(Channel.over, pair[0], terms(Side.SENDER, believed=believed))
        raw.shake()
        channel = future.result()
    keys = {channel.content_key(side, label) for side in Side for label in (b"", b"1", b"2")}
    assert len(keys) == 6
    raw.send(4, b"")
    with pytest.raises(PeerClosedError):
        channel.receive()
    assert channel.closed


@pytest.mark.parametrize("side", list(Side))
def test_an_unpinned_peer_is_refused(pair: tuple[socket.socket, socket.socket], side: Side) -> None:
    """A peer that does everything right but is nobody whom we believe is refused, and learns no confirmation."""

    def act(raw: RawPeer) -> None:
        raw.say_hello()
        raw.send(2, raw.proof())
        assert raw.receive()[0] == 2
        assert raw.connection.recv(100) == b""

    error = refusal(pair, side, act, MALLORY)
    assert isinstance(error, UnpinnedPeerError)
    assert hashlib.sha256(spki(MALLORY)).hexdigest() in str(error)


def test_one_in_the_middle_cannot_use_anothers_signature() -> None:
    """Mallory shakes hands with both ends and hands Alice's signature on to Bob: it is over another transcript."""
    (alice, left), (right, bob) = socket.socketpair(), socket.socketpair()
    with ThreadPoolExecutor(2) as pool:
        futures = [
            pool.submit(Channel.over, alice, terms(Side.SENDER, handshake_timeout=3.0)),
            pool.submit(Channel.over, bob, terms(Side.RECEIVER, handshake_timeout=3.0)),
        ]
        to_alice, to_bob = RawPeer(left, "receiver", MALLORY), RawPeer(right, "sender", MALLORY)
        to_alice.say_hello()
        to_bob.say_hello()
        for one, other in ((to_alice, to_bob), (to_bob, to_alice)):
            stolen = cbor2.loads(one.receive()[1])
            own = cbor2.loads(other.proof())
            # The MAC is Mallory's to make: only the signature is not.
            key = other.derive(f"{other.side} confirmation", 32, other.hellos)
            stolen[4] = hmac.digest(key, other.hellos + stolen[1], "sha256")
            assert stolen[4] != own[4]
            other.send(2, cbor2.dumps(stolen))
        errors = [future.exception() for future in futures]
    assert [type(error) for error in errors] == [ProofError, ProofError]
    assert "this channel's handshake" in str(errors[0])
    left.close()
    right.close()


@pytest.mark.parametrize(
    ("label", "change"),
    [
        pytest.param(2, lambda _: -7, id="another algorithm"),
        pytest.param(2, lambda _: True, id="true as algorithm"),
        pytest.param(3, lambda _: bytes(64), id="signature of zeros"),
        pytest.param(3, lambda value: value[:-1], id="short signature"),
        pytest.param(3, lambda _: b"", id="no signature"),
        pytest.param(3, lambda _: 1, id="signature that is a number"),
        pytest.param(4, lambda _: bytes(32), id="confirmation of zeros"),
        pytest.param(4, lambda _: b"", id="no confirmation"),
        pytest.param(5, lambda _: 1, id="one field more"),
    ],
)
def test_a_wrong_proof_of_a_pinned_peer_is_refused(
    pair: tuple[socket.socket, socket.socket], label: int, change: Callable[[bytes], object]
) -> None:
    """Bob's own key, but a proof that does not hold in one point."""

    def act(raw: RawPeer) -> None:
        raw.say_hello()
        proof = cbor2.loads(raw.proof())
        proof[label] = change(proof.get(label, b""))
        raw.send(2, cbor2.dumps(proof))

    assert type(refusal(pair, Side.SENDER, act, private_key(BOB))) is ProofError


def test_a_signature_of_the_other_part_is_refused(pair: tuple[socket.socket, socket.socket]) -> None:
    """What Bob signs as a sender does not prove that he is the receiver."""

    def act(raw: RawPeer) -> None:
        raw.say_hello()
        proof = cbor2.loads(raw.proof())
        proof[3] = private_key(BOB).sign(raw.to_be_signed("sender", proof[1]))
        raw.send(2, cbor2.dumps(proof))

    assert type(refusal(pair, Side.SENDER, act, private_key(BOB))) is ProofError


def test_another_transcript_is_refused(pair: tuple[socket.socket, socket.socket]) -> None:
    """A pinned peer whose confirmation names another handshake is refused."""

    def act(raw: RawPeer) -> None:
        raw.say_hello()
        raw.send(2, raw.proof())
        raw.receive()
        raw.send(3, bytes(32))

    assert type(refusal(pair, Side.SENDER, act, private_key(BOB))) is ProofError


def test_frames_before_the_confirmation_are_refused(pair: tuple[socket.socket, socket.socket]) -> None:
    """A pinned peer that sends keys before both have confirmed is refused: the type is authenticated."""

    def act(raw: RawPeer) -> None:
        raw.say_hello()
        raw.send(2, raw.proof())
        raw.receive()
        raw.send(16, b"a blob")

    assert type(refusal(pair, Side.RECEIVER, act, private_key(ALICE))) is FrameError


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"version": 2}, id="version 2"),
        pytest.param({"version": True}, id="true as version"),
        pytest.param({"side": "sender"}, id="the same part"),
        pytest.param({"side": "nobody"}, id="no part"),
        pytest.param({"public": bytes(32)}, id="point of order 1"),
        pytest.param({"public": b"\x01" + bytes(31)}, id="point of order 4"),
        pytest.param({"public": bytes(31)}, id="short key"),
        pytest.param({"nonce": b""}, id="no nonce"),
    ],
)
def test_a_wrong_hello_is_refused(pair: tuple[socket.socket, socket.socket], changes: dict[str, object]) -> None:
    """A hello that is not of this version, this part or this shape ends the handshake."""

    def act(raw: RawPeer) -> None:
        raw.say_hello(**changes)

    assert type(refusal(pair, Side.SENDER, act, private_key(BOB))) is HandshakeError


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 5, 15])
def test_the_channels_own_types_are_not_delivered(pair: tuple[socket.socket, socket.socket], kind: int) -> None:
    """An authentic frame of a type below 16 ends the channel."""
    raw = RawPeer(pair[1], "receiver", private_key(BOB))
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(Channel.over, pair[0], terms(Side.SENDER))
        raw.shake()
        channel = future.result()
    raw.send(kind, b"")
    with pytest.raises(FrameError):
        channel.receive()
    assert channel.closed


def test_a_short_body_is_not_authentic(pair: tuple[socket.socket, socket.socket]) -> None:
    """A body that is shorter than a tag is refused like any that does not decrypt."""
    raw = RawPeer(pair[1], "receiver", private_key(BOB))
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(Channel.over, pair[0], terms(Side.SENDER))
        raw.shake()
        channel = future.result()
    raw.connection.sendall(bytes.fromhex("0000000310000000000000000002") + b"abc")
    with pytest.raises(NotAuthenticError) as caught:
        channel.receive()
    assert isinstance(caught.value, ChannelError)


def test_a_pinned_key_that_cannot_sign_is_no_peer(pair: tuple[socket.socket, socket.socket]) -> None:
    """The fingerprint is believed, but the key behind it is RSA: the proof does not hold."""
    public_key = (
        rsa.generate_private_key(65537, 2048)
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    raw = RawPeer(pair[1], "receiver", MALLORY)
    believed = frozenset({hashlib.sha256(public_key).digest()})
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(Channel.over, pair[0], terms(Side.SENDER, believed=believed))
        raw.say_hello()
        raw.send(2, cbor2.dumps({1: public_key, 2: -8, 3: bytes(64), 4: bytes(32)}))
        assert type(future.exception()) is ProofError


def test_the_worked_example() -> None:
    """Every value of the example in docs/channel.md is what we compute from its inputs."""
    page = Path(__file__).parents[3] / "docs" / "channel.md"
    found = re.search(r"^```text example\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None
    rows = re.findall(r"^([a-z ]+?) {2,}([0-9a-f ]+(?:\n {17}[0-9a-f]+)*)$", found[1], re.MULTILINE)
    example = {name: bytes.fromhex(re.sub(r"\s", "", value)) for name, value in rows}
    assert len(example) == 11
    private = {side: X25519PrivateKey.from_private_bytes(bytes(range(at, at + 32))) for side, at in SECRETS}
    hellos = {
        side: Hello(
            side=side, public=private[side].public_key().public_bytes_raw(), nonce=bytes(range(at + 64, at + 96))
        ).encode()
        for side, at in SECRETS
    }
    for side, hello in hellos.items():
        assert example[f"{side} hello"] == HEADER.pack(len(hello), 1, 0, 0) + hello
    assert hash_hellos(hellos) == example["hellos"]
    assert private[Side.SENDER].exchange(private[Side.RECEIVER].public_key()) == example["secret"]
    public = private[Side.SENDER].public_key().public_bytes_raw()
    schedule = Schedule(private[Side.RECEIVER], public, example["hellos"])
    opened = schedule.inbound(Side.SENDER)
    for number in range(2):
        header = HEADER.pack(16, 2 + number, 0, number)
        nonce = (int.from_bytes(example["sender iv"], "big") ^ number).to_bytes(12, "big")
        opened.open(header, AESGCM(example["sender key"]).encrypt(nonce, b"", header))
    assert opened.open(example["frame"][:14], example["frame"][14:]) == (16, 0, b"key")
    sealed = schedule.outbound(Side.RECEIVER).seal(16, b"back")
    key = AESGCM(example["receiver key"])
    assert key.decrypt(example["receiver iv"], sealed[14:], sealed[:14]) == b"back"
    transcript = hash_proofs(example["hellos"], {Side.SENDER: b"S", Side.RECEIVER: b"R"})
    assert transcript == example["transcript"]
    assert content_key(schedule.exporter(transcript), Side.SENDER, b"label") == example["content key"]
