"""A token in FIPS mode makes no readable keys, and the token layer works on it all the same."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from hsmbridge.attributes import AttributeQuery
from hsmbridge.codes import CKA, CKK, CKO
from hsmbridge.destruction import Ours, destroy_session_key
from hsmbridge.dialects import Dialect
from hsmbridge.entry import key_entry
from hsmbridge.errors import MechanismError, Pkcs11Error
from hsmbridge.generation import enforces_unwrap_template, generate_kek, kek_fingerprint
from hsmbridge.keyspec import parse_keyspec
from hsmbridge.probe import probe
from hsmbridge.unwrapping import Unwrapper
from hsmbridge.wrapping import wrap
from tests.support.children import run_child
from tests.support.judges import aes_unwrap
from tests.support.spylog import parse
from tests.support.tokens import WayIn, enter, enter_kek, inventory, request_for, requires_entry

if TYPE_CHECKING:
    from pathlib import Path

    from hsmbridge.token import Token
    from tests.token.conftest import Spy, TokenEnv

KEYS = (CKO.SECRET_KEY, CKO.PRIVATE_KEY)


@pytest.fixture(scope="module")
def strict(token: Token) -> Token:
    """The token, if it refuses C_CreateObject of secret keys."""
    requires_entry(token)
    if key_entry(token).creates is not False:
        pytest.skip("the token takes known keys by C_CreateObject: it is not in FIPS mode")
    return token


def nothing_is_readable(token: Token) -> bool:
    """Whether each secret and private key of the token says that it is sensitive, and does not give its value."""
    for cls in KEYS:
        for key in token.find({CKA.CLASS: cls}):
            assert key.read(AttributeQuery((CKA.SENSITIVE,))).flag(CKA.SENSITIVE) is True, key.identity
            with pytest.raises(Pkcs11Error):
                key.read_value()
    return True


def test_probe(strict: Token) -> None:
    """The probe finds RFC 3394, RFC 5649 and OAEP with known keys, although none can be created.

    Nothing readable is left.
    """
    findings = probe(strict).findings()
    assert not [
        dialect
        for dialect in (Dialect.AES_KW, Dialect.AES_KWP, Dialect.RSA_OAEP_SHA256)
        if not probe(strict).has(dialect)
    ]
    assert findings.keys() == set(Dialect)
    assert nothing_is_readable(strict)


def test_known_bytes_enter_by_oaep(strict: Token) -> None:
    """Known bytes are in the token after key entry: `cryptography` finds them in a wrap; the object is sensitive."""
    before = inventory(strict)
    value, kek_value = secrets.token_bytes(32), secrets.token_bytes(32)
    with Ours(strict) as ours:
        key = enter(ours, strict, CKK.AES, value)
        wrapped = wrap(key, enter_kek(ours, strict, kek_value), Dialect.AES_KWP)
        assert aes_unwrap(Dialect.AES_KWP, kek_value, wrapped.data) == value
        assert nothing_is_readable(strict)
    assert inventory(strict) == before


def test_wrap_and_unwrap(strict: Token) -> None:
    """Keys arrive as session and as token objects, go out again and are destroyed.

    At each step all keys are sensitive.
    """
    way_in, witness_value = WayIn(strict), secrets.token_bytes(32)
    unwrapper = Unwrapper(way_in.kek)
    with Ours(strict) as ours:
        witness = enter_kek(ours, strict, witness_value)
        for on_token in (False, True):
            value = secrets.token_bytes(32)
            key = unwrapper.unwrap(way_in.seal(value), request_for(CKK.AES, {CKA.TOKEN: on_token})).key
            assert nothing_is_readable(strict)
            assert aes_unwrap(Dialect.AES_KWP, witness_value, wrap(key, witness, Dialect.AES_KWP).data) == value
            if not on_token:
                assert destroy_session_key(key).absent
    assert nothing_is_readable(strict)


def test_keks(strict: Token) -> None:
    """KEKs are generated and named by their fingerprint; nothing readable is made for it."""
    for text in ("aes:256", "rsa:3072"):
        kek = generate_kek(strict, parse_keyspec(text), label=f"fips {secrets.token_hex(4)}")
        assert kek.identity.id == kek_fingerprint(kek)
    enforces_unwrap_template(strict)
    assert nothing_is_readable(strict)


def test_a_readable_key_is_refused(strict: Token) -> None:
    """Asking for CKA_SENSITIVE=false is an error and leaves nothing, on the way in and at key entry."""
    way_in, before = WayIn(strict), inventory(strict)
    request = request_for(CKK.AES, {CKA.SENSITIVE: False})
    with pytest.raises(Pkcs11Error) as refusal:
        Unwrapper(way_in.kek).unwrap(way_in.seal(bytes(32)), request)
    assert refusal.value.function == "C_UnwrapKey"
    with Ours(strict) as ours, pytest.raises(Pkcs11Error):
        enter(ours, strict, CKK.AES, secrets.token_bytes(32), {CKA.SENSITIVE: False})
    assert inventory(strict) - before <= {way_in.kek.handle}


def test_a_secret_too_long_for_entry_is_an_error_of_ours(strict: Token) -> None:
    """More bytes than RSA-2048 OAEP carries are refused with a typed error, and leave nothing."""
    before = inventory(strict)
    with Ours(strict) as ours, pytest.raises(MechanismError, match="190 at most"):
        enter(ours, strict, CKK.GENERIC_SECRET, secrets.token_bytes(191))
    assert inventory(strict) == before


def test_nothing_readable_is_ever_made(strict: Token, token_env: TokenEnv, spy_env: Spy, tmp_path: Path) -> None:
    """No call that made an object, however short its life, said CKA_SENSITIVE=false.

    The judge is the log that pkcs11-spy writes over all operations.
    """
    assert strict.logged_in
    output = tmp_path / "spy.log"
    run_child("all_operations", token_env, {"PKCS11_MODULE": spy_env.module, **spy_env.environment(output)})
    calls = parse(output.read_text("utf-8", "replace"))
    makers = [call for call in calls if call.makes]
    assert len(makers) > 50
    assert [(call.number, call.function) for call in calls if call.readable and (call.makes or not call.ckr)] == []
