"""Sealing a key record into a blob, signing it, verifying it, and opening it again.

Source: docs/blob-format.md; RFC 9052 section 5.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

from hsmbridge.errors import KekError
from hsmbridge_csp import cbor
from hsmbridge_csp.blob import Blob, header_for
from hsmbridge_csp.cose import IV_SIZE, CoseEncrypt, CoseSign1, Header
from hsmbridge_csp.errors import NTE, BlobError
from hsmbridge_csp.identity import verify
from hsmbridge_csp.record import KeyRecord, Transfer
from hsmbridge_csp.trust import UnknownSenderError
from hsmbridge_csp.wipe import wipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsmbridge.destruction import Ours
    from hsmbridge_csp.clearpart import ClearPart
    from hsmbridge_csp.cose import CoseRecipient
    from hsmbridge_csp.identity import Identity, VerifyingKey
    from hsmbridge_csp.recipients import Opener, Sealer

__all__ = ["open_blob", "seal_blob", "sign_blob", "verify_blob"]

_HINT = "have the sender export the key again"


def seal_blob(clear: ClearPart, record: KeyRecord, sealer: Sealer, ours: Ours | None) -> Blob:
    """Seal a key record for one recipient.

    Args:
        clear: what everybody may read.
        record: the secret part.
        sealer: the recipient.
        ours: takes the session objects that sealing needs.

    Raises:
        KekError: the KEK is not safe.
        MechanismError: the token lacks what the recipient's algorithm needs.
    """
    header, protected = header_for(clear), clear.encode()
    content, recipient = sealer.seal(ours)
    iv = secrets.token_bytes(IV_SIZE)
    aad = CoseEncrypt(protected=protected, iv=iv, ciphertext=b"", recipients=()).aad(header)
    plaintext = record.encode()
    ciphertext = content.seal(iv, plaintext, aad)
    wipe(plaintext)
    encrypted = CoseEncrypt(protected=protected, iv=iv, ciphertext=ciphertext, recipients=(recipient,))
    return Blob(header=header, clear=clear, encrypted=encrypted, signed=None)


def open_blob(blob: Blob, opener: Opener, ours: Ours | None) -> KeyRecord:
    """Open the encrypted part.

    Args:
        blob: parsed; a signature has been verified by now.
        opener: the recipient's key.
        ours: takes the session objects that opening needs.

    Raises:
        KekError: the blob is for somebody else.
        BlobError: not authentic, or not readable.
    """
    content = opener.open(_recipient_for(blob, opener), ours)
    encrypted = blob.encrypted
    plaintext = content.open(encrypted.iv, encrypted.ciphertext, encrypted.aad(blob.header))
    try:
        record = KeyRecord.decode(plaintext)
    finally:
        wipe(plaintext)
    by_reference = record.transfer is Transfer.REFERENCE
    if record.algorithm != blob.clear.key_type or by_reference != blob.clear.by_reference:
        raise BlobError("clear and encrypted part speak of different keys", nte=NTE.BAD_ALGID, hint=_HINT)
    return record


def _recipient_for(blob: Blob, opener: Opener) -> CoseRecipient:
    for recipient in blob.encrypted.recipients:
        if opener.matches(recipient):
            return recipient
    names = ", ".join(recipient.kid.hex() for recipient in blob.encrypted.recipients)
    raise KekError(
        f"the blob is sealed for another key: {names}",
        hint="open it with that key; `hsmbridge key show` prints fingerprints",
    )


def sign_blob(blob: Blob, identity: Identity) -> Blob:
    """Put the sender's signature around a blob.

    Args:
        blob: unsigned, with the identity's fingerprint as its sender.
        identity: who signs.
    """
    unsigned = CoseSign1(
        protected=cbor.encode({int(Header.ALG): int(identity.algorithm)}),
        kid=identity.fingerprint,
        payload=blob.encrypted.encode(),
        signature=b"",
    )
    return replace(blob, signed=replace(unsigned, signature=identity.sign(unsigned.to_be_signed(blob.header))))


def verify_blob(blob: Blob, sender: Callable[[bytes], VerifyingKey]) -> None:
    """Verify the sender's signature over the whole blob, before anything of it is used.

    Args:
        blob: parsed.
        sender: returns the public key of a believed sender by fingerprint, or raises.

    Raises:
        UnknownSenderError: unsigned, or signed by somebody unknown.
        BlobError: NTE_BAD_SIGNATURE.
    """
    signed = blob.signed
    if signed is None:
        raise UnknownSenderError(
            "the blob is not signed: anybody who may use the KEK can have made it",
            hint="have the sender sign it; --allow-unsigned takes a copy all the same",
        )
    if signed.kid != blob.clear.sender:
        raise BlobError("the blob names one sender and is signed by another", nte=NTE.BAD_SIGNATURE, hint=_HINT)
    verify(sender(signed.kid), signed.algorithm, signed.to_be_signed(blob.header), signed.signature)
