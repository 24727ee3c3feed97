"""Opening a blob in the one order that is safe: parse, verify the sender, only then unwrap anything."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from hsmbridge_csp.clearpart import Purpose
from hsmbridge_csp.sealing import open_blob, verify_blob

from hsmbridge.destruction import Ours
from hsmbridge_cli.identities import Believed

if TYPE_CHECKING:
    from hsmbridge_csp.blob import Blob
    from hsmbridge_csp.recipients import Opener
    from hsmbridge_csp.record import KeyRecord

    from hsmbridge.token import Token

__all__ = ["UNSIGNED", "opened", "verified"]

UNSIGNED = "the blob is not signed: anybody who knows the recipient's key may have made it"


def verified(blob: Blob, *, allow_unsigned: bool = False) -> dict[str, object]:
    """Verify a blob's sender, before anything of the blob is used.

    Args:
        blob: parsed.
        allow_unsigned: take an unsigned copy; a move must be signed.

    Returns: status (``valid`` or ``unsigned``), fingerprint and name of the sender.

    Raises:
        UnknownSenderError: unsigned, or signed by nobody whom we believe; BlobError: the signature is wrong.
    """
    believed = Believed()
    if blob.signed is None and allow_unsigned and blob.clear.purpose is Purpose.COPY:
        return {"status": "unsigned", "fingerprint": None, "name": None}
    verify_blob(blob, believed)
    sender = blob.clear.sender
    return {"status": "valid", "fingerprint": sender.hex(), "name": believed.name_of(sender)}


def opened(blob: Blob, opener: Opener, token: Token | None) -> tuple[KeyRecord, tuple[str, ...]]:
    """Open the encrypted part of a blob whose sender was verified.

    Returns: the record, and what may be left in the token, one sentence each.

    Raises:
        KekError: it is for another key, or the key is not safe; BlobError: not authentic.
    """
    with ExitStack() as stack:
        ours = None if token is None else stack.enter_context(Ours(token))
        record = open_blob(blob, opener, ours)
    return record, () if ours is None else tuple(ours.debris)
