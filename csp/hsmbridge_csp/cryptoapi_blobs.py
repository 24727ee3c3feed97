"""The CryptoAPI key blobs: one parser for all of them, and what may be told about each."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from hsmbridge_csp.blobheader import BlobHeader, BlobType
from hsmbridge_csp.bytecursor import ByteCursor
from hsmbridge_csp.errors import NTE, BlobError
from hsmbridge_csp.keystate import KeyStateBlob, parse_keystate_body
from hsmbridge_csp.rsablob import RsaPrivateBlob, RsaPublicBlob
from hsmbridge_csp.sessionkey_blobs import OpaqueKeyBlob, PlaintextKeyBlob, SimpleBlob, SymmetricWrapKeyBlob

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MAX_BLOB_BYTES", "MAX_OPAQUE_BLOB_BYTES", "ParsedBlob", "describe", "parse_blob"]

MAX_BLOB_BYTES = 64 * 1024
"""Ours: the largest blob with a published layout is an RSA-16384 private key, under 10 KiB."""

MAX_OPAQUE_BLOB_BYTES = 1024 * 1024
"""Ours: an opaque blob carries a key, its state and its recipients, never bulk data."""

ParsedBlob: TypeAlias = (
    SimpleBlob | RsaPublicBlob | RsaPrivateBlob | PlaintextKeyBlob | OpaqueKeyBlob | SymmetricWrapKeyBlob | KeyStateBlob
)

_PARSERS: dict[BlobType, Callable[[BlobHeader, ByteCursor], ParsedBlob]] = {
    BlobType.SIMPLEBLOB: SimpleBlob.parse_body,
    BlobType.PUBLICKEYBLOB: RsaPublicBlob.parse_body,
    BlobType.PRIVATEKEYBLOB: RsaPrivateBlob.parse_body,
    BlobType.PLAINTEXTKEYBLOB: PlaintextKeyBlob.parse_body,
    BlobType.OPAQUEKEYBLOB: OpaqueKeyBlob.parse_body,
    BlobType.SYMMETRICWRAPKEYBLOB: SymmetricWrapKeyBlob.parse_body,
    BlobType.KEYSTATEBLOB: parse_keystate_body,
}


def parse_blob(data: bytes) -> ParsedBlob:
    """Parse exactly one key blob.

    Args:
        data: the whole blob, at most 64 KiB, or 1 MiB for an OPAQUEKEYBLOB, whose body is handed on unread.

    Returns:
        The blob; its `to_bytes` gives *data* back.

    Raises:
        BlobError: *data* is not a blob, or not one that can be taken; `nte` says in which way.

    Source: "Key BLOBs" and PUBLICKEYSTRUC, win32 SecCrypto.
    """
    header = BlobHeader.parse(data)
    limit = MAX_OPAQUE_BLOB_BYTES if header.type == BlobType.OPAQUEKEYBLOB else MAX_BLOB_BYTES
    if len(data) > limit:
        message = f"{len(data)} bytes are too many for a key blob of this type: at most {limit}"
        raise BlobError(message, nte=NTE.BAD_LEN, hint="a key blob holds one key and never bulk data")
    parse_body = _PARSERS.get(header.type)
    if parse_body is None:
        raise _refused_type(header.type)
    cursor = ByteCursor(data, BlobHeader.LENGTH)
    blob = parse_body(header, cursor)
    cursor.finish()
    return blob


def describe(blob: ParsedBlob) -> dict[str, object]:
    """Tell what *blob* is: JSON-ready, with sizes and names, and without any secret.

    Returns:
        `type`, `version`, `algorithm` and `alg_id` for every blob, then what its kind adds.
    """
    return {
        "type": blob.TYPE.name,
        "version": blob.version,
        "algorithm": blob.algorithm.label,
        "alg_id": f"0x{blob.algorithm:08x}",
        **blob.describe(),
    }


def _refused_type(blob_type: BlobType) -> BlobError:
    if blob_type == BlobType.PUBLICKEYBLOBEX:
        message = "the layout of PUBLICKEYBLOBEX is not published"
        return BlobError(message, nte=NTE.BAD_TYPE, hint="export the public key as PUBLICKEYBLOB")
    message = f"0x{blob_type:02x} is not a type of key blob"
    return BlobError(message, nte=NTE.BAD_TYPE, hint="this is not a CryptoAPI key blob, or it is damaged")
