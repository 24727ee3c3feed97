"""The numbers of CryptoAPI's key parameters, and of the values that two of them have.

Source: wincrypt.h, KP_*, CRYPT_MODE_* and *_PADDING.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["KP", "CryptMode", "CryptPadding"]


class KP(IntEnum):
    """A key parameter, with CryptoAPI's number (dwParam)."""

    IV = 1
    SALT = 2
    PADDING = 3
    MODE = 4
    MODE_BITS = 5
    PERMISSIONS = 6
    ALGID = 7
    BLOCKLEN = 8
    KEYLEN = 9
    EFFECTIVE_KEYLEN = 19
    SCHANNEL_ALG = 20
    CLIENT_RANDOM = 21
    SERVER_RANDOM = 22


class CryptMode(IntEnum):
    """Values of KP_MODE: CRYPT_MODE_*, and one of ours."""

    CBC = 1
    ECB = 2
    OFB = 3
    CFB = 4
    CTS = 5
    CTR = 0x100
    """Ours: CryptoAPI has no counter mode, and numbers its modes far below."""


class CryptPadding(IntEnum):
    """Values of KP_PADDING: CryptoAPI's, and one of ours."""

    NONE = 0
    """Ours: CryptoAPI always pads at Final."""
    PKCS5 = 1
    RANDOM = 2
    ZERO = 3
