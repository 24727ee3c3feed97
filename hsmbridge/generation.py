"""Key generation in the token, and the safe KEK.

Source: PKCS#11 v3.1 sections 5.14.1 (C_GenerateKey) and 5.14.2 (C_GenerateKeyPair); docs/wrapping.md.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING

from hsmbridge.codes import CKA, CKK, CKM, CKO
from hsmbridge.destruction import Ours
from hsmbridge.dialects import Dialect
from hsmbridge.entry import key_entry
from hsmbridge.errors import HsmbridgeError, MechanismError, Pkcs11Error
from hsmbridge.mechanism import Mechanism
from hsmbridge.objects import refuse_taken_id
from hsmbridge.probe import probe
from hsmbridge.publickeys import public_key_of, spki_fingerprint
from hsmbridge.template import PackedTemplate, Template, Value

if TYPE_CHECKING:
    from hsmbridge.keyspec import KeySpec
    from hsmbridge.objects import Object
    from hsmbridge.token import Token

__all__ = ["enforces_unwrap_template", "generate_kek", "generate_key", "kek_fingerprint"]

UNWRAP_TEMPLATE: Template = {CKA.SENSITIVE: True, CKA.EXTRACTABLE: False}
"""What a safe KEK demands of every key that it unwraps: nobody who may log in can read it."""

_FINGERPRINT_VALUE = b"hsmbridge KEK id"
"""The fixed 16 bytes whose RFC 3394 wrap is hashed.

16, since a wrap of 32 known bytes could be passed off as a content key.
"""

_FINGERPRINT_SIZE = 16
_RANDOM_ID = 16
_F4 = b"\x01\x00\x01"
_SHARED: tuple[int, ...] = (CKA.TOKEN, CKA.ID, CKA.LABEL)
"""What the public half of a pair has from the private half."""


def generate_key(token: Token, spec: KeySpec, template: Template, public_template: Template | None = None) -> Object:
    """Generate a key in the token.

    Args:
        token: where.
        spec: type and size.
        template: attributes of the secret or private key. Without CKA_ID a random one is written; CKA_TOKEN defaults
            to false, CKA_SENSITIVE to true and CKA_EXTRACTABLE to false, whatever the module's own defaults are.
        public_template: attributes of the public key where there is one; its CKA_TOKEN, CKA_ID and CKA_LABEL follow.

    Returns: the secret or private key.

    Raises:
        ExistsError: a token key with that CKA_ID is there already.
        Pkcs11Error: the token refuses.
    """
    wanted: dict[int, Value] = {
        CKA.TOKEN: False,
        CKA.PRIVATE: True,
        CKA.SENSITIVE: True,
        CKA.EXTRACTABLE: False,
        CKA.ID: secrets.token_bytes(_RANDOM_ID),
        **template,
    }
    key_id = wanted[CKA.ID]
    if wanted[CKA.TOKEN] is True and isinstance(key_id, bytes):
        refuse_taken_id(token, spec.cls, key_id)
    with token.sessions as session:
        if not spec.is_pair:
            if spec.has_length:
                wanted[CKA.VALUE_LEN] = spec.bits // 8
            packed = PackedTemplate({**wanted, CKA.CLASS: CKO.SECRET_KEY, CKA.KEY_TYPE: spec.key_type})
            handle = token.calls.generate_key(session, Mechanism(spec.generation), packed)
            return token.adopt(handle)
        follow: Template = {kind: wanted[kind] for kind in _SHARED if kind in wanted}
        numbers: Template = (
            {CKA.MODULUS_BITS: spec.bits, CKA.PUBLIC_EXPONENT: _F4}
            if spec.key_type == CKK.RSA
            else {CKA.EC_PARAMS: spec.ec_params}
        )
        public = PackedTemplate({**follow, **numbers, **(public_template or {})})
        handles = token.calls.generate_key_pair(session, Mechanism(spec.generation), public, PackedTemplate(wanted))
        return token.adopt(handles[1])


def generate_kek(
    token: Token, spec: KeySpec, *, label: str, persist: bool = True, unwrap_template: bool = True
) -> Object:
    """Generate a KEK that can wrap and unwrap, and nothing else.

    Args:
        token: where.
        spec: AES, or RSA for a pair of which the public half wraps and the private half unwraps.
        label: CKA_LABEL.
        persist: make token objects.
        unwrap_template: where the token enforces CKA_UNWRAP_TEMPLATE, let the KEK make every key that it unwraps
            sensitive and not extractable. Without it whoever may log in can unwrap a key as readable.

    Returns: the AES key, or the RSA private key. Its CKA_ID is the KEK's fingerprint, where one can be computed.

    Raises:
        MechanismError: the type cannot be a KEK.
        Pkcs11Error: the token refuses.
    """
    if spec.key_type not in (CKK.AES, CKK.RSA):
        raise MechanismError(f"{spec} cannot be a KEK", hint="use aes:256, or rsa:3072 or larger")
    pair = spec.is_pair
    never = (
        (CKA.DECRYPT, CKA.SIGN, CKA.DERIVE) if pair else (CKA.ENCRYPT, CKA.DECRYPT, CKA.SIGN, CKA.VERIFY, CKA.DERIVE)
    )
    template: dict[int, Value] = {CKA.TOKEN: persist, CKA.LABEL: label, CKA.UNWRAP: True, **dict.fromkeys(never, False)}
    if not pair:
        template[CKA.WRAP] = True
    if unwrap_template and enforces_unwrap_template(token):
        template[CKA.UNWRAP_TEMPLATE] = UNWRAP_TEMPLATE
    public: Template = {CKA.WRAP: True, CKA.ENCRYPT: False, CKA.VERIFY: False}
    kek = generate_key(token, spec, template, public)
    name_by_fingerprint(kek)
    return kek


def name_by_fingerprint(kek: Object) -> None:
    """Store a KEK's fingerprint as its CKA_ID, and as that of its public half.

    Where it cannot be computed the random id stays.
    """
    try:
        fingerprint = kek_fingerprint(kek)
    except HsmbridgeError:
        return
    halves = (
        kek.token.find({CKA.CLASS: CKO.PUBLIC_KEY, CKA.ID: kek.identity.id})
        if kek.identity.cls == CKO.PRIVATE_KEY
        else []
    )
    for half in (kek, *halves):
        half.set({CKA.ID: fingerprint})


def kek_fingerprint(kek: Object) -> bytes:
    """Return the fingerprint that names a KEK in a blob (its kid).

    RSA: SHA-256 of the public key's SubjectPublicKeyInfo, 32 bytes. AES: the first 16 bytes of SHA-256 over the RFC
    3394 wrap of a fixed 16-byte value; that wrap never leaves this function.

    Raises:
        MechanismError: the token has no RFC 3394, or gives no public key.
        Pkcs11Error: the KEK may not wrap: then its CKA_ID is what names it.
    """
    if kek.identity.cls != CKO.SECRET_KEY:
        public = public_key_of(kek)
        if public is None:
            raise MechanismError(
                f"{kek.identity} has no public key beside it", hint="the public half must be in the token"
            )
        return spki_fingerprint(public)
    token = kek.token
    route = probe(token).route(Dialect.AES_KW)
    with Ours(token) as ours:
        use: Template = {CKA.SENSITIVE: True, CKA.EXTRACTABLE: True, CKA.ENCRYPT: False, CKA.DECRYPT: False}
        value = key_entry(token).enter(ours, CKK.AES, _FINGERPRINT_VALUE, use)
        with token.sessions as session:
            wrapped = token.calls.wrap_key(session, route.mechanism, kek.handle, value.handle)
    return hashlib.sha256(wrapped).digest()[:_FINGERPRINT_SIZE]


def enforces_unwrap_template(token: Token) -> bool:
    """Try with session keys whether the token enforces CKA_UNWRAP_TEMPLATE (NSS stores it and ignores it)."""
    try:
        route = probe(token).route(Dialect.AES_KW)
        with Ours(token) as ours, token.sessions as session:
            kek_use: Template = {
                CKA.CLASS: CKO.SECRET_KEY, CKA.KEY_TYPE: CKK.AES, CKA.TOKEN: False, CKA.VALUE_LEN: 32, CKA.SENSITIVE:
                True, CKA.EXTRACTABLE: False, CKA.WRAP: True, CKA.UNWRAP: True, CKA.UNWRAP_TEMPLATE: UNWRAP_TEMPLATE,
            }  # fmt: skip
            generate = Mechanism(CKM.AES_KEY_GEN)
            kek = ours.adopt(token.calls.generate_key(session, generate, PackedTemplate(kek_use)))
            key_use: Template = {**UNWRAP_TEMPLATE, CKA.EXTRACTABLE: True, CKA.TOKEN: False, CKA.VALUE_LEN: 32}
            key = ours.adopt(token.calls.generate_key(session, generate, PackedTemplate(key_use)))
            wrapped = token.calls.wrap_key(session, route.mechanism, kek.handle, key.handle)
            wish = PackedTemplate(
                {
                    CKA.CLASS: CKO.SECRET_KEY, CKA.KEY_TYPE: CKK.AES, CKA.TOKEN: False,
                    CKA.SENSITIVE: True, CKA.EXTRACTABLE: True,
                }
            )  # fmt: skip
            try:
                ours.adopt(token.calls.unwrap_key(session, route.mechanism, kek.handle, wrapped, wish))
            except Pkcs11Error:
                return True
            return False
    except HsmbridgeError:
        return False
