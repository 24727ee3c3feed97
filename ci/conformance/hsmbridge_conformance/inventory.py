"""What is in a token, byte for byte: taken before and after a run and compared.

An object is known by a keyed digest over all that it shows, so that the comparison needs no handle (they change from
process to process) and keeps no value. Key bytes are not read.

Source: PKCS#11 v3.1 sections 4 and 5.7.7 (C_FindObjects).
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections import Counter
from typing import TYPE_CHECKING

from hsmbridge.attributes import AttributeQuery
from hsmbridge.codes import CKA, CKO
from hsmbridge.template import encode

if TYPE_CHECKING:
    from hsmbridge.objects import Object
    from hsmbridge.template import Value
    from hsmbridge.token import Token

__all__ = ["Inventory", "difference", "take_inventory"]

Inventory = dict[str, int]
"""Digest of an object to how many there are."""

_SECRET = frozenset(
    {
        CKA.VALUE, CKA.PRIVATE_EXPONENT, CKA.PRIME_1, CKA.PRIME_2, CKA.EXPONENT_1, CKA.EXPONENT_2, CKA.COEFFICIENT,
        CKA.CHECK_VALUE,
    }
)  # fmt: skip
_OPEN = AttributeQuery([kind for kind in CKA if kind not in _SECRET and kind != CKA.NSS_DB])
_CONTENT = AttributeQuery((CKA.VALUE,))
_KEYS = (CKO.SECRET_KEY, CKO.PRIVATE_KEY)


def take_inventory(token: Token, key: bytes) -> Inventory:
    """Look at every token object that the login shows.

    Args:
        token: logged in.
        key: of the digests; random for each run, so that a digest says nothing about a value.
    """
    return dict(Counter(_digest(found, key) for found in token.find({CKA.TOKEN: True})))


def difference(before: Inventory, after: Inventory) -> tuple[int, int]:
    """Return how many objects are gone or changed, and how many are new or changed."""
    gone, new = Counter(before) - Counter(after), Counter(after) - Counter(before)
    return gone.total(), new.total()


def _digest(found: Object, key: bytes) -> str:
    seen = found.read(_OPEN)
    digest = hmac.new(key, digestmod=hashlib.sha256)
    parts: list[tuple[int, bytes]] = [(kind, _flat(value)) for kind, value in seen.items()]
    if seen.number(CKA.CLASS) not in _KEYS:
        parts += [(kind, _flat(value)) for kind, value in found.read(_CONTENT).items()]
    for kind, raw in sorted(parts):
        digest.update(struct.pack("=QQ", kind, len(raw)) + raw)
    return digest.hexdigest()


def _flat(value: Value) -> bytes:
    if isinstance(value, dict):
        return b"".join(struct.pack("=Q", kind) + _flat(inner) for kind, inner in sorted(value.items()))
    return encode(value)  # type: ignore[arg-type]  # nested templates were taken care of
