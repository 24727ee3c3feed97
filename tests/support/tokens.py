"""Known keys in a token, and what a token is asked before a test runs on it."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from hsmbridge.codes import CKA, CKK, CKM, CKO, name_of
from hsmbridge.destruction import Ours
from hsmbridge.entry import key_entry
from hsmbridge.errors import HsmbridgeError
from hsmbridge.mechanism import Mechanism
from hsmbridge.probe import probe
from hsmbridge.template import PackedTemplate
from hsmbridge.unwrapping import KeyRequest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    from hsmbridge.dialects import Dialect
    from hsmbridge.objects import Object
    from hsmbridge.probe import Route
    from hsmbridge.template import Template, Value
    from hsmbridge.token import Token

__all__ = [
    "RAW_USAGE",
    "des3_value",
    "enter",
    "enter_kek",
    "inventory",
    "make",
    "raw_wrap",
    "request_for",
    "requires",
    "requires_entry",
    "requires_readable",
    "rsa_public_object",
    "usage",
]

RAW_USAGE = (CKA.ENCRYPT, CKA.DECRYPT, CKA.SIGN, CKA.VERIFY, CKA.WRAP, CKA.UNWRAP, CKA.DERIVE)
"""Every usage flag of a secret key; named one by one, since modules' defaults differ."""


def requires(token: Token, *needed: Dialect | CKM) -> None:
    """Skip the test on a token that lacks one of these: a dialect is probed, a mechanism must be listed."""
    for one in needed:
        if isinstance(one, CKM):
            if one not in token.mechanisms():
                pytest.skip(f"the token does not list {name_of(CKM, one)}")
        elif not probe(token).has(one):
            pytest.skip(f"the token has no working {one}")


def requires_entry(token: Token) -> None:
    """Skip the test on a token that takes no secret key of known bytes as a session object."""
    try:
        with Ours(token) as ours:
            enter(ours, token, CKK.AES, secrets.token_bytes(32))
    except HsmbridgeError as error:
        pytest.skip(f"no session keys of known bytes: {error}")


def requires_readable(token: Token) -> None:
    """Skip the test on a token that makes no readable secret keys, as FIPS 140 forbids it to."""
    requires_entry(token)
    if key_entry(token).creates is False:
        pytest.skip("the token makes no readable secret keys")


def usage(*allowed: CKA) -> dict[int, Value]:
    """Return all usage flags, true for *allowed* only."""
    return {kind: kind in allowed for kind in RAW_USAGE}


def enter(ours: Ours, token: Token, key_type: CKK, value: bytes, template: Template | None = None) -> Object:
    """Put a sensitive, extractable session key of known bytes into the token; *template* overrides."""
    wanted: dict[int, Value] = {
        CKA.SENSITIVE: True,
        CKA.EXTRACTABLE: True,
        CKA.ID: secrets.token_bytes(16),
        CKA.LABEL: "known",
        **usage(),
        **(template or {}),
    }
    return key_entry(token).enter(ours, key_type, value, wanted)


def enter_kek(ours: Ours, token: Token, value: bytes, template: Template | None = None) -> Object:
    """Put an AES KEK of known bytes into the token that can wrap and unwrap, and nothing else; *template* overrides."""
    wanted = {CKA.EXTRACTABLE: False, CKA.LABEL: "kek", **usage(CKA.WRAP, CKA.UNWRAP), **(template or {})}
    return enter(ours, token, CKK.AES, value, wanted)


def make(ours: Ours, token: Token, template: Template | None = None) -> Object:
    """Generate an AES-256 key; a sensitive, extractable session object unless *template* says otherwise."""
    wanted: dict[int, Value] = {
        CKA.CLASS: CKO.SECRET_KEY,
        CKA.KEY_TYPE: CKK.AES,
        CKA.VALUE_LEN: 32,
        CKA.TOKEN: False,
        CKA.SENSITIVE: True,
        CKA.EXTRACTABLE: True,
        CKA.ID: secrets.token_bytes(16),
        **usage(CKA.ENCRYPT, CKA.DECRYPT),
        **(template or {}),
    }
    with token.sessions as session:
        return ours.adopt(token.calls.generate_key(session, Mechanism(CKM.AES_KEY_GEN), PackedTemplate(wanted)))


def request_for(key_type: CKK, template: Template | None = None, *, size: int | None = None) -> KeyRequest:
    """Ask for a sensitive, extractable session key that may do nothing; *template* overrides."""
    wanted: dict[int, Value] = {
        CKA.TOKEN: False,
        CKA.SENSITIVE: True,
        CKA.EXTRACTABLE: True,
        CKA.ID: secrets.token_bytes(16),
        CKA.LABEL: "arrived",
        **usage(),
        **(template or {}),
    }
    return KeyRequest(cls=CKO.SECRET_KEY, key_type=key_type, template=wanted, size=size)


def raw_wrap(route: Route, kek: Object, key: Object) -> bytes:
    """Call C_WrapKey without our rules: what the token itself does."""
    with kek.token.sessions as session:
        return kek.token.calls.wrap_key(session, route.mechanism, kek.handle, key.handle)


def inventory(token: Token) -> frozenset[int]:
    """Return the handles of all objects that the login shows.

    The probe runs first: what it and key entry make once for the process (a transport key) is not what a test made.
    """
    probe(token).findings()
    return frozenset(token.handles({}))


def rsa_public_object(ours: Ours, token: Token, public: RSAPublicKey, template: Template | None = None) -> Object:
    """Put an RSA public key into the token as a session object that can wrap, and nothing else; *template* overrides."""
    numbers = public.public_numbers()
    wanted: dict[int, Value] = {
        CKA.CLASS: CKO.PUBLIC_KEY,
        CKA.KEY_TYPE: CKK.RSA,
        CKA.TOKEN: False,
        CKA.ID: secrets.token_bytes(16),
        CKA.MODULUS: numbers.n.to_bytes(public.key_size // 8, "big"),
        CKA.PUBLIC_EXPONENT: numbers.e.to_bytes(3, "big"),
        CKA.WRAP: True,
        CKA.ENCRYPT: False,
        CKA.VERIFY: False,
        **(template or {}),
    }
    with token.sessions as session:
        return ours.adopt(token.calls.create_object(session, PackedTemplate(wanted)))


def des3_value() -> bytes:
    """Return a random triple DES key with odd parity, as some modules insist on."""
    return bytes(byte & 0xFE | (byte.bit_count() - (byte & 1) + 1) % 2 for byte in secrets.token_bytes(24))
