"""Proof that the key which arrived is the key that left, without using it as it will be used.

Where both sides hold the key's bytes, each computes HMAC-SHA-256 under HKDF(key and canonical state) over what the
receipt speaks of. A key that neither side can read answers nothing here: its record was authentic, its wrap was
checked by the token, and the recipient read every attribute back.

Source: RFC 5869 (HKDF); RFC 2104; docs/handoff.md.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from hsmbridge_csp import cbor
from hsmbridge_csp.keys import SoftwareKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hsmbridge_csp.keys import Key

__all__ = ["RunningDigest", "prove", "prove_all"]

_SALT = b"hsmbridge receipt/1"
_HELD = b"\x01"
_UNREADABLE = b"\x00"


class RunningDigest:
    """One hash over the digests of all blobs, in their order: a blob that is changed, missing, added or moved shows.

    Args:
        handoff: its id.
        attachment: what goes along with the keys.
    """

    def __init__(self, handoff: bytes, attachment: bytes = b"") -> None:
        self._hash = hashlib.sha256(b"hsmbridge blobs/1" + handoff + hashlib.sha256(attachment).digest())
        self.count = 0

    def add(self, blob: bytes) -> None:
        """Take the next blob in."""
        self._hash.update(hashlib.sha256(blob).digest())
        self.count += 1

    def digest(self) -> bytes:
        """Return the hash so far, 32 bytes."""
        return self._hash.digest()


def prove(key: Key, about: bytes) -> bytes:
    """Return a key's answer to *about*: 33 bytes, of which the first says whether its bytes could be used.

    Args:
        key: at the source frozen, at the destination not used yet: its state is the one that travelled.
        about: what the receipt speaks of: handoff id, running hash, nonce.
    """
    if not isinstance(key, SoftwareKey):
        return _UNREADABLE + bytes(32)
    secret = hmac.new(_SALT, key.value, hashlib.sha256)  # HKDF-Extract over key and state
    secret.update(cbor.encode(_plain(key.state_map())))
    # HKDF-Expand to one block: HMAC(PRK, info || 0x01)
    receipt_key = hmac.digest(secret.digest(), _SALT + b"\x01", "sha256")
    return _HELD + hmac.digest(receipt_key, about, "sha256")


def prove_all(keys: Iterable[Key], about: bytes) -> bytes:
    """Return one hash over the answers of all keys, in their order."""
    total = hashlib.sha256(b"hsmbridge proofs/1")
    for key in keys:
        total.update(prove(key, about))
    return total.digest()


def _plain(state: Mapping[int, object]) -> dict[int, object]:
    return dict(state)
