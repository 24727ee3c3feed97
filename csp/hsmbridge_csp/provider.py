"""The provider: CryptoAPI's key verbs on a PKCS#11 token, or on no token at all.

Source: CryptoAPI CryptAcquireContext, CryptGenKey, CryptExportKey, CryptImportKey, CryptDestroyKey; the procedure
"Crossing Process Boundaries" of Windows' Schannel CSPs; docs/cryptoapi.md.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from typing import TYPE_CHECKING

from hsmbridge.destruction import Ours
from hsmbridge.errors import UsageError
from hsmbridge.objects import Object, find_key
from hsmbridge_csp.blob import Blob
from hsmbridge_csp.clearpart import BLOB_ID_SIZE, ClearPart, Purpose
from hsmbridge_csp.errors import KeyStateError, PermissionDeniedError
from hsmbridge_csp.keys import Key, SoftwareKey, TokenKey
from hsmbridge_csp.permissions import Permission
from hsmbridge_csp.randomness import random_bytearray
from hsmbridge_csp.recipients import TokenKek
from hsmbridge_csp.sealing import open_blob, seal_blob
from hsmbridge_csp.transfer import bits_of, can_only_move, key_from, record_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsmbridge.token import Token
    from hsmbridge_csp.disposition import Disposition
    from hsmbridge_csp.modes import Cipher

__all__ = ["Provider"]


class Provider:
    """CryptoAPI's verbs. One provider may be used by many threads; one key by one thread at a time.

    Args:
        token: the token, logged in; None for a provider of software keys only.
    """

    def __init__(self, token: Token | None = None) -> None:
        self.token = token

    def generate_key(self, cipher: Cipher, bits: int) -> SoftwareKey:
        """Make a software key of random bytes (CryptGenKey): CBC, zero IV, PKCS5 padding until set otherwise."""
        return SoftwareKey(cipher, random_bytearray(bits // 8))

    def import_raw(self, cipher: Cipher, value: bytearray) -> SoftwareKey:
        """Take key bytes that the caller has; they are overwritten when the key is destroyed."""
        return SoftwareKey(cipher, value)

    def find_key(self, *, label: str | None = None, key_id: bytes | None = None) -> TokenKey:
        """Find a key in the token by CKA_LABEL or CKA_ID (CryptGetUserKey).

        Raises:
            NotFoundError: none, or more than one.
        """
        return TokenKey(find_key(self._the_token(), label=label, key_id=key_id))

    def adopt(self, key: Object) -> TokenKey:
        """Take an object that the token layer found or made."""
        return TokenKey(key)

    def kek(self, key: Object, *, allow_unsafe: bool = False) -> TokenKek:
        """Use an object as a KEK; keep the result, it remembers its fingerprint."""
        return TokenKek(key, allow_unsafe=allow_unsafe)

    def export_key(
        self, key: Key, kek: TokenKek, *, purpose: Purpose = Purpose.COPY, by_reference: bool | None = None
    ) -> bytes:
        """Export a key and its running state as an OPAQUEKEYBLOB (CryptExportKey). Never destroys.

        Args:
            key: the key; a move freezes it.
            kek: for whom it is sealed.
            purpose: copy, or move.
            by_reference: leave the key in its token; None decides: by value what lives in software, by reference what
                lives in hardware.

        Raises:
            KeyStateError: a nonce-bearing encryptor to be copied, or a key that can go neither way.
            PermissionDeniedError: CRYPT_EXPORT is not among its permissions.
            NotExtractableError, KekError, MechanismError: it may not or cannot go by value.
        """
        key.check_usable()
        if Permission.EXPORT not in key.permissions:
            raise PermissionDeniedError("this key may not be exported", hint="its KP_PERMISSIONS do not include EXPORT")
        if purpose is Purpose.COPY and can_only_move(key):
            raise KeyStateError(
                "a running encryptor of this mode can only be moved: a second holder would use one keystream twice",
                hint="export it for a move, or end the stream first",
            )
        if by_reference is None:
            by_reference = not key.classify().is_software
        record = record_of(key, kek, by_reference=by_reference)
        clear = ClearPart(
            blob_id=secrets.token_bytes(BLOB_ID_SIZE),
            created=int(time.time()),
            key_type=record.algorithm,
            bits=bits_of(record),
            by_reference=by_reference,
            purpose=purpose,
            sender=b"",
            recipient=kek.fingerprint,
        )
        with self._ours() as ours:
            blob = seal_blob(clear, record, kek, ours)
        if purpose is Purpose.MOVE:
            key.freeze()
        return blob.encode()

    def import_key(self, data: bytes, kek: TokenKek, *, persist: bool = False) -> Key:
        """Import an OPAQUEKEYBLOB (CryptImportKey): the key goes on in exactly the state in which it was exported.

        Args:
            data: the blob.
            kek: the key that it is sealed for.
            persist: make a token object of a key that came by value.

        Raises:
            BlobError: not a blob, or not authentic; nothing was imported.
            KekError: sealed for another key.
            NotFoundError: a key by reference is not in this token.
        """
        blob = Blob.parse(data)
        with self._ours() as ours:
            record = open_blob(blob, kek, ours)
        return key_from(record, self.token, kek, persist=persist)

    def destroy_key(self, key: Key) -> Disposition:
        """Destroy a key that lives in software; release one that lives in hardware (CryptDestroyKey).

        Returns: destroyed or retained, with the evidence. Either way *key* is dead for this process.
        """
        return key.destroy()

    def _the_token(self) -> Token:
        if self.token is None:
            raise UsageError("this provider has no token", hint="open a provider with a token")
        return self.token

    @contextlib.contextmanager
    def _ours(self) -> Iterator[Ours | None]:
        if self.token is None:
            yield None
            return
        with Ours(self.token) as ours:
            yield ours
