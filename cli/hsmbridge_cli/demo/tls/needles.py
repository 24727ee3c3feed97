"""What must not be found in the secure process's memory: from the client's key log, and computed without our own code.

Source: RFC 8446 sections 7.1 and 7.3; RFC 5246 sections 5 and 6.3; the key log format of NSS.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from hsmbridge_csp.tls.suites import CipherSuite, TlsVersion

__all__ = ["Direction", "directions", "read_key_log"]

_RANDOM = slice(11, 43)
"""Where a hello's random stands in the first record: behind its header, type, length and version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """One direction's secrets.

    Attributes:
        key, iv: of the records; secret: what they are derived from, the traffic secret or the master secret.
    """

    key: bytes
    iv: bytes
    secret: bytes

    def __repr__(self) -> str:
        return "<Direction>"


def read_key_log(text: str) -> dict[tuple[str, bytes], bytes]:
    """Return secrets by their label and the client's random."""
    lines = (line.split() for line in text.splitlines() if line and not line.startswith("#"))
    return {(label, bytes.fromhex(random)): bytes.fromhex(secret) for label, random, secret in lines}


def directions(
    suite: CipherSuite, log: dict[tuple[str, bytes], bytes], client_hello: bytes, server_hello: bytes
) -> tuple[Direction, Direction]:
    """Compute both directions' keys, the client's first.

    Args:
        suite: of the connection.
        log: the client's.
        client_hello: what the client said first, record header and all.
        server_hello: the same for the server.

    Raises:
        KeyError: the log is another connection's.
    """
    client, server = client_hello[_RANDOM], server_hello[_RANDOM]
    form = suite.form
    name = form.hash_name.lower()
    if suite.version is TlsVersion.TLS13:
        secrets = [log[f"{who}_TRAFFIC_SECRET_0", client] for who in ("CLIENT", "SERVER")]
        first, second = (
            Direction(
                key=_expand_label(secret, "key", form.key_size, name),
                iv=_expand_label(secret, "iv", form.iv_size, name),
                secret=secret,
            )
            for secret in secrets
        )
        return first, second
    master = log["CLIENT_RANDOM", client]
    block = _prf(master, b"key expansion" + server + client, 2 * (form.key_size + form.iv_size), name)
    keys, ivs = block[: 2 * form.key_size], block[2 * form.key_size :]
    half, iv = form.key_size, form.iv_size
    return (
        Direction(key=keys[:half], iv=ivs[:iv], secret=master),
        Direction(key=keys[half:], iv=ivs[iv:], secret=master),
    )


def _expand_label(secret: bytes, label: str, size: int, name: str) -> bytes:
    """HKDF-Expand-Label without a context; one block of the hash is always enough here."""
    full = b"tls13 " + label.encode()
    info = size.to_bytes(2, "big") + bytes([len(full)]) + full + b"\0"
    return hmac.new(secret, info + b"\x01", name).digest()[:size]


def _prf(secret: bytes, seed: bytes, size: int, name: str) -> bytes:
    found, value = b"", seed
    while len(found) < size:
        value = hmac.new(secret, value, name).digest()
        found += hmac.new(secret, value + seed, getattr(hashlib, name)).digest()
    return found[:size]
