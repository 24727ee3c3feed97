"""All CryptoAPI blobs through one parser: layouts, limits, secrets, and bytes that nobody meant to send."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import pytest
from hsmbridge_csp.blobheader import AlgId
from hsmbridge_csp.cryptoapi_blobs import MAX_BLOB_BYTES, MAX_OPAQUE_BLOB_BYTES, ParsedBlob, describe, parse_blob
from hsmbridge_csp.errors import NTE, BlobError
from hsmbridge_csp.keystate import AesKeyState, DesKeyState, Rc4KeyState
from hsmbridge_csp.rsablob import RsaPrivateBlob, RsaPublicBlob
from hsmbridge_csp.sessionkey_blobs import OpaqueKeyBlob, PlaintextKeyBlob, SimpleBlob, SymmetricWrapKeyBlob
from hypothesis import given
from hypothesis import strategies as st


def noise(label: str, length: int) -> bytes:
    """Return *length* bytes that look random and are the same in every run."""
    return hashlib.shake_256(label.encode()).digest(length)


def number(label: str, length: int) -> int:
    """Return an odd integer of exactly 8 * *length* bits."""
    return int.from_bytes(noise(label, length), "big") | 1 << (8 * length - 1) | 1


BLOBS: dict[str, ParsedBlob] = {
    "simple": SimpleBlob(algorithm=AlgId.AES_256, ciphertext=noise("simple", 256)),
    "public": RsaPublicBlob(exponent=65537, modulus=number("n", 64)),
    "private": RsaPrivateBlob(
        exponent=65537,
        modulus=number("n", 64),
        prime1=number("p", 32),
        prime2=number("q", 32),
        exponent1=number("dp", 32),
        exponent2=number("dq", 32),
        coefficient=number("qinv", 32),
        private_exponent=number("d", 64),
    ),
    "plaintext": PlaintextKeyBlob(algorithm=AlgId.AES_256, key=noise("plaintext", 32)),
    "hmac": PlaintextKeyBlob(algorithm=AlgId.RC2, key=noise("hmac", 100), version=3),
    "opaque": OpaqueKeyBlob(algorithm=AlgId.NONE, body=noise("opaque", 50)),
    "symmetric": SymmetricWrapKeyBlob(
        algorithm=AlgId.TRIPLE_DES, wrapping_algorithm=AlgId.TRIPLE_DES, wrapped_key=noise("symmetric", 40)
    ),
    "rc4": Rc4KeyState(key=noise("rc4", 16), sbox=bytes(range(255, -1, -1)), i=1, j=200),
    "des": DesKeyState(algorithm=AlgId.DES, key=noise("des", 8), iv=noise("iv", 8), feedback=noise("fb", 8)),
    "3des": DesKeyState(algorithm=AlgId.TRIPLE_DES, key=noise("3d", 24), iv=noise("iv", 8), feedback=noise("fb", 8)),
    "aes128": AesKeyState.from_key(noise("aes", 16), iv=noise("iv", 16), feedback=noise("fb", 16)),
    "aes256": AesKeyState.from_key(noise("aes", 32), iv=noise("iv", 16), feedback=noise("fb", 16)),
}
SECRETS = {
    "plaintext": [noise("plaintext", 32)],
    "hmac": [noise("hmac", 100)],
    "private": [noise("p", 32)[1:-1], noise("q", 32)[1:-1], noise("dp", 32)[1:-1], noise("d", 64)[1:-1]],
    "rc4": [noise("rc4", 16)],
    "des": [noise("des", 8), noise("fb", 8)],
    "3des": [noise("3d", 24), noise("fb", 8)],
    "aes128": [noise("aes", 16), noise("fb", 16)],
    "aes256": [noise("aes", 32), noise("fb", 16)],
}


def outcome(data: bytes) -> ParsedBlob | BlobError:
    """Return what the parser makes of *data*: a blob or its one kind of error. Any other exception fails the test."""
    try:
        return parse_blob(data)
    except BlobError as error:
        return error


every_blob = pytest.mark.parametrize("name", BLOBS)


def test_microsofts_des_example_is_read() -> None:
    """The bytes with which Microsoft's PLAINTEXTKEYBLOB example begins are a DES key of eight bytes."""
    # Source of the first twelve bytes: win32 SecCrypto, "Example C Program: Importing a Plaintext Key", DesKeyBlob.
    data = bytes.fromhex("080200000166000008000000") + b"K" * 8
    blob = parse_blob(data)
    assert blob == PlaintextKeyBlob(algorithm=AlgId.DES, key=b"K" * 8)
    assert blob.to_bytes() == data


def test_simple_blob_layout() -> None:
    """A SIMPLEBLOB is the wrapping key's ALG_ID, then a ciphertext as long as the modulus."""
    data = bytes.fromhex("0102000010660000") + bytes.fromhex("00a40000") + b"C" * 256
    blob = parse_blob(data)
    assert blob == SimpleBlob(algorithm=AlgId.AES_256, ciphertext=b"C" * 256)
    assert describe(blob)["wrapping_key_bits"] == 2048


def test_symmetric_wrap_blob_layout() -> None:
    """A SYMMETRICWRAPKEYBLOB is the wrapping key's ALG_ID, then the RFC 3217 wrap: 40 bytes for a 3DES key."""
    data = bytes.fromhex("0b02000003660000") + bytes.fromhex("03660000") + b"W" * 40
    blob = parse_blob(data)
    assert isinstance(blob, SymmetricWrapKeyBlob)
    assert (blob.algorithm, blob.wrapping_algorithm) == (AlgId.TRIPLE_DES, AlgId.TRIPLE_DES)
    assert blob.wrapped_key == b"W" * 40


def test_opaque_blob_is_handed_on() -> None:
    """An OPAQUEKEYBLOB's body is kept as it came, with an ALG_ID of zero too; what COSE it looks like is shown."""
    blob = parse_blob(bytes.fromhex("0902000000000000") + b"\xd2\x84rest")
    assert isinstance(blob, OpaqueKeyBlob)
    assert blob.body == b"\xd2\x84rest"
    assert describe(blob)["body_format"] == "COSE_Sign1"
    assert describe(BLOBS["opaque"])["body_format"] == "private to the provider that wrote it"


@every_blob
def test_blobs_survive(name: str) -> None:
    """Every kind of blob is written, read to an equal value, and written to the same bytes."""
    data = BLOBS[name].to_bytes()
    assert parse_blob(data) == BLOBS[name]
    assert parse_blob(data).to_bytes() == data


@every_blob
def test_every_truncation_is_refused(name: str) -> None:
    """Cut off anywhere, no blob is accepted, except where the layout itself has no length: then it is another value."""
    data = BLOBS[name].to_bytes()
    for length in range(len(data)):
        result = outcome(data[:length])
        if isinstance(result, BlobError):
            assert result.nte == NTE.BAD_LEN
            continue
        # A ciphertext and an opaque body end where the input ends: whoever opens them finds out that bytes are missing.
        assert isinstance(result, SimpleBlob | OpaqueKeyBlob), length
        assert result.to_bytes() == data[:length]


@every_blob
def test_trailing_bytes_are_refused(name: str) -> None:
    """A byte behind the blob is refused wherever the layout says where the blob ends."""
    if name in {"simple", "opaque"}:
        assert parse_blob(BLOBS[name].to_bytes() + b"\0") != BLOBS[name]
        return
    with pytest.raises(BlobError) as caught:
        parse_blob(BLOBS[name].to_bytes() + b"\0")
    assert caught.value.nte == NTE.BAD_LEN


@given(st.binary(max_size=700))
def test_random_bytes_raise_nothing_else(data: bytes) -> None:
    """Whatever the bytes are, the parser gives a blob that is written back to them, or a BlobError."""
    check(data)


@given(
    st.sampled_from([1, 6, 7, 8, 9, 10, 11, 12, 13]),
    st.one_of(st.sampled_from([int(a) for a in AlgId]), st.integers(0, 2**32 - 1)),
    st.binary(max_size=700),
)
def test_random_bodies_raise_nothing_else(blob_type: int, algorithm: int, body: bytes) -> None:
    """Behind a valid header, too, any body gives a blob that is written back to it, or a BlobError."""
    check(bytes((blob_type, 2, 0, 0)) + algorithm.to_bytes(4, "little") + body)


@given(st.sampled_from(sorted(BLOBS)), st.data())
def test_mutated_blobs_raise_nothing_else(name: str, draw: st.DataObject) -> None:
    """Valid blobs with bytes changed, removed or put in give a blob that is written back to them, or a BlobError."""
    data = bytearray(BLOBS[name].to_bytes())
    for _ in range(draw.draw(st.integers(1, 4))):
        # Half of all changes hit the first 24 bytes, where types and lengths are.
        last = draw.draw(st.sampled_from([min(24, len(data)), len(data)]))
        at = draw.draw(st.integers(0, last))
        removed = draw.draw(st.integers(0, 4))
        data[at : at + removed] = draw.draw(st.binary(max_size=4))
    check(bytes(data))


def check(data: bytes) -> None:
    """Insist that *data* is refused properly, or is exactly what its value is written to."""
    result = outcome(data)
    if isinstance(result, BlobError):
        assert isinstance(result.nte, NTE)
        assert result.hint
        assert str(result)
        return
    assert result.to_bytes() == data
    assert json.dumps(describe(result))
    if isinstance(result, RsaPrivateBlob):
        # Nothing that a mutation makes of the private sample, which is no key, is a key.
        with pytest.raises(BlobError, match="do not belong together"):
            result.to_key()


@pytest.mark.parametrize(
    ("data", "nte", "says"),
    [
        ("0a02000000a40000", NTE.BAD_TYPE, "layout of PUBLICKEYBLOBEX is not published"),
        ("0502000000a40000", NTE.BAD_TYPE, "0x05 is not a type"),
        ("0902000000000000", NTE.BAD_LEN, "empty"),
        ("0802000010660000ffffffff", NTE.BAD_LEN, "32 bytes, not 4294967295"),
        ("0802000002660000ffffffff", NTE.BAD_LEN, "4294967295 is outside|4294967295 bytes is outside"),
        ("080200000266000000000000", NTE.BAD_LEN, "0 bytes is outside"),
        ("080200001066000010000000" + "00" * 16, NTE.BAD_LEN, "CALG_AES_256 key has 32 bytes, not 16"),
        ("080200001066000020000000" + "00" * 31, NTE.BAD_LEN, "32 bytes needed, 31 left"),
        ("010200001066000010660000" + "00" * 256, NTE.BAD_ALGID, "not with CALG_RSA_KEYX"),
        ("010200001066000000a40000" + "00" * 47, NTE.BAD_LEN, "48 to 2048 bytes, not 47"),
        ("010200001066000000a40000" + "00" * 2049, NTE.BAD_LEN, "48 to 2048 bytes, not 2049"),
        ("0b0200001066000010660000" + "00" * 40, NTE.BAD_ALGID, "no wrapping algorithm of RFC 3217"),
        ("0b0200000366000003660000" + "00" * 48, NTE.BAD_LEN, "48 bytes are not"),
        ("0b0200001066000002660000" + "00" * 44, NTE.BAD_LEN, "44 bytes are not"),
        ("0b0200001066000002660000" + "00" * 280, NTE.BAD_LEN, "280 bytes are not"),
    ],
)
def test_refusals_have_their_code(data: str, nte: NTE, says: str) -> None:
    """Each thing that can be wrong has its NTE code and a message with the numbers in it."""
    with pytest.raises(BlobError, match=says) as caught:
        parse_blob(bytes.fromhex(data))
    assert caught.value.nte == nte


@pytest.mark.parametrize(
    ("header", "limit"),
    [
        ("0902000000000000", MAX_OPAQUE_BLOB_BYTES),
        ("0102000010660000", MAX_BLOB_BYTES),
        ("0602000000a40000", MAX_BLOB_BYTES),
    ],
)
def test_size_limits(header: str, limit: int) -> None:
    """One byte over 1 MiB for an opaque blob, or over 64 KiB for any other, is refused because of its size."""
    filler = bytes(limit - 8)
    with pytest.raises(BlobError, match="too many for a key blob") as caught:
        parse_blob(bytes.fromhex(header) + filler + b"\0")
    assert caught.value.nte == NTE.BAD_LEN
    if limit == MAX_OPAQUE_BLOB_BYTES:
        assert isinstance(parse_blob(bytes.fromhex(header) + filler), OpaqueKeyBlob)


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_are_not_shown(name: str) -> None:
    """Neither repr nor description holds a byte of the key or its chaining state, as hex, base-10 or Python bytes."""
    blob = BLOBS[name]
    shown = repr(blob) + f"{blob}" + json.dumps(describe(blob))
    for secret in SECRETS[name]:
        for form in (secret, secret[::-1]):
            assert form.hex() not in shown
            assert repr(form)[2:-1] not in shown
    for value in [getattr(blob, f, None) for f in ("prime1", "prime2", "private_exponent", "coefficient")]:
        assert value is None or str(value) not in shown
    assert "redacted" in repr(blob)


@every_blob
def test_descriptions_start_alike(name: str) -> None:
    """Every description is JSON-ready and starts with type, version, algorithm and ALG_ID."""
    shown = describe(BLOBS[name])
    assert list(shown)[:4] == ["type", "version", "algorithm", "alg_id"]
    assert json.loads(json.dumps(shown)) == shown


def test_looking_at_a_blob_loads_no_crypto_library() -> None:
    """Parsing and describing a public key blob, on which `inspect` depends, does not import `cryptography`."""
    program = (
        "import sys; from hsmbridge_csp.cryptoapi_blobs import describe, parse_blob; "
        "shown = describe(parse_blob(sys.stdin.buffer.read())); "
        "print(shown['modulus_bits'], 'cryptography' in sys.modules)"
    )
    data = BLOBS["public"].to_bytes()
    done = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, check=True, timeout=60)
    assert done.stdout.split() == [b"512", b"False"]
