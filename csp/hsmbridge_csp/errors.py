"""Typed errors of the provider layer and the CryptoAPI codes they carry.

Nothing here performs I/O. Each error has a one-line message, a ``hint`` that says what to do instead, and ``nte``, the
code that a CryptoAPI caller would have found in GetLastError.
"""

from __future__ import annotations

from enum import IntEnum

from hsmbridge.errors import InputError

__all__ = ["NTE", "BlobError"]


class NTE(IntEnum):
    """The CryptoAPI error codes that this provider reports.

    Source: Windows winerror.h, facility FACILITY_SSPI (0x8009).
    """

    BAD_UID = 0x80090001
    BAD_HASH = 0x80090002
    BAD_KEY = 0x80090003
    BAD_LEN = 0x80090004
    BAD_DATA = 0x80090005
    BAD_SIGNATURE = 0x80090006
    BAD_VER = 0x80090007
    BAD_ALGID = 0x80090008
    BAD_FLAGS = 0x80090009
    BAD_TYPE = 0x8009000A
    BAD_KEY_STATE = 0x8009000B
    NO_KEY = 0x8009000D
    EXISTS = 0x8009000F
    PERM = 0x80090010
    NOT_FOUND = 0x80090011
    BAD_PUBLIC_KEY = 0x80090015
    FAIL = 0x80090020


class BlobError(InputError):
    """A key blob is malformed, truncated, oversized, or of a kind that is not taken.

    Attributes:
        nte: the CryptoAPI code of the refusal.
    """

    def __init__(self, message: str, *, nte: NTE, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.nte = nte
