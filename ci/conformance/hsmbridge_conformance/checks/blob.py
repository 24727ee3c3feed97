"""Blob: an OPAQUEKEYBLOB that was changed, is from another version, or tells more than it should."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from hsmbridge_csp import cbor
from hsmbridge_csp.blob import Blob
from hsmbridge_csp.clearpart import Label
from hsmbridge_csp.cose import Algorithm, Header
from hsmbridge_csp.errors import NTE, BlobError
from hsmbridge_csp.provider import Provider
from hsmbridge_csp.sealing import open_blob

from hsmbridge.codes import CKA
from hsmbridge.destruction import Ours
from hsmbridge.errors import InputError, PolicyError
from hsmbridge_conformance.catalogue import check
from hsmbridge_conformance.forging import reassembled, sealed_by_hand, signed_by_stranger, with_clear
from hsmbridge_conformance.handing import must_refuse, must_work, provider, recipient, without_call
from hsmbridge_conformance.keymaking import usage
from hsmbridge_conformance.verdict import Failed, Level, Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hsmbridge_csp.keys import Key

    from hsmbridge_conformance.handing import Recipient
    from hsmbridge_conformance.rig import Rig

__all__: list[str] = []

_REFUSALS = (InputError, PolicyError)


def _clear(**changes: object) -> Callable[[Blob, Blob], Blob]:
    return lambda blob, _: with_clear(blob, replace(blob.clear, **changes))  # type: ignore[arg-type]  # names and types are a ClearPart's


def _flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1 << position % 8]) + data[position + 1 :]


_CHANGES: dict[str, Callable[[Blob, Blob], Blob]] = {
    "key-type": _clear(key_type="3DES"),
    "length": _clear(bits=128),
    "by-reference": _clear(by_reference=True),
    "blob-id": _clear(blob_id=bytes(16)),
    "time": _clear(created=0),
    "kek-identity": _clear(recipient=bytes(16)),
    "record-of-another-blob": lambda blob, other: replace(
        blob, encrypted=replace(blob.encrypted, iv=other.encrypted.iv, ciphertext=other.encrypted.ciphertext)
    ),
    "content-key-of-another-blob": lambda blob, other: replace(
        blob, encrypted=replace(blob.encrypted, recipients=other.encrypted.recipients)
    ),
    **{
        f"{name}-bit-of-the-record": lambda blob, _, at=at: replace(  # type: ignore[misc]  # a default binds the value
            blob,
            encrypted=replace(
                blob.encrypted,
                ciphertext=_flipped(blob.encrypted.ciphertext, int(at * (len(blob.encrypted.ciphertext) - 1))),
            ),
        )
        for name, at in (("first", 0.0), ("middle", 0.5), ("last", 1.0))
    },
}
"""What an attacker changes; each takes a blob and another one for the same recipient. Attributes, state, mechanism and
the wrapped key are inside the record."""


def _changes(rig: Rig) -> Iterable[str]:
    del rig
    return _CHANGES


def _blobs(rig: Rig, to: Recipient, sender: Provider) -> list[Blob]:
    """Export two session keys of the token for one recipient."""
    keys = [sender.adopt(rig.make("aes:256", usage(CKA.ENCRYPT, CKA.DECRYPT))) for _ in range(2)]
    with must_work("the export failed"):
        return [Blob.parse(sender.export_key(key, to.sealer)) for key in keys]


def _import(rig: Rig, receiver: Provider, to: Recipient, data: bytes, *, allow_unsigned: bool = False) -> Key:
    key = receiver.import_key(data, to.opener, allow_unsigned=allow_unsigned)
    made = getattr(key, "object", None)
    if made is not None:
        rig.ours.take(made)
    return key


@check("HSB-BLOB-001", subject=Subject.TOOLKIT, level=Level.MUST, clauses="HSB", cases=_changes)
def every_field_is_authentic(rig: Rig, change: str) -> None:
    """A key's type, length, attributes, mechanism, state and KEK identity cannot be changed on the way.

    One field of a blob is changed, or replaced by that of another blob for the same KEK, and everything around it is
    made to fit. The result is offered under the old signature, under a good signature of a stranger, and, for a blob
    that never had one, to a receiver that was told to take unsigned blobs: there the encryption alone must notice.
    """
    to, sender = recipient(rig), provider(rig)
    blob, other = _blobs(rig, to, sender)
    bare, other_bare = _blobs(rig, to, Provider(rig.token))
    with must_work("the import of an unchanged blob failed"):
        _import(rig, sender, to, blob.encode())
        _import(rig, sender, to, bare.encode(), allow_unsigned=True)
    changed, changed_bare = _CHANGES[change](blob, other), _CHANGES[change](bare, other_bare)
    for what, data, unsigned in (
        ("under the old signature", reassembled(changed), False),
        ("signed by a stranger", signed_by_stranger(changed), False),
        ("without a signature", reassembled(changed_bare), True),
    ):
        attempt = partial(_import, rig, sender, to, data, allow_unsigned=unsigned)
        must_refuse(f"a blob with a changed {change} was imported, {what}", _REFUSALS, attempt)


@check("HSB-BLOB-002", subject=Subject.TOOLKIT, level=Level.MUST, clauses="HSB")
def every_bit_before_unwrap(rig: Rig, case: None) -> str:
    """A blob with any bit changed is refused before the module is asked to unwrap anything.

    In a signed blob one bit of every byte is flipped in turn, one byte is cut off and one is added. Each import must
    be refused without a call of C_UnwrapKey: what is not authentic never reaches it.
    """
    del case
    to, sender = recipient(rig), provider(rig)
    data = _blobs(rig, to, sender)[0].encode()
    with must_work("the import of an unchanged blob failed"):
        _import(rig, sender, to, data)
    damaged = [*(_flipped(data, position) for position in range(len(data))), data[:-1], data + b"\0"]
    with without_call(rig, "C_UnwrapKey"):
        for one in damaged:
            must_refuse("a damaged blob was imported", _REFUSALS, partial(_import, rig, sender, to, one))
    return f"{len(damaged)} damaged blobs"


def _versions(rig: Rig) -> Iterable[str]:
    del rig
    return _VERSIONS


_VERSIONS: dict[str, tuple[int, dict[int, object], NTE]] = {
    "older-blobheader": (1, {}, NTE.BAD_VER),
    "newer-blobheader": (3, {}, NTE.BAD_VER),
    "older-format": (2, {Label.VERSION: 0}, NTE.BAD_VER),
    "newer-format": (2, {Label.VERSION: 2}, NTE.BAD_VER),
    "unknown-critical-label": (2, {Header.CRIT: [*(-65537 - n for n in range(10))], -65546: True}, NTE.BAD_VER),
    "other-content-algorithm": (2, {Header.ALG: int(Algorithm.A256GCM) - 1}, NTE.BAD_ALGID),
}
"""bVersion of the BLOBHEADER, what is different in the protected header, and the refusal's code."""


@check("HSB-BLOB-003", subject=Subject.TOOLKIT, level=Level.MUST, clauses="HSB", cases=_versions)
def other_versions(rig: Rig, version: str) -> None:
    """A blob of another version is refused, though it is sealed and signed by a sender who is believed.

    The blob says an older or a newer version, or names something as critical that this version does not know; all else
    about it is right. Guessing what it means, or falling back to what an older version did not protect, is an attack's
    first step.
    """
    number, differences, code = _VERSIONS[version]
    to, sender = recipient(rig), provider(rig)
    blob = _blobs(rig, to, sender)[0]
    with must_work("the blob could not be opened"), Ours(rig.token) as ours:
        record = open_blob(blob, to.opener, ours).encode()
    fields = {**cbor.decode(blob.encrypted.protected), **{int(label): value for label, value in differences.items()}}
    same = (blob.header, blob.encrypted.protected)
    with must_work("a blob that was sealed by hand, and is right, was not imported"):
        _import(rig, sender, to, sealed_by_hand(rig, to, blob, record, changed=same))
    changed = (bytes([blob.header[0], number]) + blob.header[2:], cbor.encode(fields))
    data = sealed_by_hand(rig, to, blob, record, changed=changed)
    with without_call(rig, "C_UnwrapKey"):
        error = must_refuse(f"{version}: the blob was imported", BlobError, partial(_import, rig, sender, to, data))
    if getattr(error, "nte", None) != code:
        raise Failed(f"refused, but not as {code.name}: {error}")
