"""A recipient that is an AES KEK in a token: A256KW.

Source: RFC 9052 section 5.1; RFC 9053 section 6.2.1 (A256KW); docs/blob-format.md.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from hsmbridge.attributes import AttributeQuery
from hsmbridge.codes import CKA, CKK, CKM, CKO, CKR
from hsmbridge.dialects import Dialect
from hsmbridge.entry import key_entry
from hsmbridge.errors import KekError, MechanismError, Pkcs11Error, ReadBackError, UnwrapError
from hsmbridge.generation import kek_fingerprint
from hsmbridge.mechanism import Mechanism
from hsmbridge.template import PackedTemplate, Template
from hsmbridge.unwrapping import KeyRequest, Unwrapper
from hsmbridge.wrapping import Wrapper
from hsmbridge_csp.content import CONTENT_KEY_SIZE, ContentKey, SoftwareContentKey, TokenContentKey
from hsmbridge_csp.cose import Algorithm, CoseRecipient, Header
from hsmbridge_csp.errors import NTE, BlobError

if TYPE_CHECKING:
    from hsmbridge.destruction import Ours
    from hsmbridge.objects import Object

__all__ = ["TokenKek", "unwrap_content_key"]

_ID = AttributeQuery((CKA.ID,))

_ENTERED: Template = {CKA.SENSITIVE: True, CKA.EXTRACTABLE: True, CKA.ENCRYPT: False, CKA.DECRYPT: False}
_GENERATED: Template = {
    CKA.CLASS: CKO.SECRET_KEY, CKA.KEY_TYPE: CKK.AES, CKA.TOKEN: False, CKA.VALUE_LEN: CONTENT_KEY_SIZE,
    CKA.SENSITIVE: True, CKA.EXTRACTABLE: True, CKA.ENCRYPT: True, CKA.DECRYPT: False,
}  # fmt: skip
_READABLE = KeyRequest(
    cls=CKO.SECRET_KEY,
    key_type=CKK.AES,
    template={CKA.SENSITIVE: False, CKA.EXTRACTABLE: True},
    size=CONTENT_KEY_SIZE,
)
_DECRYPT_ONLY = KeyRequest(
    cls=CKO.SECRET_KEY,
    key_type=CKK.AES,
    template={CKA.SENSITIVE: True, CKA.EXTRACTABLE: False, CKA.ENCRYPT: False, CKA.DECRYPT: True},
    size=CONTENT_KEY_SIZE,
)


_SAYS_NOTHING = frozenset({CKR.DEVICE_ERROR, CKR.GENERAL_ERROR, CKR.FUNCTION_FAILED})
"""Not the answers to a KEK that may not wrap: after these another name could be given to the same KEK."""


class TokenKek:
    """A256KW with an AES-256 KEK in a token: seals and opens.

    Args:
        kek: the KEK.
        allow_unsafe: accept a KEK that may also decrypt, with a warning.
    """

    def __init__(self, kek: Object, *, allow_unsafe: bool = False) -> None:
        self.kek = self.wrapping_key = self.unwrapping_key = kek
        self.allow_unsafe = allow_unsafe
        self.warnings: tuple[str, ...] = ()
        self._fingerprint: bytes | None = None
        self._wrapper = Wrapper(kek, Dialect.AES_KW, allow_unsafe_kek=allow_unsafe)
        self._unwrapper = Unwrapper(kek, Dialect.AES_KW, allow_unsafe_kek=allow_unsafe)

    @property
    def fingerprint(self) -> bytes:
        """The KEK's fingerprint: computed where it may wrap, else the CKA_ID that ``key generate --kek`` stored."""
        if self._fingerprint is None:
            try:
                self._fingerprint = kek_fingerprint(self.kek)
            except MechanismError:
                self._fingerprint = self.kek.read(_ID).data(CKA.ID)
            except Pkcs11Error as error:
                if error.is_of_device or error.ckr in _SAYS_NOTHING:
                    raise
                self._fingerprint = self.kek.read(_ID).data(CKA.ID)
            if not self._fingerprint:
                raise KekError(
                    f"{self.kek.identity} can neither compute its fingerprint nor has it as CKA_ID",
                    hint="make KEKs with `hsmbridge key generate --kek`",
                )
        return self._fingerprint

    def seal(self, ours: Ours | None) -> tuple[ContentKey, CoseRecipient]:
        """Make a content key and wrap it under the KEK.

        In software and put into the token for the wrap; where the token takes no known bytes, in the token.

        Raises:
            KekError: the KEK is not safe, or not an AES-256 key.
            MechanismError: the token has no RFC 3394.
        """
        assert ours is not None  # noqa: S101 - a token recipient always comes with a token
        token = self.kek.token
        entry = key_entry(token)
        content: ContentKey
        known = entry.takes_known_bytes()
        if known:
            value = secrets.token_bytes(CONTENT_KEY_SIZE)
            key = entry.enter(ours, CKK.AES, value, _ENTERED)
            content = SoftwareContentKey(value)
        else:
            with token.sessions as session:
                handle = token.calls.generate_key(session, Mechanism(CKM.AES_KEY_GEN), PackedTemplate(_GENERATED))
            key = ours.adopt(handle)
            content = TokenContentKey(key)
        wrapped = self._wrapper.wrap(key)  # looks at the KEK
        self.warnings = wrapped.warnings
        if known:
            ours.remove(key)
        unprotected = {int(Header.ALG): int(Algorithm.A256KW), int(Header.KID): self.fingerprint}
        return content, CoseRecipient(protected=b"", unprotected=unprotected, ciphertext=wrapped.data)

    def matches(self, recipient: CoseRecipient) -> bool:
        """Whether the blob names this very KEK; a label is never enough."""
        return recipient.kid == self.fingerprint

    def open(self, recipient: CoseRecipient, ours: Ours | None) -> ContentKey:
        """Unwrap the content key: readable, or for decryption only where the token or the KEK forbids that.

        Raises:
            KekError: the blob is for another KEK, or this one is not safe.
            BlobError: the recipient's structure is wrong, or the content key does not open.
        """
        assert ours is not None  # noqa: S101 - a token recipient always comes with a token
        if recipient.algorithm != Algorithm.A256KW or recipient.protected or len(recipient.unprotected) != 2:  # noqa: PLR2004
            raise BlobError("the recipient is not A256KW", nte=NTE.BAD_ALGID, hint="open it with the key it is for")
        if not self.matches(recipient):
            raise KekError(
                f"the blob is for KEK {recipient.kid.hex()}, not {self.fingerprint.hex()}",
                hint="name the KEK with that fingerprint: `hsmbridge key show` prints it",
            )
        return unwrap_content_key(self._unwrapper, recipient.ciphertext, ours)


def unwrap_content_key(unwrapper: Unwrapper, wrapped: bytes, ours: Ours) -> ContentKey:
    """Unwrap a content key with a key in the token.

    Readable for this process; where a FIPS token or CKA_UNWRAP_TEMPLATE lets nothing readable come out, for decryption
    only, and the token itself runs GCM.

    Raises:
        BlobError: the content key does not open.
        Pkcs11Error: the token refuses.
    """
    try:
        return _readable(unwrapper, wrapped, ours) or _decrypt_only(unwrapper, wrapped, ours)
    except UnwrapError as error:
        raise BlobError(
            "the content key does not open: the blob is damaged",
            nte=NTE.BAD_DATA,
            hint="have the sender export the key again",
        ) from error


def _readable(unwrapper: Unwrapper, wrapped: bytes, ours: Ours) -> ContentKey | None:
    if unwrapper.refuses_readable or not key_entry(ours.token).takes_known_bytes():
        return None  # a token that takes no known key gives none out either: it is not even asked
    try:
        key = unwrapper.unwrap(wrapped, _READABLE).key
    except (Pkcs11Error, KekError, ReadBackError):
        unwrapper.refuses_readable = True
        return None
    ours.take(key)
    value = key.read_value()
    ours.remove(key)
    content = SoftwareContentKey(value)
    value[:] = bytes(len(value))
    return content


def _decrypt_only(unwrapper: Unwrapper, wrapped: bytes, ours: Ours) -> ContentKey:
    return TokenContentKey(ours.take(unwrapper.unwrap(wrapped, _DECRYPT_ONLY).key))
