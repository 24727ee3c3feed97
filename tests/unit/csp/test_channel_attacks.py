"""Somebody sits between the two ends: what they do is found out, typed, and nothing of it is delivered."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest
from hsmbridge_csp.channel import Channel, Frame, Side
from hsmbridge_csp.channel.errors import (
    ChannelClosedError,
    ChannelError,
    ChannelInputError,
    ChannelTimeoutError,
    ChannelUnavailableError,
    DescriptorError,
    FrameError,
    FrameTooLargeError,
    HandshakeError,
    NotAuthenticError,
    PeerClosedError,
    PeerGoneError,
    ReflectionError,
    WrongCounterError,
)

from hsmbridge.errors import InputError, UnavailableError
from tests.support.channels import HEADER, Between, descriptors, no_writer, terms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SENDER, RECEIVER = Side
CLOSE = HEADER.pack(16, 4, 0, 2) + bytes(16)


@pytest.fixture
def between() -> Iterator[Between]:
    """Give somebody between two ends that have shaken hands."""
    with Between() as somebody:
        yield somebody.shake()


def refused(channel: Channel, kind: type[ChannelError]) -> ChannelError:
    """Expect an error of exactly that kind, and an end that is of no more use."""
    with pytest.raises(ChannelError) as caught:
        channel.receive()
    assert type(caught.value) is kind
    assert caught.value.hint
    assert channel.closed
    for act in (channel.receive, lambda: channel.send(16, b""), lambda: channel.content_key(SENDER, b"")):
        with pytest.raises(ChannelClosedError):
            act()
    return caught.value


def sent(between: Between, *payloads: bytes, side: Side = SENDER) -> list[bytes]:
    """Let an end send frames, and hold them back."""
    for payload in payloads:
        between.end(side).send(16, payload)
    return [between.take(side) for _ in payloads]


def test_who_only_passes_on_is_not_noticed(between: Between) -> None:
    """Untouched frames arrive, in both directions: what the other tests refuse is refused for its change."""
    for side in Side:
        for frame in sent(between, b"one", b"two", side=side):
            between.put(side.other, frame)
        assert between.end(side.other).receive() == Frame(16, b"one")
        assert between.end(side.other).receive() == Frame(16, b"two")


@pytest.mark.parametrize("bit", [0, 7])
@pytest.mark.parametrize("at", [*range(14), 14, 20, 29, 30, 45])
def test_a_flipped_bit_is_found(between: Between, at: int, bit: int) -> None:
    """No bit of header, ciphertext or tag can be changed; a longer length waits for what never comes."""
    (frame,) = sent(between, bytes(16))
    assert len(frame) == 46
    changed = bytearray(frame)
    changed[at] ^= 1 << bit
    between.put(RECEIVER, bytes(changed))
    between.inner[RECEIVER].shutdown(socket.SHUT_WR)
    if at < 4:
        expected: type[ChannelError] = FrameTooLargeError if at < 1 or (at, bit) == (1, 7) else PeerGoneError
    elif at == 5:
        expected = FrameError if bit else NotAuthenticError
    elif 6 <= at < 14:
        expected = WrongCounterError
    else:
        expected = NotAuthenticError
    refused(between.end(RECEIVER), expected)


def test_a_shorter_length_is_found(between: Between) -> None:
    """A length that cuts the frame is authenticated like the rest."""
    (frame,) = sent(between, b"0123456789")
    between.put(RECEIVER, HEADER.pack(25, *HEADER.unpack_from(frame)[1:]) + frame[14:])
    refused(between.end(RECEIVER), NotAuthenticError)


def test_a_replayed_frame_is_found(between: Between) -> None:
    """The second time a frame is refused; the first time it was delivered, once."""
    (frame,) = sent(between, b"key")
    between.put(RECEIVER, frame + frame)
    assert between.end(RECEIVER).receive() == Frame(16, b"key")
    refused(between.end(RECEIVER), WrongCounterError)


def test_frames_in_another_order_are_found(between: Between) -> None:
    """Neither of two exchanged frames is delivered."""
    one, two = sent(between, b"one", b"two")
    between.put(RECEIVER, two + one)
    refused(between.end(RECEIVER), WrongCounterError)


def test_a_replayed_frame_with_the_right_counter_is_found(between: Between) -> None:
    """The counter in the header is authenticated, and it is in the nonce."""
    (frame,) = sent(between, b"key")
    again = HEADER.pack(*HEADER.unpack_from(frame)[:3], 3) + frame[14:]
    between.put(RECEIVER, frame + again)
    between.end(RECEIVER).receive()
    refused(between.end(RECEIVER), NotAuthenticError)


def test_a_dropped_frame_is_found(between: Between) -> None:
    """What comes behind a hole is refused."""
    between.put(RECEIVER, sent(between, b"one", b"two")[1])
    refused(between.end(RECEIVER), WrongCounterError)


def test_all_frames_dropped_are_a_timeout(between: Between) -> None:
    """Silence is an error after the time that the end allows."""
    sent(between, b"one")
    between.end(RECEIVER).timeout = 0.1
    error = refused(between.end(RECEIVER), ChannelTimeoutError)
    assert isinstance(error, UnavailableError)


def test_a_reflected_frame_is_found(between: Between) -> None:
    """An end's own frame that comes back is under the other direction's key."""
    (frame,) = sent(between, b"key")
    between.put(SENDER, frame)
    refused(between.end(SENDER), NotAuthenticError)


def test_swapped_directions_are_found(between: Between) -> None:
    """Frames with the same counter, exchanged between the directions: both ends refuse."""
    frames = {side: sent(between, b"key", side=side)[0] for side in Side}
    assert frames[SENDER][:14] == frames[RECEIVER][:14]
    for side in Side:
        between.put(side, frames[side])
        refused(between.end(side), NotAuthenticError)


def test_a_frame_of_another_session_is_found(between: Between) -> None:
    """The same two identities, the same counter, but a channel that is not this one."""
    with Between() as other:
        other.shake()
        (frame,) = sent(other, b"key")
        assert other.end(SENDER).transcript != between.end(SENDER).transcript
    between.put(RECEIVER, frame)
    refused(between.end(RECEIVER), NotAuthenticError)


@pytest.mark.parametrize("kept", [1, 13, 14, 20])
def test_a_stream_cut_in_a_frame_is_found(between: Between, kept: int) -> None:
    """An end of the stream in header or body says that something is missing."""
    (frame,) = sent(between, b"key")
    between.put(RECEIVER, frame[:kept])
    between.inner[RECEIVER].shutdown(socket.SHUT_WR)
    assert "in the middle of a frame" in str(refused(between.end(RECEIVER), PeerGoneError))


def test_a_stream_cut_between_frames_is_no_orderly_end(between: Between) -> None:
    """Without the close frame the end is not orderly; with it, it is."""
    for payload in (b"one", b"two"):
        between.put(RECEIVER, sent(between, payload)[0])
    between.inner[RECEIVER].shutdown(socket.SHUT_WR)
    assert [between.end(RECEIVER).receive().payload for _ in range(2)] == [b"one", b"two"]
    refused(between.end(RECEIVER), PeerGoneError)


def test_the_close_frame_cannot_be_forged_nor_come_early(between: Between) -> None:
    """A made-up close frame is refused, and so is the real one ahead of the frame before it."""
    between.put(RECEIVER, CLOSE)
    refused(between.end(RECEIVER), NotAuthenticError)
    sender = between.end(SENDER)
    sender.send(16, b"key")
    sender.close()
    between.take(SENDER)
    close = between.take(SENDER)
    assert HEADER.unpack_from(close)[1] == 4
    with Between() as other:
        other.shake()
        other.end(SENDER).send(16, b"key")
        other.end(SENDER).close()
        other.take(SENDER)
        other.put(RECEIVER, other.take(SENDER))
        refused(other.end(RECEIVER), WrongCounterError)


def test_an_orderly_end_is_told(between: Between) -> None:
    """The close frame passed on is the one orderly end."""
    between.end(SENDER).close()
    between.put(RECEIVER, between.take(SENDER))
    refused(between.end(RECEIVER), PeerClosedError)


def test_surplus_descriptors_are_closed(between: Between) -> None:
    """A descriptor that somebody adds to a frame is closed, and the frame is not delivered."""
    (frame,) = sent(between, b"key")
    before = descriptors()
    reading, writing = os.pipe()
    socket.send_fds(between.inner[RECEIVER], [frame], [writing])
    os.close(writing)
    refused(between.end(RECEIVER), DescriptorError)
    assert no_writer(reading)
    assert descriptors() == before - 1  # the channel's own socket


def test_missing_descriptors_are_found(between: Between) -> None:
    """A frame whose descriptors somebody keeps is not delivered."""
    reading, writing = os.pipe()
    between.end(SENDER).send(16, b"key", [writing])
    frame, _, _, _ = socket.recv_fds(between.inner[SENDER], 1000, 0)
    between.put(RECEIVER, frame)
    refused(between.end(RECEIVER), DescriptorError)
    os.close(reading)
    os.close(writing)


def test_descriptors_of_a_frame_that_is_not_authentic_are_closed(between: Between) -> None:
    """A forged frame leaves no descriptor behind."""
    before = descriptors()
    reading, writing = os.pipe()
    socket.send_fds(between.inner[RECEIVER], [HEADER.pack(16, 16, 1, 2) + bytes(16)], [writing])
    os.close(writing)
    refused(between.end(RECEIVER), NotAuthenticError)
    assert no_writer(reading)
    assert descriptors() == before - 1


def test_descriptors_with_a_later_frame_are_not_an_earlier_ones(between: Between) -> None:
    """Two frames read at once: descriptors belong to the bytes with which they came."""
    reading, writing = os.pipe()
    between.put(RECEIVER, sent(between, b"one")[0])
    socket.send_fds(between.inner[RECEIVER], sent(between, b"two"), [writing])
    assert between.end(RECEIVER).receive() == Frame(16, b"one")
    os.close(writing)
    refused(between.end(RECEIVER), DescriptorError)
    assert no_writer(reading)


def test_more_descriptors_than_any_frame_has_are_closed(between: Between) -> None:
    """Far too many descriptors are cut off by the kernel; those that came are closed."""
    before = descriptors()
    socket.send_fds(between.inner[RECEIVER], sent(between, b"key"), [0] * 100)
    assert "could be taken" in str(refused(between.end(RECEIVER), DescriptorError))
    assert descriptors() == before - 1


def flipped(of: Side, number: int, at: int) -> Callable[[Side, int, bytes], list[bytes]]:
    """Return who flips a bit of one frame of the handshake."""

    def tamper(side: Side, index: int, frame: bytes) -> list[bytes]:
        if (side, index) == (of, number):
            return [frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :]]
        return [frame]

    return tamper


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("side", list(Side))
def test_a_changed_handshake_is_found(side: Side, number: int) -> None:
    """A bit in the last byte of hello (its nonce), proof or confirmation: never are there two ends of a channel."""
    with Between() as between:
        between.shake(flipped(side, number, -1))
        victim = between.ends[side.other]
        assert type(victim) is NotAuthenticError
        if number < 2:
            assert isinstance(between.ends[side], (NotAuthenticError, PeerGoneError))
        else:
            # This end had the other's confirmation already, as the last message can always be lost.
            refused(between.end(side), PeerGoneError)


def test_a_swapped_ephemeral_key_is_found() -> None:
    """Another key in the hello: the ends have other secrets, and other transcripts."""
    with Between() as between:
        between.shake(flipped(SENDER, 0, 14 + 20))
        assert NotAuthenticError in {type(end) for end in between.ends.values()}
        assert all(isinstance(end, (ChannelInputError, ChannelUnavailableError)) for end in between.ends.values())


def reflect(between: Between, first: int) -> Callable[[Side, int, bytes], list[bytes]]:
    """Return who sends frames back to where they came from, from one number on."""
    between.passes_ends = False  # who is refused first must not end the other before it has its own frame

    def tamper(side: Side, number: int, frame: bytes) -> list[bytes]:
        if number < first:
            return [frame]
        between.put(side, frame)
        return []

    return tamper


def test_reflected_hellos_are_found() -> None:
    """Both ends get their own hello back: that is told from any other mistake."""
    with Between() as between:
        between.shake(reflect(between, 0))
        assert [type(end) for end in between.ends.values()] == [ReflectionError, ReflectionError]


def test_reflected_proofs_are_found() -> None:
    """An end's own proof that comes back does not decrypt."""
    with Between() as between:
        between.shake(reflect(between, 1))
        assert [type(end) for end in between.ends.values()] == [NotAuthenticError, NotAuthenticError]


@pytest.mark.parametrize("number", [0, 1])
def test_a_handshake_of_yesterday_is_found(number: int) -> None:
    """The sender's frames of another session, from the first or the second on: the receiver refuses."""
    with Between() as yesterday:
        yesterday.shake()
        old = yesterday.seen[SENDER]

    def tamper(side: Side, index: int, frame: bytes) -> list[bytes]:
        return [old[index] if side is SENDER and index >= number else frame]

    with Between() as between:
        between.shake(tamper)
        assert type(between.ends[RECEIVER]) is NotAuthenticError
        assert isinstance(between.ends[SENDER], ChannelError)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_handshake_that_stops_is_a_timeout(number: int) -> None:
    """A peer that says nothing, or nothing more, holds up nobody longer than the handshake may take."""

    def tamper(side: Side, index: int, frame: bytes) -> list[bytes]:
        return [] if side is SENDER and index >= number else [frame]

    with Between() as between:
        between.shake(tamper, handshake_timeout=0.3)
        # Whose time is over first hangs up, which the other may see before its own is.
        assert type(between.ends[RECEIVER]) in (ChannelTimeoutError, PeerGoneError)
        assert ChannelTimeoutError in {type(end) for end in between.ends.values()}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", FrameTooLargeError, id="HTTP"),
        pytest.param(HEADER.pack(1025, 1, 0, 0), FrameTooLargeError, id="oversized hello"),
        pytest.param(HEADER.pack(0xFFFFFFFF, 1, 0, 0), FrameTooLargeError, id="4 GiB"),
        pytest.param(HEADER.pack(10, 1, 17, 0), FrameError, id="17 descriptors"),
        pytest.param(HEADER.pack(10, 1, 1, 0) + bytes(10), FrameError, id="1 descriptor"),
        pytest.param(HEADER.pack(10, 2, 0, 0) + bytes(10), FrameError, id="proof first"),
        pytest.param(HEADER.pack(10, 1, 0, 1) + bytes(10), FrameError, id="hello with a counter"),
        pytest.param(HEADER.pack(0, 1, 0, 0), HandshakeError, id="empty hello"),
        pytest.param(HEADER.pack(10, 1, 0, 0) + bytes(10), HandshakeError, id="zeros as hello"),
        pytest.param(HEADER.pack(10, 1, 0, 0) + bytes(9), PeerGoneError, id="cut hello"),
        pytest.param(b"", PeerGoneError, id="nothing"),
    ],
)
def test_who_speaks_something_else_is_refused(data: bytes, expected: type[ChannelError]) -> None:
    """What is no hello ends the handshake, before anything is computed or waited for."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(ChannelError) as caught:
            Channel.over(ours, terms(SENDER))
    assert type(caught.value) is expected
    assert ours.fileno() == -1


def test_descriptors_before_anybody_is_known_are_closed() -> None:
    """A hello that brings a descriptor is refused, and the descriptor is closed."""
    ours, theirs = socket.socketpair()
    reading, writing = os.pipe()
    with theirs:
        socket.send_fds(theirs, [HEADER.pack(1, 1, 0, 0) + b"x"], [writing])
        os.close(writing)
        with pytest.raises(DescriptorError):
            Channel.over(ours, terms(SENDER))
    assert no_writer(reading)


def test_input_is_input_whoever_sent_it(between: Between) -> None:
    """What is not authentic is of the family that the command reports as bad input."""
    between.put(RECEIVER, CLOSE)
    assert isinstance(refused(between.end(RECEIVER), NotAuthenticError), InputError)
