"""Block cipher modes and what of them makes up a key's state.

Source: NIST SP 800-38A (ECB, CBC, CFB, OFB, CTR); CryptoAPI KP_MODE and KP_MODE_BITS.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["BLOCK_SIZE", "Cipher", "Direction", "Mode", "Padding"]


class Cipher(StrEnum):
    """A block cipher."""

    AES = "AES"
    TDES = "3DES"


BLOCK_SIZE = {Cipher.AES: 16, Cipher.TDES: 8}
"""Bytes in a block."""


class Mode(StrEnum):
    """A mode of operation; CFB128 is full-block CFB, which with 3DES is 64 bits wide."""

    ECB = "ECB"
    CBC = "CBC"
    CFB8 = "CFB8"
    CFB128 = "CFB128"
    OFB = "OFB"
    CTR = "CTR"

    @property
    def is_blockwise(self) -> bool:
        """Whether only whole blocks go through, so that padding matters."""
        return self in (Mode.ECB, Mode.CBC)

    @property
    def bears_nonce(self) -> bool:
        """Whether two encryptors in the same state would use one keystream twice: such a state can only move."""
        return self in (Mode.OFB, Mode.CTR)


class Padding(StrEnum):
    """What Final does with the last block (CryptoAPI KP_PADDING)."""

    PKCS5 = "PKCS5"
    NONE = "NONE"


class Direction(StrEnum):
    """What a stream that has begun is doing."""

    ENCRYPT = "encrypt"
    DECRYPT = "decrypt"
