"""Typed errors of the provider layer and the CryptoAPI codes they carry.

Nothing here performs I/O. Each error has a one-line message, a ``hint`` that says what to do instead, and ``nte``, the
code that a CryptoAPI caller would have found in GetLastError.
"""

from __future__ import annotations

from enum import IntEnum

from hsmbridge.errors import HsmbridgeError, InputError, PolicyError

__all__ = ["NTE", "BadKeyError", "BadLengthError", "BlobError", "CspError", "KeyStateError", "PermissionDeniedError"]


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


class CspError(HsmbridgeError):
    """A verb of the provider was used as it cannot be.

    Attributes:
        nte: the CryptoAPI code.
        ckr: the PKCS#11 return value behind it, where there is one.
    """

    nte: NTE = NTE.FAIL

    def __init__(self, message: str, *, hint: str, nte: NTE | None = None, ckr: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.nte = nte or type(self).nte
        self.ckr = ckr


class BadKeyError(CspError):
    """The key was destroyed, or is of another kind than the verb needs."""

    nte = NTE.BAD_KEY


class BadLengthError(CspError):
    """The data do not have the length that the mode needs."""

    nte = NTE.BAD_LEN


class KeyStateError(CspError, PolicyError):
    """The key cannot be exported, copied or used in the state it is in."""

    nte = NTE.BAD_KEY_STATE


class PermissionDeniedError(CspError, PolicyError):
    """The key's permissions do not allow the verb."""

    nte = NTE.PERM
