"""File descriptors that travel with a frame.

Descriptors belong to the bytes with which they were sent, so a receiver can tell whose they are: the kernel ends a
read behind the piece of a stream that had some.

Source: unix(7), SCM_RIGHTS, and BUGS on ancillary data as a barrier; recvmsg(2), MSG_CMSG_CLOEXEC, MSG_CTRUNC.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
from typing import TYPE_CHECKING

from hsmbridge_csp.channel.errors import DescriptorError
from hsmbridge_csp.channel.frames import MAX_DESCRIPTORS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["ANCILLARY_SPACE", "Ancillary", "close_all", "packed", "unpacked"]

Ancillary = tuple[int, int, bytes]
"""Level, type and bytes of one control message."""

_INT = array.array("i").itemsize

ANCILLARY_SPACE = socket.CMSG_SPACE((MAX_DESCRIPTORS + 1) * _INT)
"""Room for one more than is allowed: a surplus is then seen instead of cut off."""


def packed(descriptors: Sequence[int]) -> list[Ancillary]:
    """Return the control message that carries descriptors."""
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes())]


def unpacked(messages: Iterable[Ancillary], flags: int) -> list[int]:
    """Take the descriptors out of what recvmsg gave.

    Args:
        messages: control messages.
        flags: recvmsg's.

    Raises:
        DescriptorError: some were cut off; those that came are closed.
    """
    found = array.array("i")
    for level, kind, data in messages:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % _INT])
    if flags & socket.MSG_CTRUNC:
        close_all(found)
        raise DescriptorError(
            "not all file descriptors that came could be taken",
            hint="those that could were closed: too many came, or this process may open no more (ulimit -n)",
        )
    return found.tolist()


def close_all(descriptors: Iterable[int]) -> None:
    """Close descriptors that came and that nobody takes."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
