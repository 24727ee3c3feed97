"""Where a key lives, by what its object answers, on each kind of object."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from hsmbridge.codes import CKA, CKM, CKO
from hsmbridge.destruction import Ours, destroy_session_key
from hsmbridge.errors import HardwareKeyError, Pkcs11Error, StaleObjectError
from hsmbridge.generation import generate_key
from hsmbridge.keyspec import parse_keyspec
from hsmbridge.residency import Classification, Residency, classify
from tests.support.tokens import make, requires, token_key, token_pair

if TYPE_CHECKING:
    from hsmbridge.objects import Object
    from hsmbridge.template import Template
    from hsmbridge.token import Token

PAIR_USE: Template = {CKA.SIGN: True, CKA.DECRYPT: False, CKA.UNWRAP: False}


def made(ours: Ours, token: Token, template: Template) -> Object:
    """Generate an AES key, or skip where the token cannot make one like that."""
    try:
        return make(ours, token, template)
    except Pkcs11Error as refusal:
        pytest.skip(f"the token makes no such key: {refusal}")


def session_pair(token: Token, template: Template) -> Object:
    """Generate an RSA pair of session objects, or skip where the token cannot."""
    try:
        return generate_key(token, parse_keyspec("rsa:2048"), {CKA.TOKEN: False, **PAIR_USE, **template})
    except Pkcs11Error as refusal:
        pytest.skip(f"the token makes no session key pairs: {refusal}")


def assert_hardware(found: Classification, reason: str) -> None:
    """Check residency and the piece of evidence that decided."""
    assert found.residency is Residency.HARDWARE
    assert not found.is_software
    assert found.reason.endswith(reason)


def test_an_extractable_session_key_is_software(token: Token) -> None:
    """CKA_TOKEN=false and CKA_EXTRACTABLE=true, both read, say software; all the evidence is listed."""
    requires(token, CKM.AES_KEY_GEN)
    with Ours(token) as ours:
        found = classify(made(ours, token, {}))
    assert found.residency is Residency.SOFTWARE
    assert found.is_software
    assert found.evidence[:2] == ("CKA_TOKEN=false", "CKA_EXTRACTABLE=true")
    assert found.evidence[2] in ("CKA_DESTROYABLE=true", "CKA_DESTROYABLE not readable: CKR_ATTRIBUTE_TYPE_INVALID")
    assert found.reason.startswith("an extractable session object")


def test_a_token_key_is_hardware(token: Token) -> None:
    """CKA_TOKEN=true says hardware, whatever else the object answers."""
    found = classify(token_key(token))
    assert_hardware(found, "CKA_TOKEN=true")
    assert "CKA_TOKEN=true" in found.evidence


def test_a_session_key_that_cannot_leave_is_hardware(token: Token) -> None:
    """CKA_EXTRACTABLE=false says hardware for a session object too."""
    requires(token, CKM.AES_KEY_GEN)
    with Ours(token) as ours:
        found = classify(made(ours, token, {CKA.EXTRACTABLE: False}))
    assert_hardware(found, "CKA_EXTRACTABLE=false")
    assert found.evidence[0] == "CKA_TOKEN=false"


def test_a_session_key_that_may_not_be_destroyed_is_hardware(token: Token) -> None:
    """CKA_DESTROYABLE=false says hardware, and the key is refused before the token is asked.

    Only on a session object, which dies anyway: a token object could never be removed.
    """
    requires(token, CKM.AES_KEY_GEN)
    ours = Ours(token)
    key = ours.release(made(ours, token, {CKA.DESTROYABLE: False}))
    found = classify(key)
    if "CKA_DESTROYABLE=false" not in found.evidence:
        pytest.skip("the token keeps no CKA_DESTROYABLE")
    assert_hardware(found, "CKA_DESTROYABLE=false")
    with pytest.raises(HardwareKeyError):
        destroy_session_key(key)
    assert key.alive
    assert key.handle in token.handles({CKA.ID: key.identity.id})


@pytest.mark.parametrize("on_token", [False, True], ids=["session", "token"])
def test_public_keys_are_retained(token: Token, *, on_token: bool) -> None:
    """A public key is no secret: it is always retained."""
    requires(token, CKM.RSA_PKCS_KEY_PAIR_GEN)
    private = token_pair(token) if on_token else session_pair(token, {})
    (public,) = token.find({CKA.CLASS: CKO.PUBLIC_KEY, CKA.ID: private.identity.id})
    assert_hardware(classify(public), "CKO_PUBLIC_KEY is always retained")
    with pytest.raises(HardwareKeyError, match=r"is always retained|CKA_TOKEN=true"):
        destroy_session_key(public)
    assert_hardware(classify(private), "CKA_TOKEN=true" if on_token else "CKA_EXTRACTABLE=false")


def test_an_extractable_private_session_key_is_software(token: Token) -> None:
    """A private key is classified as a secret key is."""
    requires(token, CKM.RSA_PKCS_KEY_PAIR_GEN)
    private = session_pair(token, {CKA.EXTRACTABLE: True})
    assert classify(private).is_software
    assert destroy_session_key(private).absent


def test_an_object_that_is_gone_is_hardware(token: Token) -> None:
    """What does not answer is in doubt, and doubt is hardware.

    A handle that the token does not know is never destroyed.
    """
    unknown = token.adopt(max([*token.handles({}), 1]) + 77_777)
    found = classify(unknown)
    assert found.residency is Residency.HARDWARE
    assert found.reason.startswith("attributes not readable: C_GetAttributeValue answered CKR_")
    assert found.evidence == (found.reason,)
    with pytest.raises((HardwareKeyError, Pkcs11Error)):
        destroy_session_key(unknown)


def test_a_destroyed_key_is_stale(token: Token) -> None:
    """After its destroy an object answers nothing any more: no attribute, no identity, no class of residency."""
    requires(token, CKM.AES_KEY_GEN)
    with Ours(token) as ours:
        key = ours.release(made(ours, token, {CKA.ID: secrets.token_bytes(16)}))
    destroy_session_key(key)
    assert not key.alive
    for use in (classify, destroy_session_key, lambda dead: dead.read_identity(), lambda dead: dead.handle):
        with pytest.raises(StaleObjectError, match="was destroyed"):
            use(key)
