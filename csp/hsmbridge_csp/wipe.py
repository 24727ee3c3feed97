"""Overwriting secrets that have to be bytes objects for a moment.

A bytearray is overwritten in place. A bytes object cannot be, by Python's rules; but one that a library has just
returned to us, and that nobody else refers to, is memory of ours like any other. What an allocator or a library copied
before is beyond reach: docs/limits.md says what was measured.

Source: CPython, "bytes objects are immutable" (C API, PyBytes_AsString: must not be modified unless newly created).
"""

from __future__ import annotations

import ctypes

__all__ = ["wipe"]

_LONGER_THAN_SHARED = 2
"""CPython keeps one object for each bytes of length 0 and 1: these are never ours alone."""


def wipe(*secrets: bytes | bytearray) -> None:
    """Overwrite buffers with zeros.

    Args:
        secrets: bytearrays, or bytes objects that were made for the caller and that nobody else uses.
    """
    for secret in secrets:
        if len(secret) < _LONGER_THAN_SHARED:
            continue
        if isinstance(secret, bytearray):
            secret[:] = bytes(len(secret))
        else:
            ctypes.memset(ctypes.c_char_p(secret), 0, len(secret))
