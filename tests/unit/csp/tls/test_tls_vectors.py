"""Known answers: RFC 8448's handshake, the TLS 1.2 PRF, and OpenSSL's own key derivation as judge of any input.

Sources of what is typed in:
RFC 8448 section 3 ("Simple 1-RTT Handshake"): master secret, transcript hash, secrets, keys, IVs, and the records of
application data and alerts.
The PRF vectors have no RFC. They were posted to the IETF TLS mailing list, and TLS libraries carry them in their tests.
"""

from __future__ import annotations

import subprocess

import pytest
from hsmbridge_csp.errors import BadLengthError, CspError
from hsmbridge_csp.modes import Direction
from hsmbridge_csp.tls import CipherSuite, ContentType, Randoms, Side, TlsKeyPair, TlsRecordKey, derive_tls13_keys
from hsmbridge_csp.tls.prf import KeyBlock, extended_master_secret, master_secret, prf
from hsmbridge_csp.tls.schedule import derive_secret, expand_label, next_traffic_secret, traffic_key
from hypothesis import given, settings
from hypothesis import strategies as st

SUITE = CipherSuite.TLS_AES_128_GCM_SHA256
MASTER = bytes.fromhex("18df06843d13a08bf2a449844c5f8a478001bc4d4c627984d5a41da8d0402919")
TRANSCRIPT = bytes.fromhex("9608102a0f1ccc6db6250b7b7e417b1a000eaada3daae4777a7686c9ff83df13")
CLIENT_SECRET = bytes.fromhex("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5")
SERVER_SECRET = bytes.fromhex("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643")
EXPORTER = bytes.fromhex("fe22f881176eda18eb8f44529e6792c50c9a3f89452f68d8ae311b4309d3cf50")
CLIENT_KEY, CLIENT_IV = "17422dda596ed5d9acd890e3c63f5051", "5b78923dee08579033e523d9"
SERVER_KEY, SERVER_IV = "9f02283b6c9c07efc26bb9f2ac92e356", "cf782b88dd83549aadf1e984"
TEXT = bytes(range(50))
CLIENT_DATA = bytes.fromhex(
    "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a20441e2b62974e1f5a6292a2"
    "977014bd1e3deae63aeebb21694915e4"
)
SERVER_DATA = bytes.fromhex(
    "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6dffc602dcb501a59a8fcc49c4bf2e5f0a2"
    "1c0047c2abf332540dd032e167c2955d"
)
CLIENT_CLOSE = bytes.fromhex("1703030013c9872760655666b74d7ff1153efd6db6d0b0e3")
SERVER_CLOSE = bytes.fromhex("1703030013b58fd67166ebf599d24720cfbe7efa7a8864a9")
CLOSE_NOTIFY = b"\x01\x00"


def test_rfc8448_secrets_and_keys() -> None:
    """From the master secret to traffic secrets, keys and IVs as RFC 8448 prints them."""
    form = SUITE.form
    assert derive_secret(form, MASTER, "c ap traffic", TRANSCRIPT) == CLIENT_SECRET
    assert derive_secret(form, MASTER, "s ap traffic", TRANSCRIPT) == SERVER_SECRET
    assert derive_secret(form, MASTER, "exp master", TRANSCRIPT) == EXPORTER
    for secret, key, iv in ((CLIENT_SECRET, CLIENT_KEY, CLIENT_IV), (SERVER_SECRET, SERVER_KEY, SERVER_IV)):
        made_key, made_iv = traffic_key(form, secret)
        assert (made_key.hex(), made_iv.hex()) == (key, iv)


def test_rfc8448_records() -> None:
    """Both ends seal and open RFC 8448's records byte for byte, the server's beginning behind its ticket."""
    client = derive_tls13_keys(SUITE, CLIENT_SECRET, SERVER_SECRET, Side.CLIENT, sequences=(0, 1))
    server = derive_tls13_keys(SUITE, CLIENT_SECRET, SERVER_SECRET, Side.SERVER, sequences=(1, 0))
    assert isinstance(client, TlsKeyPair)
    assert isinstance(server, TlsKeyPair)
    for content, data in ((ContentType.APPLICATION_DATA, TEXT), (ContentType.ALERT, CLOSE_NOTIFY)):
        is_data = content is ContentType.APPLICATION_DATA
        from_client, from_server = (CLIENT_DATA, SERVER_DATA) if is_data else (CLIENT_CLOSE, SERVER_CLOSE)
        assert client.write.seal(content, data) == from_client
        assert server.read.open(from_client) == (content, data)
        assert server.write.seal(content, data) == from_server
        assert client.read.open(from_server) == (content, data)


PRF_SHA256 = (
    "e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a6b301791e90d35c9c9a46b4e14baf9af0fa022f7077def17"
    "abfd3797c0564bab4fbc91666e9def9b97fce34f796789baa48082d122ee42c5a72e5a5110fff70187347b66"
)
PRF_SHA384 = (
    "7b0c18e9ced410ed1804f2cfa34a336a1c14dffb4900bb5fd7942107e81c83cde9ca0faa60be9fe34f82b1233c9146a0e534cb400fed2700"
    "884f9dc236f80edd8bfa961144c9e8d792eca722a7b32fc3d416d473ebc2c5fd4abfdad05d9184259b5bf8cd4d90fa0d31e2dec479e4f1a2"
    "6066f2eea9a69236a3e52655c9e9aee691c8f3a26854308d5eaa3be85e0990703d73e56f"
)
PRF_VECTORS = [
    ("SHA256", "9bbe436ba940f017b17652849a71db35", "a0ba9f936cda311827a6f796ffd5198c", PRF_SHA256),
    ("SHA384", "b80b733d6ceefcdc71566ea48e5567df", "cd665cf6a8447dd6ff8b27555edb7465", PRF_SHA384),
]


@pytest.mark.parametrize(("hash_name", "secret", "seed", "expected"), PRF_VECTORS, ids=["SHA256", "SHA384"])
def test_prf(hash_name: str, secret: str, seed: str, expected: str) -> None:
    """The PRF over the label ``test label``, whole and cut short anywhere."""
    wanted = bytes.fromhex(expected)
    for length in (len(wanted), 33, 32, 1):
        made = prf(hash_name, bytes.fromhex(secret), b"test label", bytes.fromhex(seed), length)
        assert made == wanted[:length]


def openssl_kdf(length: int, name: str, *options: str) -> bytes:
    """Let `openssl kdf` derive."""
    command = ["openssl", "kdf", "-keylen", str(length), "-binary"]
    for option in options:
        command += ["-kdfopt", option]
    return subprocess.run([*command, name], capture_output=True, check=True).stdout


@settings(max_examples=8, deadline=None)
@given(premaster=st.binary(min_size=1, max_size=80), randoms=st.binary(min_size=64, max_size=64), of=st.booleans())
def test_tls12_derivation_is_openssls(premaster: bytes, randoms: bytes, *, of: bool) -> None:
    """Master secrets and key blocks are those of `openssl kdf TLS1-PRF`, for suites with SHA-256 and with SHA-384."""
    name = "TLS_RSA_WITH_AES_256_GCM_SHA384" if of else "TLS_RSA_WITH_AES_128_CBC_SHA256"
    form = CipherSuite[name].form
    both = Randoms(client=randoms[:32], server=randoms[32:])
    common = f"digest:{form.hash_name}"
    master = master_secret(form, premaster, both)
    seed = b"master secret" + randoms
    assert master == openssl_kdf(48, "TLS1-PRF", common, f"hexsecret:{premaster.hex()}", f"hexseed:{seed.hex()}")
    extended = b"extended master secret" + randoms[: form.hash_size]
    assert extended_master_secret(form, premaster, randoms[: form.hash_size]) == openssl_kdf(
        48, "TLS1-PRF", common, f"hexsecret:{premaster.hex()}", f"hexseed:{extended.hex()}"
    )
    seed = b"key expansion" + both.server + both.client
    sizes = (form.mac_size, form.mac_size, form.key_size, form.key_size, form.iv_size, form.iv_size)
    wanted = openssl_kdf(sum(sizes), "TLS1-PRF", common, f"hexsecret:{master.hex()}", f"hexseed:{seed.hex()}")
    block = KeyBlock.expand(form, master, both)
    assert b"".join((*block.macs, *block.keys, *block.ivs)) == wanted
    assert block.keys[0].hex() not in repr(block)


@settings(max_examples=8, deadline=None)
@given(secret=st.binary(min_size=48, max_size=48), sha384=st.booleans())
def test_tls13_derivation_is_openssls(secret: bytes, *, sha384: bool) -> None:
    """Keys, IVs and next secrets are those of `openssl kdf TLS13-KDF`."""
    suite = CipherSuite.TLS_AES_256_GCM_SHA384 if sha384 else CipherSuite.TLS_CHACHA20_POLY1305_SHA256
    form = suite.form
    secret = secret[: form.hash_size]

    def judge(label: str, length: int) -> bytes:
        options = f"digest:{form.hash_name}", "mode:EXPAND_ONLY", f"hexkey:{secret.hex()}", "prefix:tls13 "
        return openssl_kdf(length, "TLS13-KDF", *options, f"label:{label}")

    assert [bytes(part) for part in traffic_key(form, secret)] == [judge("key", 32), judge("iv", 12)]
    following = judge("traffic upd", form.hash_size)
    assert next_traffic_secret(form, bytearray(secret)) == following
    key = TlsRecordKey.from_traffic_secret(suite, Direction.ENCRYPT, bytearray(secret))
    key.seal(ContentType.APPLICATION_DATA, b"text")
    key.update()
    assert key.value[32:] == following
    assert (key.value[:32], key.state.iv) == traffic_key(form, following)
    assert key.sequence == 0


def test_expand_label_binds_its_context() -> None:
    """Label and context make different secrets, and the context is what RFC 8446 calls the transcript's hash."""
    made = {
        bytes(expand_label("SHA256", MASTER, label, context, 32)) for label in "ab" for context in (b"", TRANSCRIPT)
    }
    assert len(made) == 4


def test_what_is_not_a_secret_is_refused() -> None:
    """Secrets and randoms of other lengths, and suites of the other version, are refused before anything is derived."""
    with pytest.raises(BadLengthError):
        Randoms(client=bytes(31), server=bytes(32))
    with pytest.raises(BadLengthError):
        KeyBlock.expand(
            CipherSuite.TLS_RSA_WITH_AES_128_GCM_SHA256.form, bytes(47), Randoms(client=bytes(32), server=bytes(32))
        )
    with pytest.raises(BadLengthError):
        derive_tls13_keys(SUITE, CLIENT_SECRET[:-1], SERVER_SECRET, Side.CLIENT)
    with pytest.raises(CspError, match="not a suite of TLS13"):
        derive_tls13_keys(CipherSuite.TLS_RSA_WITH_AES_128_GCM_SHA256, CLIENT_SECRET, SERVER_SECRET, Side.CLIENT)
