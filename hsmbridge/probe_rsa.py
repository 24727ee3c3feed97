"""The RSA key pair with which the probe tries a token's RSA mechanisms.

It is made in software for one process, wraps only random bytes, and never touches a real key.

Source: PKCS#11 v3.1 sections 6.1.2 and 6.1.3 (RSA key objects); RFC 8017.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import rsa

from hsmbridge.codes import CKA, CKK, CKO
from hsmbridge.dialects import Dialect, software_unwrap, software_wrap
from hsmbridge.errors import Pkcs11Error
from hsmbridge.template import PackedTemplate, Template

if TYPE_CHECKING:
    from hsmbridge.destruction import Ours
    from hsmbridge.entry import KeyEntry
    from hsmbridge.objects import Object
    from hsmbridge.token import Token

__all__ = ["RsaPair"]

_BITS = 2048
_COMPOSITE = {Dialect.RSA_AES_KWP: Dialect.RSA_OAEP_SHA256, Dialect.RSA_AES_KWP_SHA1: Dialect.RSA_OAEP_SHA1}


def _number(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


class RsaPair:
    """An RSA-2048 key pair of known numbers."""

    def __init__(self) -> None:
        self._private = rsa.generate_private_key(65537, _BITS)
        self._numbers = self._private.private_numbers()

    def public_object(self, ours: Ours, token: Token) -> Object:
        """Put the public half into the token as a wrapping key."""
        public = self._numbers.public_numbers
        template: Template = {
            CKA.CLASS: CKO.PUBLIC_KEY, CKA.KEY_TYPE: CKK.RSA, CKA.TOKEN: False, CKA.WRAP: True,
            CKA.MODULUS: _number(public.n), CKA.PUBLIC_EXPONENT: _number(public.e),
        }  # fmt: skip
        with token.sessions as session:
            return ours.adopt(token.calls.create_object(session, PackedTemplate(template)))

    def private_object(self, ours: Ours, token: Token, entry: KeyEntry) -> tuple[Object, rsa.RSAPublicKey]:
        """Put the private half into the token as an unwrapping key; where that is refused, take the key pair for entry.

        Returns: the private object and its public key.
        """
        numbers = self._numbers
        template: Template = {
            CKA.CLASS: CKO.PRIVATE_KEY, CKA.KEY_TYPE: CKK.RSA, CKA.TOKEN: False, CKA.PRIVATE: True, CKA.UNWRAP: True,
            CKA.SENSITIVE: True, CKA.EXTRACTABLE: False,
            CKA.MODULUS: _number(numbers.public_numbers.n), CKA.PUBLIC_EXPONENT: _number(numbers.public_numbers.e),
            CKA.PRIVATE_EXPONENT: _number(numbers.d), CKA.PRIME_1: _number(numbers.p), CKA.PRIME_2: _number(numbers.q),
            CKA.EXPONENT_1: _number(numbers.dmp1), CKA.EXPONENT_2: _number(numbers.dmq1),
            CKA.COEFFICIENT: _number(numbers.iqmp),
        }  # fmt: skip
        try:
            with token.sessions as session:
                handle = token.calls.create_object(session, PackedTemplate(template))
        except Pkcs11Error:
            return entry.transport_key()
        return ours.adopt(handle), self._private.public_key()

    def open(self, dialect: Dialect, wrapped: bytes) -> bytes:
        """Open in software what the token wrapped under the public half.

        Raises:
            InputError: it is not of this dialect.
        """
        if dialect not in _COMPOSITE:
            return software_unwrap(dialect, self._private, wrapped)
        size = _BITS // 8
        inner_kek = software_unwrap(_COMPOSITE[dialect], self._private, wrapped[:size])
        return software_unwrap(Dialect.AES_KWP, inner_kek, wrapped[size:])

    def seal(self, dialect: Dialect, public: rsa.RSAPublicKey, value: bytes) -> bytes:
        """Wrap in software for the token's private key."""
        if dialect not in _COMPOSITE:
            return software_wrap(dialect, public, value)
        inner_kek = secrets.token_bytes(32)
        return software_wrap(_COMPOSITE[dialect], public, inner_kek) + software_wrap(Dialect.AES_KWP, inner_kek, value)
