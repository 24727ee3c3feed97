"""BLOBHEADER: the eight bytes in front of every CryptoAPI key blob."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Self

from hsmbridge_csp.errors import NTE, BlobError

__all__ = ["BLOB_VERSION", "AlgId", "BlobHeader", "BlobType", "looks_like_blob"]

BLOB_VERSION = 2
"""CUR_BLOB_VERSION of wincrypt.h, the version to write."""

NEWEST_BLOB_VERSION = 3
"""The highest version that wincrypt.h defines (3 came with DSS keys that carry their seed)."""

_MAX_TYPE = 0xFF
_LAYOUT = struct.Struct("<BBHI")


class _OpenEnum(IntEnum):
    """An integer enumeration in which a number without a name is a value like any other.

    Unnamed values are not added to the members, so hostile input cannot make the table grow.
    """

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, int) or not 0 <= value < 1 << 32:
            return None
        member = int.__new__(cls, value)
        member._name_ = f"UNKNOWN_{value:X}"
        member._value_ = value
        return member

    @property
    def known(self) -> bool:
        """Whether the number has a name."""
        return self.name in type(self).__members__


class BlobType(_OpenEnum):
    """bType: what follows the header.

    Source: wincrypt.h; BLOBHEADER (PUBLICKEYSTRUC) structure.
    """

    SIMPLEBLOB = 0x01
    PUBLICKEYBLOB = 0x06
    PRIVATEKEYBLOB = 0x07
    PLAINTEXTKEYBLOB = 0x08
    OPAQUEKEYBLOB = 0x09
    PUBLICKEYBLOBEX = 0x0A
    SYMMETRICWRAPKEYBLOB = 0x0B
    KEYSTATEBLOB = 0x0C


class AlgId(_OpenEnum):
    """aiKeyAlg: the algorithm of the key in the blob; NONE where CryptoAPI has no identifier for it.

    Source: wincrypt.h, ALG_ID.
    """

    NONE = 0
    DSS_SIGN = 0x2200
    ECDSA = 0x2203
    RSA_SIGN = 0x2400
    SSL3_MASTER = 0x4C01
    SCHANNEL_MASTER_HASH = 0x4C02
    SCHANNEL_MAC_KEY = 0x4C03
    PCT1_MASTER = 0x4C04
    SSL2_MASTER = 0x4C05
    TLS1_MASTER = 0x4C06
    SCHANNEL_ENC_KEY = 0x4C07
    DES = 0x6601
    RC2 = 0x6602
    TRIPLE_DES = 0x6603
    TRIPLE_DES_112 = 0x6609
    AES_128 = 0x660E
    AES_192 = 0x660F
    AES_256 = 0x6610
    AES = 0x6611
    RC4 = 0x6801
    MD5 = 0x8003
    SHA1 = 0x8004
    MAC = 0x8005
    SSL3_SHAMD5 = 0x8008
    HMAC = 0x8009
    TLS1PRF = 0x800A
    SHA_256 = 0x800C
    SHA_384 = 0x800D
    SHA_512 = 0x800E
    RSA_KEYX = 0xA400
    DH_SF = 0xAA01
    DH_EPHEM = 0xAA02
    ECDH = 0xAA05

    @property
    def label(self) -> str:
        """The name that wincrypt.h gives the number, or the number itself."""
        if self == AlgId.NONE:
            return "none"
        if not self.known:
            return f"0x{self.value:08x}"
        return "CALG_" + self.name.replace("TRIPLE_DES", "3DES")


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobHeader:
    """One BLOBHEADER, checked.

    Attributes:
        type: what follows; an unknown number is kept as it is.
        version: 2 for an OPAQUEKEYBLOB, whose format is ours; 2 or 3 for the others.
        algorithm: the key's ALG_ID; an unknown number is kept as it is.
    """

    LENGTH: ClassVar[int] = _LAYOUT.size

    type: BlobType
    version: int = BLOB_VERSION
    algorithm: AlgId

    def __post_init__(self) -> None:
        """Refuse what cannot be written or is not supported, however the header came about."""
        if self.type > _MAX_TYPE:
            message = f"blob type {int(self.type)} does not fit into one byte"
            raise BlobError(message, nte=NTE.BAD_TYPE, hint="use one of BlobType's members")
        newest = BLOB_VERSION if self.type == BlobType.OPAQUEKEYBLOB else NEWEST_BLOB_VERSION
        if not BLOB_VERSION <= self.version <= newest:
            message = f"blob version {self.version} is not supported"
            raise BlobError(
                message, nte=NTE.BAD_VER, hint="export the key again with blob version 2 (CUR_BLOB_VERSION)"
            )

    @classmethod
    def parse(cls, data: bytes) -> BlobHeader:
        """Read the header at the front of *data*; what follows it is not looked at.

        Args:
            data: at least the header's eight bytes.

        Raises:
            BlobError: too short (NTE_BAD_LEN), reserved bytes set (NTE_BAD_DATA), wrong version (NTE_BAD_VER).

        Source: PUBLICKEYSTRUC: bType u8, bVersion u8, reserved u16, aiKeyAlg u32, little-endian.
        """
        if len(data) < cls.LENGTH:
            message = f"{len(data)} bytes are too few for a key blob: its header alone has {cls.LENGTH}"
            raise BlobError(message, nte=NTE.BAD_LEN, hint="the blob is damaged or was cut off; export it again")
        blob_type, version, reserved, algorithm = _LAYOUT.unpack_from(data)
        if reserved:
            message = f"the header's reserved bytes are 0x{reserved:04x}, not zero"
            raise BlobError(message, nte=NTE.BAD_DATA, hint="this is not a CryptoAPI key blob, or it is damaged")
        return cls(type=BlobType(blob_type), version=version, algorithm=AlgId(algorithm))

    def to_bytes(self) -> bytes:
        """Return the header's eight bytes."""
        return _LAYOUT.pack(self.type, self.version, 0, self.algorithm)


def looks_like_blob(data: bytes) -> bool:
    """Say whether *data* starts like a CryptoAPI blob: a known type, version 2 or 3, reserved bytes zero.

    Random bytes pass about once in a billion times, so this is good enough to choose a parser, and no more than that.
    """
    if len(data) < BlobHeader.LENGTH:
        return False
    blob_type, version, reserved, _ = _LAYOUT.unpack_from(data)
    return BlobType(blob_type).known and BLOB_VERSION <= version <= NEWEST_BLOB_VERSION and reserved == 0
