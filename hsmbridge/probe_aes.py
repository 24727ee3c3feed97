"""Trials of one AES wrapping mechanism with keys of known bytes.

Source: RFC 3394; RFC 5649; docs/wrapping.md.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from hsmbridge.codes import CKA, CKK, CKO, CKR
from hsmbridge.dialects import AES_DIALECTS, Dialect, software_unwrap, software_wrap
from hsmbridge.entry import key_entry
from hsmbridge.errors import InputError, Pkcs11Error
from hsmbridge.template import PackedTemplate, Template

if TYPE_CHECKING:
    from hsmbridge.destruction import Ours
    from hsmbridge.mechanism import Mechanism
    from hsmbridge.objects import Object
    from hsmbridge.token import Token

__all__ = ["ODD_SIZE", "TARGET_USE", "AesTrial", "raw_unwrap", "raw_wrap"]

_EVEN_SIZES = (16, 32)
ODD_SIZE = 20
"""An HMAC-SHA1 key: the length that SoftHSM and NSS return as 24."""

_KEK_SIZE = 32
_KEK_USE: Template = {
    CKA.SENSITIVE: True,
    CKA.EXTRACTABLE: False,
    CKA.WRAP: True,
    CKA.UNWRAP: True,
    CKA.ENCRYPT: False,
    CKA.DECRYPT: False,
}
TARGET_USE: Template = {CKA.SENSITIVE: True, CKA.EXTRACTABLE: True}


class AesTrial:
    """Tries one mechanism for one dialect, under a session KEK of random known bytes.

    Args:
        ours: takes the session objects; they are gone when it ends.
        token: where.
        mechanism: what to try.
        dialect: what it should speak.
    """

    def __init__(self, ours: Ours, token: Token, mechanism: Mechanism, dialect: Dialect) -> None:
        self._ours = ours
        self._token = token
        self._mechanism = mechanism
        self._dialect = dialect
        self._kek_bytes = secrets.token_bytes(_KEK_SIZE)
        self._kek = key_entry(token).enter(ours, CKK.AES, self._kek_bytes, _KEK_USE)

    def fault(self) -> str | None:
        """Say what is wrong with the mechanism, None if it speaks the dialect both ways and notices a flipped bit."""
        for size in _EVEN_SIZES:
            fault = self._fault_with(CKK.AES, size)
            if fault is not None:
                return fault
        return "accepts a wrapped key with a flipped bit" if self._accepts_damage() else None

    def keeps_length(self) -> bool:
        """Whether a secret whose length is no multiple of 8 comes out and goes in unchanged."""
        return self._dialect.takes_length(ODD_SIZE) and self._fault_with(CKK.GENERIC_SECRET, ODD_SIZE) is None

    def _fault_with(self, key_type: CKK, size: int) -> str | None:
        value = secrets.token_bytes(size)
        expected = software_wrap(self._dialect, self._kek_bytes, value)
        target = key_entry(self._token).enter(self._ours, key_type, value, TARGET_USE)
        try:
            wrapped = raw_wrap(self._mechanism, self._kek, target)
            if wrapped != expected:
                return f"speaks {_dialect_of(self._kek_bytes, value, wrapped) or 'no known format'}"
            again = self._ours.adopt(raw_unwrap(self._mechanism, self._kek, expected, key_type))
            if raw_wrap(self._mechanism, self._kek, again) != expected:
                return f"a key of {size} bytes comes back changed"
        except Pkcs11Error as error:
            return str(error)
        return None

    def _accepts_damage(self) -> bool:
        damaged = bytearray(software_wrap(self._dialect, self._kek_bytes, secrets.token_bytes(_KEK_SIZE)))
        damaged[9] ^= 1
        try:
            self._ours.adopt(raw_unwrap(self._mechanism, self._kek, bytes(damaged), CKK.AES))
        except Pkcs11Error:
            return False
        return True


def raw_wrap(mechanism: Mechanism, kek: Object, key: Object) -> bytes:
    """C_WrapKey without any rule: for session keys of a trial only."""
    with key.token.sessions as session:
        return key.token.calls.wrap_key(session, mechanism, kek.handle, key.handle)


def raw_unwrap(mechanism: Mechanism, kek: Object, wrapped: bytes, key_type: CKK) -> int:
    """C_UnwrapKey to an extractable session key, without any rule: for a trial only.

    CKA_EXTRACTABLE is left out for openCryptoki, which refuses to be told what it does anyway.
    """
    template: Template = {CKA.CLASS: CKO.SECRET_KEY, CKA.KEY_TYPE: key_type, CKA.TOKEN: False, CKA.SENSITIVE: True}
    token = kek.token
    with token.sessions as session:
        try:
            packed = PackedTemplate({**template, CKA.EXTRACTABLE: True})
            return token.calls.unwrap_key(session, mechanism, kek.handle, wrapped, packed)
        except Pkcs11Error as error:
            if error.ckr != CKR.ATTRIBUTE_READ_ONLY:
                raise
        return token.calls.unwrap_key(session, mechanism, kek.handle, wrapped, PackedTemplate(template))


def _dialect_of(kek: bytes, value: bytes, wrapped: bytes) -> str | None:
    """Name the AES dialect in which *wrapped* holds *value*, zero-padded or not."""
    for dialect in AES_DIALECTS:
        try:
            inside = software_unwrap(dialect, kek, wrapped)
        except InputError:
            continue
        if inside == value:
            return str(dialect)
        if inside.rstrip(b"\0") == value.rstrip(b"\0"):
            return f"{dialect}, but pads a key of {len(value)} bytes to {len(inside)}"
    return None
