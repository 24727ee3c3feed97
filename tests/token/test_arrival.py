"""An unwrapped key is what was asked for: read back by us, and seen so by other programs."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from hsmbridge.attributes import AttributeQuery
from hsmbridge.codes import CKA, CKK, CKO
from hsmbridge.destruction import Ours
from hsmbridge.errors import ExistsError, Pkcs11Error, PolicyError, ReadBackError
from hsmbridge.generation import generate_key
from hsmbridge.keyspec import parse_keyspec
from hsmbridge.unwrapping import KeyRequest, Unwrapper
from tests.support.judges import listed
from tests.support.tokens import RAW_USAGE, WayIn, inventory, request_for, usage

if TYPE_CHECKING:
    from pathlib import Path

    from hsmbridge.template import Template
    from hsmbridge.token import Token
    from tests.token.conftest import Pkcs11Tool

LABELS = ["plain", "Schlüssel für später", "with 'quotes' and \\ and ;", "", "x" * 200]
TOLD = (
    CKA.CLASS, CKA.KEY_TYPE, CKA.TOKEN, CKA.SENSITIVE, CKA.EXTRACTABLE, CKA.LABEL, CKA.ID, *RAW_USAGE,
)  # fmt: skip


@pytest.fixture(scope="module")
def way_in(token: Token) -> WayIn:
    """A KEK whose software side we have."""
    return WayIn(token)


def encrypts_like(pkcs11_tool: Pkcs11Tool, directory: Path, key_id: bytes, value: bytes) -> bool:
    """Have pkcs11-tool encrypt with the token's key and `cryptography` with the known bytes, and compare."""
    plain, iv = secrets.token_bytes(64), secrets.token_bytes(16)
    source, output = directory / "plain", directory / "cipher"
    source.write_bytes(plain)
    names = ("--input-file", str(source), "--output-file", str(output))
    pkcs11_tool("--encrypt", "--mechanism", "AES-CBC", "--iv", iv.hex(), "--id", key_id.hex(), *names)
    encryptor = Cipher(algorithms.AES(value), modes.CBC(iv)).encryptor()
    return output.read_bytes() == encryptor.update(plain) + encryptor.finalize()


@pytest.mark.parametrize(
    "use", [(), (CKA.ENCRYPT, CKA.DECRYPT), (CKA.SIGN, CKA.VERIFY), (CKA.WRAP, CKA.UNWRAP), (CKA.ENCRYPT,)]
)
@pytest.mark.parametrize("extractable", [True, False])
def test_requested_attributes_come_back(
    token: Token, way_in: WayIn, use: tuple[CKA, ...], *, extractable: bool
) -> None:
    """Label, CKA_ID, protection and each of seven usage flags are as asked, for true and for false."""
    request = request_for(CKK.AES, {**usage(*use), CKA.EXTRACTABLE: extractable, CKA.LABEL: "asked"}, size=32)
    with Ours(token) as ours:
        key = ours.take(Unwrapper(way_in.kek).unwrap(way_in.seal(secrets.token_bytes(32)), request).key)
        found = key.read(AttributeQuery(TOLD))
        expected = {CKA.CLASS: CKO.SECRET_KEY, CKA.KEY_TYPE: CKK.AES, **request.template}
        assert {kind: found.get(kind) for kind in TOLD} == expected


@pytest.mark.parametrize("label", LABELS)
def test_labels_survive(token: Token, way_in: WayIn, label: str) -> None:
    """A label comes back as it was written, whatever is in it."""
    with Ours(token) as ours:
        request = request_for(CKK.AES, {CKA.LABEL: label})
        assert ours.take(Unwrapper(way_in.kek).unwrap(way_in.seal(bytes(32)), request).key).identity.label == label


def test_a_persisted_key_is_there_for_other_processes(
    token: Token, way_in: WayIn, pkcs11_tool: Pkcs11Tool, tmp_path: Path
) -> None:
    """pkcs11-tool, in a process of its own, lists the key with its name and usage.

    It encrypts with it as `cryptography` does with the known bytes.
    """
    value, key_id, label = secrets.token_bytes(32), secrets.token_bytes(16), f"kept {secrets.token_hex(4)}"
    kept: Template = {
        CKA.TOKEN: True,
        CKA.EXTRACTABLE: False,
        CKA.ID: key_id,
        CKA.LABEL: label,
        CKA.ENCRYPT: True,
        CKA.DECRYPT: True,
    }
    before = inventory(token)
    key = Unwrapper(way_in.kek).unwrap(way_in.seal(value), request_for(CKK.AES, kept, size=32)).key
    assert inventory(token) - before == {key.handle}  # the session object that was tried first is gone
    shown = listed(pkcs11_tool("--list-objects", "--type", "secrkey").stdout, key_id)
    assert shown["label"] == label
    assert set(shown["Usage"].split(", ")) == {"encrypt", "decrypt"}
    access = shown["Access"].split(", ")
    assert "sensitive" in access
    assert "extractable" not in access
    assert encrypts_like(pkcs11_tool, tmp_path, key_id, value)


def test_a_session_key_is_not_there_for_other_processes(token: Token, way_in: WayIn, pkcs11_tool: Pkcs11Tool) -> None:
    """A key that was not to be kept is seen by nobody else."""
    with Ours(token) as ours:
        key = ours.take(Unwrapper(way_in.kek).unwrap(way_in.seal(bytes(32)), request_for(CKK.AES)).key)
        assert listed(pkcs11_tool("--list-objects", "--type", "secrkey").stdout, key.identity.id) == {}


def test_a_taken_id_is_refused(token: Token, way_in: WayIn, pkcs11_tool: Pkcs11Tool, tmp_path: Path) -> None:
    """A token key is not replaced by another with its CKA_ID, as NSS would.

    Neither by unwrap nor by generate; the first one works on.
    """
    first, second, key_id = secrets.token_bytes(32), secrets.token_bytes(32), secrets.token_bytes(16)
    kept: Template = {CKA.TOKEN: True, CKA.ID: key_id, CKA.LABEL: "first", CKA.ENCRYPT: True}
    unwrapper = Unwrapper(way_in.kek)
    unwrapper.unwrap(way_in.seal(first), request_for(CKK.AES, kept))
    before = inventory(token)
    with pytest.raises(ExistsError, match=key_id.hex()) as refusal:
        unwrapper.unwrap(way_in.seal(second), request_for(CKK.AES, {**kept, CKA.LABEL: "second"}))
    assert isinstance(refusal.value, PolicyError)
    assert refusal.value.hint
    with pytest.raises(ExistsError):
        generate_key(token, parse_keyspec("aes:256"), {CKA.TOKEN: True, CKA.ID: key_id})
    assert inventory(token) == before
    assert encrypts_like(pkcs11_tool, tmp_path, key_id, first)


def test_what_the_token_makes_otherwise_is_not_kept(token: Token, way_in: WayIn) -> None:
    """A key that comes out with another attribute than expected is an error.

    Neither a session nor a token object is left.
    """
    for persistent in (False, True):
        wish = request_for(CKK.AES, {CKA.TOKEN: persistent})
        # No token lets an unwrapped key be one that never could leave (PKCS#11 v3.1 section 5.14.4).
        request = KeyRequest(
            cls=wish.cls, key_type=wish.key_type, template=wish.template, expected={CKA.NEVER_EXTRACTABLE: True}
        )
        before = inventory(token)
        with pytest.raises(ReadBackError, match="CKA_NEVER_EXTRACTABLE False instead of True"):
            Unwrapper(way_in.kek).unwrap(way_in.seal(bytes(32)), request)
        assert inventory(token) == before


@pytest.mark.parametrize("bad", [{CKA.KEY_TYPE: 0x80001234}, {CKA.MODULUS: bytes(16)}, {CKA.CHECK_VALUE: bytes(3)}])
def test_a_template_that_the_token_refuses_leaves_nothing(token: Token, way_in: WayIn, bad: Template) -> None:
    """An impossible attribute is an error and leaves no token object.

    What the module itself leaves behind is reported in it.
    """
    for persistent in (False, True):
        before, kept_before = inventory(token), set(token.handles({CKA.TOKEN: True}))
        request = request_for(CKK.AES, {CKA.TOKEN: persistent, **bad})
        with Ours(token) as ours:
            try:
                ours.take(Unwrapper(way_in.kek).unwrap(way_in.seal(bytes(32)), request).key)
            except (Pkcs11Error, ReadBackError) as refusal:
                notes = "; ".join(getattr(refusal, "__notes__", []))
            else:
                pytest.skip("the token keeps whatever attribute it is given")
        assert set(token.handles({CKA.TOKEN: True})) == kept_before
        # SoftHSM leaves a nameless session object; it cannot be attributed, so it is not removed
        assert inventory(token) == before or "left" in notes


def test_one_unwrapper_serves_many_keys(token: Token, way_in: WayIn) -> None:
    """A hundred keys through one unwrapper are a hundred objects, and destroying them leaves none."""
    before = inventory(token)
    request = request_for(CKK.AES, {CKA.ENCRYPT: True, CKA.DECRYPT: True})
    unwrapper = Unwrapper(way_in.kek)
    with Ours(token) as ours:
        keys = [ours.take(unwrapper.unwrap(way_in.seal(secrets.token_bytes(32)), request).key) for _ in range(100)]
        assert len({key.handle for key in keys}) == 100
    assert inventory(token) == before
