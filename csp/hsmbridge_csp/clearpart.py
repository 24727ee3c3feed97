"""The clear part of a blob: what anybody may read and nobody may change.

It stands in the protected header of the COSE_Encrypt, under private labels that ``crit`` lists, so that no other
program takes the blob for something that it understands.

Source: docs/blob-format.md; RFC 9052 section 3.1 (crit, content type).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any

from hsmbridge_csp import cbor
from hsmbridge_csp.cose import Algorithm, Header
from hsmbridge_csp.errors import NTE, BlobError

__all__ = ["VERSION", "ClearPart", "Purpose"]

VERSION = 1
CONTENT_TYPE = "application/cbor"
BLOB_ID_SIZE = 16
_MAX_NAME = 64
_MAX_FINGERPRINT = 64
_HINT = "the blob was damaged or not made by hsmbridge; have the sender export the key again"


class Purpose(StrEnum):
    """Whether the source goes on to exist."""

    COPY = "copy"
    MOVE = "move"


class Label(IntEnum):
    """Private header labels: integers below -65536 (RFC 9052 section 16.2)."""

    VERSION = -65537
    BLOB_ID = -65538
    CREATED = -65539
    KEY_TYPE = -65540
    BITS = -65541
    BY_REFERENCE = -65542
    PURPOSE = -65543
    SENDER = -65544
    RECIPIENT = -65545


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearPart:
    """What a blob says in clear.

    Attributes:
        blob_id: 16 random bytes.
        created: seconds since 1970-01-01 UTC, as the sender's clock said.
        key_type: algorithm by name.
        bits: the key's size.
        by_reference: whether the key itself stayed in its token.
        purpose: copy or move.
        sender: fingerprint of the signing key, empty where the channel or nobody vouches for the sender.
        recipient: fingerprint of the key it is sealed for.
    """

    blob_id: bytes
    created: int
    key_type: str
    bits: int
    by_reference: bool
    purpose: Purpose
    sender: bytes
    recipient: bytes

    def encode(self) -> bytes:
        """Return the protected header's bytes."""
        own: dict[int, Any] = {
            Label.VERSION: VERSION,
            Label.BLOB_ID: self.blob_id,
            Label.CREATED: self.created,
            Label.KEY_TYPE: self.key_type,
            Label.BITS: self.bits,
            Label.BY_REFERENCE: self.by_reference,
            Label.PURPOSE: self.purpose.value,
            Label.SENDER: self.sender,
            Label.RECIPIENT: self.recipient,
        }
        header: dict[int, Any] = {
            Header.ALG: int(Algorithm.A256GCM),
            Header.CRIT: sorted((int(label) for label in Label), reverse=True),
            Header.CONTENT_TYPE: CONTENT_TYPE,
            **own,
        }
        return cbor.encode({int(label): value for label, value in header.items()})

    @classmethod
    def decode(cls, protected: bytes) -> ClearPart:
        """Parse the protected header.

        Raises:
            BlobError: unknown version, algorithm or critical label, a missing field, one too many, or of the wrong
            type.
        """
        header = cbor.decode(protected)
        if not isinstance(header, dict):
            raise _bad("the header is no map")
        if header.get(Header.ALG) != Algorithm.A256GCM:
            raise _bad("the content algorithm is not A256GCM", NTE.BAD_ALGID)
        version = header.get(Label.VERSION)
        if version != VERSION or isinstance(version, bool):
            raise _bad(f"version {version!r} of the format is not known", NTE.BAD_VER)
        if header.get(Header.CRIT) != sorted((int(label) for label in Label), reverse=True):
            raise _bad("it names critical labels that are not known", NTE.BAD_VER)
        if header.get(Header.CONTENT_TYPE) != CONTENT_TYPE or set(header) != {
            Header.ALG,
            Header.CRIT,
            Header.CONTENT_TYPE,
            *Label,
        }:
            raise _bad("its header has fields too many or too few")
        return cls._from(header)

    @classmethod
    def _from(cls, header: dict[Any, Any]) -> ClearPart:
        blob_id, sender, recipient = (header[label] for label in (Label.BLOB_ID, Label.SENDER, Label.RECIPIENT))
        created, bits, key_type = (header[label] for label in (Label.CREATED, Label.BITS, Label.KEY_TYPE))
        by_reference, purpose = header[Label.BY_REFERENCE], header[Label.PURPOSE]
        fits = (
            isinstance(blob_id, bytes)
            and len(blob_id) == BLOB_ID_SIZE
            and all(type(number) is int and 0 <= number < 1 << 64 for number in (created, bits))
            and isinstance(key_type, str)
            and 0 < len(key_type) <= _MAX_NAME
            and isinstance(by_reference, bool)
            and purpose in list(Purpose)
            and all(isinstance(name, bytes) and len(name) <= _MAX_FINGERPRINT for name in (sender, recipient))
        )
        if not fits:
            raise _bad("a field of its header has the wrong type")
        return cls(
            blob_id=blob_id,
            created=created,
            key_type=key_type,
            bits=bits,
            by_reference=by_reference,
            purpose=Purpose(purpose),
            sender=sender,
            recipient=recipient,
        )


def _bad(why: str, nte: NTE = NTE.BAD_DATA) -> BlobError:
    return BlobError(f"not a usable blob: {why}", nte=nte, hint=_HINT)
