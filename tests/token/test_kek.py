"""Which KEKs are refused, and which keys a good one may not wrap."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from hsmbridge.attributes import AttributeQuery
from hsmbridge.codes import CKA, CKK
from hsmbridge.destruction import Ours
from hsmbridge.dialects import Dialect
from hsmbridge.errors import KekError, NotExtractableError, Pkcs11Error, PolicyError
from hsmbridge.generation import generate_key
from hsmbridge.keyspec import parse_keyspec
from hsmbridge.unwrapping import unwrap
from hsmbridge.wrapping import wrap
from tests.support.judges import aes_unwrap, aes_wrap
from tests.support.tokens import (
    enter,
    enter_kek,
    inventory,
    make,
    request_for,
    requires,
    requires_entry,
    rsa_public_object,
)

if TYPE_CHECKING:
    from hsmbridge.objects import Object
    from hsmbridge.template import Template
    from hsmbridge.token import Token

ALSO = [CKA.ENCRYPT, CKA.DECRYPT, CKA.SIGN, CKA.VERIFY, CKA.DERIVE]
DIALECT = Dialect.AES_KWP


def ready(token: Token) -> None:
    """Skip on a token that wraps nothing under AES."""
    requires(token, DIALECT)
    requires_entry(token)


def attempt(ours: Ours, token: Token, template: Template, value: bytes | None = None) -> Object:
    """Enter a KEK with a special template, or skip where the token does not take it."""
    try:
        return enter_kek(ours, token, value or secrets.token_bytes(32), template)
    except Pkcs11Error as refusal:
        pytest.skip(f"the token makes no such KEK: {refusal}")


def requires_nested(kek: Object, kind: CKA, written: Template) -> None:
    """Check that a nested template reads as it was written, or says that it cannot be read: then skip.

    NSS keeps the C array as it came, with pointers into memory that was the caller's.
    """
    found = kek.read(AttributeQuery((kind,)))
    if kind in found.unreadable:
        pytest.skip("the token does not give nested templates back")
    assert found[kind] == written


@pytest.mark.parametrize("also", ALSO, ids=lambda kind: kind.name)
def test_an_aes_kek_that_may_do_more_is_refused(token: Token, also: CKA) -> None:
    """A KEK that may do more than wrap and unwrap does neither, unless that is asked for."""
    ready(token)
    kek_value, value = secrets.token_bytes(32), secrets.token_bytes(32)
    wrapped, before = aes_wrap(DIALECT, kek_value, value), inventory(token)
    with Ours(token) as ours:
        kek, key = attempt(ours, token, {also: True}, kek_value), enter(ours, token, CKK.AES, value)
        for refused in (lambda: wrap(key, kek), lambda: unwrap(kek, wrapped, request_for(CKK.AES))):
            with pytest.raises(KekError, match=f"may also {also.name}") as refusal:
                refused()
            assert "key generate --kek" in (refusal.value.hint or "")
            assert isinstance(refusal.value, PolicyError)
        made = wrap(key, kek, allow_unsafe_kek=True)
        assert made.data == wrapped
        assert [also.name in warning for warning in made.warnings] == [True]
        arrived = unwrap(kek, wrapped, request_for(CKK.AES), allow_unsafe_kek=True)
        ours.take(arrived.key)
        assert [also.name in warning for warning in arrived.warnings] == [True]
    assert inventory(token) == before


@pytest.mark.parametrize("also", [CKA.ENCRYPT, CKA.VERIFY], ids=lambda kind: kind.name)
def test_a_public_kek_that_may_do_more_is_refused(token: Token, also: CKA) -> None:
    """An RSA public key that may also encrypt or verify does not wrap."""
    requires_entry(token)
    recipient = rsa.generate_private_key(65537, 3072).public_key()
    with Ours(token) as ours:
        key, kek = make(ours, token), rsa_public_object(ours, token, recipient, {also: True})
        with pytest.raises(KekError, match=f"may also {also.name}"):
            wrap(key, kek)


@pytest.mark.parametrize("also", [CKA.DECRYPT, CKA.SIGN], ids=lambda kind: kind.name)
def test_a_private_kek_that_may_do_more_is_refused(token: Token, also: CKA) -> None:
    """An RSA private key that may also decrypt or sign does not unwrap: nothing reaches the token."""
    requires_entry(token)
    use: Template = {CKA.UNWRAP: True, CKA.DECRYPT: False, CKA.SIGN: False, CKA.DERIVE: False, also: True}
    kek = generate_key(token, parse_keyspec("rsa:2048"), use)
    with pytest.raises(KekError, match=f"may also {also.name}"):
        unwrap(kek, secrets.token_bytes(256), request_for(CKK.AES))


def test_a_kek_without_the_permission_is_refused(token: Token) -> None:
    """CKA_WRAP=false does not wrap and CKA_UNWRAP=false does not unwrap, with --allow-unsafe-kek neither."""
    ready(token)
    kek_value = secrets.token_bytes(32)
    wrapped = aes_wrap(DIALECT, kek_value, secrets.token_bytes(32))
    with Ours(token) as ours:
        key = make(ours, token)
        unwraps, wraps = (enter_kek(ours, token, kek_value, {kind: False}) for kind in (CKA.WRAP, CKA.UNWRAP))
        with pytest.raises(KekError, match="may not wrap"):
            wrap(key, unwraps, allow_unsafe_kek=True)
        with pytest.raises(KekError, match="may not unwrap"):
            unwrap(wraps, wrapped, request_for(CKK.AES), allow_unsafe_kek=True)
        assert aes_unwrap(DIALECT, kek_value, wrap(key, wraps).data)
        ours.take(unwrap(unwraps, wrapped, request_for(CKK.AES)).key)


def test_a_key_of_another_type_is_no_kek(token: Token) -> None:
    """A generic secret with CKA_WRAP is no KEK."""
    requires_entry(token)
    with Ours(token) as ours:
        kek = enter(ours, token, CKK.GENERIC_SECRET, secrets.token_bytes(32), {CKA.WRAP: True})
        with pytest.raises(KekError, match="cannot wrap keys"):
            wrap(make(ours, token), kek, allow_unsafe_kek=True)


@pytest.mark.parametrize(("kek_size", "size"), [(16, 24), (16, 32), (24, 32)])
def test_a_weaker_aes_kek_is_refused(token: Token, kek_size: int, size: int) -> None:
    """A KEK shorter than the AES key it shall wrap is refused, and passes with a warning where that is asked for."""
    ready(token)
    kek_value, value = secrets.token_bytes(kek_size), secrets.token_bytes(size)
    with Ours(token) as ours:
        kek, key = enter_kek(ours, token, kek_value), enter(ours, token, CKK.AES, value)
        with pytest.raises(KekError, match=f"a KEK of {8 * kek_size} bits is weaker"):
            wrap(key, kek)
        made = wrap(key, kek, allow_unsafe_kek=True)
        assert aes_unwrap(DIALECT, kek_value, made.data) == value
        assert len(made.warnings) == 1
        assert wrap(enter(ours, token, CKK.AES, secrets.token_bytes(kek_size)), kek).warnings == ()


def test_rsa_below_3072_bits_is_refused(token: Token) -> None:
    """RSA-2048 has 112 bits of strength (SP 800-57) and wraps nothing, not even DES3."""
    requires_entry(token)
    recipient = rsa.generate_private_key(65537, 2048)
    with Ours(token) as ours:
        kek = rsa_public_object(ours, token, recipient.public_key())
        with pytest.raises(KekError, match="a KEK of 112 bits is weaker"):
            wrap(make(ours, token), kek)


def test_a_key_that_is_not_extractable_stays(token: Token) -> None:
    """CKA_EXTRACTABLE=false is refused by us, on a token that would wrap such a key too; the hint says by reference."""
    ready(token)
    with Ours(token) as ours:
        kek, key = enter_kek(ours, token, secrets.token_bytes(32)), make(ours, token, {CKA.EXTRACTABLE: False})
        with pytest.raises(NotExtractableError, match="not extractable") as refusal:
            wrap(key, kek, allow_unsafe_kek=True)
        assert "by reference" in (refusal.value.hint or "")


def test_wrap_with_trusted(token: Token) -> None:
    """A key with CKA_WRAP_WITH_TRUSTED goes under no KEK that the security officer has not marked.

    Whatever the token does about it.
    """
    ready(token)
    with Ours(token) as ours:
        kek = enter_kek(ours, token, secrets.token_bytes(32))
        try:
            key = make(ours, token, {CKA.WRAP_WITH_TRUSTED: True})
        except Pkcs11Error as refusal:
            pytest.skip(f"the token does not know CKA_WRAP_WITH_TRUSTED: {refusal}")
        with pytest.raises(KekError, match="CKA_WRAP_WITH_TRUSTED"):
            wrap(key, kek, allow_unsafe_kek=True)


def test_wrap_template(token: Token) -> None:
    """A KEK whose CKA_WRAP_TEMPLATE names a key type wraps that type only."""
    ready(token)
    kek_value, value = secrets.token_bytes(32), secrets.token_bytes(32)
    with Ours(token) as ours:
        kek = attempt(ours, token, {CKA.WRAP_TEMPLATE: {CKA.KEY_TYPE: CKK.AES}}, kek_value)
        requires_nested(kek, CKA.WRAP_TEMPLATE, {CKA.KEY_TYPE: CKK.AES})
        with pytest.raises(KekError, match="CKA_WRAP_TEMPLATE excludes"):
            wrap(enter(ours, token, CKK.GENERIC_SECRET, value), kek, allow_unsafe_kek=True)
        wrapped = wrap(enter(ours, token, CKK.AES, value), kek)
        assert aes_unwrap(DIALECT, kek_value, wrapped.data) == value


def test_unwrap_template(token: Token) -> None:
    """A KEK whose CKA_UNWRAP_TEMPLATE says sensitive and not extractable makes no other keys."""
    ready(token)
    kek_value = secrets.token_bytes(32)
    wrapped, before = aes_wrap(DIALECT, kek_value, secrets.token_bytes(32)), inventory(token)
    demand: Template = {CKA.SENSITIVE: True, CKA.EXTRACTABLE: False}
    with Ours(token) as ours:
        kek = attempt(ours, token, {CKA.UNWRAP_TEMPLATE: demand}, kek_value)
        requires_nested(kek, CKA.UNWRAP_TEMPLATE, demand)
        wishes: tuple[Template, ...] = ({CKA.EXTRACTABLE: True}, {CKA.SENSITIVE: False, CKA.EXTRACTABLE: False})
        for wish in wishes:
            with pytest.raises(KekError, match="CKA_UNWRAP_TEMPLATE demands"):
                unwrap(kek, wrapped, request_for(CKK.AES, wish), allow_unsafe_kek=True)
        key = ours.take(unwrap(kek, wrapped, request_for(CKK.AES, demand)).key)
        with pytest.raises(Pkcs11Error, match="SENSITIVE"):
            key.read_value()
        with pytest.raises(NotExtractableError):
            wrap(key, kek)
    assert inventory(token) == before
