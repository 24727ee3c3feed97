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
from hsmbridge_csp.errors import KeyStateError
from hsmbridge_csp.generation import generate
from hsmbridge_csp.legacy_blobs import export_raw, import_raw
from hsmbridge_csp.modes import Padding
from hsmbridge_csp.params import get_param, set_param
from hsmbridge_csp.permissions import Permission
from hsmbridge_csp.recipient_kek import TokenKek
from hsmbridge_csp.sealing import open_blob, seal_blob, sign_blob, verify_blob
from hsmbridge_csp.token_key import TokenKey
from hsmbridge_csp.transfer import bits_of, key_from, record_of
from hsmbridge_csp.trust import TrustStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsmbridge.token import Token
    from hsmbridge_csp.disposition import Disposition
    from hsmbridge_csp.identity import Identity, VerifyingKey
    from hsmbridge_csp.keys import Key, SoftwareKey
    from hsmbridge_csp.mac_key import Mac
    from hsmbridge_csp.modes import Direction
    from hsmbridge_csp.recipients import Opener, Sealer

__all__ = ["Provider"]


class Provider:
    """CryptoAPI's verbs. One provider may be used by many threads; one key by one thread at a time.

    Args:
        token: the token, logged in; None for a provider of software keys only.
        identity: who signs what this provider exports, and whose blobs it believes without a pin; None signs nothing.
        trust: the senders whose blobs it believes.
    """

    def __init__(
        self, token: Token | None = None, *, identity: Identity | None = None, trust: TrustStore | None = None
    ) -> None:
        self.token = token
        self.identity = identity
        self.trust = trust or TrustStore()

    def generate_key(self, algorithm: str, bits: int = 0) -> SoftwareKey:
        """Make a software key of random bytes (CryptGenKey), in the state that a new key of its kind has.

        Args:
            algorithm: ``AES``, ``3DES``, ``AES-GCM``, ``CHACHA20-POLY1305``, ``HMAC-SHA256``, ``RSA``, ``EC``, …
            bits: its size; 0 takes the algorithm's usual one.

        Raises:
            CspError: NTE_BAD_ALGID or NTE_BAD_LEN.
        """
        return generate(algorithm, bits)

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

    def duplicate_key(self, key: Key) -> Key:
        """Copy key and state; afterwards nothing is shared (CryptDuplicateKey).

        Raises:
            KeyStateError: a nonce-bearing encryptor.
        """
        return key.duplicate()

    def export_key(
        self, key: Key, recipient: Sealer, *, purpose: Purpose = Purpose.COPY, by_reference: bool | None = None
    ) -> bytes:
        """Export a key and its running state as an OPAQUEKEYBLOB (CryptExportKey). Never destroys.

        Args:
            key: the key; a move freezes it.
            recipient: for whom it is sealed.
            purpose: copy, or move.
            by_reference: leave the key in its token; None decides: by value what lives in software, by reference what
                lives in hardware.

        Raises:
            KeyStateError: a nonce-bearing encryptor to be copied, or a key that can go neither way.
            PermissionDeniedError: CRYPT_EXPORT is not among its permissions.
            NotExtractableError, KekError, MechanismError: it may not or cannot go by value.
        """
        key.check_usable(Permission.EXPORT)
        if purpose is Purpose.COPY and key.can_only_move:
            raise KeyStateError(
                "an encryptor of this kind can only be moved: a second holder would use one nonce twice",
                hint="export it for a move; or take ENCRYPT off its KP_PERMISSIONS first",
            )
        if by_reference is None:
            by_reference = not key.classify().is_software
        record = record_of(key, recipient, by_reference=by_reference)
        clear = ClearPart(
            blob_id=secrets.token_bytes(BLOB_ID_SIZE),
            created=int(time.time()),
            key_type=record.algorithm,
            bits=bits_of(key, record),
            by_reference=by_reference,
            purpose=purpose,
            sender=self.identity.fingerprint if self.identity is not None else b"",
            recipient=recipient.fingerprint,
        )
        with self._ours() as ours:
            blob = seal_blob(clear, record, recipient, ours)
        if self.identity is not None:
            blob = sign_blob(blob, self.identity)
        if purpose is Purpose.MOVE:
            key.freeze()
        return blob.encode()

    def import_key(self, data: bytes, opener: Opener, *, persist: bool = False, allow_unsigned: bool = False) -> Key:
        """Import an OPAQUEKEYBLOB (CryptImportKey): the key goes on in exactly the state in which it was exported.

        The sender's signature is verified first, over the whole blob; then the content key is unwrapped.

        Args:
            data: the blob.
            opener: the key that it is sealed for.
            persist: make a token object of a key that came by value.
            allow_unsigned: take an unsigned copy all the same; a move must be signed.

        Raises:
            BlobError: not a blob, or not authentic; nothing was imported.
            UnknownSenderError: unsigned, or signed by nobody whom this provider believes.
            KekError: sealed for another key.
            NotFoundError: a key by reference is not in this token.
        """
        blob = Blob.parse(data)
        if blob.signed is not None or not allow_unsigned or blob.clear.purpose is not Purpose.COPY:
            verify_blob(blob, self._sender)
        with self._ours() as ours:
            record = open_blob(blob, opener, ours)
        return key_from(record, self.token, opener, persist=persist)

    def export_raw(self, key: Key, blob_type: int) -> bytes:
        """Write a software key as a PLAINTEXTKEYBLOB or a KEYSTATEBLOB (CryptExportKey): the key in the clear.

        Raises:
            PermissionDeniedError: CRYPT_EXPORT and CRYPT_READ are not both among its permissions.
            KeyStateError: its state does not fit into the blob, or it lives in a token; CspError: nor does its kind.
        """
        return export_raw(key, blob_type)

    def import_raw(
        self,
        data: bytes,
        *,
        direction: Direction | None = None,
        padding: Padding = Padding.PKCS5,
        mac: Mac | None = None,
    ) -> SoftwareKey:
        """Make a software key of a PLAINTEXTKEYBLOB or a KEYSTATEBLOB (CryptImportKey); nothing vouches for its sender.

        What such blobs do not say: *direction* and *padding* of a running stream, and for which *mac* a key is.

        Raises:
            BlobError: not one of the two, or not supported; KeyStateError: a stream runs and *direction* is None.
        """
        return import_raw(data, direction=direction, padding=padding, mac=mac)

    def get_param(self, key: Key, kp: int) -> int | bytes:
        """Read a parameter of a key (CryptGetKeyParam); see :mod:`hsmbridge_csp.params` for values and errors."""
        return get_param(key, kp)

    def set_param(self, key: Key, kp: int, value: int | bytes) -> None:
        """Set a parameter of a key (CryptSetKeyParam), those of its stream between two streams; errors as there."""
        set_param(key, kp, value)

    def destroy_key(self, key: Key) -> Disposition:
        """Destroy a key that lives in software; release one that lives in hardware (CryptDestroyKey).

        Returns: destroyed or retained, with the evidence. Either way *key* is dead for this process.
        """
        return key.dispose()

    def _sender(self, fingerprint: bytes) -> VerifyingKey:
        if self.identity is not None and self.identity.fingerprint == fingerprint:
            return self.identity.public_key
        return self.trust.sender(fingerprint)

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
