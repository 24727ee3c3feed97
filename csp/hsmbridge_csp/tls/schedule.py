"""TLS 1.3's key schedule, in software: from a secret to the next, and to keys.

Source: RFC 8446 section 7; RFC 5869 (HKDF).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

if TYPE_CHECKING:
    from hsmbridge_csp.tls.suites import RecordForm

__all__ = ["derive_secret", "expand_label", "hkdf_label", "next_traffic_secret", "traffic_key"]

_HASHES: dict[str, type[hashes.HashAlgorithm]] = {"SHA256": hashes.SHA256, "SHA384": hashes.SHA384}


def hkdf_label(label: str, context: bytes, length: int) -> bytes:
    """Return the HkdfLabel structure, which is the ``info`` of HKDF-Expand-Label (RFC 8446 section 7.1)."""
    full = b"tls13 " + label.encode("ascii")
    return struct.pack(f">HB{len(full)}sB", length, len(full), full, len(context)) + context


def expand_label(hash_name: str, secret: bytes | bytearray, label: str, context: bytes, length: int) -> bytearray:
    """HKDF-Expand-Label (RFC 8446 section 7.1).

    Args:
        hash_name: ``SHA256`` or ``SHA384``.
        secret: as long as the hash.
        label: without the ``tls13`` in front.
        context: a transcript hash, or nothing.
        length: of the result, in bytes.
    """
    kdf = HKDFExpand(_HASHES[hash_name](), length, hkdf_label(label, context, length))
    result = bytearray(length)
    kdf.derive_into(secret, result)
    return result


def derive_secret(form: RecordForm, secret: bytes | bytearray, label: str, transcript: bytes) -> bytearray:
    """Derive-Secret (RFC 8446 section 7.1): ``c ap traffic`` of a master secret and a transcript's hash, say."""
    return expand_label(form.hash_name, secret, label, transcript, form.hash_size)


def traffic_key(form: RecordForm, secret: bytes | bytearray) -> tuple[bytearray, bytes]:
    """Return a traffic secret's key and fixed IV (RFC 8446 section 7.3)."""
    key = expand_label(form.hash_name, secret, "key", b"", form.key_size)
    return key, bytes(expand_label(form.hash_name, secret, "iv", b"", form.iv_size))


def next_traffic_secret(form: RecordForm, secret: bytearray) -> bytearray:
    """Return application_traffic_secret_N+1 (RFC 8446 section 7.2); the caller overwrites the old one."""
    return expand_label(form.hash_name, secret, "traffic upd", b"", form.hash_size)
