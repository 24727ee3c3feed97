"""Lengths that a wrapped key can have, checked before the token sees it.

Some modules take 32 bytes for a DES3 key. The length inside an AES wrap is authentic, so it is compared with the type.

Source: RFC 3394 section 2.2.1; RFC 5649 section 4; RFC 8017 section 7.1.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsmbridge.codes import CKK, CKO, name_of
from hsmbridge.dialects import Dialect
from hsmbridge.errors import UnwrapError

if TYPE_CHECKING:
    from hsmbridge.kek import KekReport
    from hsmbridge.keyrequest import KeyRequest
    from hsmbridge.probe import Route

__all__ = ["WHY_UNWRAP", "check_wrapped_size"]

_SEMIBLOCK = 8
_SIZES = {CKK.AES: (16, 24, 32), CKK.DES3: (24,), CKK.DES2: (16,)}

WHY_UNWRAP = "check the KEK, the mechanism and the file: a wrap opens only with the very key and format that made it"


def check_wrapped_size(route: Route, report: KekReport, wrapped: bytes, request: KeyRequest) -> None:
    """Refuse lengths that cannot be, before the token sees them: some modules take 32 bytes for a DES3 key."""
    size = len(wrapped)
    if route.dialect.is_rsa:
        if size < report.modulus_size or (size > report.modulus_size and "aes" not in route.dialect):
            raise UnwrapError(
                f"{size} bytes are no {route.dialect} under a {8 * report.modulus_size}-bit key", hint=WHY_UNWRAP
            )
        if int.from_bytes(wrapped[: report.modulus_size], "big") >= report.modulus:
            raise UnwrapError("the RSA ciphertext is no number below the modulus", hint=WHY_UNWRAP)
        if "aes" not in route.dialect:
            return
        size -= report.modulus_size
    if size % _SEMIBLOCK or size < (3 if route.dialect is Dialect.AES_KW else 2) * _SEMIBLOCK:
        raise UnwrapError(f"{len(wrapped)} bytes are no {route.dialect}: truncated, or another format", hint=WHY_UNWRAP)
    allowed = (request.size,) if request.size is not None else _SIZES.get(request.key_type)
    if request.cls == CKO.SECRET_KEY and allowed is not None:
        if route.dialect is Dialect.AES_KW_PKCS7:
            fitting = {(-(-(value + 1) // _SEMIBLOCK) + 1) * _SEMIBLOCK for value in allowed}
        else:
            fitting = {(-(-value // _SEMIBLOCK) + 1) * _SEMIBLOCK for value in allowed}
        if size not in fitting:
            kind = name_of(CKK, request.key_type)
            raise UnwrapError(
                f"the wrap holds {size - _SEMIBLOCK} bytes, which is no {kind} key of this length",
                hint="check --key-type; the length inside a wrap is authentic",
            )
