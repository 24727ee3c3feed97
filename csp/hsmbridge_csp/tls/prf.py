"""TLS 1.2's PRF, in software: the master secret, and the key block that it expands to.

Source: RFC 5246 sections 5, 6.3 and 8.1; RFC 7627 section 4 (extended master secret).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC

from hsmbridge_csp.errors import BadLengthError
from hsmbridge_csp.wipe import wipe

if TYPE_CHECKING:
    from hsmbridge_csp.tls.suites import RecordForm

__all__ = ["MASTER_SIZE", "KeyBlock", "Randoms", "extended_master_secret", "master_secret", "prf"]

MASTER_SIZE = 48
"""Bytes of a master secret (RFC 5246 section 8.1)."""

_RANDOM_SIZE = 32
_HASHES: dict[str, type[hashes.HashAlgorithm]] = {"SHA256": hashes.SHA256, "SHA384": hashes.SHA384}


@dataclass(frozen=True, slots=True, kw_only=True)
class Randoms:
    """The hellos' randoms (CryptoAPI KP_CLIENT_RANDOM, KP_SERVER_RANDOM), 32 bytes each.

    Raises:
        BadLengthError: they are not.
    """

    client: bytes
    server: bytes

    def __post_init__(self) -> None:
        if len(self.client) != _RANDOM_SIZE or len(self.server) != _RANDOM_SIZE:
            raise BadLengthError("a hello's random is not 32 bytes long", hint="take it from the hello, time and all")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyBlock:
    """The parts of a key block, the client's and the server's, for their writing (RFC 5246 section 6.3).

    Attributes:
        macs: MAC keys, empty with an AEAD.
        keys: bulk keys.
        ivs: fixed IVs, empty with CBC.
    """

    macs: tuple[bytearray, bytearray] = field(repr=False)
    keys: tuple[bytearray, bytearray] = field(repr=False)
    ivs: tuple[bytes, bytes] = field(repr=False)

    @classmethod
    def expand(cls, form: RecordForm, master: bytes | bytearray, randoms: Randoms) -> Self:
        """Expand a master secret to keys.

        Raises:
            BadLengthError: it is not 48 bytes long.
        """
        check_master(len(master))
        sizes = [size for size in (form.mac_size, form.key_size, form.iv_size) for _ in range(2)]
        block = prf(form.hash_name, master, b"key expansion", randoms.server + randoms.client, sum(sizes))
        parts, start = [], 0
        for size in sizes:
            parts.append(block[start : start + size])
            start += size
        wipe(block)
        return cls(macs=(parts[0], parts[1]), keys=(parts[2], parts[3]), ivs=(bytes(parts[4]), bytes(parts[5])))

    def value(self, part: int) -> bytearray:
        """Return the bytes of one direction's record key, 0 the client's, 1 the server's, and overwrite them here."""
        value = self.keys[part] + self.macs[part]
        wipe(self.keys[part], self.macs[part])
        return value


def check_master(size: int) -> None:
    """Refuse what is no master secret.

    Raises:
        BadLengthError: not 48 bytes.
    """
    if size != MASTER_SIZE:
        raise BadLengthError(f"a master secret of {size} bytes", hint=f"it has {MASTER_SIZE} (RFC 5246 section 8.1)")


def master_secret(form: RecordForm, premaster: bytes | bytearray, randoms: Randoms) -> bytearray:
    """Return the master secret of a handshake without RFC 7627 (RFC 5246 section 8.1)."""
    return prf(form.hash_name, premaster, b"master secret", randoms.client + randoms.server, MASTER_SIZE)


def extended_master_secret(form: RecordForm, premaster: bytes | bytearray, session_hash: bytes) -> bytearray:
    """Return the master secret of a handshake with RFC 7627, bound to the hash of its messages."""
    return prf(form.hash_name, premaster, b"extended master secret", session_hash, MASTER_SIZE)


def prf(hash_name: str, secret: bytes | bytearray, label: bytes, seed: bytes, length: int) -> bytearray:
    """TLS 1.2's PRF: P_hash over label and seed (RFC 5246 section 5).

    Args:
        hash_name: ``SHA256`` or ``SHA384``.
        secret: the HMAC's key.
        label: ASCII.
        seed: randoms, or a hash of messages.
        length: of the result in bytes.
    """
    base = HMAC(secret, _HASHES[hash_name]())
    seed = label + seed
    result = bytearray(length)
    chained = seed
    for start in range(0, length, base.algorithm.digest_size):
        chained = _mac(base, chained)
        block = _mac(base, chained + seed)
        end = min(start + len(block), length)
        result[start:end] = block[: end - start]
        wipe(block)
    return result


def _mac(base: HMAC, data: bytes) -> bytes:
    mac = base.copy()
    mac.update(data)
    return mac.finalize()
