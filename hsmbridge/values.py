"""Attribute values: their kinds, their decoding, and their defaults.

Source: PKCS#11 v3.1 sections 4.1 (attributes) and 4.4 to 4.10 (tables of attributes).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from hsmbridge.codes import CKA

if TYPE_CHECKING:
    from hsmbridge.template import Value

__all__ = ["BOOLS", "TEMPLATES", "ULONGS", "ULONG_SIZE", "decode", "is_default"]

BOOLS = frozenset(
    {
        CKA.TOKEN, CKA.PRIVATE, CKA.TRUSTED, CKA.SENSITIVE, CKA.ENCRYPT, CKA.DECRYPT, CKA.WRAP, CKA.UNWRAP, CKA.SIGN,
        CKA.SIGN_RECOVER, CKA.VERIFY, CKA.VERIFY_RECOVER, CKA.DERIVE, CKA.EXTRACTABLE, CKA.LOCAL, CKA.NEVER_EXTRACTABLE,
        CKA.ALWAYS_SENSITIVE, CKA.MODIFIABLE, CKA.COPYABLE, CKA.DESTROYABLE, CKA.ALWAYS_AUTHENTICATE,
        CKA.WRAP_WITH_TRUSTED,
    }
)  # fmt: skip
ULONGS = frozenset(
    {CKA.CLASS, CKA.KEY_TYPE, CKA.CERTIFICATE_TYPE, CKA.MODULUS_BITS, CKA.VALUE_LEN, CKA.KEY_GEN_MECHANISM}
)
_TEXTS = frozenset({CKA.LABEL, CKA.APPLICATION, CKA.UNIQUE_ID, CKA.URL})
TEMPLATES = frozenset({CKA.WRAP_TEMPLATE, CKA.UNWRAP_TEMPLATE, CKA.DERIVE_TEMPLATE})

ULONG_SIZE = 8
"""Bytes of a CK_ULONG."""


def decode(kind: int, raw: bytes) -> Value:
    """Decode one flat attribute value by its type.

    A boolean or number of the wrong size comes back as bytes: it is not what the specification says, and the caller's
    comparison will then fail instead of believing it. Text that is not UTF-8 keeps its bytes (surrogateescape).
    """
    if kind in BOOLS and len(raw) == 1:
        return raw != b"\x00"
    if kind in ULONGS and len(raw) == ULONG_SIZE:
        return int(struct.unpack("=Q", raw)[0])
    if kind in _TEXTS:
        return raw.decode("utf-8", "surrogateescape")
    if kind == CKA.ALLOWED_MECHANISMS and len(raw) % ULONG_SIZE == 0:
        return struct.unpack(f"={len(raw) // ULONG_SIZE}Q", raw)
    return raw


_DEFAULTS: dict[int, Value] = {
    CKA.MODIFIABLE: True,
    CKA.COPYABLE: True,
    CKA.DESTROYABLE: True,
    CKA.WRAP_WITH_TRUSTED: False,
    CKA.ALWAYS_AUTHENTICATE: False,
    CKA.TRUSTED: False,
    CKA.SIGN_RECOVER: False,
    CKA.VERIFY_RECOVER: False,
    CKA.START_DATE: b"",
    CKA.END_DATE: b"",
    CKA.SUBJECT: b"",
    CKA.ALLOWED_MECHANISMS: (),
}


def is_default(kind: int, value: Value) -> bool:
    """Whether *value* is what an object has that knows nothing of the attribute (PKCS#11 v3.1 tables 13, 28, 30, 32).

    An empty nested template restricts nothing and counts as absent.
    """
    if kind in TEMPLATES:
        return value == {}
    return kind in _DEFAULTS and value == _DEFAULTS[kind]
