"""Random bytes for keys, in memory that can be overwritten.

Source: getrandom(2) by way of /dev/urandom, which is the way that fills a buffer of ours.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["random_bytearray"]


def random_bytearray(size: int) -> bytearray:
    """Return *size* random bytes that never were an immutable object.

    Raises:
        OSError: the system gives none.
    """
    buffer = bytearray(size)
    with Path("/dev/urandom").open("rb", buffering=0) as source:
        filled = source.readinto(buffer)
    if filled != size:
        raise OSError("the system gave too few random bytes")
    return buffer
