"""A KEK whose bytes are known outside the token: what ``cryptography`` makes of the module's wraps.

Source: RFC 3394; RFC 5649; RFC 8017 section 7.1; RFC 5652 section 6.3; PKCS#11 v3.1 section 6.1.20 (RSA AES key wrap).
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from hsmbridge.codes import CKA, CKK, CKO
from hsmbridge.dialects import AES_DIALECTS, Dialect, software_unwrap
from hsmbridge.errors import InputError, Pkcs11Error
from hsmbridge.template import PackedTemplate
from hsmbridge_conformance.verdict import Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsmbridge.objects import Object
    from hsmbridge.template import Template
    from hsmbridge_conformance.rig import Rig

__all__ = ["SoftwareKek"]

_RSA_BITS = 2048
_F4 = 65537


class SoftwareKek:
    """A KEK that this process knows.

    Args:
        is_rsa: an RSA pair, not an AES-256 key.
    """

    def __init__(self, *, is_rsa: bool) -> None:
        self._aes = secrets.token_bytes(32)
        self._rsa = rsa.generate_private_key(_F4, _RSA_BITS) if is_rsa else None

    def wrapping_object(self, rig: Rig, changes: Template | None = None) -> Object:
        """Put it into the token as a session key that wraps; of an RSA pair the public half only.

        Args:
            rig: the worker's means.
            changes: what its template has otherwise.

        Raises:
            Unsupported: the module takes no such key.
        """
        if self._rsa is None:
            return rig.enter_kek(self._aes, changes)
        numbers = self._rsa.public_key().public_numbers()
        template: Template = {
            CKA.CLASS: CKO.PUBLIC_KEY, CKA.KEY_TYPE: CKK.RSA, CKA.WRAP: True,
            CKA.MODULUS: numbers.n.to_bytes(_RSA_BITS // 8, "big"), CKA.PUBLIC_EXPONENT: numbers.e.to_bytes(3, "big"),
        }  # fmt: skip
        try:
            with rig.token.sessions as session:
                return rig.adopt(
                    rig.calls.create_object(session, PackedTemplate(rig.named({**template, **(changes or {})})))
                )
        except Pkcs11Error as error:
            raise Unsupported(f"no RSA public keys from outside: {error}") from None

    def opens_as(self, wrapped: bytes, value: bytes) -> str | None:
        """Return the format in which *wrapped* holds *value*; None for no known one."""
        return next((name for name, opened in self._open(wrapped) if opened == value), None)

    def _open(self, wrapped: bytes) -> Iterator[tuple[str, bytes | None]]:
        if self._rsa is None:
            for dialect in AES_DIALECTS:
                yield dialect.source, _quietly(dialect, self._aes, wrapped)
            yield "AES-CBC with PKCS#7 padding", self._open_cbc(wrapped)
            return
        size = _RSA_BITS // 8
        for dialect in (Dialect.RSA_OAEP_SHA256, Dialect.RSA_OAEP_SHA1):
            key = _quietly(dialect, self._rsa, wrapped[:size])
            yield dialect.source, key if len(wrapped) == size else None
            if key is not None and len(key) in (16, 24, 32):
                yield f"RSA-AES key wrap, {dialect.source}", _quietly(Dialect.AES_KWP, key, wrapped[size:])

    def _open_cbc(self, wrapped: bytes) -> bytes | None:
        decryptor = Cipher(algorithms.AES(self._aes), modes.CBC(bytes(16))).decryptor()
        unpadder = padding.PKCS7(128).unpadder()
        try:
            padded = decryptor.update(wrapped) + decryptor.finalize()
            return unpadder.update(padded) + unpadder.finalize()
        except ValueError:
            return None


def _quietly(dialect: Dialect, kek: bytes | rsa.RSAPrivateKey, wrapped: bytes) -> bytes | None:
    try:
        return software_unwrap(dialect, kek, wrapped)
    except InputError:
        return None
