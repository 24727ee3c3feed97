"""Between keys and key records: what a key says of itself at export, and how it is made again at import.

Source: docs/blob-format.md; design rule: the template comes only from the authenticated record and is read back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hsmbridge.attributes import AttributeQuery
from hsmbridge.capture import Capture, capture, request_for
from hsmbridge.codes import CKA, CKK, CKO, name_of
from hsmbridge.dialects import dialect_named
from hsmbridge.errors import KekError, MechanismError
from hsmbridge.publickeys import public_key_of
from hsmbridge.unwrapping import Unwrapper
from hsmbridge.wrapping import Wrapper
from hsmbridge_csp.errors import NTE, BlobError, KeyStateError
from hsmbridge_csp.keys import Key, SoftwareKey
from hsmbridge_csp.kinds import software_key, token_state
from hsmbridge_csp.permissions import Permission
from hsmbridge_csp.record import KeyRecord, Transfer
from hsmbridge_csp.reference import find_referenced, make_reference
from hsmbridge_csp.token_key import TokenKey, token_algorithm
from hsmbridge_csp.wipe import wipe

if TYPE_CHECKING:
    from hsmbridge.objects import Object
    from hsmbridge.token import Token
    from hsmbridge_csp.recipients import Opener, Sealer
__all__ = ["bits_of", "key_from", "record_of"]

_UNWRAP_TEMPLATE = AttributeQuery((CKA.UNWRAP_TEMPLATE,))


def record_of(key: Key, sealer: Sealer | None, *, by_reference: bool) -> KeyRecord:
    """Describe a key completely.

    Args:
        key: the key, in whatever state.
        sealer: the recipient, who wraps a token key that goes by value; None where a channel seals.
        by_reference: leave the key in its token.

    Raises:
        KeyStateError: it can go neither this way nor the other.
        NotExtractableError, KekError, MechanismError, LengthChangeError: as for a wrap.
    """
    state = key.state_map()
    if isinstance(key, SoftwareKey):
        if by_reference:
            raise KeyStateError("a software key has nothing to refer to", hint="export it by value")
        return KeyRecord(
            algorithm=key.algorithm,
            transfer=Transfer.VALUE,
            permissions=int(key.permissions),
            key=key.value,
            state=state,
        )
    if not isinstance(key, TokenKey):
        raise KeyStateError("this kind of key cannot be exported", hint="use a key of this provider")
    captured = capture(key.object)
    if by_reference:
        return KeyRecord(
            algorithm=key.algorithm,
            transfer=Transfer.REFERENCE,
            permissions=int(key.permissions),
            captured=captured,
            state=state,
            reference=make_reference(key.object),
        )
    wrapping_key = sealer.wrapping_key if sealer is not None else None
    if sealer is None or wrapping_key is None or wrapping_key.token is not key.object.token:
        raise MechanismError(
            "a token key goes by value only under a key of its own token: its bytes never exist outside tokens",
            hint="seal for a KEK or an RSA public key in that token (--kek), or leave the key there (--by-reference)",
        )
    check_unwrap_template(wrapping_key, captured)
    wrapped = Wrapper(wrapping_key, allow_unsafe_kek=sealer.allow_unsafe).wrap(key.object)
    return KeyRecord(
        algorithm=key.algorithm,
        transfer=Transfer.WRAPPED,
        permissions=int(key.permissions),
        key=wrapped.data,
        dialect=wrapped.route.dialect.value,
        captured=captured,
        state=state,
        ec_point=_ec_point(key.object) if captured.key_type == CKK.EC else b"",
    )


def key_from(record: KeyRecord, token: Token | None, opener: Opener | None, *, persist: bool) -> Key:
    """Make the key again.

    Args:
        record: from an authentic blob.
        token: where a token key arrives or is found.
        opener: the recipient's key, which unwraps a token key that came by value; None where there is none.
        persist: make a token object of a key that came by value.

    Raises:
        BlobError: the record does not fit together.
        NotFoundError: a referenced key is not there.
        UnwrapError, ReadBackError, KekError, ExistsError: as for an unwrap.
    """
    permissions = Permission(record.permissions)
    if record.transfer is Transfer.VALUE:
        value = bytearray(record.key)
        wipe(record.key)
        return software_key(record.algorithm, value, record.state, permissions)
    state = token_state(record)
    if token is None or record.captured is None:
        raise MechanismError("the blob holds a token key", hint="open a token to import it: --module and --token-label")
    if record.algorithm != token_algorithm(record.captured.cls, record.captured.key_type):
        raise BlobError(  # before anything is unwrapped: afterwards an object would be left behind
            "algorithm and key type inside the blob do not belong together",
            nte=NTE.BAD_DATA,
            hint="have the sender export the key again",
        )
    if record.transfer is Transfer.REFERENCE:
        return TokenKey(find_referenced(token, record.reference), state, permissions)
    if opener is None or opener.unwrapping_key is None:
        raise MechanismError("the blob holds a token key under a KEK", hint="open it with the KEK in the token (--kek)")
    request = request_for(record.captured, on_token=persist, ec_point=record.ec_point)
    dialect = dialect_named(record.dialect)
    unwrapper = Unwrapper(opener.unwrapping_key, dialect, allow_unsafe_kek=opener.allow_unsafe)
    return TokenKey(unwrapper.unwrap(bytes(record.key), request).key, state, permissions)


def bits_of(key: Key, record: KeyRecord) -> int:
    """Return the key's size in bits for the clear part; 0 where nobody tells."""
    if record.transfer is Transfer.VALUE:
        return key.bits
    return 8 * (record.captured.size or 0) if record.captured and record.captured.cls == CKO.SECRET_KEY else 0


def check_unwrap_template(kek: Object, captured: Capture) -> None:
    """Refuse at export what the KEK would make of the key at import: it would not be in the same state.

    Raises:
        KekError: CKA_UNWRAP_TEMPLATE demands something else than the key has.
    """
    template = kek.read(_UNWRAP_TEMPLATE).get(CKA.UNWRAP_TEMPLATE)
    for kind, wanted in (template if isinstance(template, dict) else {}).items():
        if captured.settable.get(kind, wanted) != wanted:
            raise KekError(
                f"the KEK's CKA_UNWRAP_TEMPLATE would change {name_of(CKA, kind)} of the key",
                hint="use a KEK without it (`key generate --kek --no-unwrap-template`), or a key that is as it demands",
            )


def _ec_point(key: Object) -> bytes:
    public = public_key_of(key)
    if not isinstance(public, ec.EllipticCurvePublicKey):
        return b""
    return public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
