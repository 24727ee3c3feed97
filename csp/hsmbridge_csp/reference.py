"""Keys by reference: the key stays in its token, the blob says how to find it and how to know that it is that key.

CryptoAPI's own rule for a provider that cannot export: the blob "might only contain the index of a key register". A
label or an index can be given to another key meanwhile, so the record holds the answer to a random challenge, and
import asks again.

Source: RFC 7512 (where); PKCS#11 v3.1 section 4.4 (CKA_UNIQUE_ID); docs/blob-format.md.
"""

from __future__ import annotations

import hmac
import secrets
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from hsmbridge.attributes import AttributeQuery
from hsmbridge.codes import CKA, CKK, CKM, CKO
from hsmbridge.errors import HsmbridgeError, NotFoundError, Pkcs11Error
from hsmbridge.generation import kek_fingerprint
from hsmbridge.mechanism import Mechanism
from hsmbridge.publickeys import public_key_of, spki_fingerprint
from hsmbridge_csp.errors import NTE, BlobError, KeyStateError
from hsmbridge_csp.proofs import check_signature

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsmbridge.attributes import Attributes
    from hsmbridge.objects import Object
    from hsmbridge.template import Template
    from hsmbridge.token import Token

__all__ = ["find_referenced", "make_reference"]

_CHALLENGE = 32
_QUERY = AttributeQuery(
    (
        CKA.CLASS, CKA.KEY_TYPE, CKA.TOKEN, CKA.ID, CKA.LABEL, CKA.ENCRYPT, CKA.DECRYPT, CKA.SIGN, CKA.WRAP, CKA.UNWRAP,
        CKA.UNIQUE_ID,
    )
)  # fmt: skip


class Label(IntEnum):
    """Labels of a reference's map."""

    TOKEN_LABEL = 1
    TOKEN_SERIAL = 2
    MANUFACTURER = 3
    MODEL = 4
    CLASS = 5
    KEY_TYPE = 6
    ID = 7
    NAME = 8
    UNIQUE_ID = 9
    PROOF = 10
    CHALLENGE = 11
    ANSWER = 12


class Proof(IntEnum):
    """How the key is recognised."""

    ENCRYPTION = 1
    DECRYPTION = 2
    MAC = 3
    FINGERPRINT = 4
    SIGNATURE = 5
    PUBLIC_KEY = 6


_ECB = {CKK.AES: CKM.AES_ECB, CKK.DES3: CKM.DES3_ECB}
_MAC = {CKK.AES: CKM.AES_CMAC, CKK.GENERIC_SECRET: CKM.SHA256_HMAC, CKK.SHA256_HMAC: CKM.SHA256_HMAC}


def make_reference(key: Object) -> dict[int, Any]:
    """Describe a token object so that another process finds it and can tell it from any other.

    Raises:
        KeyStateError: a session object, which no other process can see; or a key whose usage allows no proof.
    """
    found = key.read(_QUERY)
    if found.flag(CKA.TOKEN) is not True:
        raise KeyStateError(
            f"{key.identity} is a session object: no other process can see it",
            hint="a non-extractable session key can go neither by value nor by reference; make it a token object",
        )
    proof, challenge, answer = _prove(key, found)
    token = key.token
    fields: dict[int, Any] = {
        Label.TOKEN_LABEL: token.label,
        Label.TOKEN_SERIAL: token.serial,
        Label.MANUFACTURER: token.manufacturer,
        Label.MODEL: token.model,
        Label.CLASS: found.number(CKA.CLASS),
        Label.KEY_TYPE: found.number(CKA.KEY_TYPE),
        Label.ID: found.data(CKA.ID),
        Label.NAME: found.text(CKA.LABEL).encode("utf-8", "surrogateescape"),
        Label.UNIQUE_ID: found.text(CKA.UNIQUE_ID),
        Label.PROOF: int(proof),
        Label.CHALLENGE: challenge,
        Label.ANSWER: answer,
    }
    return {int(label): value for label, value in fields.items()}


def find_referenced(token: Token, reference: Mapping[int, Any]) -> Object:
    """Find the one object that a reference means.

    Raises:
        BlobError: the reference is malformed.
        NotFoundError: another token, or no object that passes the proof.
    """
    try:
        wanted: Template = {
            CKA.CLASS: _number(reference, Label.CLASS),
            CKA.KEY_TYPE: _number(reference, Label.KEY_TYPE),
            CKA.ID: _bytes(reference, Label.ID),
            CKA.LABEL: _bytes(reference, Label.NAME),
            CKA.TOKEN: True,
        }
        serial, proof = _bytes(reference, Label.TOKEN_SERIAL), Proof(_number(reference, Label.PROOF))
        challenge, answer = _bytes(reference, Label.CHALLENGE), _bytes(reference, Label.ANSWER)
    except (KeyError, TypeError, ValueError):
        raise BlobError(
            "the reference inside the blob is malformed", nte=NTE.BAD_DATA, hint="have the sender export the key again"
        ) from None
    if serial != token.serial:
        raise NotFoundError(
            f"the key stayed in token {reference.get(Label.TOKEN_LABEL)!r}, this is {token.label!r}",
            hint="open the token that the key lives in",
        )
    matching = [key for key in token.find(wanted) if _is_that_key(key, proof, challenge, answer)]
    if len(matching) != 1:
        raise NotFoundError(
            f"{len(matching) or 'no'} object of token {token.label!r} is the key that the blob means",
            hint="it was removed or replaced since the export; private keys show only after login",
        )
    return matching[0]


def _prove(key: Object, found: Attributes) -> tuple[Proof, bytes, bytes]:
    """Choose the proof that the key's usage allows, and answer a fresh challenge."""
    challenge = secrets.token_bytes(_CHALLENGE)
    if found.number(CKA.CLASS) == CKO.PRIVATE_KEY:
        public = public_key_of(key)
        if public is None:
            raise KeyStateError(
                f"{key.identity} has no public key beside it, so it cannot be recognised",
                hint="put the public half, with the same CKA_ID, into the token",
            )
        return (Proof.SIGNATURE if found.flag(CKA.SIGN) else Proof.PUBLIC_KEY), b"", spki_fingerprint(public)
    for proof in _possible(found):
        try:
            return proof, challenge, _answer(key, proof, challenge)
        except Pkcs11Error:
            continue
    raise KeyStateError(
        f"{key.identity} can do nothing by which it could be recognised",
        hint="its usage must allow one of ENCRYPT, DECRYPT, SIGN, WRAP",
    )


def _possible(found: Attributes) -> list[Proof]:
    key_type = found.number(CKA.KEY_TYPE)
    possible = []
    if found.flag(CKA.SIGN) and key_type in _MAC:
        possible.append(Proof.MAC)
    if key_type in _ECB:
        if found.flag(CKA.ENCRYPT):
            possible.append(Proof.ENCRYPTION)
        if found.flag(CKA.DECRYPT):
            possible.append(Proof.DECRYPTION)
    if found.flag(CKA.WRAP):
        possible.append(Proof.FINGERPRINT)
    return possible


def _answer(key: Object, proof: Proof, challenge: bytes) -> bytes:
    if proof is Proof.FINGERPRINT:
        return kek_fingerprint(key)
    key_type = CKK(key.identity.key_type or 0)
    calls = key.token.calls
    with key.token.sessions as session:
        if proof is Proof.MAC:
            return calls.sign(session, Mechanism(_MAC[key_type]), key.handle, challenge)
        operation = calls.encrypt if proof is Proof.ENCRYPTION else calls.decrypt
        return operation(session, Mechanism(_ECB[key_type]), key.handle, challenge)


def _is_that_key(key: Object, proof: Proof, challenge: bytes, answer: bytes) -> bool:
    try:
        if proof in (Proof.SIGNATURE, Proof.PUBLIC_KEY):
            return check_signature(key, answer, sign=proof is Proof.SIGNATURE)
        return hmac.compare_digest(_answer(key, proof, challenge), answer)
    except (HsmbridgeError, KeyError, ValueError):
        return False  # a key that cannot answer is not the one that answered


def _number(reference: Mapping[int, Any], label: Label) -> int:
    value = reference[label]
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(label.name)
    return value


def _bytes(reference: Mapping[int, Any], label: Label) -> bytes:
    value = reference[label]
    if not isinstance(value, bytes):
        raise TypeError(label.name)
    return value
