"""Frames: a header of 14 bytes in clear, which is authenticated, and a body.

Source: docs/channel.md, "Frames".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum

from hsmbridge_csp.channel.errors import ChannelUsageError, FrameError, FrameTooLargeError

__all__ = [
    "FIRST_TYPE",
    "HEADER",
    "MAX_DESCRIPTORS",
    "MAX_HANDSHAKE",
    "MAX_PAYLOAD",
    "TAG_SIZE",
    "Frame",
    "FrameType",
    "check_outgoing",
    "check_sizes",
]

HEADER = struct.Struct(">IBBQ")
"""Length of the body, type, number of file descriptors, counter; 14 bytes, big-endian."""

TAG_SIZE = 16
"""AES-GCM's tag, behind the ciphertext (NIST SP 800-38D)."""

MAX_PAYLOAD = 1 << 20
"""Bytes that one frame carries; the largest blob is far below (docs/blob-format.md)."""

MAX_HANDSHAKE = 1024
"""Bytes of a handshake frame's body: nobody is known yet, so nobody gets more of our memory."""

MAX_DESCRIPTORS = 16
"""File descriptors that travel with one frame; Linux would take 253 (unix(7), SCM_MAX_FD)."""

FIRST_TYPE = 16
"""Types from here to 255 are the caller's; those below are the channel's own."""

_LAST_TYPE = 255


class FrameType(IntEnum):
    """The channel's own frames."""

    HELLO = 1
    PROOF = 2
    READY = 3
    CLOSE = 4


@dataclass(frozen=True, slots=True)
class Frame:
    """One authenticated frame.

    Attributes:
        type: 16 to 255, the caller's.
        payload: the bytes.
        fds: file descriptors, close-on-exec; whoever receives the frame owns them and must close them.
    """

    type: int
    payload: bytes = field(repr=False)
    fds: tuple[int, ...] = ()


def check_sizes(length: int, descriptors: int, limit: int) -> None:
    """Check a header before its body is waited for.

    Args:
        length: bytes of the body, as the header says.
        descriptors: their number, as the header says.
        limit: bytes that a body may have here.

    Raises:
        FrameTooLargeError: the body would be longer.
        FrameError: more descriptors than a frame may have.
    """
    if length > limit:
        raise FrameTooLargeError(
            f"a frame of {length} bytes came where at most {limit} are taken",
            hint="the peer is not hsmbridge, or the connection was tampered with; start the handoff again",
        )
    if descriptors > MAX_DESCRIPTORS:
        raise FrameError(
            f"a frame announces {descriptors} file descriptors, at most {MAX_DESCRIPTORS} travel at once",
            hint="the peer is not hsmbridge, or the connection was tampered with; start the handoff again",
        )


def check_outgoing(kind: int, payload: bytes | bytearray, descriptors: int) -> None:
    """Check what the caller wants to send.

    Raises:
        ChannelUsageError: the type is not the caller's, or there is more than a frame carries.
    """
    if not FIRST_TYPE <= kind <= _LAST_TYPE:
        raise ChannelUsageError(f"frame type {kind} is not the caller's", hint=f"use {FIRST_TYPE} to {_LAST_TYPE}")
    if len(payload) > MAX_PAYLOAD:
        raise ChannelUsageError(
            f"{len(payload)} bytes do not fit into a frame", hint=f"send at most {MAX_PAYLOAD} bytes at once"
        )
    if descriptors > MAX_DESCRIPTORS:
        raise ChannelUsageError(
            f"{descriptors} file descriptors do not fit into a frame", hint=f"send at most {MAX_DESCRIPTORS} at once"
        )
