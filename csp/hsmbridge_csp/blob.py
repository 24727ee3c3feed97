"""The OPAQUEKEYBLOB: BLOBHEADER, then COSE_Encrypt, with COSE_Sign1 around it where a sender signs.

Its shape, and what anybody may read of it. Sealing and opening are in :mod:`hsmbridge_csp.sealing`.

Source: docs/blob-format.md; RFC 9052; CryptoAPI BLOBHEADER.
"""

from __future__ import annotations

from dataclasses import dataclass

from hsmbridge_csp.algids import alg_id_of
from hsmbridge_csp.blobheader import BlobHeader, BlobType
from hsmbridge_csp.clearpart import ClearPart
from hsmbridge_csp.cose import TAG_SIGN1, CoseEncrypt, CoseSign1
from hsmbridge_csp.errors import NTE, BlobError

__all__ = ["MAX_BLOB", "Blob", "describe_opaque", "header_for"]

MAX_BLOB = 1 << 20
"""Bytes of a blob. An RSA-16384 key with every attribute has fewer than 20,000."""

_BLOB_VERSION = 2
_HINT = "have the sender export the key again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A parsed blob: everything that can be known without a key.

    Attributes:
        header: the eight bytes in front; external_aad of both COSE layers.
        clear: the clear part.
        encrypted: the COSE_Encrypt.
        signed: the COSE_Sign1 around it, None where there is none.
    """

    header: bytes
    clear: ClearPart
    encrypted: CoseEncrypt
    signed: CoseSign1 | None

    @classmethod
    def parse(cls, data: bytes) -> Blob:
        """Parse a blob; nothing is authentic yet.

        Raises:
            BlobError: not a blob of ours, in any way.
        """
        if len(data) > MAX_BLOB:
            raise BlobError(f"a blob has at most {MAX_BLOB} bytes", nte=NTE.BAD_LEN, hint=_HINT)
        header = BlobHeader.parse(data)
        if header.type is not BlobType.OPAQUEKEYBLOB or header.version != _BLOB_VERSION:
            raise BlobError(
                "not an OPAQUEKEYBLOB of version 2", nte=NTE.BAD_TYPE, hint="`hsmbridge inspect` says what the file is"
            )
        body = data[BlobHeader.LENGTH :]
        signed = None
        if body.startswith(TAG_SIGN1):
            signed = CoseSign1.decode(body)
            body = signed.payload
        encrypted = CoseEncrypt.decode(body)
        clear = ClearPart.decode(encrypted.protected)
        raw_header = data[: BlobHeader.LENGTH]
        if raw_header != header_for(clear):
            raise BlobError("BLOBHEADER and clear part name different keys", nte=NTE.BAD_ALGID, hint=_HINT)
        if [recipient.kid for recipient in encrypted.recipients] != [clear.recipient]:
            raise BlobError("clear part and recipients name different keys", nte=NTE.BAD_DATA, hint=_HINT)
        if signed is None and clear.sender:
            raise BlobError("the sender's signature was taken off", nte=NTE.BAD_SIGNATURE, hint=_HINT)
        return cls(header=raw_header, clear=clear, encrypted=encrypted, signed=signed)

    def encode(self) -> bytes:
        """Return the blob's bytes."""
        return self.header + (self.signed or self.encrypted).encode()


def header_for(clear: ClearPart) -> bytes:
    """Return the BLOBHEADER that belongs to a clear part; aiKeyAlg is 0 where CryptoAPI has no number."""
    algorithm = alg_id_of(clear.key_type, clear.bits)
    return BlobHeader(type=BlobType.OPAQUEKEYBLOB, version=_BLOB_VERSION, algorithm=algorithm).to_bytes()


def describe_opaque(data: bytes) -> dict[str, object]:
    """Describe a blob of ours for ``inspect``, with no key at hand: nothing of it is verified.

    Raises:
        BlobError: not a blob of ours.
    """
    blob = Blob.parse(data)
    clear = blob.clear
    return {
        "type": "OPAQUEKEYBLOB",
        "format": "hsmbridge",
        "algorithm": clear.key_type,
        "bits": clear.bits,
        "transfer": "reference" if clear.by_reference else "value",
        "purpose": clear.purpose.value,
        "blob_id": clear.blob_id.hex(),
        "created": clear.created,
        "signed": blob.signed is not None,
        "sender": clear.sender.hex(),
        "recipients": [
            {"algorithm": str(recipient.algorithm), "kid": recipient.kid.hex()}
            for recipient in blob.encrypted.recipients
        ],
        "bytes": len(data),
    }
