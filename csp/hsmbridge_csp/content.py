"""Content keys: AES-256-GCM over the key record, in this process or in the token.

A FIPS token lets no known bytes in and none out, and a KEK with CKA_UNWRAP_TEMPLATE makes what it unwraps unreadable:
there the content key is a sensitive object and the token itself runs GCM.

Source: NIST SP 800-38D; PKCS#11 v3.1 section 6.13.3 (CKM_AES_GCM); RFC 9053 section 4.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hsmbridge.errors import Pkcs11Error
from hsmbridge.mechanism import aes_gcm
from hsmbridge_csp.errors import NTE, BlobError

if TYPE_CHECKING:
    from hsmbridge.objects import Object

__all__ = ["CONTENT_KEY_SIZE", "ContentKey", "SoftwareContentKey", "TokenContentKey"]

CONTENT_KEY_SIZE = 32


class ContentKey(Protocol):
    """An AES-256-GCM key for one blob."""

    def seal(self, iv: bytes, plaintext: bytes, aad: bytes) -> bytes:
        """Encrypt; the tag is behind the ciphertext."""
        ...

    def open(self, iv: bytes, ciphertext: bytes, aad: bytes) -> bytes:
        """Decrypt.

        Raises:
            BlobError: not authentic.
        """
        ...


def _not_authentic() -> BlobError:
    return BlobError(
        "the blob is not authentic: its contents or its header were changed, or it is for another key",
        nte=NTE.BAD_DATA,
        hint="nothing was imported; have the sender export the key again",
    )


class SoftwareContentKey:
    """A content key whose bytes this process holds.

    Args:
        key: 32 bytes.
    """

    def __init__(self, key: bytes | bytearray) -> None:
        self._gcm = AESGCM(key)

    def seal(self, iv: bytes, plaintext: bytes, aad: bytes) -> bytes:
        """Encrypt; the tag is behind the ciphertext."""
        return self._gcm.encrypt(iv, plaintext, aad)

    def open(self, iv: bytes, ciphertext: bytes, aad: bytes) -> bytes:
        """Decrypt.

        Raises:
            BlobError: not authentic.
        """
        try:
            return self._gcm.decrypt(iv, ciphertext, aad)
        except InvalidTag:
            raise _not_authentic() from None


class TokenContentKey:
    """A content key that is a session object.

    Args:
        key: an AES-256 key with CKA_ENCRYPT or CKA_DECRYPT.
    """

    def __init__(self, key: Object) -> None:
        self._key = key

    def seal(self, iv: bytes, plaintext: bytes, aad: bytes) -> bytes:
        """Encrypt in the token."""
        with self._key.token.sessions as session:
            return self._key.token.calls.encrypt(session, aes_gcm(iv, aad), self._key.handle, plaintext)

    def open(self, iv: bytes, ciphertext: bytes, aad: bytes) -> bytes:
        """Decrypt in the token.

        Raises:
            BlobError: not authentic: by then the mechanism and the key were accepted, so C_Decrypt refused the data.
            Pkcs11Error: the token refuses the mechanism or the key.
        """
        try:
            with self._key.token.sessions as session:
                return self._key.token.calls.decrypt(session, aes_gcm(iv, aad), self._key.handle, ciphertext)
        except Pkcs11Error as error:
            if error.function != "C_Decrypt":
                raise
            raise _not_authentic() from None
