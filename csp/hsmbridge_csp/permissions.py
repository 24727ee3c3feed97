"""KP_PERMISSIONS: what a key's holder may do with it.

Source: wincrypt.h, CRYPT_ENCRYPT and following.
"""

from __future__ import annotations

from enum import IntFlag

__all__ = ["DEFAULT", "Permission"]


class Permission(IntFlag):
    """Permission bits of a key, with CryptoAPI's numbers."""

    ENCRYPT = 0x0001
    DECRYPT = 0x0002
    EXPORT = 0x0004
    READ = 0x0008
    WRITE = 0x0010
    MAC = 0x0020
    EXPORT_KEY = 0x0040
    IMPORT_KEY = 0x0080
    ARCHIVE = 0x0100


DEFAULT = (
    Permission.ENCRYPT | Permission.DECRYPT | Permission.EXPORT | Permission.READ | Permission.WRITE | Permission.MAC
)
"""What a new session key may: everything but wrapping other keys, which is a KEK's business alone."""
