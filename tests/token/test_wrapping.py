"""Secret keys cross between a token and other people's code, both ways, in every dialect that the token has."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from hsmbridge.attributes import AttributeQuery
from hsmbridge.codes import CKA, CKK
from hsmbridge.destruction import Ours
from hsmbridge.dialects import Dialect
from hsmbridge.entry import key_entry
from hsmbridge.errors import LengthChangeError, MechanismError, Pkcs11Error
from hsmbridge.generation import generate_kek
from hsmbridge.keyspec import parse_keyspec
from hsmbridge.probe import probe
from hsmbridge.publickeys import public_key_of
from hsmbridge.unwrapping import unwrap
from hsmbridge.wrapping import wrap
from tests.support.judges import aes_unwrap, aes_wrap, rsa_open, rsa_seal
from tests.support.tokens import (
    des3_value,
    enter,
    enter_kek,
    make,
    raw_wrap,
    request_for,
    requires,
    requires_entry,
    rsa_public_object,
    usage,
)

if TYPE_CHECKING:
    from pathlib import Path

    from hsmbridge.objects import Object
    from hsmbridge.token import Token

AES = [dialect for dialect in Dialect if not dialect.is_rsa]
RSA = [dialect for dialect in Dialect if dialect.is_rsa]
TYPED = [(CKK.AES, 16), (CKK.AES, 24), (CKK.AES, 32), (CKK.DES3, 24)]
EVERY = [*TYPED, *((CKK.GENERIC_SECRET, size) for size in range(1, 65))]
SOME = [*TYPED, *((CKK.GENERIC_SECRET, size) for size in (1, 7, 20, 48, 64))]


def value_of(key_type: CKK, size: int) -> bytes:
    """Return random key bytes of a type."""
    return des3_value() if key_type == CKK.DES3 else secrets.token_bytes(size)


def is_defined(dialect: Dialect, size: int) -> bool:
    """Whether a dialect is defined for a length: RFC 3394 wants 16 bytes or more, in multiples of 8."""
    if dialect is Dialect.AES_KW:
        return size >= 16 and size % 8 == 0
    return dialect is not Dialect.AES_KW_PKCS7 or size >= 8


@pytest.fixture(scope="module")
def recipient() -> rsa.RSAPrivateKey:
    """An RSA-3072 key pair in software."""
    return rsa.generate_private_key(public_exponent=65537, key_size=3072)


@pytest.fixture(scope="module")
def token_pair(token: Token) -> tuple[Object, rsa.RSAPublicKey]:
    """An RSA-3072 pair that the token generated as a KEK: the private object and the public key."""
    requires_rsa(token)
    private = generate_kek(token, parse_keyspec("rsa:3072"), label="pair", persist=False, unwrap_template=False)
    public = public_key_of(private)
    assert isinstance(public, rsa.RSAPublicKey)
    return private, public


def requires_rsa(token: Token) -> None:
    """Skip on a token that has no RSA dialect."""
    if not any(probe(token).has(dialect) for dialect in RSA):
        pytest.skip("the token has no RSA dialect")


@pytest.mark.parametrize("dialect", AES)
def test_software_opens_what_the_token_wraps_under_aes(token: Token, dialect: Dialect) -> None:
    """`cryptography` reads each key's exact bytes from its wrap, or the key is refused.

    Then the token would have changed it.
    """
    requires(token, dialect)
    requires_entry(token)
    route, kek_value = probe(token).route(dialect), secrets.token_bytes(32)
    carried = 0
    with Ours(token) as ours:
        kek = enter_kek(ours, token, kek_value)
        for key_type, size in EVERY:
            value = value_of(key_type, size)
            key = enter(ours, token, key_type, value)
            if route.carries(size):
                wrapped = wrap(key, kek, dialect)
                assert aes_unwrap(dialect, kek_value, wrapped.data) == value, size
                assert (wrapped.route, wrapped.warnings) == (route, ())
                carried += 1
                continue
            with pytest.raises(LengthChangeError) as refusal:
                wrap(key, kek, dialect)
            assert refusal.value.hint
            if is_defined(dialect, size):  # the format could, this token cannot: here is why
                assert raw_wrap(route, kek, key) != aes_wrap(dialect, kek_value, value)
    assert carried >= len(TYPED) + 6  # at least 16, 24, … 64 bytes


@pytest.mark.parametrize("dialect", AES)
def test_the_token_opens_what_software_wraps_under_aes(token: Token, dialect: Dialect) -> None:
    """A key that `cryptography` wrapped is in the token byte for byte afterwards, or was refused.

    It is never changed.
    """
    requires(token, dialect, Dialect.AES_KW)
    requires_entry(token)
    kek_value, witness_value = secrets.token_bytes(32), secrets.token_bytes(32)
    readable = key_entry(token).creates is True
    with Ours(token) as ours:
        kek, witness = enter_kek(ours, token, kek_value), enter_kek(ours, token, witness_value)
        for key_type, size in EVERY:
            if not is_defined(dialect, size):
                continue
            value = value_of(key_type, size)
            request = request_for(key_type, {CKA.SENSITIVE: not readable}, size=size)
            key = unwrap(kek, aes_wrap(dialect, kek_value, value), request, dialect).key
            ours.take(key)
            if readable:
                assert key.read_value() == value
            else:
                judge = Dialect.AES_KWP if probe(token).route(Dialect.AES_KWP).carries(size) else Dialect.AES_KW
                assert aes_unwrap(judge, witness_value, wrap(key, witness, judge).data) == value


@pytest.mark.parametrize("dialect", RSA)
def test_openssl_opens_what_the_token_wraps_under_rsa(
    token: Token, dialect: Dialect, recipient: rsa.RSAPrivateKey, tmp_path: Path
) -> None:
    """`openssl pkeyutl -decrypt` reads each key's exact bytes from its OAEP wrap, 20 bytes too."""
    requires(token, dialect)
    requires_entry(token)
    route, carried = probe(token).route(dialect), 0
    with Ours(token) as ours:
        kek = rsa_public_object(ours, token, recipient.public_key())
        for key_type, size in SOME:
            value = value_of(key_type, size)
            key = enter(ours, token, key_type, value)
            if not route.carries(size):
                with pytest.raises(LengthChangeError):
                    wrap(key, kek, dialect)
                continue
            assert rsa_open(tmp_path, dialect, recipient, wrap(key, kek, dialect).data) == value
            carried += 1
    assert carried >= len(TYPED)


@pytest.mark.parametrize("dialect", RSA)
def test_the_token_opens_what_openssl_wraps_under_rsa(
    token: Token,
    dialect: Dialect,
    token_pair: tuple[Object, rsa.RSAPublicKey],
    recipient: rsa.RSAPrivateKey,
    tmp_path: Path,
) -> None:
    """A key that `openssl pkeyutl -encrypt` sealed for the token's RSA key is in the token byte for byte afterwards."""
    requires(token, dialect)
    requires_entry(token)
    private, public = token_pair
    judge = next(one for one in (Dialect.RSA_OAEP_SHA256, Dialect.RSA_OAEP_SHA1) if probe(token).has(one))
    with Ours(token) as ours:
        witness = rsa_public_object(ours, token, recipient.public_key())
        for key_type, size in SOME:
            value = value_of(key_type, size)
            request = request_for(key_type, size=size)
            key = unwrap(private, rsa_seal(tmp_path, dialect, public, value), request, dialect).key
            ours.take(key)
            assert rsa_open(tmp_path, judge, recipient, raw_wrap(probe(token).route(judge), witness, key)) == value


def test_without_a_dialect_the_best_one_that_carries_the_key_is_taken(token: Token) -> None:
    """Under AES that is RFC 5649 where the token has it.

    A key whose length it would change is refused, not sent otherwise.
    """
    requires(token, Dialect.AES_KWP)
    requires_entry(token)
    kek_value = secrets.token_bytes(32)
    with Ours(token) as ours:
        kek = enter_kek(ours, token, kek_value)
        even, odd = secrets.token_bytes(32), secrets.token_bytes(20)
        wrapped = wrap(enter(ours, token, CKK.AES, even), kek)
        assert wrapped.route.dialect is Dialect.AES_KWP
        assert aes_unwrap(Dialect.AES_KWP, kek_value, wrapped.data) == even
        key = enter(ours, token, CKK.GENERIC_SECRET, odd)
        if probe(token).route(Dialect.AES_KWP).carries(len(odd)):
            assert aes_unwrap(Dialect.AES_KWP, kek_value, wrap(key, kek).data) == odd
        else:
            with pytest.raises(LengthChangeError, match="20 bytes"):
                wrap(key, kek)


def test_a_secret_too_long_for_oaep_is_refused(token: Token, recipient: rsa.RSAPrivateKey) -> None:
    """RSA-3072 OAEP carries 384 - 2 hLen - 2 bytes (RFC 8017 section 7.1.1); one byte more is refused."""
    requires_entry(token)
    if key_entry(token).creates is False:
        pytest.skip("key entry by RSA-2048 cannot carry so long a secret itself")
    for dialect, room in ((Dialect.RSA_OAEP_SHA256, 318), (Dialect.RSA_OAEP_SHA1, 342)):
        if not probe(token).has(dialect):
            continue
        with Ours(token) as ours:
            kek = rsa_public_object(ours, token, recipient.public_key())
            fits = enter(ours, token, CKK.GENERIC_SECRET, secrets.token_bytes(room))
            assert len(wrap(fits, kek, dialect).data) == 384
            key = enter(ours, token, CKK.GENERIC_SECRET, secrets.token_bytes(room + 1))
            if key.read(AttributeQuery((CKA.VALUE_LEN,))).number(CKA.VALUE_LEN):
                with pytest.raises(MechanismError, match=f"does not fit into {dialect} \\({room} bytes\\)"):
                    wrap(key, kek, dialect)
            else:  # the token does not tell the length, so it must refuse by itself
                with pytest.raises(Pkcs11Error):
                    wrap(key, kek, dialect)


def test_a_dialect_for_the_other_kind_of_kek_is_refused(token: Token, recipient: rsa.RSAPrivateKey) -> None:
    """An RSA dialect with an AES KEK, and the other way round, is refused by name."""
    requires_entry(token)
    with Ours(token) as ours:
        key = make(ours, token)
        with pytest.raises(MechanismError, match="needs an RSA KEK"):
            wrap(key, make(ours, token, usage(CKA.WRAP)), Dialect.RSA_OAEP_SHA256)
        with pytest.raises(MechanismError, match="needs an AES KEK"):
            wrap(key, rsa_public_object(ours, token, recipient.public_key()), Dialect.AES_KWP)
