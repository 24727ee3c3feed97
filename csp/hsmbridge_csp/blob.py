"""The OPAQUEKEYBLOB: BLOBHEADER, then COSE_Encrypt, with COSE_Sign1 around it where a sender signs.

Or COSE_Encrypt0, which only the two ends of a channel can open.

Its shape, and what anybody may read of it. Sealing and opening are in :mod:`hsmbridge_csp.sealing`.

Source: docs/blob-format.md; RFC 9052; CryptoAPI BLOBHEADER.
"""

from __future__ import annotations

from dataclasses import dataclass

from hsmbridge_csp.algids import alg_id_of
from hsmbridge_csp.blobheader import BlobHeader, BlobType
from hsmbridge_csp.clearpart import ClearPart
from hsmbridge_csp.cose import TAG_SIGN1, CoseEncrypt, CoseSign1
from hsmbridge_csp.cose_encrypt0 import TAG_ENCRYPT0, CoseEncrypt0
from hsmbridge_csp.errors import NTE, BlobError

__all__ = ["MAX_BLOB", "Blob", "describe_opaque", "header_for", "parse_channel_blob"]

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
        raw_header, body = _cut(data)
        if body.startswith(TAG_ENCRYPT0):
            raise BlobError(
                "the blob was sealed for one channel between two processes, and only these can open it",
                nte=NTE.BAD_TYPE,
                hint="it cannot be imported from a file; hand the key over again, or export it for a recipient's key",
            )
        signed = None
        if body.startswith(TAG_SIGN1):
            signed = CoseSign1.decode(body)
            body = signed.payload
        encrypted = CoseEncrypt.decode(body)
        clear = _clear_part(raw_header, encrypted.protected)
        if [recipient.kid for recipient in encrypted.recipients] != [clear.recipient]:
            raise BlobError("clear part and recipients name different keys", nte=NTE.BAD_DATA, hint=_HINT)
        if signed is None and clear.sender:
            raise BlobError("the sender's signature was taken off", nte=NTE.BAD_SIGNATURE, hint=_HINT)
        return cls(header=raw_header, clear=clear, encrypted=encrypted, signed=signed)

    def encode(self) -> bytes:
        """Return the blob's bytes."""
        return self.header + (self.signed or self.encrypted).encode()


def parse_channel_blob(data: bytes) -> tuple[ClearPart, CoseEncrypt0]:
    """Parse a blob that was sealed for a channel; nothing is authentic yet.

    Returns: the clear part, which the BLOBHEADER agrees with, and the rest.

    Raises:
        BlobError: not such a blob, in any way.
    """
    raw_header, body = _cut(data)
    encrypted = CoseEncrypt0.decode(body)
    return _clear_part(raw_header, encrypted.protected), encrypted


def header_for(clear: ClearPart) -> bytes:
    """Return the BLOBHEADER that belongs to a clear part; aiKeyAlg is 0 where CryptoAPI has no number."""
    algorithm = alg_id_of(clear.key_type, clear.bits)
    return BlobHeader(type=BlobType.OPAQUEKEYBLOB, version=_BLOB_VERSION, algorithm=algorithm).to_bytes()


def describe_opaque(data: bytes) -> dict[str, object]:
    """Describe a blob of ours for ``inspect``, with no key at hand: nothing of it is verified.

    Raises:
        BlobError: not a blob of ours.
    """
    signed = False
    if data[BlobHeader.LENGTH :].startswith(TAG_ENCRYPT0):
        clear, _ = parse_channel_blob(data)
        only = {"sealed_for": "one channel: it cannot be imported from a file"}
        recipients = [{"algorithm": "channel", "kid": clear.recipient.hex()}]
    else:
        blob, only = Blob.parse(data), {}
        clear, signed = blob.clear, blob.signed is not None
        recipients = [
            {"algorithm": str(recipient.algorithm), "kid": recipient.kid.hex()}
            for recipient in blob.encrypted.recipients
        ]
    return {
        "type": "OPAQUEKEYBLOB",
        "format": "hsmbridge",
        "algorithm": clear.key_type,
        "bits": clear.bits,
        "transfer": "reference" if clear.by_reference else "value",
        "purpose": clear.purpose.value,
        "blob_id": clear.blob_id.hex(),
        "created": clear.created,
        "signed": signed,
        "sender": clear.sender.hex(),
        **only,
        "recipients": recipients,
        "bytes": len(data),
    }


def _cut(data: bytes) -> tuple[bytes, bytes]:
    """Check the BLOBHEADER.

    Returns: its eight bytes, and what is behind.
    """
    if len(data) > MAX_BLOB:
        raise BlobError(f"a blob has at most {MAX_BLOB} bytes", nte=NTE.BAD_LEN, hint=_HINT)
    header = BlobHeader.parse(data)
    if header.type is not BlobType.OPAQUEKEYBLOB or header.version != _BLOB_VERSION:
        raise BlobError(
            "not an OPAQUEKEYBLOB of version 2", nte=NTE.BAD_TYPE, hint="`hsmbridge inspect` says what the file is"
        )
    return data[: BlobHeader.LENGTH], data[BlobHeader.LENGTH :]


def _clear_part(header: bytes, protected: bytes) -> ClearPart:
    clear = ClearPart.decode(protected)
    if header != header_for(clear):
        raise BlobError("BLOBHEADER and clear part name different keys", nte=NTE.BAD_ALGID, hint=_HINT)
    return clear
