"""What does not open is refused with one error, and leaves nothing behind in the token."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from hsmbridge.attributes import AttributeQuery
from hsmbridge.codes import CKA, CKK, CKO
from hsmbridge.destruction import Ours
from hsmbridge.dialects import Dialect
from hsmbridge.errors import HsmbridgeError, InputError, ReadBackError, UnwrapError
from hsmbridge.generation import generate_kek
from hsmbridge.keyspec import parse_keyspec
from hsmbridge.publickeys import public_key_of
from hsmbridge.unwrapping import KeyRequest, Unwrapper, unwrap
from tests.support.judges import aes_wrap, rsa_seal
from tests.support.tokens import enter_kek, inventory, request_for, requires, requires_entry

if TYPE_CHECKING:
    from pathlib import Path

    from hsmbridge.template import Template
    from hsmbridge.token import Token

AES = [dialect for dialect in Dialect if not dialect.is_rsa]
RSA = [dialect for dialect in Dialect if dialect.is_rsa]
TYPES = [(CKK.AES, 32), (CKK.GENERIC_SECRET, 48)]


def refuse(token: Token, unwrapper: Unwrapper, wrapped: bytes, request: KeyRequest) -> UnwrapError:
    """Check that a wrap is refused as bad input, with a hint, and that no object is left."""
    before = frozenset(token.handles({}))
    with pytest.raises(UnwrapError) as refusal:
        unwrapper.unwrap(wrapped, request)
    assert isinstance(refusal.value, InputError)
    assert refusal.value.hint
    assert frozenset(token.handles({})) == before
    return refusal.value


@pytest.mark.parametrize("dialect", AES)
@pytest.mark.parametrize(("key_type", "size"), TYPES)
@pytest.mark.parametrize("persistent", [False, True], ids=["session", "token"])
def test_bit_flips(token: Token, dialect: Dialect, key_type: CKK, size: int, *, persistent: bool) -> None:
    """One flipped bit in any byte of a wrap is noticed, and the token is as it was."""
    requires(token, dialect)
    requires_entry(token)
    inventory(token)
    kek_value = secrets.token_bytes(32)
    wrapped = aes_wrap(dialect, kek_value, secrets.token_bytes(size))
    request = request_for(key_type, {CKA.TOKEN: persistent})
    with Ours(token) as ours:
        unwrapper = Unwrapper(enter_kek(ours, token, kek_value), dialect)
        for position in range(len(wrapped)):
            damaged = bytearray(wrapped)
            damaged[position] ^= 1 << position % 8
            refuse(token, unwrapper, bytes(damaged), request)


@pytest.mark.parametrize("dialect", AES)
@pytest.mark.parametrize(("key_type", "size"), TYPES)
def test_truncated_and_extended(token: Token, dialect: Dialect, key_type: CKK, size: int) -> None:
    """A wrap cut short anywhere, or with anything behind it, is refused: no length but the right one opens."""
    requires(token, dialect)
    requires_entry(token)
    inventory(token)
    kek_value = secrets.token_bytes(32)
    wrapped = aes_wrap(dialect, kek_value, secrets.token_bytes(size))
    more = [bytes(8), wrapped[:8], wrapped[-8:], wrapped, b"\0", bytes(4096), secrets.token_bytes(1 << 16)]
    with Ours(token) as ours:
        unwrapper = Unwrapper(enter_kek(ours, token, kek_value), dialect)
        for length in range(len(wrapped)):
            refuse(token, unwrapper, wrapped[:length], request_for(key_type))
        for tail in more:
            refuse(token, unwrapper, wrapped + tail, request_for(key_type))
            refuse(token, unwrapper, tail + wrapped, request_for(key_type))


@pytest.mark.parametrize("dialect", AES)
def test_the_wrong_kek(token: Token, dialect: Dialect) -> None:
    """A wrap under another KEK, also one that differs in one bit, does not open.

    The error says to check KEK and mechanism.
    """
    requires(token, dialect)
    requires_entry(token)
    inventory(token)
    kek_value = secrets.token_bytes(32)
    nearly = bytes([kek_value[0] ^ 0x80, *kek_value[1:]])
    with Ours(token) as ours:
        unwrapper = Unwrapper(enter_kek(ours, token, kek_value), dialect)
        for other in (nearly, kek_value[:16], secrets.token_bytes(32)):
            refusal = refuse(token, unwrapper, aes_wrap(dialect, other, secrets.token_bytes(32)), request_for(CKK.AES))
            assert "KEK" in (refusal.hint or "")
            assert refusal.ckr is not None


def test_another_dialect_s_wrap(token: Token) -> None:
    """An RFC 3394 wrap does not open as RFC 5649, nor the other way round: the integrity values differ."""
    requires(token, Dialect.AES_KW, Dialect.AES_KWP)
    requires_entry(token)
    inventory(token)
    kek_value = secrets.token_bytes(32)
    with Ours(token) as ours:
        kek = enter_kek(ours, token, kek_value)
        for theirs, ours_is in ((Dialect.AES_KW, Dialect.AES_KWP), (Dialect.AES_KWP, Dialect.AES_KW)):
            wrapped = aes_wrap(theirs, kek_value, secrets.token_bytes(32))
            refuse(token, Unwrapper(kek, ours_is), wrapped, request_for(CKK.AES))


@pytest.mark.parametrize("dialect", AES)
def test_type_confusion(token: Token, dialect: Dialect) -> None:
    """A 32-byte secret is no DES3 key and a 24-byte one no AES-256 key.

    Some tokens would take the first for one.
    """
    requires(token, dialect)
    requires_entry(token)
    inventory(token)
    kek_value = secrets.token_bytes(32)
    with Ours(token) as ours:
        unwrapper = Unwrapper(enter_kek(ours, token, kek_value), dialect)
        for key_type, size in ((CKK.DES3, 32), (CKK.DES3, 16), (CKK.AES, 40), (CKK.AES, 64)):
            wrapped = aes_wrap(dialect, kek_value, secrets.token_bytes(size))
            refuse(token, unwrapper, wrapped, request_for(key_type))
        for key_type, size, claimed in ((CKK.AES, 24, 32), (CKK.AES, 32, 16), (CKK.GENERIC_SECRET, 64, 32)):
            wrapped = aes_wrap(dialect, kek_value, secrets.token_bytes(size))
            refuse(token, unwrapper, wrapped, request_for(key_type, size=claimed))


@pytest.mark.parametrize("dialect", [Dialect.AES_KWP, Dialect.AES_KW_PKCS7])
def test_a_length_that_an_authenticated_record_tells(token: Token, dialect: Dialect) -> None:
    """A secret of 20 bytes is not taken for one of 23, where the token tells lengths.

    Both fill the same blocks.
    """
    requires(token, dialect)
    requires_entry(token)
    before = inventory(token)
    kek_value = secrets.token_bytes(32)
    wrapped = aes_wrap(dialect, kek_value, secrets.token_bytes(20))
    with Ours(token) as ours:
        kek = enter_kek(ours, token, kek_value)
        key = ours.take(unwrap(kek, wrapped, request_for(CKK.GENERIC_SECRET, size=20), dialect).key)
        if not key.read(AttributeQuery((CKA.VALUE_LEN,))).number(CKA.VALUE_LEN):
            pytest.skip("the token does not tell the length of an unwrapped key")
        with pytest.raises(ReadBackError, match="20 bytes instead of 23"):
            unwrap(kek, wrapped, request_for(CKK.GENERIC_SECRET, size=23), dialect)
    assert inventory(token) == before


def test_secret_bytes_are_no_private_key(token: Token) -> None:
    """Random bytes under the right KEK, asked for as a private key, are an error and leave no object."""
    requires(token, Dialect.AES_KWP)
    requires_entry(token)
    before = inventory(token)
    kek_value = secrets.token_bytes(32)
    named: Template = {
        CKA.TOKEN: False,
        CKA.SENSITIVE: True,
        CKA.EXTRACTABLE: True,
        CKA.ID: secrets.token_bytes(16),
        CKA.SIGN: True,
    }
    with Ours(token) as ours:
        kek = enter_kek(ours, token, kek_value)
        for key_type in (CKK.RSA, CKK.EC):
            request = KeyRequest(cls=CKO.PRIVATE_KEY, key_type=key_type, template=named, ec_point=b"\4" + bytes(64))
            with pytest.raises(HsmbridgeError):
                unwrap(kek, aes_wrap(Dialect.AES_KWP, kek_value, secrets.token_bytes(128)), request)
    assert inventory(token) == before


@pytest.mark.parametrize("dialect", RSA)
def test_damage_under_rsa(token: Token, dialect: Dialect, tmp_path: Path) -> None:
    """An OAEP or RSA-AES wrap that is not right does not open.

    Flipped, truncated, extended, above the modulus, and sealed for another key.
    """
    requires(token, dialect)
    private = generate_kek(token, parse_keyspec("rsa:3072"), label="damage", persist=False, unwrap_template=False)
    public = public_key_of(private)
    assert isinstance(public, rsa.RSAPublicKey)
    inventory(token)
    sealed = rsa_seal(tmp_path, dialect, public, secrets.token_bytes(32))
    unwrapper = Unwrapper(private, dialect)
    for position in {1, 100, 383, len(sealed) - 1, len(sealed) - 20}:
        damaged = bytearray(sealed)
        damaged[position] ^= 4
        refuse(token, unwrapper, bytes(damaged), request_for(CKK.AES))
    for wrong in (b"", sealed[:-1], sealed[1:], sealed[:16], sealed[:383], sealed + bytes(1), sealed + bytes(8)):
        refuse(token, unwrapper, wrong, request_for(CKK.AES))
    refuse(token, unwrapper, b"\xff" * 384 + sealed[384:], request_for(CKK.AES))  # a number above the modulus
    other = rsa.generate_private_key(65537, 3072).public_key()
    refuse(token, unwrapper, rsa_seal(tmp_path, dialect, other, secrets.token_bytes(32)), request_for(CKK.AES))
    with Ours(token) as ours:  # the same unwrapper opens what is right: it was the damage that was refused
        assert ours.take(unwrapper.unwrap(sealed, request_for(CKK.AES)).key).alive
