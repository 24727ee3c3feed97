"""Versions and cipher suites, and what each means for a record.

Source: IANA TLS Cipher Suites registry; RFC 5288 (AES-GCM), RFC 7905 (ChaCha20-Poly1305), RFC 5246 appendix C and RFC
5289 (AES-CBC); RFC 8446 section 5.5 (limits).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from functools import cached_property, lru_cache

__all__ = ["LAST_SEQUENCE", "MAX_PLAINTEXT", "Bulk", "CipherSuite", "RecordForm", "TlsVersion", "form_of"]

MAX_PLAINTEXT = 1 << 14
"""Bytes in a record's fragment (RFC 8446 section 5.1)."""

LAST_SEQUENCE = (1 << 64) - 1
"""Never used: the number after it would wrap (RFC 8446 section 5.3)."""

_AES_LIMIT = 23_726_566
"""Full-size records that one AES key may protect: 2^24.5, rounded down (RFC 8446 section 5.5).

The RFC gives it for AES-GCM in TLS 1.3. It comes from AES's blocks of 128 bits, so TLS 1.2 and CBC are held to it too.
"""


class TlsVersion(IntEnum):
    """A protocol version, with the number that it has in TLS."""

    TLS12 = 0x0303
    TLS13 = 0x0304


class Bulk(Enum):
    """How records are encrypted."""

    AES_GCM = "AES-GCM"
    CHACHA20_POLY1305 = "ChaCha20-Poly1305"
    AES_CBC = "AES-CBC"


class CipherSuite(IntEnum):
    """The suites whose records this package seals and opens, by their IANA numbers.

    How the connection agreed on its secrets makes no difference to a record; who handles the suite's number does.
    """

    TLS_RSA_WITH_AES_128_CBC_SHA = 0x002F
    TLS_DHE_RSA_WITH_AES_128_CBC_SHA = 0x0033
    TLS_RSA_WITH_AES_256_CBC_SHA = 0x0035
    TLS_DHE_RSA_WITH_AES_256_CBC_SHA = 0x0039
    TLS_RSA_WITH_AES_128_CBC_SHA256 = 0x003C
    TLS_RSA_WITH_AES_256_CBC_SHA256 = 0x003D
    TLS_DHE_RSA_WITH_AES_128_CBC_SHA256 = 0x0067
    TLS_DHE_RSA_WITH_AES_256_CBC_SHA256 = 0x006B
    TLS_RSA_WITH_AES_128_GCM_SHA256 = 0x009C
    TLS_RSA_WITH_AES_256_GCM_SHA384 = 0x009D
    TLS_DHE_RSA_WITH_AES_128_GCM_SHA256 = 0x009E
    TLS_DHE_RSA_WITH_AES_256_GCM_SHA384 = 0x009F
    TLS_AES_128_GCM_SHA256 = 0x1301
    TLS_AES_256_GCM_SHA384 = 0x1302
    TLS_CHACHA20_POLY1305_SHA256 = 0x1303
    TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA = 0xC009
    TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA = 0xC00A
    TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA = 0xC013
    TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA = 0xC014
    TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256 = 0xC023
    TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256 = 0xC027
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 = 0xC02B
    TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 = 0xC02C
    TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 = 0xC02F
    TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 = 0xC030
    TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 = 0xCCA8
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 = 0xCCA9
    TLS_DHE_RSA_WITH_CHACHA20_POLY1305_SHA256 = 0xCCAA

    @property
    def version(self) -> TlsVersion:
        """The version it belongs to: TLS 1.3 has its own suites."""
        return TlsVersion.TLS12 if "_WITH_" in self.name else TlsVersion.TLS13

    @property
    def form(self) -> RecordForm:
        """What its records look like."""
        return form_of(self)


@dataclass(frozen=True, kw_only=True)
class RecordForm:
    """What a suite means for its records; sizes in bytes.

    Attributes:
        bulk: the cipher.
        version: the protocol version.
        key_size: of the bulk key.
        mac: hash of the MAC, ``SHA1`` or ``SHA256``, empty with an AEAD.
        mac_size: of the MAC key and of the MAC, 0 with an AEAD.
        iv_size: of the fixed IV; 0 with CBC, whose records bring their own.
        hash_name: of the PRF or of HKDF, ``SHA256`` or ``SHA384``.
        hash_size: of its output, which is the size of a traffic secret.
    """

    bulk: Bulk
    version: TlsVersion
    key_size: int
    mac: str
    mac_size: int
    iv_size: int
    hash_name: str
    hash_size: int

    @cached_property
    def limit(self) -> int:
        """Records that one key may protect. For ChaCha20-Poly1305 the sequence numbers end first."""
        return LAST_SEQUENCE if self.bulk is Bulk.CHACHA20_POLY1305 else _AES_LIMIT

    @cached_property
    def max_ciphertext(self) -> int:
        """Bytes behind a record's header: more is a record_overflow (RFC 8446 5.2, RFC 5246 6.2.3)."""
        return MAX_PLAINTEXT + (256 if self.version is TlsVersion.TLS13 else 2048)

    @cached_property
    def value_sizes(self) -> tuple[int, ...]:
        """Sizes of a record key's bytes: bulk key, MAC key, and in TLS 1.3 the traffic secret, if it is there."""
        keys = self.key_size + self.mac_size
        return (keys, keys + self.hash_size) if self.version is TlsVersion.TLS13 else (keys,)


@lru_cache(maxsize=64)
def form_of(suite: CipherSuite) -> RecordForm:
    """Read a suite's form off its name."""
    version = suite.version
    cipher, hash_name = suite.name.removeprefix("TLS_").split("_WITH_")[-1].rsplit("_", 1)
    if cipher == "CHACHA20_POLY1305":
        bulk, key_size = Bulk.CHACHA20_POLY1305, 32
    else:
        bulk = Bulk.AES_CBC if cipher.endswith("CBC") else Bulk.AES_GCM
        key_size = int(cipher.split("_")[1]) // 8
    mac = {"SHA": "SHA1"}.get(hash_name, hash_name) if bulk is Bulk.AES_CBC else ""
    # RFC 5246 section 5: a suite whose name says SHA (for SHA-1) has SHA-256 in its PRF.
    prf = "SHA384" if hash_name == "SHA384" else "SHA256"
    salted = bulk is Bulk.AES_GCM and version is TlsVersion.TLS12
    return RecordForm(
        bulk=bulk,
        version=version,
        key_size=key_size,
        mac=mac,
        mac_size={"": 0, "SHA1": 20, "SHA256": 32}[mac],
        iv_size=0 if mac else 4 if salted else 12,
        hash_name=prf,
        hash_size=48 if prf == "SHA384" else 32,
    )
