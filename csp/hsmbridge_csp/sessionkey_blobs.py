"""The blobs that carry one symmetric key, wrapped or not, and the opaque blob."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from hsmbridge_csp.barewrap import cose_name
from hsmbridge_csp.blobheader import AlgId, BlobHeader, BlobType
from hsmbridge_csp.errors import NTE, BlobError
from hsmbridge_csp.keyblob import KeyBlob

if TYPE_CHECKING:
    from hsmbridge_csp.bytecursor import ByteCursor

__all__ = [
    "MAX_PLAINTEXT_KEY_BYTES",
    "MAX_RSA_BYTES",
    "MIN_RSA_BYTES",
    "OpaqueKeyBlob",
    "PlaintextKeyBlob",
    "SimpleBlob",
    "SymmetricWrapKeyBlob",
]

MIN_RSA_BYTES = 384 // 8
MAX_RSA_BYTES = 16384 // 8
"""RSA modulus sizes of the Microsoft Enhanced Cryptographic Provider: 384 to 16,384 bits."""

MAX_PLAINTEXT_KEY_BYTES = 4096
"""Ours: room for any HMAC key (which travels as CALG_RC2 of any length), and nothing a cipher would need."""

MIN_RFC3217_BYTES = 24
MAX_RFC3217_BYTES = 272
"""RFC 3217: 8 bytes of IV, 8 of checksum, and 8 to 256 of key: its RC2 length field is one byte, then padded to 8."""

RFC3217_TRIPLE_DES_BYTES = 40
"""RFC 3217 section 3.1: a Triple-DES key of 24 bytes, its checksum and its IV."""

_FIXED_KEY_BYTES = {
    AlgId.DES: (8,),
    AlgId.TRIPLE_DES: (24,),
    AlgId.TRIPLE_DES_112: (16,),
    AlgId.AES_128: (16,),
    AlgId.AES_192: (24,),
    AlgId.AES_256: (32,),
    AlgId.AES: (16, 24, 32),
}
_RFC3217_ALGORITHMS = (AlgId.TRIPLE_DES, AlgId.TRIPLE_DES_112, AlgId.RC2)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SimpleBlob(KeyBlob):
    """SIMPLEBLOB: a session key encrypted under an RSA public key.

    Attributes:
        wrapping_algorithm: ALG_ID of the wrapping key; always RSA_KEYX.
        ciphertext: the RSA ciphertext as the blob has it, least significant byte first, as long as the modulus.

    Source: "Simple Key BLOBs", win32 SecCrypto.
    """

    TYPE: ClassVar[BlobType] = BlobType.SIMPLEBLOB

    wrapping_algorithm: AlgId = AlgId.RSA_KEYX
    ciphertext: bytes = field(repr=False)

    @classmethod
    def parse_body(cls, header: BlobHeader, cursor: ByteCursor) -> SimpleBlob:
        """Read the body behind *header*."""
        wrapping = AlgId(cursor.u32("wrapping ALG_ID"))
        return cls(
            algorithm=header.algorithm, version=header.version, wrapping_algorithm=wrapping, ciphertext=cursor.rest()
        )

    def describe(self) -> dict[str, object]:
        """Return the wrapping algorithm and the size of the RSA key."""
        return {
            "wrapping_algorithm": self.wrapping_algorithm.label,
            "ciphertext_bytes": len(self.ciphertext),
            "wrapping_key_bits": 8 * len(self.ciphertext),
        }

    def _body(self) -> bytes:
        return self.wrapping_algorithm.to_bytes(4, "little") + self.ciphertext

    def _check(self) -> None:
        if self.wrapping_algorithm != AlgId.RSA_KEYX:
            message = f"the session key is wrapped with {self.wrapping_algorithm.label}, not with CALG_RSA_KEYX"
            raise BlobError(message, nte=NTE.BAD_ALGID, hint="export the key under an RSA key-exchange key")
        if not MIN_RSA_BYTES <= len(self.ciphertext) <= MAX_RSA_BYTES:
            message = f"an RSA ciphertext has {MIN_RSA_BYTES} to {MAX_RSA_BYTES} bytes, not {len(self.ciphertext)}"
            raise BlobError(message, nte=NTE.BAD_LEN, hint="the blob is damaged or was cut off; export it again")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PlaintextKeyBlob(KeyBlob):
    """PLAINTEXTKEYBLOB: a session key in the clear.

    Attributes:
        key: the key's bytes, secret.

    Source: PLAINTEXTKEYBLOB structure: u32 length, then the key.
    """

    TYPE: ClassVar[BlobType] = BlobType.PLAINTEXTKEYBLOB

    key: bytes = field(repr=False)

    @classmethod
    def parse_body(cls, header: BlobHeader, cursor: ByteCursor) -> PlaintextKeyBlob:
        """Read the body behind *header*."""
        length = cursor.u32("key length")
        _check_key_length(header.algorithm, length)
        return cls(algorithm=header.algorithm, version=header.version, key=cursor.take(length, "key"))

    def describe(self) -> dict[str, object]:
        """Return the key's size."""
        return {"key_bits": 8 * len(self.key), "protected": False}

    def _body(self) -> bytes:
        return len(self.key).to_bytes(4, "little") + self.key

    def _check(self) -> None:
        _check_key_length(self.algorithm, len(self.key))


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SymmetricWrapKeyBlob(KeyBlob):
    """SYMMETRICWRAPKEYBLOB: a session key wrapped with another one.

    Attributes:
        wrapping_algorithm: ALG_ID of the wrapping key; RFC 3217 knows Triple-DES and RC2 only.
        wrapped_key: the RFC 3217 output.

    Source: CryptExportKey, SYMMETRICWRAPKEYBLOB; RFC 3217.
    """

    TYPE: ClassVar[BlobType] = BlobType.SYMMETRICWRAPKEYBLOB

    wrapping_algorithm: AlgId
    wrapped_key: bytes = field(repr=False)

    @classmethod
    def parse_body(cls, header: BlobHeader, cursor: ByteCursor) -> SymmetricWrapKeyBlob:
        """Read the body behind *header*."""
        wrapping = AlgId(cursor.u32("wrapping ALG_ID"))
        return cls(
            algorithm=header.algorithm, version=header.version, wrapping_algorithm=wrapping, wrapped_key=cursor.rest()
        )

    def describe(self) -> dict[str, object]:
        """Return the wrapping algorithm and the size of the wrapped key."""
        return {
            "wrapping_algorithm": self.wrapping_algorithm.label,
            "wrapping": "RFC 3217",
            "wrapped_key_bytes": len(self.wrapped_key),
        }

    def _body(self) -> bytes:
        return self.wrapping_algorithm.to_bytes(4, "little") + self.wrapped_key

    def _check(self) -> None:
        if self.wrapping_algorithm not in _RFC3217_ALGORITHMS:
            message = f"{self.wrapping_algorithm.label} is no wrapping algorithm of RFC 3217"
            raise BlobError(
                message, nte=NTE.BAD_ALGID, hint="the wrapping key must be CALG_3DES, CALG_3DES_112 or CALG_RC2"
            )
        length = len(self.wrapped_key)
        fits = MIN_RFC3217_BYTES <= length <= MAX_RFC3217_BYTES and length % 8 == 0
        if self.algorithm == AlgId.TRIPLE_DES and self.wrapping_algorithm != AlgId.RC2:
            fits = length == RFC3217_TRIPLE_DES_BYTES
        if not fits:
            message = f"{length} bytes are not the RFC 3217 wrap of a {self.algorithm.label} key"
            raise BlobError(message, nte=NTE.BAD_LEN, hint="the blob is damaged or was cut off; export it again")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class OpaqueKeyBlob(KeyBlob):
    """OPAQUEKEYBLOB: only the provider that wrote it knows what the body means.

    Attributes:
        body: everything behind the header, for that provider's own parser.

    Source: "Opaque BLOB type", win32 SecGloss.
    """

    TYPE: ClassVar[BlobType] = BlobType.OPAQUEKEYBLOB

    body: bytes = field(repr=False)

    @classmethod
    def parse_body(cls, header: BlobHeader, cursor: ByteCursor) -> OpaqueKeyBlob:
        """Read the body behind *header*."""
        return cls(algorithm=header.algorithm, version=header.version, body=cursor.rest())

    def describe(self) -> dict[str, object]:
        """Return the size of the body and what it looks like from outside."""
        return {
            "body_bytes": len(self.body),
            "body_format": cose_name(self.body) or "private to the provider that wrote it",
        }

    def _body(self) -> bytes:
        return self.body

    def _check(self) -> None:
        if not self.body:
            message = "the opaque blob is empty: nothing follows its header"
            raise BlobError(message, nte=NTE.BAD_LEN, hint="the blob is damaged or was cut off; export it again")


def _check_key_length(algorithm: AlgId, length: int) -> None:
    """Raise BlobError unless a key of *algorithm* may have *length* bytes."""
    fixed = _FIXED_KEY_BYTES.get(algorithm)
    if fixed is not None and length not in fixed:
        wanted = " or ".join(str(n) for n in fixed)
        message = f"a {algorithm.label} key has {wanted} bytes, not {length}"
        raise BlobError(message, nte=NTE.BAD_LEN, hint="the key's length and its ALG_ID must agree")
    if not 0 < length <= MAX_PLAINTEXT_KEY_BYTES:
        message = f"a session key of {length} bytes is outside 1 to {MAX_PLAINTEXT_KEY_BYTES}"
        raise BlobError(message, nte=NTE.BAD_LEN, hint="the blob is damaged, or it does not hold a session key")
