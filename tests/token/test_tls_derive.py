"""TLS keys derived in the token are those that software derives, and stay there where they must.

The judge is the software derivation, which test_tls_vectors.py holds against RFC 8448 and `openssl kdf`. A token that
cannot derive is asked for what it can: to show the secret, or to say clearly that it does not.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hsmbridge_csp.errors import CspError
from hsmbridge_csp.tls import (
    CipherSuite,
    ContentType,
    Randoms,
    Side,
    TlsKeyPair,
    TokenTlsKeys,
    derive_tls12_keys,
    derive_tls13_keys,
)
from hsmbridge_csp.tls.prf import KeyBlock
from hsmbridge_csp.tls.schedule import next_traffic_secret, traffic_key
from hsmbridge_csp.tls.suites import Bulk, TlsVersion
from hsmbridge_csp.tls.token_derive import next_traffic_secret_in_token
from hsmbridge_csp.token_key import TokenKey

from hsmbridge.codes import CKA, CKK, CKM
from hsmbridge.destruction import Ours
from hsmbridge.entry import key_entry
from hsmbridge.errors import MechanismError, Pkcs11Error
from hsmbridge.mechanism import Mechanism
from tests.support.tokens import inventory, requires_entry, requires_readable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsmbridge.template import Template
    from hsmbridge.token import Token

RANDOMS = Randoms(client=bytes(range(32)), server=bytes(range(100, 132)))
OF_12 = [
    CipherSuite.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    CipherSuite.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    CipherSuite.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    CipherSuite.TLS_RSA_WITH_AES_128_CBC_SHA,
    CipherSuite.TLS_RSA_WITH_AES_256_CBC_SHA256,
]
OF_13 = [suite for suite in CipherSuite if suite.version is TlsVersion.TLS13]
every_12 = pytest.mark.parametrize("suite", OF_12, ids=lambda suite: suite.name)
every_13 = pytest.mark.parametrize("suite", OF_13, ids=lambda suite: suite.name)


@pytest.fixture
def ours(token: Token) -> Iterator[Ours]:
    """Takes the secrets of a test, and whatever is left of it."""
    with Ours(token) as made:
        yield made
    assert not made.debris


def secret_key(ours: Ours, value: bytes, *, sensitive: bool) -> TokenKey:
    """Put a secret into the token, if it takes any."""
    requires_entry(ours.token)
    use: Template = {CKA.SENSITIVE: sensitive, CKA.EXTRACTABLE: not sensitive, CKA.DERIVE: True}
    return TokenKey(key_entry(ours.token).enter(ours, CKK.GENERIC_SECRET, value, use))


def keep(ours: Ours, keys: TokenTlsKeys) -> None:
    """See to it that what stays in the token goes at the end of the test."""
    for key in (*keys.keys, *(keys.macs or ())):
        ours.take(key.object)


def derives_in_token(ours: Ours, suite: CipherSuite) -> bool:
    """Try whether the token has the mechanism: NSS lists CKM_TLS12_KEY_AND_MAC_DERIVE in FIPS mode only, and has it."""
    size = 48 if suite.version is TlsVersion.TLS12 else suite.form.hash_size
    try:
        secret = secret_key(ours, secrets.token_bytes(size), sensitive=True)
        keys = (
            derive_tls12_keys(suite, secret, RANDOMS, Side.CLIENT, encrypt_then_mac=suite.form.bulk is Bulk.AES_CBC)
            if suite.version is TlsVersion.TLS12
            else derive_tls13_keys(suite, secret, secret, Side.CLIENT)
        )
    except MechanismError:
        return False
    assert isinstance(keys, TokenTlsKeys)
    keep(ours, keys)
    return True


def talk(one: TlsKeyPair, other: TlsKeyPair) -> None:
    """Exchange records between keys that were derived here and there."""
    for sealer, opener in ((one.write, other.read), (other.write, one.read)):
        assert opener.open(sealer.seal(ContentType.APPLICATION_DATA, b"text")) == (
            ContentType.APPLICATION_DATA,
            b"text",
        )


@every_12
def test_tls12_keys_of_a_readable_master_secret(token: Token, ours: Ours, suite: CipherSuite) -> None:
    """They are software's, they come out as record keys, and no object stays behind; with or without the mechanism."""
    requires_readable(token)
    before = inventory(token)
    value, etm = secrets.token_bytes(48), suite.form.bulk is Bulk.AES_CBC
    master = secret_key(ours, value, sensitive=False)
    client = derive_tls12_keys(suite, master, RANDOMS, Side.CLIENT, encrypt_then_mac=etm, sequences=(1, 1))
    server = derive_tls12_keys(suite, value, RANDOMS, Side.SERVER, encrypt_then_mac=etm, sequences=(1, 1))
    assert isinstance(client, TlsKeyPair)
    assert isinstance(server, TlsKeyPair)
    assert (client.write.value, client.write.state.iv) == (server.read.value, server.read.state.iv)
    assert (client.read.value, client.read.state.iv) == (server.write.value, server.write.state.iv)
    talk(client, server)
    ours.remove(master.object)
    assert inventory(token) == before


@every_12
def test_tls12_keys_of_a_sensitive_master_secret(ours: Ours, suite: CipherSuite) -> None:
    """They stay in the token, cannot be read, and compute there what software's keys compute; the IVs are told."""
    if not derives_in_token(ours, suite):
        pytest.skip("the token does not derive TLS 1.2 keys (of this kind)")
    value = secrets.token_bytes(48)
    keys = derive_tls12_keys(
        suite,
        secret_key(ours, value, sensitive=True),
        RANDOMS,
        Side.CLIENT,
        encrypt_then_mac=suite.form.bulk is Bulk.AES_CBC,
    )
    assert isinstance(keys, TokenTlsKeys)
    keep(ours, keys)
    block = KeyBlock.expand(suite.form, value, RANDOMS)
    assert keys.ivs == block.ivs
    assert (keys.macs is None) == (suite.form.mac == "")
    for held, known in zip((*keys.keys, *(keys.macs or ())), (*block.keys, *block.macs), strict=False):
        with pytest.raises(Pkcs11Error, match="CKR_ATTRIBUTE_SENSITIVE"):
            held.object.read_value()
        if held.key_type == CKK.AES:
            assert_same_aes_key(held, bytes(known))


@every_13
def test_tls13_keys_of_readable_secrets(token: Token, ours: Ours, suite: CipherSuite) -> None:
    """They are software's, and with their secrets they follow a KeyUpdate; no object stays behind."""
    requires_readable(token)
    before = inventory(token)
    values = [secrets.token_bytes(suite.form.hash_size) for _ in range(2)]
    held = [secret_key(ours, value, sensitive=False) for value in values]
    client = derive_tls13_keys(suite, held[0], held[1], Side.CLIENT)
    server = derive_tls13_keys(suite, values[0], values[1], Side.SERVER)
    assert isinstance(client, TlsKeyPair)
    assert isinstance(server, TlsKeyPair)
    talk(client, server)
    for key in (client.write, server.read):
        key.update()
    talk(client, server)
    for secret in held:
        ours.remove(secret.object)
    assert inventory(token) == before


@every_13
def test_tls13_keys_of_sensitive_secrets(ours: Ours, suite: CipherSuite) -> None:
    """They stay in the token, and so does the next secret; the IVs are told, and are software's."""
    if not derives_in_token(ours, suite):
        pytest.skip("the token does not derive TLS 1.3 keys (of this kind)")
    values = [secrets.token_bytes(suite.form.hash_size) for _ in range(2)]
    held = [secret_key(ours, value, sensitive=True) for value in values]
    for _ in range(2):  # the second time with the next secrets
        keys = derive_tls13_keys(suite, held[0], held[1], Side.SERVER)
        assert isinstance(keys, TokenTlsKeys)
        keep(ours, keys)
        for part in range(2):
            known, iv = traffic_key(suite.form, values[part])
            assert keys.ivs[part] == iv
            with pytest.raises(Pkcs11Error, match="CKR_ATTRIBUTE_SENSITIVE"):
                keys.keys[part].object.read_value()
            if suite.form.bulk is Bulk.AES_GCM:
                assert_same_aes_key(keys.keys[part], bytes(known))
        held = [next_traffic_secret_in_token(suite.form, secret.object) for secret in held]
        values = [bytes(next_traffic_secret(suite.form, bytearray(value))) for value in values]
        for secret in held:
            ours.take(secret.object)
            with pytest.raises(Pkcs11Error, match="CKR_ATTRIBUTE_SENSITIVE"):
                secret.object.read_value()


def assert_same_aes_key(held: TokenKey, known: bytes) -> None:
    """Compare by one block: the token's key encrypts it as the known key does."""
    token, block = held.object.token, secrets.token_bytes(16)
    with token.sessions as session:
        there = token.calls.encrypt(session, Mechanism(CKM.AES_ECB), held.object.handle, block)
    encryptor = Cipher(algorithms.AES(known), modes.ECB()).encryptor()  # noqa: S305 - one block, to compare keys
    assert there == encryptor.update(block)


@pytest.mark.parametrize("suite", [OF_12[0], OF_13[0]], ids=lambda suite: suite.name)
def test_a_token_that_can_neither_derive_nor_show(ours: Ours, suite: CipherSuite) -> None:
    """A sensitive secret in a token without the mechanism gives nothing, and the error names the mechanism."""
    if derives_in_token(ours, suite):
        pytest.skip("the token derives")
    secret = secret_key(ours, bytes(48 if suite is OF_12[0] else 32), sensitive=True)

    def derive() -> object:
        if suite is OF_12[0]:
            return derive_tls12_keys(suite, secret, RANDOMS, Side.CLIENT)
        return derive_tls13_keys(suite, secret, secret, Side.CLIENT)

    with pytest.raises(MechanismError, match="does not derive TLS keys, and does not show") as refused:
        derive()
    assert "CKM_" in str(refused.value.hint)


def test_secrets_on_both_sides_of_the_fence(ours: Ours) -> None:
    """One secret in the token and one outside is a mistake of the caller's."""
    held = secret_key(ours, bytes(32), sensitive=True)
    with pytest.raises(CspError, match="one traffic secret is in a token"):
        derive_tls13_keys(OF_13[0], held, bytes(32), Side.CLIENT)


def test_a_secret_that_is_no_master_secret(token: Token, ours: Ours) -> None:
    """The token's refusal arrives as such, and nothing is left behind."""
    suite = OF_12[0]
    if not derives_in_token(ours, suite):
        pytest.skip("the token does not derive TLS 1.2 keys")
    secret = secret_key(ours, bytes(20), sensitive=True)
    before = inventory(token)
    with pytest.raises(Pkcs11Error, match="C_DeriveKey"):
        derive_tls12_keys(suite, secret, RANDOMS, Side.CLIENT)
    assert inventory(token) == before
