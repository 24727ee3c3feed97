"""KEKs that the token generates: what they look like to other programs, and what they are called."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING

import pytest

from hsmbridge.codes import CKA, CKK, CKO
from hsmbridge.destruction import Ours
from hsmbridge.dialects import Dialect
from hsmbridge.errors import KekError, Pkcs11Error
from hsmbridge.generation import enforces_unwrap_template, generate_kek, kek_fingerprint
from hsmbridge.keyspec import parse_keyspec
from hsmbridge.probe import probe
from hsmbridge.unwrapping import unwrap
from tests.support.judges import aes_wrap, listed
from tests.support.tokens import enter_kek, make, raw_wrap, request_for, requires, requires_entry

if TYPE_CHECKING:
    from pathlib import Path

    from hsmbridge.objects import Object
    from hsmbridge.token import Token
    from tests.token.conftest import Pkcs11Tool


def test_a_generated_kek_is_safe(token: Token, pkcs11_tool: Pkcs11Tool) -> None:
    """pkcs11-tool, in a process of its own, sees a KEK that wraps and unwraps and nothing else.

    It is sensitive and was never extractable.
    """
    requires(token, Dialect.AES_KWP)
    requires_entry(token)
    label = f"kek {secrets.token_hex(4)}"
    kek = generate_kek(token, parse_keyspec("aes:256"), label=label)
    lines = listed(pkcs11_tool("--list-objects", "--type", "secrkey").stdout, kek.identity.id)
    assert lines["label"] == label
    assert set(lines["Usage"].split(", ")) == {"wrap", "unwrap"}
    access = set(lines["Access"].split(", "))
    assert {"sensitive", "always sensitive", "never extractable"} <= access
    assert "extractable" not in access
    if enforces_unwrap_template(token):
        wrapped = aes_wrap(Dialect.AES_KWP, secrets.token_bytes(32), secrets.token_bytes(32))
        with pytest.raises(KekError, match="CKA_UNWRAP_TEMPLATE demands"):
            unwrap(kek, wrapped, request_for(CKK.AES))


def test_an_aes_kek_is_named_by_its_fingerprint(token: Token) -> None:
    """The fingerprint is 16 bytes of SHA-256 over `cryptography`'s RFC 3394 wrap of the fixed value."""
    requires(token, Dialect.AES_KW)
    requires_entry(token)
    kek_value = secrets.token_bytes(32)
    with Ours(token) as ours:
        kek = enter_kek(ours, token, kek_value)
        expected = hashlib.sha256(aes_wrap(Dialect.AES_KW, kek_value, b"hsmbridge KEK id")).digest()[:16]
        assert kek_fingerprint(kek) == expected
    made = generate_kek(token, parse_keyspec("aes:256"), label="named", persist=False)
    assert made.identity.id == kek_fingerprint(made)


def test_an_rsa_kek_is_named_by_its_fingerprint(token: Token, pkcs11_tool: Pkcs11Tool, tmp_path: Path) -> None:
    """Both halves of an RSA KEK bear SHA-256 of the SubjectPublicKeyInfo that pkcs11-tool reads from the token."""
    requires_entry(token)
    kek = generate_kek(token, parse_keyspec("rsa:3072"), label=f"pair {secrets.token_hex(4)}")
    output = tmp_path / "public.der"
    name = kek.identity.id.hex()
    pkcs11_tool("--read-object", "--type", "pubkey", "--id", name, "--output-file", str(output))
    assert hashlib.sha256(output.read_bytes()).hexdigest() == name
    assert len(token.handles({CKA.CLASS: CKO.PRIVATE_KEY, CKA.ID: kek.identity.id})) == 1
    assert raw_is_refused(token, kek)


def raw_is_refused(token: Token, kek: Object) -> bool:
    """Whether the private half of a pair refuses to wrap, as it has no CKA_WRAP."""
    with Ours(token) as ours:
        route = next(iter(route for route in probe(token).findings().values() if not isinstance(route, str)))
        try:
            raw_wrap(route, kek, make(ours, token))
        except Pkcs11Error:
            return True
    return False
