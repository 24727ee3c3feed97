"""Known keys in a token, and what a token is asked before a test runs on it."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from hsmbridge.codes import CKA, CKK, CKM, CKO, CKR, name_of
from hsmbridge.destruction import Ours
from hsmbridge.dialects import Dialect
from hsmbridge.entry import key_entry
from hsmbridge.errors import HsmbridgeError, Pkcs11Error
from hsmbridge.generation import generate_kek, generate_key
from hsmbridge.keyspec import parse_keyspec
from hsmbridge.mechanism import Mechanism
from hsmbridge.probe import probe
from hsmbridge.publickeys import public_key_of
from hsmbridge.template import PackedTemplate
from hsmbridge.unwrapping import KeyRequest
from tests.support.judges import aes_wrap

if TYPE_CHECKING:
    from hsmbridge.objects import Object
    from hsmbridge.probe import Route
    from hsmbridge.template import Template, Value
    from hsmbridge.token import Token

__all__ = [
    "RAW_USAGE",
    "WayIn",
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
    "token_key",
    "token_pair",
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
    """Put an RSA public key into the token as a session object that can only wrap.

    *template* overrides.
    """
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


class WayIn:
    """A safe KEK of a token, and the software side of it: AES where the token wraps under AES, else RSA-3072.

    Attributes:
        kek: unwraps; an AES KEK or an RSA private key, a session object.
        dialect: the format of :meth:`seal`.
    """

    def __init__(self, token: Token) -> None:
        found = probe(token)
        aes = [one for one in (Dialect.AES_KWP, Dialect.AES_KW) if found.has(one)]
        rsa = [one for one in (Dialect.RSA_OAEP_SHA256, Dialect.RSA_OAEP_SHA1) if found.has(one)]
        if not aes and not rsa:
            pytest.skip("the token unwraps nothing")
        self.dialect = (aes or rsa)[0]
        if aes:
            self._secret = secrets.token_bytes(32)
            ours = Ours(token)
            self.kek = ours.release(enter_kek(ours, token, self._secret))
            return
        self.kek = generate_kek(token, parse_keyspec("rsa:3072"), label="way in", persist=False, unwrap_template=False)
        public = public_key_of(self.kek)
        assert isinstance(public, RSAPublicKey)
        self._public = public

    def seal(self, value: bytes) -> bytes:
        """Wrap *value* with `cryptography` so that the KEK opens it."""
        if not self.dialect.is_rsa:
            return aes_wrap(self.dialect, self._secret, value)
        digest = hashes.SHA256() if self.dialect is Dialect.RSA_OAEP_SHA256 else hashes.SHA1()  # noqa: S303 - all that SoftHSM has
        return self._public.encrypt(value, padding.OAEP(padding.MGF1(digest), digest, None))


def token_pair(token: Token) -> Object:
    """Return the private half of an RSA-2048 pair of token objects, made once: a TPM has room for few."""
    label = "pair of the tests"
    found = token.find({CKA.CLASS: CKO.PRIVATE_KEY, CKA.TOKEN: True, CKA.LABEL: label})
    use: Template = {CKA.TOKEN: True, CKA.LABEL: label, CKA.SIGN: True}
    return found[0] if found else generate_key(token, parse_keyspec("rsa:2048"), use)


def token_key(token: Token) -> Object:
    """Return a new token object of a kind that the token can make.

    That is an extractable AES key, else :func:`token_pair`'s private key.
    """
    use = {CKA.TOKEN: True, CKA.EXTRACTABLE: True, CKA.LABEL: "kept", **usage(CKA.ENCRYPT, CKA.DECRYPT)}
    if CKM.AES_KEY_GEN in token.mechanisms():
        try:
            return generate_key(token, parse_keyspec("aes:256"), use)
        except Pkcs11Error as refusal:
            if refusal.ckr != CKR.FUNCTION_NOT_SUPPORTED:  # listed but not there, as on tpm2-pkcs11
                raise
    return token_pair(token)
