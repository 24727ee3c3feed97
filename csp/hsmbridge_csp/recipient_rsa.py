"""A recipient that is an RSA key: RSAES-OAEP with SHA-256.

Sealing needs the public key alone. Opening takes the private key from a token, or from this process.

Source: RFC 8230 section 3 (RSAES-OAEP with SHA-256 is -41); RFC 8017 section 7.1.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import rsa

from hsmbridge.dialects import Dialect, software_unwrap, software_wrap
from hsmbridge.errors import InputError, KekError
from hsmbridge.kek import Purpose as KekPurpose
from hsmbridge.kek import check_kek, rsa_strength
from hsmbridge.publickeys import public_key_of, spki_fingerprint
from hsmbridge.unwrapping import Unwrapper
from hsmbridge_csp import cbor
from hsmbridge_csp.content import CONTENT_KEY_SIZE, ContentKey, SoftwareContentKey
from hsmbridge_csp.cose import Algorithm, CoseRecipient, Header
from hsmbridge_csp.errors import NTE, BlobError
from hsmbridge_csp.recipient_kek import unwrap_content_key

if TYPE_CHECKING:
    from hsmbridge.destruction import Ours
    from hsmbridge.objects import Object

__all__ = ["RsaOpener", "RsaSealer"]

_PROTECTED = cbor.encode({int(Header.ALG): int(Algorithm.RSAES_OAEP_SHA_256)})
_MINIMUM_STRENGTH = 128


class RsaSealer:
    """Seals for an RSA public key.

    Args:
        public: the key, 3072 bits or more.
        wrapping_key: the same key as a public object in a token, which wraps token keys that go by value.
        allow_unsafe: accept a smaller key.

    Raises:
        KekError: the key is too small, or the object is another key.
    """

    def __init__(
        self, public: rsa.RSAPublicKey, wrapping_key: Object | None = None, *, allow_unsafe: bool = False
    ) -> None:
        if rsa_strength(public.key_size) < _MINIMUM_STRENGTH and not allow_unsafe:
            raise KekError(
                f"an RSA key of {public.key_size} bits is too weak a recipient", hint="use 3072 bits or more"
            )
        self._public = public
        self.fingerprint = spki_fingerprint(public)
        self.wrapping_key = wrapping_key
        self.allow_unsafe = allow_unsafe
        if wrapping_key is not None:
            check_kek(wrapping_key, KekPurpose.WRAP, allow_unsafe=allow_unsafe)
            held = public_key_of(wrapping_key)
            if held is None or spki_fingerprint(held) != self.fingerprint:
                raise KekError(
                    f"{wrapping_key.identity} is not the recipient's key", hint="name the recipient's public key"
                )

    def seal(self, ours: Ours | None) -> tuple[ContentKey, CoseRecipient]:
        """Make a content key and encrypt it to the public key, in software."""
        del ours
        value = secrets.token_bytes(CONTENT_KEY_SIZE)
        wrapped = software_wrap(Dialect.RSA_OAEP_SHA256, self._public, value)
        unprotected = {int(Header.KID): self.fingerprint}
        recipient = CoseRecipient(protected=_PROTECTED, unprotected=unprotected, ciphertext=wrapped)
        return SoftwareContentKey(value), recipient


class RsaOpener:
    """Opens with an RSA private key.

    Args:
        private: a token's private key with CKA_UNWRAP, or one that this process holds.
        allow_unsafe: accept a token key that may also decrypt.

    Raises:
        KekError: the token key has no public half beside it.
    """

    def __init__(self, private: Object | rsa.RSAPrivateKey, *, allow_unsafe: bool = False) -> None:
        self.allow_unsafe = allow_unsafe
        self._software = private if isinstance(private, rsa.RSAPrivateKey) else None
        self.unwrapping_key = None if isinstance(private, rsa.RSAPrivateKey) else private
        if isinstance(private, rsa.RSAPrivateKey):
            self.fingerprint = spki_fingerprint(private.public_key())
            return
        public = public_key_of(private)
        if not isinstance(public, rsa.RSAPublicKey):
            raise KekError(
                f"{private.identity} is no RSA private key with a public half", hint="name an RSA private key"
            )
        self.fingerprint = spki_fingerprint(public)
        self._unwrapper = Unwrapper(private, Dialect.RSA_OAEP_SHA256, allow_unsafe_kek=allow_unsafe)

    def matches(self, recipient: CoseRecipient) -> bool:
        """Whether the blob names this key."""
        return recipient.kid == self.fingerprint

    def open(self, recipient: CoseRecipient, ours: Ours | None) -> ContentKey:
        """Decrypt the content key.

        Raises:
            BlobError: not RSAES-OAEP, or it does not open.
        """
        if recipient.protected != _PROTECTED or set(recipient.unprotected) != {Header.KID}:
            raise BlobError("the recipient is not RSAES-OAEP-SHA-256", nte=NTE.BAD_ALGID, hint="the blob is damaged")
        if self._software is None:
            assert ours is not None  # noqa: S101 - a token key always comes with a token
            return unwrap_content_key(self._unwrapper, recipient.ciphertext, ours)
        try:
            value = software_unwrap(Dialect.RSA_OAEP_SHA256, self._software, recipient.ciphertext)
        except InputError:
            value = b""
        if len(value) != CONTENT_KEY_SIZE:
            raise BlobError(
                "the content key does not open: the blob is damaged",
                nte=NTE.BAD_DATA,
                hint="have the sender export the key again",
            )
        return SoftwareContentKey(value)
