"""The provider on a token: keys leave with their state, arrive with it, and end at the source as they should."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import cbor2
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap, aes_key_wrap
from hsmbridge_csp.cipher_key import CipherKey, StreamingKey
from hsmbridge_csp.clearpart import Purpose
from hsmbridge_csp.disposition import Outcome
from hsmbridge_csp.engines import TokenEngine
from hsmbridge_csp.errors import NTE, BadKeyError, BlobError, KeyStateError, PermissionDeniedError
from hsmbridge_csp.identity import FileIdentity
from hsmbridge_csp.modes import Cipher, Direction, Mode, Padding
from hsmbridge_csp.permissions import DEFAULT, Permission
from hsmbridge_csp.provider import Provider
from hsmbridge_csp.stream import CipherState
from hsmbridge_csp.token_key import TokenKey

from hsmbridge.attributes import AttributeQuery
from hsmbridge.capture import SETTABLE
from hsmbridge.codes import CKA, CKK, CKM, CKO
from hsmbridge.destruction import Ours
from hsmbridge.dialects import Dialect
from hsmbridge.errors import (
    ExistsError,
    InputError,
    KekError,
    NotExtractableError,
    NotFoundError,
    Pkcs11Error,
    PolicyError,
    UsageError,
)
from hsmbridge.generation import enforces_unwrap_template, generate_kek, generate_key
from hsmbridge.keyspec import parse_keyspec
from hsmbridge.residency import Residency
from tests.support.tokens import (
    des3_value,
    enter,
    enter_kek,
    inventory,
    make,
    requires,
    requires_entry,
    requires_readable,
    usage,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hsmbridge_csp.recipient_kek import TokenKek

    from hsmbridge.objects import Object
    from hsmbridge.template import Template, Value
    from hsmbridge.token import Token
    from tests.token.conftest import Pkcs11Tool, TokenEnv

AES = parse_keyspec("aes:256")
ZERO_IV = bytes(16)
CBC = (CKA.ENCRYPT, CKA.DECRYPT)
TEXT = bytes(11 * number % 253 for number in range(1000))
STOP = 503  # inside a block
OPENSSL = {Mode.CBC: "aes-256-cbc", Mode.CTR: "aes-256-ctr", Mode.OFB: "aes-256-ofb", Mode.CFB128: "aes-256-cfb"}


@pytest.fixture
def ours(token: Token) -> Iterator[Ours]:
    """What a test makes in the token and what is removed after it."""
    inventory(token)
    with Ours(token) as ours:
        yield ours


@pytest.fixture
def provider(token: Token) -> Provider:
    """A provider on a token that can be sealed for, with an identity that signs."""
    requires(token, Dialect.AES_KW)
    requires_entry(token)
    return Provider(token, identity=FileIdentity.generate())


@pytest.fixture
def unsigning(provider: Provider) -> Provider:
    """A provider that signs nothing and takes what is not signed: only the seal protects the blob."""
    return Provider(provider.token)


def new_kek(provider: Provider, ours: Ours, *, persist: bool = False, unwrap_template: bool = False) -> TokenKek:
    """Generate a safe KEK."""
    label = f"kek {secrets.token_hex(4)}"
    assert provider.token is not None
    return provider.kek(
        ours.take(generate_kek(provider.token, AES, label=label, persist=persist, unwrap_template=unwrap_template))
    )


def new_token_key(token: Token, ours: Ours, template: Template | None = None) -> Object:
    """Generate an AES token key that may encrypt and decrypt, and is not extractable."""
    wanted: dict[int, Value] = {CKA.TOKEN: True, CKA.LABEL: f"token key {secrets.token_hex(4)}", **usage(*CBC)}
    return ours.take(generate_key(token, AES, {**wanted, **(template or {})}))


def new_key(bits: int) -> CipherKey:
    """Make a software key."""
    return CipherKey(Cipher.AES, bytearray(secrets.token_bytes(bits // 8)))


def arrive(provider: Provider, blob: bytes, kek: TokenKek, *, persist: bool = False) -> StreamingKey:
    """Import a key of a block cipher; without a signature only where the provider signs nothing."""
    unsigned = provider.identity is None
    key = provider.import_key(blob, kek, persist=persist, allow_unsigned=unsigned)
    assert isinstance(key, StreamingKey)
    return key


def import_token_key(provider: Provider, ours: Ours, blob: bytes, kek: TokenKek, *, persist: bool = False) -> TokenKey:
    """Import a key that must arrive in the token."""
    key = arrive(provider, blob, kek, persist=persist)
    assert isinstance(key, TokenKey)
    ours.take(key.object)
    return key


def seen_from_here(token: Token) -> tuple[int, list[int]]:
    """Return the session of this thread and the objects that it sees."""
    with token.sessions as session:
        return session, token.handles({})


def openssl(key: bytes, data: bytes, mode: Mode = Mode.CBC, iv: bytes = ZERO_IV, *more: str) -> bytes:
    """Let `openssl enc` encrypt in one go."""
    command = ["openssl", "enc", f"-{OPENSSL[mode]}", "-K", key.hex(), "-iv", iv.hex(), *more]
    return subprocess.run(command, input=data, capture_output=True, check=True, timeout=60).stdout


def attributes_of(key: Object) -> dict[int, Value]:
    """Read everything about a secret key that can be set."""
    found = key.read(AttributeQuery((CKA.CLASS, CKA.KEY_TYPE, *SETTABLE[CKO.SECRET_KEY])))
    kinds = (CKA.CLASS, CKA.KEY_TYPE, *SETTABLE[CKO.SECRET_KEY])
    return {int(kind): found[kind] for kind in kinds if kind in found}


def shown(pkcs11_tool: Pkcs11Tool, key: TokenKey) -> bool:
    """Whether another program sees the key, by its CKA_ID."""
    listed = pkcs11_tool("--list-objects", "--type", "secrkey").stdout
    return f"{key.object.identity.id.hex()}" in listed


# ---- streams go on


@pytest.mark.parametrize("stop", [0, 1, 16, 503, 999, 1000])
def test_a_stream_goes_on_after_import(provider: Provider, ours: Ours, stop: int) -> None:
    """A software key's AES-CBC stream, stopped anywhere and finished after export and import, is openssl's stream."""
    kek, value = new_kek(provider, ours), secrets.token_bytes(32)
    key = CipherKey(Cipher.AES, bytearray(value))
    begun = key.encrypt(TEXT[:stop])
    arrived = arrive(provider, provider.export_key(key, kek), kek)
    assert isinstance(arrived, CipherKey)
    assert begun + arrived.encrypt(TEXT[stop:], final=True) == openssl(value, TEXT)


@pytest.mark.parametrize("stop", [1, 16, 503, 1007])
def test_a_stream_of_decryption_goes_on(provider: Provider, ours: Ours, stop: int) -> None:
    """So does a stream that decrypts what openssl encrypted, with its block held back for the padding."""
    kek, value = new_kek(provider, ours), secrets.token_bytes(32)
    sealed = openssl(value, TEXT)
    key = CipherKey(Cipher.AES, bytearray(value))
    begun = key.decrypt(sealed[:stop])
    arrived = arrive(provider, provider.export_key(key, kek), kek)
    assert begun + arrived.decrypt(sealed[stop:], final=True) == TEXT


def test_a_stream_in_the_token_goes_on(provider: Provider, token: Token, ours: Ours) -> None:
    """A session key of known bytes, stopped inside a block: the object that arrives finishes openssl's stream."""
    kek, value = new_kek(provider, ours), secrets.token_bytes(32)
    key = provider.adopt(enter(ours, token, CKK.AES, value, usage(*CBC)))
    begun = key.encrypt(TEXT[:STOP])
    arrived = import_token_key(provider, ours, provider.export_key(key, kek), kek)
    assert begun + arrived.encrypt(TEXT[STOP:], final=True) == openssl(value, TEXT)


CHILD = """
import json, sys
from hsmbridge.module import Module
from hsmbridge.objects import find_key
from hsmbridge_csp.identity import FileIdentity
from hsmbridge_csp.provider import Provider

told = json.loads(sys.stdin.readline())
token = Module.open(told["module"], init_args=told["args"]).token(label=told["label"])
token.login(told["pin"])
provider = Provider(token, identity=FileIdentity.from_pem(told["identity"].encode(), name="identity"))
key = provider.import_key(bytes.fromhex(told["blob"]), provider.kek(find_key(token, label=told["kek"])))
print(json.dumps({"kind": type(key).__name__, "output": key.encrypt(bytes.fromhex(told["rest"]), final=True).hex()}))
"""


@pytest.mark.parametrize("kind", ["software", "session", "token"])
def test_a_fresh_process_goes_on(
    provider: Provider, token_env: TokenEnv, ours: Ours, pkcs11_tool: Pkcs11Tool, kind: str
) -> None:
    """A process that never saw the key finishes its stream from the blob: by value, wrapped, and by reference."""
    kek, value = new_kek(provider, ours, persist=True), secrets.token_bytes(32)
    token = kek.kek.token
    key: StreamingKey
    if kind == "software":
        key = CipherKey(Cipher.AES, bytearray(value))
    elif kind == "session":
        key = provider.adopt(enter(ours, token, CKK.AES, value, usage(*CBC)))
    else:
        key = provider.adopt(new_token_key(token, ours))
    begun = key.encrypt(TEXT[:STOP])
    assert isinstance(provider.identity, FileIdentity)
    told = {
        "identity": provider.identity.to_pem().decode(),
        "module": token_env.module,
        "args": token_env.module_args,
        "label": token_env.label,
        "pin": token_env.pin,
        "kek": kek.kek.identity.label,
        "blob": provider.export_key(key, kek, purpose=Purpose.MOVE).hex(),
        "rest": TEXT[STOP:].hex(),
    }
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=json.dumps(told) + "\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["kind"] == ("CipherKey" if kind == "software" else "TokenKey")
    whole = begun + bytes.fromhex(report["output"])
    if isinstance(key, TokenKey) and kind == "token":
        path = token_env.directory / f"{secrets.token_hex(4)}.plain"
        path.write_bytes(whole)
        judged = path.with_suffix(".judged")
        names = ("--input-file", str(path), "--output-file", str(judged), "--id", key.object.identity.id.hex())
        pkcs11_tool("--decrypt", "--mechanism", "AES-CBC-PAD", "--iv", ZERO_IV.hex(), *names)
        assert judged.read_bytes() == TEXT
    else:
        assert whole == openssl(value, TEXT)


@pytest.mark.parametrize("cipher", Cipher)
@pytest.mark.parametrize("mode", [Mode.ECB, Mode.CBC])
def test_the_token_computes_what_openssl_computes(token: Token, ours: Ours, cipher: Cipher, mode: Mode) -> None:
    """ECB and CBC with AES and triple DES under known bytes: C_Encrypt and C_Decrypt agree with openssl."""
    requires_entry(token)
    aes = cipher is Cipher.AES
    requires(token, {Mode.ECB: CKM.AES_ECB, Mode.CBC: CKM.AES_CBC}[mode] if aes else CKM.DES3_CBC)
    value, iv = secrets.token_bytes(32) if aes else des3_value(), secrets.token_bytes(16 if aes else 8)
    try:
        key = enter(ours, token, CKK.AES if aes else CKK.DES3, value, usage(*CBC))
    except Pkcs11Error as refusal:
        pytest.skip(f"the token takes no such key: {refusal}")
    names = {
        (True, Mode.ECB): "aes-256-ecb",
        (True, Mode.CBC): "aes-256-cbc",
        (False, Mode.ECB): "des-ede3",
        (False, Mode.CBC): "des-ede3-cbc",
    }
    command = ["openssl", "enc", f"-{names[aes, mode]}", "-nopad", "-K", value.hex()]
    command += ["-iv", iv.hex()] if mode is Mode.CBC else []
    judged = subprocess.run(command, input=TEXT[:960], capture_output=True, check=True, timeout=60).stdout
    engine = TokenEngine(cipher, key)
    assert engine.run(mode, Direction.ENCRYPT, iv, TEXT[:960]) == judged
    assert engine.run(mode, Direction.DECRYPT, iv, judged) == TEXT[:960]


# ---- the blob, by others' code


def opened_by_others(blob: bytes, kek: bytes) -> dict[int, object]:
    """Open a blob with cbor2 and `cryptography` alone: RFC 9052's COSE_Encrypt, A256KW, A256GCM."""
    header, outer = blob[:8], cbor2.loads(blob[8:])
    encrypt = cbor2.loads(outer.value[2]) if outer.tag == 18 else outer
    assert encrypt.tag == 96
    protected, unprotected, ciphertext, recipients = encrypt.value
    assert cbor2.loads(protected)[1] == 3  # A256GCM
    (recipient,) = recipients
    assert recipient[0] == b""
    assert recipient[1][1] == -5  # A256KW
    content_key = aes_key_unwrap(kek, recipient[2])
    aad = cbor2.dumps(["Encrypt", protected, header])
    record: dict[int, object] = cbor2.loads(AESGCM(content_key).decrypt(unprotected[5], ciphertext, aad))
    return record


def test_others_open_the_blob(provider: Provider, token: Token, ours: Ours) -> None:
    """cbor2 and `cryptography`, with the KEK's bytes, find the software key's bytes and its CBC register."""
    kek_value, value = secrets.token_bytes(32), secrets.token_bytes(32)
    kek = provider.kek(enter_kek(ours, token, kek_value))
    key = CipherKey(Cipher.AES, bytearray(value))
    begun = key.encrypt(TEXT[:40])
    record = opened_by_others(provider.export_key(key, kek), kek_value)
    assert (record[1], record[2], record[3]) == ("AES", 1, value)
    state = record[11]
    assert isinstance(state, dict)
    assert (state[1], state[4], state[5], state[6]) == ("CBC", "encrypt", begun[-16:], TEXT[32:40])


def test_others_open_a_wrapped_key(provider: Provider, token: Token, ours: Ours) -> None:
    """A session key of known bytes stands in the encrypted part as a wrap under the same KEK, never in clear."""
    kek_value, value = secrets.token_bytes(32), secrets.token_bytes(32)
    kek = provider.kek(enter_kek(ours, token, kek_value))
    key = provider.adopt(enter(ours, token, CKK.AES, value, usage(*CBC)))
    record = opened_by_others(provider.export_key(key, kek), kek_value)
    assert record[2] == 2
    assert value not in cbor2.dumps(record)
    wrapped = record[3]
    assert isinstance(wrapped, bytes)
    if record[4] == Dialect.AES_KW:
        assert aes_key_unwrap(kek_value, wrapped) == value


def test_a_blob_that_was_changed_by_one_who_has_the_kek(unsigning: Provider, token: Token, ours: Ours) -> None:
    """Sealed under the KEK, but with a wrong content key or no usable record inside: bad input, no object left."""
    provider, kek_value, value = unsigning, secrets.token_bytes(32), secrets.token_bytes(32)
    kek = provider.kek(enter_kek(ours, token, kek_value))
    blob = provider.export_key(CipherKey(Cipher.AES, bytearray(value)), kek)
    encrypt = cbor2.loads(blob[8:])
    protected, unprotected, ciphertext, ((_, names, _),) = encrypt.value
    aad, content_key = cbor2.dumps(["Encrypt", protected, blob[:8]]), secrets.token_bytes(32)

    def sealed(key: bytes, body: bytes) -> bytes:
        recipient = [b"", names, aes_key_wrap(kek_value, key)]
        return blob[:8] + cbor2.dumps(cbor2.CBORTag(96, [protected, unprotected, body, [recipient]]))

    gcm, state = AESGCM(content_key), {1: "CBC", 2: ZERO_IV, 3: "PKCS5"}

    def holding(record: bytes) -> bytes:
        return sealed(content_key, gcm.encrypt(unprotected[5], record, aad))

    def record(algorithm: str, key: bytes, inside: Mapping[int, object]) -> bytes:
        return cbor2.dumps({1: algorithm, 2: 1, 3: key, 11: inside, 13: int(DEFAULT)})

    before = frozenset(token.handles({}))
    for wrong in (
        sealed(content_key, ciphertext),
        sealed(content_key[:16], ciphertext),
        sealed(content_key + content_key, ciphertext),
        holding(b""),
        holding(b"\xa0"),
        holding(record("AES", value, state) + b"\0"),
        holding(record("3DES", value[:24], {**state, 2: bytes(8)})),
        holding(record("AES", value[:31], state)),
        holding(record("AES", value, {**state, 1: "XTS"})),
        holding(record("AES", value, {**state, 2: bytes(8)})),
    ):
        with pytest.raises(InputError) as caught:
            arrive(provider, wrong, kek)
        assert caught.value.hint
        assert frozenset(token.handles({})) == before
    good = holding(record("AES", value, state))
    arrived = arrive(provider, good, kek)
    assert arrived.encrypt(TEXT, final=True) == openssl(value, TEXT)


@pytest.mark.parametrize("kind", ["software", "session"])
@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
def test_every_bit_flip_and_truncation(provider: Provider, ours: Ours, kind: str, *, signed: bool) -> None:
    """Each bit flipped, each truncation, bytes behind: refused as input or by policy, and no object is left."""
    provider = provider if signed else Provider(provider.token)
    kek = new_kek(provider, ours)
    token = kek.kek.token
    key: StreamingKey = new_key(256)
    if kind == "session":
        key = provider.adopt(make(ours, token))
    key.encrypt(TEXT[:STOP])
    blob = provider.export_key(key, kek)
    arrive(provider, blob, kek).dispose()
    before = frozenset(token.handles({}))
    flipped = [
        blob[:position] + bytes([blob[position] ^ 1 << bit]) + blob[position + 1 :]
        for position in range(len(blob))
        for bit in range(8)
    ]
    cut = [blob[:length] for length in range(len(blob))]
    for damaged in (*flipped, *cut, blob + b"\0", blob + blob):
        with pytest.raises((InputError, PolicyError)) as caught:
            arrive(provider, damaged, kek)
        assert caught.value.hint
    assert frozenset(token.handles({})) == before
    arrive(provider, blob, kek).dispose()


def test_no_key_byte_in_clear(provider: Provider, token: Token, ours: Ours) -> None:
    """Neither the blob nor any representation shows bytes of a key, of the KEK or of the buffered plaintext."""
    kek_value = secrets.token_bytes(32)
    kek = provider.kek(enter_kek(ours, token, kek_value))
    for entered in (False, True):
        value = secrets.token_bytes(32)
        key: StreamingKey = CipherKey(Cipher.AES, bytearray(value))
        if entered:
            key = provider.adopt(enter(ours, token, CKK.AES, value, usage(*CBC)))
        key.encrypt(b"buffered text")
        blob = provider.export_key(key, kek)
        arrived = arrive(provider, blob, kek)
        if isinstance(arrived, TokenKey):
            ours.take(arrived.object)
        for secret in (value, kek_value, b"buffered text"):
            assert secret[:8] not in blob
            assert secret[-8:] not in blob
            for shown_as in map(repr, (key, arrived, provider, kek, key.stream, key.cipher_state)):
                assert secret.hex() not in shown_as
                assert repr(secret)[2:-1] not in shown_as
                assert secret[:8].hex() not in shown_as


def test_two_exports_share_nothing_but_the_names(provider: Provider, ours: Ours) -> None:
    """Each export has its own blob id, content key and IV: the same key twice gives two blobs that do not correlate."""
    kek, key = new_kek(provider, ours), new_key(256)
    first, second = (cbor2.loads(provider.export_key(key, kek)[8:]) for _ in range(2))
    if first.tag == 18:
        first, second = (cbor2.loads(outer.value[2]) for outer in (first, second))
    assert first.value[1][5] != second.value[1][5]  # IV
    assert first.value[3][0][2] != second.value[3][0][2]  # wrapped content key
    assert cbor2.loads(first.value[0])[-65538] != cbor2.loads(second.value[0])[-65538]  # blob id


# ---- session objects go by value


ARRIVALS: dict[str, Template] = {
    "plain": {},
    "may sign": {CKA.SIGN: True, CKA.VERIFY: True},
    "may wrap": {CKA.WRAP: True, CKA.UNWRAP: True},
    "readable": {CKA.SENSITIVE: False},
    "cannot be copied": {CKA.COPYABLE: False},
    "cannot be modified": {CKA.MODIFIABLE: False},
    "without an id": {CKA.ID: b"", CKA.LABEL: ""},
    "a long name": {CKA.LABEL: "Schlüssel " * 20, CKA.ID: bytes(range(200))},
}


@pytest.mark.parametrize("template", ARRIVALS.values(), ids=ARRIVALS)
def test_a_session_object_arrives_as_it_was(provider: Provider, token: Token, ours: Ours, template: Template) -> None:
    """A session object goes by value: the same key with the same attributes arrives, as a session object."""
    kek = new_kek(provider, ours)
    try:
        key = provider.adopt(make(ours, token, {CKA.LABEL: "crosses", **template}))
    except Pkcs11Error as refusal:
        pytest.skip(f"the token makes no such key: {refusal}")
    attributes = attributes_of(key.object)
    arrived = import_token_key(provider, ours, provider.export_key(key, kek), kek)
    assert arrived.object.handle != key.object.handle
    assert attributes_of(arrived.object) == attributes
    assert arrived.classify().evidence == key.classify().evidence
    assert arrived.encrypt(TEXT, final=True) == key.encrypt(TEXT, final=True)


def test_dates_arrive_or_are_refused(provider: Provider, token: Token, ours: Ours) -> None:
    """Dates that a token takes and does not give back (SoftHSM) are not silently lost: the export is refused."""
    kek = new_kek(provider, ours)
    dates: Template = {CKA.START_DATE: b"20260101", CKA.END_DATE: b"20301231"}
    try:
        key = provider.adopt(make(ours, token, dates))
    except Pkcs11Error as refusal:
        pytest.skip(f"the token takes no dates: {refusal}")
    if attributes_of(key.object).get(CKA.START_DATE) is None:
        with pytest.raises(PolicyError) as caught:
            provider.export_key(key, kek)
        assert caught.value.hint
        return
    arrived = import_token_key(provider, ours, provider.export_key(key, kek), kek)
    assert {kind: attributes_of(arrived.object)[kind] for kind in dates} == dates


def test_a_session_object_is_destroyed_at_the_source(provider: Provider, token: Token, ours: Ours) -> None:
    """After the export the source's object is destroyed by C_DestroyObject and listed no more; what arrived stays."""
    kek = new_kek(provider, ours)
    key = provider.adopt(make(ours, token))
    source = key.object.handle
    arrived = import_token_key(provider, ours, provider.export_key(key, kek, purpose=Purpose.MOVE), kek)
    assert source in token.handles({})
    done = provider.destroy_key(key)
    assert (done.outcome, done.residency) == (Outcome.DESTROYED, Residency.SOFTWARE)
    assert "CKA_TOKEN=false" in done.evidence
    with token.sessions as mine, ThreadPoolExecutor(1) as pool:
        other, seen = pool.submit(seen_from_here, token).result()
        assert other != mine
        assert source not in seen
        assert source not in token.handles({})
    assert arrived.object.handle in token.handles({})
    arrived.encrypt(TEXT, final=True)


def test_export_destroys_nothing(provider: Provider, token: Token, ours: Ours) -> None:
    """Export and import leave everything that was in the token, and add what arrived and nothing else."""
    kek = new_kek(provider, ours)
    keys = [provider.adopt(make(ours, token)), provider.adopt(new_token_key(token, ours))]
    before = inventory(token)
    blobs = [provider.export_key(key, kek) for key in keys]
    assert inventory(token) == before
    arrived = [arrive(provider, blob, kek) for blob in blobs]
    assert isinstance(arrived[0], TokenKey)
    assert inventory(token) - before == {arrived[0].object.handle}
    assert before <= inventory(token)
    ours.take(arrived[0].object)


def test_a_session_object_that_may_not_leave(provider: Provider, token: Token, ours: Ours) -> None:
    """A non-extractable session object can go neither by value nor by reference: NTE_BAD_KEY_STATE."""
    kek, key = new_kek(provider, ours), provider.adopt(make(ours, token, {CKA.EXTRACTABLE: False}))
    with pytest.raises(KeyStateError) as caught:
        provider.export_key(key, kek)
    assert caught.value.nte == NTE.BAD_KEY_STATE
    assert caught.value.hint
    with pytest.raises(NotExtractableError):
        provider.export_key(key, kek, by_reference=False)
    assert key.object.handle in token.handles({})


def test_persist(provider: Provider, token: Token, ours: Ours, pkcs11_tool: Pkcs11Tool) -> None:
    """With persist the key arrives as a token object that pkcs11-tool sees, with all other attributes as they were."""
    kek = new_kek(provider, ours)
    # Private, since NSS answers CKA_PRIVATE=false of a token object when asked for several attributes, and true alone.
    key = provider.adopt(make(ours, token, {CKA.LABEL: "kept", CKA.PRIVATE: True}))
    assert not shown(pkcs11_tool, key)
    arrived = import_token_key(provider, ours, provider.export_key(key, kek), kek, persist=True)
    assert shown(pkcs11_tool, arrived)
    assert attributes_of(arrived.object) == attributes_of(key.object)
    assert arrived.object.read(AttributeQuery((CKA.TOKEN,))).flag(CKA.TOKEN) is True
    assert arrived.classify().residency is Residency.HARDWARE
    assert arrived.encrypt(TEXT, final=True) == key.encrypt(TEXT, final=True)


def test_a_taken_id(provider: Provider, token: Token, ours: Ours) -> None:
    """A second token key with the same CKA_ID, which NSS would let replace the first, is refused; the first stays."""
    kek, key = new_kek(provider, ours), provider.adopt(make(ours, token))
    blob = provider.export_key(key, kek)
    first = import_token_key(provider, ours, blob, kek, persist=True)
    before = frozenset(token.handles({}))
    with pytest.raises(ExistsError) as caught:
        arrive(provider, blob, kek, persist=True)
    assert caught.value.hint
    assert frozenset(token.handles({})) == before
    assert first.encrypt(TEXT, final=True) == key.encrypt(TEXT, final=True)


# ---- token objects go by reference


def test_a_token_key_is_retained(provider: Provider, token: Token, ours: Ours, pkcs11_tool: Pkcs11Tool) -> None:
    """A token key goes by reference: the same object is found, and after destroy_key pkcs11-tool still sees it."""
    kek, key = new_kek(provider, ours), provider.adopt(new_token_key(token, ours))
    begun = key.encrypt(TEXT[:STOP])
    again = provider.find_key(key_id=key.object.identity.id)
    arrived = arrive(provider, provider.export_key(key, kek, purpose=Purpose.MOVE), kek)
    assert isinstance(arrived, TokenKey)
    assert arrived.object.handle == key.object.handle
    done = provider.destroy_key(key)
    assert (done.outcome, done.residency) == (Outcome.RETAINED, Residency.HARDWARE)
    assert "CKA_TOKEN=true" in done.evidence
    assert shown(pkcs11_tool, arrived)
    assert begun + arrived.encrypt(TEXT[STOP:], final=True) == again.encrypt(TEXT, final=True)


def test_an_extractable_token_key_is_retained_too(provider: Provider, token: Token, ours: Ours) -> None:
    """CKA_EXTRACTABLE=true does not make a token key software: it goes by reference and is never destroyed."""
    kek = new_kek(provider, ours)
    key = provider.adopt(new_token_key(token, ours, {CKA.EXTRACTABLE: True}))
    handle = key.object.handle
    arrived = arrive(provider, provider.export_key(key, kek), kek)
    assert isinstance(arrived, TokenKey)
    assert arrived.object.handle == handle
    assert provider.destroy_key(key).outcome is Outcome.RETAINED
    assert handle in token.handles({})


@pytest.mark.parametrize("may", [CBC, (CKA.ENCRYPT,), (CKA.DECRYPT,), (CKA.WRAP, CKA.UNWRAP)], ids=str)
def test_a_replaced_key_is_not_the_key(
    provider: Provider, token: Token, ours: Ours, pkcs11_tool: Pkcs11Tool, may: tuple[CKA, ...]
) -> None:
    """A key that another program put in its place, with label, CKA_ID and usage, is not the key: NotFoundError."""
    kek = new_kek(provider, ours)
    name, key_id = f"replaced {secrets.token_hex(4)}", secrets.token_bytes(8)
    wanted: dict[int, Value] = {CKA.TOKEN: True, CKA.LABEL: name, CKA.ID: key_id, CKA.EXTRACTABLE: True}
    key = generate_key(token, AES, {**wanted, **usage(*may)})
    again = None
    try:
        blob = provider.export_key(provider.adopt(key), kek)
        found = arrive(provider, blob, kek)
        assert isinstance(found, TokenKey)
        assert found.object.identity.id == key_id
        pkcs11_tool("--delete-object", "--type", "secrkey", "--id", key_id.hex())
        with pytest.raises(NotFoundError):
            arrive(provider, blob, kek)
        uses = ["--usage-decrypt"] if may != (CKA.WRAP, CKA.UNWRAP) else ["--usage-wrap"]
        names = ("--label", name, "--id", key_id.hex())
        pkcs11_tool("--keygen", "--key-type", "AES:32", "--sensitive", "--extractable", *names, *uses)
        (again,) = token.find({CKA.LABEL: name, CKA.ID: key_id, CKA.TOKEN: True})
        with pytest.raises(NotFoundError) as caught:
            arrive(provider, blob, kek)
        assert "removed or replaced" in (caught.value.hint or "")
        assert again.handle in token.handles({})
    finally:
        pkcs11_tool("--delete-object", "--type", "secrkey", "--id", key_id.hex(), check=False)


def test_a_software_key_has_no_reference(provider: Provider, ours: Ours) -> None:
    """What lives in this process cannot be referred to."""
    kek, key = new_kek(provider, ours), new_key(128)
    with pytest.raises(KeyStateError) as caught:
        provider.export_key(key, kek, by_reference=True)
    assert caught.value.nte == NTE.BAD_KEY_STATE


# ---- moves, copies, ends


@pytest.mark.parametrize("kind", ["software", "session", "token"])
def test_a_move_freezes(provider: Provider, token: Token, ours: Ours, kind: str) -> None:
    """After an export for a move the source takes no more data, is not exported again, and can still be destroyed."""
    kek = new_kek(provider, ours)
    key: StreamingKey = new_key(256)
    if kind != "software":
        key = provider.adopt(make(ours, token) if kind == "session" else new_token_key(token, ours))
    key.encrypt(TEXT[:20])
    provider.export_key(key, kek)
    assert not key.frozen
    provider.export_key(key, kek, purpose=Purpose.MOVE)
    assert key.frozen
    for refused in (
        lambda: key.encrypt(b"x"),
        lambda: key.encrypt(b"", final=True),
        lambda: key.decrypt(b"x"),
        lambda: key.set_cipher_state(CipherState(mode=Mode.CBC, iv=ZERO_IV)),
        lambda: provider.export_key(key, kek),
        lambda: provider.export_key(key, kek, purpose=Purpose.MOVE),
    ):
        with pytest.raises(KeyStateError) as caught:
            refused()
        assert caught.value.nte == NTE.BAD_KEY_STATE
        assert caught.value.hint
    assert provider.destroy_key(key).outcome is (Outcome.RETAINED if kind == "token" else Outcome.DESTROYED)


def test_a_refused_move_does_not_freeze(provider: Provider, ours: Ours) -> None:
    """A move that fails leaves the key usable: no sealed byte has left the process."""
    kek, key = new_kek(provider, ours), new_key(256)
    with pytest.raises(KeyStateError):
        provider.export_key(key, kek, purpose=Purpose.MOVE, by_reference=True)
    assert not key.frozen
    key.encrypt(TEXT, final=True)


@pytest.mark.parametrize("mode", [Mode.CTR, Mode.OFB])
def test_a_running_encryptor_with_a_nonce_can_only_move(provider: Provider, ours: Ours, mode: Mode) -> None:
    """Two holders would use one keystream twice: a copy is NTE_BAD_KEY_STATE, the move goes on as openssl's."""
    kek, value, iv = new_kek(provider, ours), secrets.token_bytes(32), secrets.token_bytes(16)
    key = CipherKey(Cipher.AES, bytearray(value))
    key.set_cipher_state(CipherState(mode=mode, iv=iv))
    begun = key.encrypt(TEXT[:STOP])
    with pytest.raises(KeyStateError) as caught:
        provider.export_key(key, kek)
    assert caught.value.nte == NTE.BAD_KEY_STATE
    assert not key.frozen
    arrived = arrive(provider, provider.export_key(key, kek, purpose=Purpose.MOVE), kek)
    assert begun + arrived.encrypt(TEXT[STOP:], final=True) == openssl(value, TEXT, mode, iv)


@pytest.mark.parametrize("mode", [Mode.CTR, Mode.OFB, Mode.CFB128])
def test_a_running_decryptor_can_be_copied(provider: Provider, ours: Ours, mode: Mode) -> None:
    """A key that may only decrypt can be copied in mid-stream; both holders read what openssl wrote."""
    kek, value, iv = new_kek(provider, ours), secrets.token_bytes(32), secrets.token_bytes(16)
    sealed = openssl(value, TEXT, mode, iv)
    key = CipherKey(Cipher.AES, bytearray(value))
    key.set_cipher_state(CipherState(mode=mode, iv=iv))
    key.permissions &= ~Permission.ENCRYPT
    begun = key.decrypt(sealed[:STOP])
    arrived = arrive(provider, provider.export_key(key, kek), kek)
    for holder in (key, arrived):
        assert begun + holder.decrypt(sealed[STOP:], final=True) == TEXT


def test_state_between_streams_crosses(provider: Provider, ours: Ours) -> None:
    """IV, mode and padding that were set and permissions that were taken away arrive, with no stream running."""
    kek, iv = new_kek(provider, ours), secrets.token_bytes(16)
    state = CipherState(mode=Mode.CBC, iv=iv, padding=Padding.NONE)
    value = secrets.token_bytes(32)
    key = CipherKey(Cipher.AES, bytearray(value), state, DEFAULT & ~Permission.DECRYPT)
    arrived = arrive(provider, provider.export_key(key, kek), kek)
    assert arrived.cipher_state == state
    assert arrived.encrypt(TEXT[:960], final=True) == openssl(value, TEXT[:960], Mode.CBC, iv, "-nopad")
    with pytest.raises(PermissionDeniedError) as caught:
        arrived.decrypt(bytes(16))
    assert caught.value.nte == NTE.PERM


def test_a_key_without_the_export_permission(provider: Provider, ours: Ours) -> None:
    """Without CRYPT_EXPORT among KP_PERMISSIONS nothing is exported: NTE_PERM."""
    kek = new_kek(provider, ours)
    key = CipherKey(Cipher.AES, bytearray(32), permissions=DEFAULT & ~Permission.EXPORT)
    with pytest.raises(PermissionDeniedError) as caught:
        provider.export_key(key, kek)
    assert caught.value.nte == NTE.PERM
    assert caught.value.hint


@pytest.mark.parametrize("kind", ["software", "session", "token"])
def test_a_destroyed_key_is_nothing(provider: Provider, token: Token, ours: Ours, kind: str) -> None:
    """After destroy_key every verb is NTE_BAD_KEY, a second destroy_key too, also where the object stayed."""
    kek, buffer = new_kek(provider, ours), bytearray(secrets.token_bytes(32))
    key: StreamingKey = CipherKey(Cipher.AES, buffer)
    if kind != "software":
        key = provider.adopt(make(ours, token) if kind == "session" else new_token_key(token, ours))
    provider.destroy_key(key)
    for refused in (
        lambda: key.encrypt(b"x"),
        lambda: key.decrypt(b"x"),
        lambda: key.set_cipher_state(CipherState(mode=Mode.CBC, iv=ZERO_IV)),
        lambda: provider.export_key(key, kek),
        lambda: provider.destroy_key(key),
        key.classify,
    ):
        with pytest.raises(BadKeyError) as caught:
            refused()
        assert caught.value.nte == NTE.BAD_KEY
        assert caught.value.hint
    if kind == "software":
        assert buffer == bytes(32)


# ---- KEKs


def test_another_kek(provider: Provider, ours: Ours) -> None:
    """A blob opens with the KEK that it names; another one, with the same label, is refused before any unwrap."""
    kek, other = new_kek(provider, ours), new_kek(provider, ours)
    other.kek.set({CKA.LABEL: kek.kek.identity.label})
    blob = provider.export_key(new_key(256), kek)
    with pytest.raises(KekError) as caught:
        arrive(provider, blob, other)
    assert caught.value.hint


def test_a_kek_that_may_decrypt(provider: Provider, token: Token, ours: Ours) -> None:
    """An unsafe KEK neither seals nor opens, unless that is asked for, and then it is warned."""
    unsafe = enter_kek(ours, token, secrets.token_bytes(32), {CKA.DECRYPT: True})
    key = new_key(256)
    with pytest.raises(KekError) as caught:
        provider.export_key(key, provider.kek(unsafe))
    assert caught.value.hint
    allowed = provider.kek(unsafe, allow_unsafe=True)
    blob = provider.export_key(key, allowed)
    assert any("DECRYPT" in warning for warning in allowed.warnings)
    with pytest.raises(KekError):
        arrive(provider, blob, provider.kek(unsafe))
    arrive(provider, blob, allowed)


def test_a_kek_weaker_than_the_key(provider: Provider, token: Token, ours: Ours) -> None:
    """An AES-128 KEK does not carry an AES-256 key, and A256KW takes no such KEK at all."""
    weak = enter_kek(ours, token, secrets.token_bytes(16))
    for key in (new_key(256), provider.adopt(make(ours, token))):
        before = frozenset(token.handles({}))
        with pytest.raises(KekError) as caught:
            provider.export_key(key, provider.kek(weak))
        assert caught.value.hint
        assert frozenset(token.handles({})) == before


@pytest.mark.parametrize("persist", [False, True], ids=["session", "token"])
def test_a_kek_with_an_unwrap_template(provider: Provider, token: Token, ours: Ours, *, persist: bool) -> None:
    """A KEK out of which nothing readable comes opens software keys all the same: AES-GCM runs in the token."""
    requires(token, CKM.AES_GCM)
    if not enforces_unwrap_template(token):
        pytest.skip("the token does not enforce CKA_UNWRAP_TEMPLATE")
    kek, value = new_kek(provider, ours, persist=persist, unwrap_template=True), secrets.token_bytes(32)
    key = CipherKey(Cipher.AES, bytearray(value))
    begun = key.encrypt(TEXT[:STOP])
    blob, before = provider.export_key(key, kek), inventory(token)
    for _ in range(2):
        arrived = arrive(provider, blob, kek)
        assert begun + arrived.encrypt(TEXT[STOP:], final=True) == openssl(value, TEXT)
    for position in range(8, len(blob), 7):
        damaged = blob[:position] + bytes([blob[position] ^ 1]) + blob[position + 1 :]
        with pytest.raises((BlobError, KekError)):
            arrive(provider, damaged, kek)
    assert inventory(token) == before


def test_a_key_that_the_unwrap_template_would_change(provider: Provider, token: Token, ours: Ours) -> None:
    """An extractable session key would not arrive extractable: refused at export, before the source is touched."""
    if not enforces_unwrap_template(token):
        pytest.skip("the token does not enforce CKA_UNWRAP_TEMPLATE")
    kek, key = new_kek(provider, ours, unwrap_template=True), provider.adopt(make(ours, token))
    before = inventory(token)
    with pytest.raises(KekError, match="EXTRACTABLE") as caught:
        provider.export_key(key, kek, purpose=Purpose.MOVE)
    assert caught.value.hint
    assert not key.frozen
    assert inventory(token) == before


def test_readable_content_keys_do_not_stay(provider: Provider, token: Token, ours: Ours) -> None:
    """Where the content key is unwrapped readable, its object is gone again after the import."""
    requires_readable(token)
    kek = new_kek(provider, ours)
    blob = provider.export_key(new_key(256), kek)
    before = frozenset(token.handles({}))
    for _ in range(5):
        arrive(provider, blob, kek)
    assert frozenset(token.handles({})) == before


def test_a_provider_without_a_token() -> None:
    """Without a token there are software keys, and a clear word for the rest."""
    provider = Provider()
    value = secrets.token_bytes(32)
    key = CipherKey(Cipher.AES, bytearray(value))
    assert key.encrypt(TEXT, final=True) == openssl(value, TEXT)
    key.set_cipher_state(replace(CipherState(mode=Mode.CBC, iv=ZERO_IV), iv=b"i" * 16))
    assert key.encrypt(TEXT, final=True) == openssl(value, TEXT, Mode.CBC, b"i" * 16)
    assert provider.destroy_key(key).outcome is Outcome.DESTROYED
    with pytest.raises(UsageError) as caught:
        provider.find_key(label="any")
    assert caught.value.hint
