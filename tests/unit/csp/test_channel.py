"""An open channel, in the hands of those for whom it is."""

from __future__ import annotations

import fcntl
import gc
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hsmbridge_cli.failures import exit_code
from hsmbridge_csp.channel import Channel, Frame, Side, errors, pinned
from hsmbridge_csp.channel.errors import (
    ChannelClosedError,
    ChannelError,
    ChannelTimeoutError,
    ChannelUsageError,
    DescriptorError,
    ExhaustedError,
    NotAuthenticError,
    PeerClosedError,
    PeerGoneError,
    WrongCounterError,
    WrongUserError,
)
from hsmbridge_csp.channel.frames import HEADER, MAX_DESCRIPTORS, MAX_PAYLOAD
from hsmbridge_csp.channel.protection import LAST_COUNTER, MAX_BLOCKS, Inbound, Outbound
from hsmbridge_csp.trust import Role, TrustStore, make_pin

from tests.support.channels import ALICE, BOB, descriptors, no_writer, open_pair, terms

if TYPE_CHECKING:
    from collections.abc import Iterator

Pair = tuple[Channel, Channel]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Give the two ends of a channel, the sender's first."""
    with open_pair() as both:
        yield both


def send_all(channel: Channel, *frames: Frame) -> None:
    """Send frames, until the channel refuses one."""
    for frame in frames:
        channel.send(frame.type, frame.payload)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 600, 65_520, 65_536, 200_000, MAX_PAYLOAD])
def test_payloads_of_any_size_arrive(pair: Pair, size: int) -> None:
    """From nothing to 1 MiB, and a small frame right behind, in one read or in many."""
    payload = os.urandom(size)
    sender = threading.Thread(target=send_all, args=(pair[0], Frame(255, payload), Frame(16, b"next")))
    sender.start()
    assert pair[1].receive() == Frame(255, payload)
    assert pair[1].receive() == Frame(16, b"next")
    sender.join()


def test_both_ends_know_each_other(pair: Pair) -> None:
    """Each end has the other's fingerprint, user and process, and both have one transcript."""
    for channel, other in zip(pair, (BOB, ALICE), strict=True):
        assert channel.peer.fingerprint == other.fingerprint
        assert (channel.peer.uid, channel.peer.pid) == (os.geteuid(), os.getpid())
    assert pair[0].transcript == pair[1].transcript
    with open_pair() as others:
        assert others[0].transcript != pair[0].transcript
        assert others[0].content_key(Side.SENDER, b"1") != pair[0].content_key(Side.SENDER, b"1")


def test_content_keys_are_the_same_at_both_ends(pair: Pair) -> None:
    """For one part and label both ends have one key, and no two labels or parts share it."""
    uses = [(side, label) for side in Side for label in (b"a", b"b", b"ab")]
    ours, theirs = ([channel.content_key(*use) for use in uses] for channel in pair)
    assert ours == theirs
    assert {len(key) for key in ours} == {32}
    assert len(set(ours)) == len(uses)


def test_a_closed_channel_ends_in_order(pair: Pair) -> None:
    """What was sent before the end still arrives; then both ends are of no use, and closing again does nothing."""
    with pair[0]:
        pair[0].send(16, b"last")
    assert pair[1].receive().payload == b"last"
    with pytest.raises(PeerClosedError):
        pair[1].receive()
    for channel in pair:
        assert channel.closed
        channel.close()
        with pytest.raises(ChannelClosedError):
            channel.send(16, b"")
        with pytest.raises(ChannelClosedError):
            channel.receive()
        with pytest.raises(ChannelClosedError):
            channel.content_key(Side.SENDER, b"")


def test_an_end_is_in_order_although_the_peer_never_read(pair: Pair) -> None:
    """An end that closes with frames unread is still told from one that died."""
    pair[0].send(16, b"never read")
    pair[1].close()
    with pytest.raises(PeerClosedError):
        pair[0].receive()


def test_a_block_that_fails_is_no_orderly_end(pair: Pair) -> None:
    """An exception inside ``with`` leaves without the close frame: the peer must not take it for the end."""
    with pytest.raises(ZeroDivisionError), pair[0]:
        raise ZeroDivisionError
    with pytest.raises(PeerGoneError):
        pair[1].receive()


def test_sending_to_who_is_gone_is_an_error(pair: Pair) -> None:
    """No signal, no foreign exception: a typed error, and the channel is closed."""
    pair[1].abort()
    with pytest.raises(PeerGoneError):
        pair[0].send(16, b"")
    assert pair[0].closed


def test_a_peer_that_takes_nothing_is_a_timeout(pair: Pair) -> None:
    """When the socket's buffer is full, sending ends after the time that was given."""
    pair[0].timeout = 0.2
    with pytest.raises(ChannelTimeoutError):
        send_all(pair[0], *[Frame(16, bytes(MAX_PAYLOAD))] * 100)
    with pytest.raises(ChannelClosedError):
        pair[0].send(16, b"")


def test_without_a_limit_an_end_waits(pair: Pair) -> None:
    """With a timeout of None both directions wait until the peer is ready."""
    for channel in pair:
        channel.timeout = None
    payload = bytes(MAX_PAYLOAD)
    sending = threading.Timer(0.1, send_all, (pair[0], Frame(16, payload), Frame(16, payload)))
    sending.start()
    assert pair[1].receive().payload == payload
    assert pair[1].receive().payload == payload
    sending.join()


def test_a_peer_that_drips_is_a_timeout() -> None:
    """The time is for a whole frame: a byte now and then does not prolong it."""
    ours, theirs = socket.socketpair()
    stop = threading.Event()

    def drip() -> None:
        for byte in HEADER.pack(1000, 1, 0, 0) + bytes(1000):
            if stop.wait(0.02):
                return
            theirs.send(bytes([byte]))

    dripping = threading.Thread(target=drip)
    with theirs:
        dripping.start()
        with pytest.raises(ChannelTimeoutError):
            Channel.over(ours, terms(Side.SENDER, handshake_timeout=0.3))
        stop.set()
        dripping.join()


def test_another_thread_closes(pair: Pair) -> None:
    """A thread that waits for a frame is woken when another closes its end, and blames nobody else."""
    found: list[BaseException] = []

    def wait() -> None:
        try:
            pair[1].receive()
        except ChannelError as error:
            found.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    pair[1].close()
    waiting.join(5)
    assert [type(error) for error in found] == [ChannelClosedError]


def test_threads_share_an_end(pair: Pair) -> None:
    """Eight threads send at once: each frame arrives once, whole, and no counter is used twice."""
    times, count = 50, 8
    threads = [
        threading.Thread(target=send_all, args=(pair[0], *(Frame(16, bytes([n, i]) * 500) for i in range(times))))
        for n in range(count)
    ]
    for thread in threads:
        thread.start()
    got = [pair[1].receive().payload for _ in range(times * count)]
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(bytes([n, i]) * 500 for n in range(count) for i in range(times))


def test_descriptors_travel(pair: Pair) -> None:
    """A pipe's end arrives with its frame, close-on-exec, and works; frames without come before and behind."""
    reading, writing = os.pipe()
    pair[0].send(16, b"before")
    pair[0].send(17, b"with", (writing, reading))
    pair[0].send(18, b"behind")
    os.close(writing)
    os.close(reading)
    assert pair[1].receive() == Frame(16, b"before")
    frame = pair[1].receive()
    assert (frame.type, frame.payload, len(frame.fds)) == (17, b"with", 2)
    assert all(fcntl.fcntl(each, fcntl.F_GETFD) & fcntl.FD_CLOEXEC for each in frame.fds)
    os.write(frame.fds[0], b"through the pipe")
    assert os.read(frame.fds[1], 100) == b"through the pipe"
    for each in frame.fds:
        os.close(each)
    assert pair[1].receive() == Frame(18, b"behind")


def test_descriptors_travel_with_a_large_frame(pair: Pair) -> None:
    """A frame that the kernel takes in many pieces brings its descriptors once, with 16 of them."""
    before = descriptors()
    payload = os.urandom(MAX_PAYLOAD)
    sender = threading.Thread(target=pair[0].send, args=(16, payload, [0] * MAX_DESCRIPTORS))
    sender.start()
    frame = pair[1].receive()
    sender.join()
    assert frame.payload == payload
    assert len(frame.fds) == MAX_DESCRIPTORS
    for each in frame.fds:
        os.close(each)
    assert descriptors() == before


def test_descriptors_that_nobody_took_are_closed(pair: Pair) -> None:
    """Descriptors of a frame that was read ahead are closed with the channel."""
    reading, writing = os.pipe()
    pair[0].send(16, b"first")
    pair[0].send(16, b"second", [writing])
    os.close(writing)
    pair[1].receive()
    pair[1].abort()
    assert no_writer(reading)


def test_a_descriptor_that_is_not_open_is_refused(pair: Pair) -> None:
    """A typed error instead of an OSError, and the peer sees that the channel was not closed in order."""
    with pytest.raises(DescriptorError):
        pair[0].send(16, b"", [1 << 20])
    with pytest.raises(PeerGoneError):
        pair[1].receive()


@pytest.mark.parametrize(
    ("kind", "payload", "fds"),
    [(15, b"", ()), (256, b"", ()), (-1, b"", ()), (16, bytes(MAX_PAYLOAD + 1), ()), (16, b"", [0] * 17)],
)
def test_what_cannot_be_sent_leaves_the_channel_as_it_was(
    pair: Pair, kind: int, payload: bytes, fds: list[int]
) -> None:
    """A wrong call is refused before a byte is out, and the channel goes on."""
    with pytest.raises(ChannelUsageError):
        pair[0].send(kind, payload, fds)
    pair[0].send(16, b"goes on")
    assert pair[1].receive().payload == b"goes on"


def test_the_last_counter_is_never_used() -> None:
    """The counter does not wrap: the key ends before, at both ends."""
    key, iv = os.urandom(32), os.urandom(12)
    outbound = Outbound(bytes(bytearray(key)), bytes(bytearray(iv)), LAST_COUNTER - 1)
    inbound = Inbound(bytes(bytearray(key)), bytes(bytearray(iv)), LAST_COUNTER - 1)
    frame = outbound.seal(16, b"last")
    assert inbound.open(frame[:14], frame[14:]) == (16, 0, b"last")
    with pytest.raises(ExhaustedError):
        outbound.seal(16, b"one more")
    with pytest.raises(WrongCounterError):
        inbound.open(HEADER.pack(16, 16, 0, LAST_COUNTER), bytes(16))


def test_a_key_protects_no_more_than_it_may() -> None:
    """Each frame's blocks are counted, and one that would be more than 2^34 in all is refused."""
    outbound = Outbound(bytes(bytearray(32)), bytes(bytearray(12)))
    blocks = MAX_PAYLOAD // 16
    outbound.seal(16, bytes(MAX_PAYLOAD))
    used = MAX_BLOCKS - outbound._blocks  # noqa: SLF001 - 256 GiB would take hours
    assert MAX_BLOCKS == 1 << 34
    assert blocks < used < blocks + 8
    outbound._blocks = used  # noqa: SLF001 - the same
    outbound.seal(16, bytes(MAX_PAYLOAD))
    with pytest.raises(ExhaustedError):
        outbound.seal(16, b"")


def test_an_exhausted_channel_is_closed(pair: Pair) -> None:
    """Sending with a key that is used up closes the channel."""
    assert pair[0]._outbound is not None  # noqa: SLF001 - as above
    pair[0]._outbound._blocks = 0  # noqa: SLF001 - the same
    with pytest.raises(ExhaustedError):
        pair[0].send(16, b"")
    assert pair[0].closed


def test_forgotten_keys_are_overwritten(pair: Pair) -> None:
    """After the end nothing decrypts any more, and keys and exporter are gone from where they were."""
    inbound, outbound, exporter = (getattr(pair[1], f"_{name}") for name in ("inbound", "outbound", "exporter"))
    keys = [direction._key for direction in (inbound, outbound)]  # noqa: SLF001 - to see them overwritten
    assert all(any(key) for key in (*keys, exporter))
    pair[0].send(16, b"key")
    header_and_body = pair[1]._wire.receive(100, 1)  # noqa: SLF001 - a frame that is due
    pair[1].abort()
    assert not any(any(key) for key in (*keys, exporter))
    with pytest.raises(NotAuthenticError):
        inbound.open(*header_and_body[:2])
    with pytest.raises(ExhaustedError):
        outbound.seal(16, b"")


def test_nothing_secret_is_shown(pair: Pair) -> None:
    """No repr of channel, frame or direction has a payload or a key in it."""
    pair[0].send(16, b"a secret payload")
    frame = pair[1].receive()
    shown = repr((pair, frame, *(getattr(pair[0], f"_{name}") for name in ("inbound", "outbound"))))
    assert "secret" not in shown
    name = "_key"
    for key in (pair[0]._exporter, getattr(pair[0]._outbound, name)):  # noqa: SLF001 - to look for them
        assert bytes(key or b"").hex() not in shown
        assert repr(bytes(key or b"")) not in shown
    assert BOB.fingerprint.hex() in repr(pair[0])
    pair[0].close()
    assert "closed" in repr(pair[0])


def test_another_user_is_refused() -> None:
    """An end that expects another user refuses at once: the peer gets not even a hello."""
    ours, theirs = socket.socketpair()
    with theirs:
        with pytest.raises(WrongUserError, match=f"runs as user {os.geteuid()}"):
            Channel.over(ours, terms(Side.SENDER, uids=frozenset({os.geteuid() + 1})))
        assert theirs.recv(1) == b""


def test_only_keys_that_sign_are_peers() -> None:
    """Pins of the roles that were named, and of no others, are who may be there."""
    store = TrustStore(
        (make_pin(Role.SENDER, "alice", ALICE.public_key), make_pin(Role.RECIPIENT, "bob", BOB.public_key))
    )
    assert pinned(store) == {ALICE.fingerprint, BOB.fingerprint}
    assert pinned(store, Role.SENDER) == {ALICE.fingerprint}
    assert pinned(store, Role.RECIPIENT) == {BOB.fingerprint}
    assert pinned(TrustStore()) == frozenset()


FORKS = """
import os, sys
from hsmbridge_csp.channel.errors import ChannelClosedError
from tests.support.channels import open_pair
with open_pair() as (sender, receiver):
    child = os.fork()
    if child == 0:
        for act in (lambda: sender.send(16, b"child"), receiver.receive, sender.close):
            try:
                act()
            except ChannelClosedError:
                print("refused", flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    sender.send(16, b"parent")
    print(receiver.receive().payload.decode(), flush=True)
"""


def test_a_forked_child_has_no_channel() -> None:
    """The child's channel is closed, so that no counter is used twice; the parent's goes on."""
    done = subprocess.run(
        [sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=60, check=False, cwd=Path.cwd()
    )
    assert (done.returncode, done.stdout.split()) == (0, ["refused", "refused", "parent"]), done.stderr


def test_dropped_channels_leave_no_descriptor() -> None:
    """A hundred channels that end in each way leave the process as it was."""
    with open_pair():
        pass
    gc.collect()
    before = descriptors()
    for number in range(30):
        with open_pair() as (sender, receiver):
            if number % 3 == 0:
                sender.close()
            elif number % 3 == 1:
                receiver.abort()
    assert descriptors() == before


@pytest.mark.parametrize("name", errors.__all__)
def test_each_error_has_its_exit_code(name: str) -> None:
    """Each error is of one of the families that the command tells apart."""
    error = getattr(errors, name)("what happened", hint="what to do")
    families = {"Input": 3, "Policy": 4, "Unavailable": 5, "Usage": 2}
    expected = [
        code for family, code in families.items() if isinstance(error, getattr(errors, f"Channel{family}Error"))
    ]
    assert [exit_code(error)] == (expected or [1])
    assert expected or name == "ChannelError"
    assert error.nte
