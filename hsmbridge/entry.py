"""Key entry: known bytes into a token.

C_CreateObject where the token allows it. A FIPS token does not, and takes the bytes as an RSA-OAEP-SHA-256 wrap under
a key pair that lives in a session of its own and whose private half it never shows.

Source: PKCS#11 v3.1 sections 5.7.1 and 5.14.4; FIPS 140-3's "sensitive security parameter entry".
"""

from __future__ import annotations

import secrets
import threading
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from hsmbridge.attributes import AttributeQuery
from hsmbridge.codes import CKA, CKK, CKM, CKO, CKR
from hsmbridge.destruction import Ours
from hsmbridge.dialects import Dialect, software_wrap
from hsmbridge.errors import MechanismError, Pkcs11Error
from hsmbridge.mechanism import Mechanism, oaep
from hsmbridge.publickeys import rsa_public_key
from hsmbridge.template import PackedTemplate, Template

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    from hsmbridge.objects import Object
    from hsmbridge.token import Token

__all__ = ["KeyEntry", "key_entry"]

_TRANSPORT_BITS = 2048
"""The transport key protects bytes that this very process holds in clear; it only has to satisfy the token."""

_TRIAL_SIZE = 32
_TRIAL_USE: Template = {CKA.SENSITIVE: True, CKA.EXTRACTABLE: False}

_TRANSPORT_ROOM = _TRANSPORT_BITS // 8 - 66
"""Bytes that RSAES-OAEP with SHA-256 takes (RFC 8017 section 7.1.1)."""

_PUBLIC = AttributeQuery((CKA.MODULUS, CKA.PUBLIC_EXPONENT))

_CREATE_REFUSED = frozenset(
    {
        CKR.ATTRIBUTE_VALUE_INVALID,
        CKR.ATTRIBUTE_READ_ONLY,
        CKR.TEMPLATE_INCONSISTENT,
        CKR.FUNCTION_NOT_SUPPORTED,
        CKR.ACTION_PROHIBITED,
    }
)


class KeyEntry:
    """How known bytes enter one token. Use :func:`key_entry`: a token has one, which remembers what worked."""

    def __init__(self, token: Token) -> None:
        self._token = token
        self._lock = threading.Lock()
        self.creates: bool | None = None
        self._transport: tuple[Object, RSAPublicKey] | None = None

    def takes_known_bytes(self) -> bool:
        """Whether C_CreateObject takes a secret key; tried with a random session key where nobody has tried yet."""
        if self.creates is None:
            with Ours(self._token) as ours:
                self.enter(ours, CKK.AES, secrets.token_bytes(_TRIAL_SIZE), _TRIAL_USE)
        return bool(self.creates)

    def enter(self, ours: Ours, key_type: CKK, value: bytes, template: Template) -> Object:
        """Put a secret key of known bytes into the token as a session object of *ours*.

        Args:
            ours: takes the new object.
            key_type: CKK_AES, CKK_DES3, CKK_GENERIC_SECRET, …
            value: the key's bytes.
            template: usage and protection; class, type, CKA_TOKEN and the value are added.

        Raises:
            MechanismError: too long for the way that is left.
            Pkcs11Error: the token refuses both ways.
        """
        wanted: Template = {CKA.CLASS: CKO.SECRET_KEY, CKA.KEY_TYPE: key_type, CKA.TOKEN: False, **template}
        if self.creates is not False:
            try:
                handle = self._create(wanted, value)
            except Pkcs11Error as error:
                if self.creates or error.ckr not in _CREATE_REFUSED:
                    raise
                self.creates = False
            else:
                self.creates = True
                return ours.adopt(handle)
        return ours.adopt(self._unwrap(wanted, value))

    def _create(self, wanted: Template, value: bytes) -> int:
        packed = PackedTemplate({**wanted, CKA.VALUE: value})
        try:
            with self._token.sessions as session:
                return self._token.calls.create_object(session, packed)
        finally:
            packed.wipe()

    def _unwrap(self, wanted: Template, value: bytes) -> int:
        private, public = self.transport_key()
        if len(value) > _TRANSPORT_ROOM:
            raise MechanismError(
                f"a secret of {len(value)} bytes does not enter this token: it takes {_TRANSPORT_ROOM} at most",
                hint="the token refuses C_CreateObject; unwrap the key from an RFC 5649 wrap instead",
            )
        wrapped = software_wrap(Dialect.RSA_OAEP_SHA256, public, value)
        with self._token.sessions as session:
            return self._token.calls.unwrap_key(
                session,
                oaep(CKM.SHA256),
                private.handle,
                wrapped,
                PackedTemplate(wanted),
            )

    def transport_key(self) -> tuple[Object, RSAPublicKey]:
        """Return the session key pair for entry, made at its first use; it dies with the token's sessions."""
        with self._lock:
            if self._transport is None:
                public = PackedTemplate(
                    {
                        CKA.TOKEN: False,
                        CKA.WRAP: True,
                        CKA.ENCRYPT: False,
                        CKA.VERIFY: False,
                        CKA.MODULUS_BITS: _TRANSPORT_BITS,
                        CKA.PUBLIC_EXPONENT: b"\x01\x00\x01",
                    }
                )
                private = PackedTemplate(
                    {
                        CKA.TOKEN: False,
                        CKA.PRIVATE: True,
                        CKA.UNWRAP: True,
                        CKA.DECRYPT: False,
                        CKA.SIGN: False,
                        CKA.SENSITIVE: True,
                        CKA.EXTRACTABLE: False,
                    }
                )
                with self._token.sessions as session:
                    handles = self._token.calls.generate_key_pair(
                        session, Mechanism(CKM.RSA_PKCS_KEY_PAIR_GEN), public, private
                    )
                numbers = self._token.adopt(handles[0]).read(_PUBLIC)
                self._transport = self._token.adopt(handles[1]), rsa_public_key(numbers)
            return self._transport


_entries: WeakKeyDictionary[Token, KeyEntry] = WeakKeyDictionary()
_entries_lock = threading.Lock()


def key_entry(token: Token) -> KeyEntry:
    """Return the token's way in."""
    with _entries_lock:
        entry = _entries.get(token)
        if entry is None:
            entry = _entries[token] = KeyEntry(token)
        return entry
