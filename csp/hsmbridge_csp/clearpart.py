"""The clear part of a blob: what anybody may read and nobody may change.

It stands in the protected header of the COSE_Encrypt, under private labels that ``crit`` lists, so that no other
program takes the blob for something that it understands.

Source: docs/blob-format.md; RFC 9052 section 3.1 (crit, content type).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from hsmbridge_csp import cbor
from hsmbridge_csp.cose import Algorithm, Header
from hsmbridge_csp.errors import NTE, BlobError

__all__ = ["BLOB_ID_AT", "BLOB_ID_SIZE", "VERSION", "ClearPart", "Purpose"]

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


_FIXED = {
    int(Header.ALG): int(Algorithm.A256GCM),
    int(Header.CRIT): [int(label) for label in Label],
    int(Header.CONTENT_TYPE): CONTENT_TYPE,
    int(Label.VERSION): VERSION,
}
_OWN = tuple(int(label) for label in Label if label is not Label.VERSION)
_MAP = 5 << 5
_FRONT = bytes([_MAP | len(_FIXED) + len(_OWN)]) + cbor.encode(_FIXED)[1:]
"""How the header of each blob begins: the map's head, and the fields that are the same in all of them."""

BLOB_ID_AT = len(_FRONT) + len(cbor.encode({int(Label.BLOB_ID): bytes(BLOB_ID_SIZE)})) - 1 - BLOB_ID_SIZE
"""Where the blob id stands in every header: what is before it has one length."""

_REST = bytes([_MAP | len(_OWN)])
"""The head of a map of the other fields. Their labels are behind those of the fixed ones in CBOR's order."""

_PURPOSES = {purpose.value: purpose for purpose in Purpose}


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
        fields = (
            self.blob_id, self.created, self.key_type, self.bits, self.by_reference, self.purpose.value, self.sender,
            self.recipient,
        )  # fmt: skip
        return _FRONT + cbor.encode(dict(zip(_OWN, fields, strict=True)))[1:]

    @classmethod
    def decode(cls, protected: bytes) -> ClearPart:
        """Parse the protected header.

        Raises:
            BlobError: unknown version, algorithm or critical label, a missing field, one too many, or of the wrong
            type.
        """
        if not protected.startswith(_FRONT):
            raise _not_ours(protected)
        fields = cbor.decode(_REST + protected[len(_FRONT) :])
        if tuple(fields) != _OWN:
            raise _bad("its header has fields too many or too few")
        blob_id, created, key_type, bits, by_reference, purpose, sender, recipient = fields.values()
        fits = (
            type(blob_id) is type(sender) is type(recipient) is bytes
            and type(created) is type(bits) is int  # which true and false are not
            and type(key_type) is type(purpose) is str
            and type(by_reference) is bool
            and len(blob_id) == BLOB_ID_SIZE
            and 0 < len(key_type) <= _MAX_NAME
            and created >= 0
            and bits >= 0
            and purpose in _PURPOSES
            and len(sender) <= _MAX_FINGERPRINT
            and len(recipient) <= _MAX_FINGERPRINT
        )
        if not fits:
            raise _bad("a field of its header has the wrong type")
        return cls(
            blob_id=blob_id,
            created=created,
            key_type=key_type,
            bits=bits,
            by_reference=by_reference,
            purpose=_PURPOSES[purpose],
            sender=sender,
            recipient=recipient,
        )


def _not_ours(protected: bytes) -> BlobError:
    """Return why a header that does not begin as each of ours does is refused."""
    header = cbor.decode(protected)
    if not isinstance(header, dict):
        return _bad("the header is no map")
    if header.get(Header.ALG) != Algorithm.A256GCM:
        return _bad("the content algorithm is not A256GCM", NTE.BAD_ALGID)
    version = header.get(Label.VERSION)
    if version != VERSION or isinstance(version, bool):
        return _bad(f"version {version!r} of the format is not known", NTE.BAD_VER)
    if header.get(Header.CRIT) != _FIXED[Header.CRIT]:
        return _bad("it names critical labels that are not known", NTE.BAD_VER)
    return _bad("its header has fields too many or too few")


def _bad(why: str, nte: NTE = NTE.BAD_DATA) -> BlobError:
    return BlobError(f"not a usable blob: {why}", nte=nte, hint=_HINT)
