"""Private keys cross between a token and `cryptography` as PKCS#8, both ways."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

from hsmbridge.codes import CKA, CKK, CKM, CKO
from hsmbridge.destruction import Ours
from hsmbridge.dialects import Dialect
from hsmbridge.errors import LengthChangeError, MechanismError, Pkcs11Error, UnwrapError
from hsmbridge.generation import generate_key
from hsmbridge.keyspec import KeySpec, parse_keyspec
from hsmbridge.mechanism import Mechanism
from hsmbridge.probe import probe
from hsmbridge.publickeys import public_key_of
from hsmbridge.unwrapping import KeyRequest, unwrap
from hsmbridge.wrapping import wrap
from tests.support.judges import OAEP_HASH, aes_unwrap, aes_wrap, rsa_open
from tests.support.tokens import enter_kek, inventory, requires, requires_entry, rsa_public_object

if TYPE_CHECKING:
    from pathlib import Path

    from hsmbridge.objects import Object
    from hsmbridge.publickeys import PublicKey
    from hsmbridge.template import Template
    from hsmbridge.token import Token

SPECS = [parse_keyspec(text) for text in ("rsa:2048", "ec:p-256", "ec:p-384", "ec:p-521", "ed25519")]
COMPOSITE = [dialect for dialect in OAEP_HASH if "aes" in dialect]
USE: Template = {CKA.SIGN: True, CKA.DECRYPT: False, CKA.UNWRAP: False, CKA.DERIVE: False}
CURVES: dict[int, type[ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1]] = {
    256: ec.SECP256R1,
    384: ec.SECP384R1,
    521: ec.SECP521R1,
}
SIGNING = {CKK.RSA: CKM.SHA256_RSA_PKCS, CKK.EC: CKM.ECDSA, CKK.EC_EDWARDS: CKM.EDDSA}


def generated(token: Token, spec: KeySpec) -> tuple[Object, PublicKey]:
    """Generate an extractable pair in the token: the private object and the public key."""
    requires(token, spec.generation)
    key = generate_key(token, spec, {**USE, CKA.EXTRACTABLE: True, CKA.LABEL: str(spec)}, {CKA.VERIFY: True})
    public = public_key_of(key)
    assert public is not None
    return key, public


def made_in_software(spec: KeySpec) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey:
    """Generate a private key with `cryptography`."""
    if spec.key_type == CKK.RSA:
        return rsa.generate_private_key(65537, spec.bits)
    return (
        ec.generate_private_key(CURVES[spec.bits]())
        if spec.key_type == CKK.EC
        else ed25519.Ed25519PrivateKey.generate()
    )


def der_at_the_start(data: bytes) -> bytes:
    """Return the DER value that *data* begins with; what follows must be zeros, fewer than eight."""
    assert data[0] == 0x30
    head = 2 + (data[1] & 0x7F if data[1] & 0x80 else 0)
    size = head + (int.from_bytes(data[2:head], "big") if head > 2 else data[1])
    assert data[size:] == bytes(len(data) - size)
    assert len(data) - size < 8
    return data[:size]


def spki(key: object) -> bytes:
    """Return a public key as `cryptography` writes it, to compare."""
    assert isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey)
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def assert_is_pkcs8_of(data: bytes, public: PublicKey) -> None:
    """Have `cryptography` load a private key, and compare its public half."""
    loaded = serialization.load_der_private_key(der_at_the_start(data), None)
    assert spki(loaded.public_key()) == spki(public)


def assert_signs(key: Object, public: object) -> None:
    """Have the token sign and `cryptography` verify."""
    message = secrets.token_bytes(40)
    key_type = CKK(key.identity.key_type or 0)
    data = hashlib.sha256(message).digest() if key_type == CKK.EC else message
    with key.token.sessions as session:
        signature = key.token.calls.sign(session, Mechanism(SIGNING[key_type]), key.handle, data)
    if isinstance(public, rsa.RSAPublicKey):
        public.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
    elif isinstance(public, ec.EllipticCurvePublicKey):
        half = len(signature) // 2
        numbers = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
        public.verify(encode_dss_signature(*numbers), data, ec.ECDSA(Prehashed(hashes.SHA256())))
    else:
        assert isinstance(public, ed25519.Ed25519PublicKey)
        public.verify(signature, message)


def request_for_pair(spec: KeySpec, public: object) -> KeyRequest:
    """Ask for a sensitive, extractable private session key that may sign."""
    point = b""
    if isinstance(public, ec.EllipticCurvePublicKey):
        point = public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    named = {
        CKA.TOKEN: False,
        CKA.PRIVATE: True,
        CKA.SENSITIVE: True,
        CKA.EXTRACTABLE: True,
        CKA.LABEL: "arrived",
        **USE,
    }
    named[CKA.ID] = secrets.token_bytes(16)
    return KeyRequest(cls=CKO.PRIVATE_KEY, key_type=spec.key_type, template=named, ec_point=point)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_cryptography_loads_what_the_token_wraps(token: Token, spec: KeySpec) -> None:
    """A generated private key comes out under AES as PKCS#8 of that very key.

    A type that the token cannot wrap is an error.
    """
    requires(token, Dialect.AES_KWP)
    requires_entry(token)
    kek_value = secrets.token_bytes(32)
    with Ours(token) as ours:
        key, public = generated(token, spec)
        ours.take(key)
        kek = enter_kek(ours, token, kek_value)
        try:
            wrapped = wrap(key, kek)
        except Pkcs11Error:  # SoftHSM 2.6.1 generates Ed25519 keys and cannot wrap them
            assert spec.key_type == CKK.EC_EDWARDS
            return
        assert wrapped.route.dialect is Dialect.AES_KWP
        assert_is_pkcs8_of(aes_unwrap(Dialect.AES_KWP, kek_value, wrapped.data), public)
        assert bool(wrapped.warnings) is not wrapped.route.keeps_length


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_token_signs_with_what_cryptography_wrapped(token: Token, spec: KeySpec) -> None:
    """A private key made by `cryptography` and wrapped there signs in the token, and `cryptography` verifies."""
    requires(token, Dialect.AES_KWP, spec.generation)
    requires_entry(token)
    private = made_in_software(spec)
    der = private.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    kek_value = secrets.token_bytes(32)
    with Ours(token) as ours:
        kek = enter_kek(ours, token, kek_value)
        wrapped = aes_wrap(Dialect.AES_KWP, kek_value, der)
        before = inventory(token)
        try:
            key = unwrap(kek, wrapped, request_for_pair(spec, private.public_key())).key
        except (Pkcs11Error, UnwrapError):  # nor unwrap them, which it says as if the wrap were damaged
            assert spec.key_type == CKK.EC_EDWARDS
            assert inventory(token) == before
            return
        ours.take(key)
        assert_signs(key, private.public_key())


@pytest.mark.parametrize("spec", SPECS[:2], ids=str)
def test_a_private_key_comes_back_through_the_token_s_own_wrap(token: Token, spec: KeySpec) -> None:
    """Wrapped and unwrapped by the same token the key still signs for its public half, zeros behind the DER or not."""
    requires(token, Dialect.AES_KWP)
    requires_entry(token)
    with Ours(token) as ours:
        key, public = generated(token, spec)
        ours.take(key)
        kek = enter_kek(ours, token, secrets.token_bytes(32))
        again = unwrap(kek, wrap(key, kek).data, request_for_pair(spec, public)).key
        ours.take(again)
        assert again.handle != key.handle
        assert_signs(again, public)


@pytest.mark.parametrize("dialect", COMPOSITE)
def test_rsa_aes_key_wrap_carries_a_private_key(token: Token, dialect: Dialect, tmp_path: Path) -> None:
    """`openssl` and `cryptography` open a private key that left under an RSA public key.

    It is OAEP of an AES key, and KWP under that.
    """
    requires(token, dialect)
    recipient = rsa.generate_private_key(65537, 3072)
    before = inventory(token)
    with Ours(token) as ours:
        key, public = generated(token, parse_keyspec("ec:p-256"))
        kek = rsa_public_object(ours, token, recipient.public_key())
        assert_is_pkcs8_of(rsa_open(tmp_path, dialect, recipient, wrap(key, kek, dialect).data), public)
        halves = {key.handle, *token.handles({CKA.CLASS: CKO.PUBLIC_KEY, CKA.ID: key.identity.id})}
    # the AES key in the middle is gone
    assert inventory(token) - before == halves


def test_oaep_alone_refuses_a_private_key(token: Token) -> None:
    """A private key does not fit into OAEP.

    Without a dialect the composite is taken, and where there is none it is refused.
    """
    oaep = next((one for one in (Dialect.RSA_OAEP_SHA256, Dialect.RSA_OAEP_SHA1) if probe(token).has(one)), None)
    if oaep is None:
        pytest.skip("the token has no RSA-OAEP")
    recipient = rsa.generate_private_key(65537, 3072)
    with Ours(token) as ours:
        key, _ = generated(token, parse_keyspec("rsa:2048"))
        kek = rsa_public_object(ours, token, recipient.public_key())
        with pytest.raises(MechanismError, match=f"does not fit into {oaep}") as refusal:
            wrap(key, kek, oaep)
        assert "rsa-aes-kwp" in (refusal.value.hint or "")
        assert not isinstance(refusal.value, LengthChangeError)
        if probe(token).has(Dialect.RSA_AES_KWP):
            assert wrap(key, kek).route.dialect is Dialect.RSA_AES_KWP
        else:
            with pytest.raises(MechanismError):
                wrap(key, kek)
