"""Whatever bytes come, a channel raises its own errors and nothing else."""

from __future__ import annotations

import contextlib
import os
import socket

import cbor2
import pytest
from hsmbridge_csp.channel import Channel, Side
from hsmbridge_csp.channel.errors import ChannelError, ChannelInputError, HandshakeError, ProofError
from hsmbridge_csp.channel.frames import HEADER
from hsmbridge_csp.channel.hello import Hello
from hsmbridge_csp.channel.proof import Proof
from hsmbridge_csp.channel.protection import Inbound, Outbound
from hsmbridge_csp.channel.wire import Wire
from hypothesis import given
from hypothesis import strategies as st

from tests.support.channels import terms

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-300, 300) | st.binary(max_size=40) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.integers(0, 6), inner, max_size=6),
    max_leaves=12,
)
HELLOS = st.fixed_dictionaries(
    {},
    optional={
        1: st.sampled_from([1, 2, True, 1 << 70]) | VALUES,
        2: st.sampled_from(["sender", "receiver"]) | VALUES,
        3: st.binary(min_size=32, max_size=32) | VALUES,
        4: st.binary(min_size=32, max_size=32) | VALUES,
        5: VALUES,
    },
)
HEADERS = st.builds(
    HEADER.pack, st.integers(0, 60), st.integers(0, 5), st.integers(0, 2), st.integers(0, 3)
)  # fmt: skip


@given(st.binary(max_size=200) | VALUES.map(cbor2.dumps) | HELLOS.map(cbor2.dumps))
def test_hellos(body: bytes) -> None:
    """Random bytes, random CBOR and nearly right hellos: one error, or what encodes to the same bytes again."""
    try:
        hello = Hello.decode(body)
    except HandshakeError:
        return
    assert hello.encode() == body


@given(st.binary(max_size=200) | VALUES.map(cbor2.dumps))
def test_proofs(payload: bytes) -> None:
    """The same for proofs."""
    try:
        proof = Proof.decode(payload)
    except ProofError:
        return
    assert proof.encode() == payload


@given(st.binary(max_size=300) | st.tuples(HEADERS, st.binary(max_size=60)).map(b"".join))
def test_streams_before_anybody_is_known(data: bytes) -> None:
    """A peer that sends anything at all and hangs up."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(ChannelError):
            Channel.over(ours, terms(Side.SENDER))
    assert ours.fileno() == -1


def open_all(wire: Wire, inbound: Inbound, got: list[tuple[int, int, bytes]]) -> None:
    """Receive and open until that is an error."""
    while True:
        header, body, descriptors = wire.receive(1000, 1)
        assert not descriptors
        got.append(inbound.open(header, body))


@given(
    st.lists(st.binary(max_size=100) | HEADERS, max_size=5),
    st.lists(st.integers(1, 50), max_size=10),
)
def test_frames_cut_anywhere(parts: list[bytes], cuts: list[int]) -> None:
    """Authentic frames arrive however the stream is cut; behind them, any bytes are refused and nothing comes out."""
    key, iv = os.urandom(32), os.urandom(12)
    outbound = Outbound(bytes(bytearray(key)), bytes(bytearray(iv)))
    inbound = Inbound(bytes(bytearray(key)), bytes(bytearray(iv)))
    payloads = [b"one", b"", bytes(500)]
    data = b"".join(outbound.seal(16 + number, payload) for number, payload in enumerate(payloads)) + b"".join(parts)
    ours, theirs = socket.socketpair()
    wire = Wire(ours)
    got: list[tuple[int, int, bytes]] = []
    with theirs, contextlib.closing(wire):
        for cut in [*cuts, len(data)]:
            theirs.sendall(data[:cut])
            data = data[cut:]
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(ChannelError):
            open_all(wire, inbound, got)
    assert got == [(16 + number, 0, payload) for number, payload in enumerate(payloads)]


@given(st.binary(min_size=14, max_size=14), st.binary(max_size=60))
def test_frames_that_nobody_sealed(header: bytes, body: bytes) -> None:
    """No header and body that were made up open."""
    inbound = Inbound(os.urandom(32), os.urandom(12), HEADER.unpack(header)[3] % ((1 << 64) - 1))
    with pytest.raises(ChannelInputError):
        inbound.open(header, body)
