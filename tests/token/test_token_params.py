"""Parameters of keys in a token: what the token tells, what it can run, and that their bytes stay there."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest
from hsmbridge_csp.blobheader import AlgId, BlobType
from hsmbridge_csp.errors import NTE, CspError, KeyStateError
from hsmbridge_csp.params import KP, CryptMode
from hsmbridge_csp.provider import Provider

from hsmbridge.codes import CKA, CKR
from hsmbridge.destruction import Ours
from hsmbridge.errors import Pkcs11Error
from hsmbridge.generation import generate_key
from hsmbridge.keyspec import parse_keyspec
from tests.support.tokens import requires, usage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsmbridge_csp.token_key import TokenKey

    from hsmbridge.keyspec import KeySpec
    from hsmbridge.objects import Object
    from hsmbridge.template import Template
    from hsmbridge.token import Token


@pytest.fixture
def provider(token: Token) -> Provider:
    """A provider on the token."""
    return Provider(token)


def session_key(ours: Ours, token: Token, spec: KeySpec, template: Template) -> Object:
    """Generate a session object; a token that makes none (a TPM keeps its keys) is asked nothing more."""
    try:
        return ours.take(generate_key(token, spec, template))
    except Pkcs11Error as refusal:
        if refusal.ckr not in (CKR.FUNCTION_NOT_SUPPORTED, CKR.ATTRIBUTE_VALUE_INVALID):
            raise
        pytest.skip(f"the token makes no such session object: {refusal}")


@pytest.fixture(params=[128, 256])
def key(provider: Provider, token: Token, request: pytest.FixtureRequest) -> Iterator[tuple[TokenKey, int]]:
    """An AES session object that encrypts and decrypts, and its size."""
    template = {CKA.TOKEN: False, CKA.LABEL: f"params {secrets.token_hex(4)}", **usage(CKA.ENCRYPT, CKA.DECRYPT)}
    with Ours(token) as ours:
        spec = parse_keyspec(f"aes:{request.param}")
        yield provider.adopt(session_key(ours, token, spec, template)), request.param


def test_the_token_tells_the_size(provider: Provider, key: tuple[TokenKey, int]) -> None:
    """KP_KEYLEN and KP_ALGID of a token's AES key come from its CKA_VALUE_LEN."""
    token_key, bits = key
    assert provider.get_param(token_key, KP.KEYLEN) == bits
    assert provider.get_param(token_key, KP.ALGID) == {128: AlgId.AES_128, 256: AlgId.AES_256}[bits]
    assert provider.get_param(token_key, KP.BLOCKLEN) == 128


@pytest.mark.parametrize(
    ("text", "bits", "algorithm"),
    [
        ("des3", 192, AlgId.TRIPLE_DES),
        ("rsa:2048", 2048, AlgId.RSA_KEYX),
        ("ec:p-384", 384, AlgId.ECDSA),
        ("ed25519", 256, AlgId.NONE),
    ],
)
def test_sizes_of_other_keys(provider: Provider, token: Token, text: str, bits: int, algorithm: AlgId) -> None:
    """A 3DES key counts with its parity bits, a private key as its public half tells."""
    spec = parse_keyspec(text)
    requires(token, spec.generation)
    own: Template = {CKA.SIGN: True, CKA.DECRYPT: False, CKA.UNWRAP: False, CKA.DERIVE: False}
    template = own if spec.is_pair else usage(CKA.ENCRYPT, CKA.DECRYPT)
    label: Template = {CKA.TOKEN: False, CKA.LABEL: f"params {secrets.token_hex(4)}", CKA.ID: secrets.token_bytes(8)}
    with Ours(token) as ours:
        key = provider.adopt(session_key(ours, token, spec, {**template, **label}))
        assert provider.get_param(key, KP.KEYLEN) == bits
        assert provider.get_param(key, KP.ALGID) == algorithm


def test_modes_that_the_token_does_not_run(provider: Provider, key: tuple[TokenKey, int]) -> None:
    """KP_MODE takes ECB and CBC for a token key; the rest is NTE_BAD_DATA when it is set, not when data come."""
    token_key, _ = key
    for mode in (CryptMode.CFB, CryptMode.OFB, CryptMode.CTR):
        with pytest.raises(CspError, match="KP_MODE") as caught:
            provider.set_param(token_key, KP.MODE, mode)
        assert caught.value.nte == NTE.BAD_DATA
    provider.set_param(token_key, KP.MODE, CryptMode.ECB)
    provider.set_param(token_key, KP.MODE, CryptMode.CBC)
    provider.set_param(token_key, KP.IV, bytes(range(16)))
    assert provider.get_param(token_key, KP.IV) == bytes(range(16))


@pytest.mark.parametrize("kind", [BlobType.PLAINTEXTKEYBLOB, BlobType.KEYSTATEBLOB])
def test_its_bytes_stay_there(provider: Provider, key: tuple[TokenKey, int], kind: BlobType) -> None:
    """A token key goes into no blob in the clear: NTE_BAD_KEY_STATE, extractable or not."""
    with pytest.raises(KeyStateError, match="token") as caught:
        provider.export_raw(key[0], kind)
    assert caught.value.nte == NTE.BAD_KEY_STATE
