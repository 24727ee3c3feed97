"""Blobs that no honest sender makes: changed ones, and ones from a future or a past that the receiver does not know.

Source: docs/blob-format.md; RFC 9052 sections 4.4 and 5.3 (what a signature and an AEAD cover).
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

from hsmbridge_csp.blob import Blob, header_for
from hsmbridge_csp.cose import IV_SIZE, CoseEncrypt, CoseSign1, enc_structure
from hsmbridge_csp.identity import FileIdentity
from hsmbridge_csp.sealing import sign_blob

from hsmbridge.destruction import Ours
from hsmbridge_conformance.importing import run_identity

if TYPE_CHECKING:
    from hsmbridge_csp.clearpart import ClearPart

    from hsmbridge_conformance.handing import Recipient
    from hsmbridge_conformance.rig import Rig

__all__ = ["reassembled", "sealed_by_hand", "signed_by_stranger", "with_clear"]


def with_clear(blob: Blob, clear: ClearPart) -> Blob:
    """Give a blob another clear part, and the BLOBHEADER and the recipient's name that belong to it."""
    recipients = tuple(
        replace(one, unprotected={**one.unprotected, _KID: clear.recipient}) for one in blob.encrypted.recipients
    )
    encrypted = replace(blob.encrypted, protected=clear.encode(), recipients=recipients)
    return replace(blob, header=header_for(clear), clear=clear, encrypted=encrypted)


_KID = 4
"""RFC 9052 table 3."""


def reassembled(blob: Blob) -> bytes:
    """Encode a changed blob under the signature that it had before, if it had one."""
    if blob.signed is None:
        return blob.encode()
    signed: CoseSign1 = replace(blob.signed, payload=blob.encrypted.encode())
    return replace(blob, signed=signed).encode()


def signed_by_stranger(blob: Blob) -> bytes:
    """Encode a changed blob with a good signature of somebody whom the receiver does not know."""
    stranger = FileIdentity.generate()
    changed = with_clear(blob, replace(blob.clear, sender=stranger.fingerprint))
    return sign_blob(replace(changed, signed=None), stranger).encode()


def sealed_by_hand(rig: Rig, to: Recipient, blob: Blob, record: bytes, *, changed: tuple[bytes, bytes]) -> bytes:
    """Seal and sign a key record as a sender does that the receiver believes, whatever it says.

    Args:
        rig: the worker's means.
        to: for whom.
        blob: where its other fields come from.
        record: what is encrypted.
        changed: BLOBHEADER and protected header as they shall be.
    """
    header, protected = changed
    iv = secrets.token_bytes(IV_SIZE)
    with Ours(rig.token) as ours:
        content, recipient = to.sealer.seal(ours)
        ciphertext = content.seal(iv, record, enc_structure(protected, header))
    encrypted = CoseEncrypt(protected=protected, iv=iv, ciphertext=ciphertext, recipients=(recipient,))
    return sign_blob(replace(blob, header=header, encrypted=encrypted, signed=None), run_identity()).encode()
