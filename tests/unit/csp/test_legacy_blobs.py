"""Keys in CryptoAPI's clear text blobs go on as they stopped, and what such a blob cannot say is refused.

The blobs that are imported are put together here, byte by byte, from Microsoft's layouts.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
import struct
import subprocess
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import cmac
from cryptography.hazmat.primitives.ciphers import algorithms
from hsmbridge_csp.blobheader import BlobType
from hsmbridge_csp.cipher_key import CipherKey
from hsmbridge_csp.errors import NTE, BlobError, CspError, KeyStateError, PermissionDeniedError
from hsmbridge_csp.legacy_blobs import key_from_keystate_blob, keystate_blob_of
from hsmbridge_csp.mac_key import Mac, MacKey, MacState
from hsmbridge_csp.modes import Cipher, Direction, Mode, Padding
from hsmbridge_csp.params import KP, CryptMode, CryptPadding, get_param, set_param
from hsmbridge_csp.permissions import DEFAULT, Permission
from hsmbridge_csp.provider import Provider
from hsmbridge_csp.record_key import Aead, RecordKey, RecordState
from hsmbridge_csp.stream import CipherState
from hypothesis import given
from hypothesis import strategies as st

from hsmbridge.errors import InputError

# FIPS 197 (2001), appendices A.1 and A.3: round keys as printed there; the key is their beginning.
ROUND_KEYS = {
    16: bytes.fromhex(
        "2b7e151628aed2a6abf7158809cf4f3ca0fafe1788542cb123a339392a6c7605f2c295f27a96b9435935807a7359f67f"
        "3d80477d4716fe3e1e237e446d7a883bef44a541a8525b7fb671253bdb0bad00d4d1c6f87c839d87caf2b8bc11f915bc"
        "6d88a37a110b3efddbf98641ca0093fd4e54f70e5f5fc9f384a64fb24ea6dc4fead27321b58dbad2312bf5607f8d292f"
        "ac7766f319fadc2128d12941575c006ed014f9a8c9ee2589e13f0cc8b6630ca6"
    ),
    32: bytes.fromhex(
        "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff49ba354118e6925afa51a8b5f2067fcde"
        "a8b09c1a93d194cdbe49846eb75d5b9ad59aecb85bf3c917fee94248de8ebe96b5a9328a2678a647983122292f6c79b3"
        "812c81addadf48ba24360af2fab8b46498c5bfc9bebd198e268c3ba709e0421468007bacb2df331696e939e46c518d80"
        "c814e20476a9fb8a5025c02d59c58239de1369676ccc5a71fa2563959674ee155886ca5d2e2f31d77e0af1fa27cf73c3"
        "749c47ab18501ddae2757e4f7401905acafaaae3e4d59b349adf6acebd10190dfe4890d1e6188d0b046df344706c631e"
    ),
}
TDES_KEY = bytes(range(1, 25))
KEYS = {"aes-128-cbc": ROUND_KEYS[16][:16], "aes-256-cbc": ROUND_KEYS[32][:32], "des-ede3-cbc": TDES_KEY}
CIPHERS = {"aes-128-cbc": Cipher.AES, "aes-256-cbc": Cipher.AES, "des-ede3-cbc": Cipher.TDES}
BLOCKS = {"aes-128-cbc": 16, "aes-256-cbc": 16, "des-ede3-cbc": 8}
ALG_IDS = {"aes-128-cbc": 0x660E, "aes-256-cbc": 0x6610, "des-ede3-cbc": 0x6603}
SIZES = {"aes-128-cbc": 400, "aes-256-cbc": 544, "des-ede3-cbc": 40}
IV = bytes(range(0xA0, 0xB0))
TEXT = bytes(7 * number % 251 for number in range(160))
PLAINTEXT, KEYSTATE = BlobType.PLAINTEXTKEYBLOB, BlobType.KEYSTATEBLOB
NAMES = pytest.mark.parametrize("name", KEYS)


def keystate(name: str, feedback: bytes, iv: bytes = IV) -> bytes:
    """Put a KEYSTATEBLOB together: BLOBHEADER, then CRYPT_3DES_KEY_STATE or CRYPT_AES_*_KEY_STATE."""
    key, block = KEYS[name], BLOCKS[name]
    header = struct.pack("<BBHI", 0x0C, 2, 0, ALG_IDS[name])
    if name == "des-ede3-cbc":
        return header + struct.pack("24s8s8s", key, iv[:block], feedback)
    schedule = len(ROUND_KEYS[len(key)])
    # The order of the bytes in a decryption schedule is not published: any will do.
    layout = struct.Struct(f"{len(key)}s16s{schedule}s{schedule}s16s")
    return header + layout.pack(key, iv, ROUND_KEYS[len(key)], b"\xdd" * schedule, feedback)


def plaintext(alg_id: int, key: bytes) -> bytes:
    """Put a PLAINTEXTKEYBLOB together."""
    return struct.pack("<BBHII", 0x08, 2, 0, alg_id, len(key)) + key


def openssl(name: str, data: bytes, *more: str, key: bytes | None = None, iv: bytes = IV) -> bytes:
    """Let `openssl enc` do it in one go."""
    command = ["openssl", "enc", f"-{name}", "-K", (key or KEYS[name]).hex(), "-iv", iv.hex(), *more]
    return subprocess.run(command, input=data, capture_output=True, check=True, timeout=60).stdout


def new_key(name: str, padding: Padding = Padding.PKCS5, permissions: Permission = DEFAULT) -> CipherKey:
    """Make a key in CBC with the IV."""
    state = CipherState(mode=Mode.CBC, iv=IV[: BLOCKS[name]], padding=padding)
    return CipherKey(CIPHERS[name], bytearray(KEYS[name]), state, permissions)


def refused(provider_call: object, *arguments: object, **keywords: object) -> BlobError | CspError:
    """Return the refusal of a call, which must say what to do instead."""
    assert callable(provider_call)
    with pytest.raises((BlobError, CspError)) as caught:
        provider_call(*arguments, **keywords)
    error = caught.value
    assert isinstance(error, (BlobError, CspError))
    assert error.hint
    return error


# ---- KEYSTATEBLOB, in


@NAMES
@pytest.mark.parametrize("blocks", [1, 2, 9])
def test_a_blob_of_microsofts_layout_goes_on_encrypting(name: str, blocks: int) -> None:
    """A KEYSTATEBLOB put together by hand from a stream that openssl began goes on as openssl's stream does."""
    stop, iv = blocks * BLOCKS[name], IV[: BLOCKS[name]]
    begun = openssl(name, TEXT[:stop], "-nopad", iv=iv)
    key = Provider().import_raw(keystate(name, begun[-BLOCKS[name] :]), direction=Direction.ENCRYPT)
    assert isinstance(key, CipherKey)
    assert begun + key.encrypt(TEXT[stop:], final=True) == openssl(name, TEXT, iv=iv)
    # after Final the key is back at the IV that the blob has
    assert key.encrypt(TEXT, final=True) == openssl(name, TEXT, iv=iv)


@NAMES
@pytest.mark.parametrize("padding", Padding)
@pytest.mark.parametrize("blocks", [1, 2, 9])
def test_a_blob_of_microsofts_layout_goes_on_decrypting(name: str, padding: Padding, blocks: int) -> None:
    """The same, decrypting: the register is the last block of ciphertext, as openssl made it."""
    stop, iv = blocks * BLOCKS[name], IV[: BLOCKS[name]]
    sealed = openssl(name, TEXT, *(["-nopad"] if padding is Padding.NONE else []), iv=iv)
    feedback = sealed[stop - BLOCKS[name] : stop]
    key = Provider().import_raw(keystate(name, feedback), direction=Direction.DECRYPT, padding=padding)
    assert isinstance(key, CipherKey)
    assert key.decrypt(sealed[stop:], final=True) == TEXT[stop:]


@NAMES
@pytest.mark.parametrize("direction", [None, *Direction])
def test_a_register_equal_to_the_iv_is_no_running_stream(name: str, direction: Direction | None) -> None:
    """Where feedback and IV are the same no stream runs: the key can do either, and its parameters can be set."""
    block = BLOCKS[name]
    key = Provider().import_raw(keystate(name, IV[:block]), direction=direction)
    assert isinstance(key, CipherKey)
    assert key.cipher_state == CipherState(mode=Mode.CBC, iv=IV[:block])
    sealed = openssl(name, TEXT, iv=IV[:block])
    assert key.decrypt(sealed, final=True) == TEXT
    assert key.encrypt(TEXT, final=True) == sealed
    set_param(key, KP.IV, bytes(block))
    assert key.encrypt(TEXT, final=True) == openssl(name, TEXT, iv=bytes(block))


@NAMES
def test_a_running_stream_needs_its_direction(name: str) -> None:
    """The layout does not say whether the stream encrypts: without being told it is NTE_BAD_KEY_STATE."""
    error = refused(Provider().import_raw, keystate(name, b"F" * BLOCKS[name]))
    assert isinstance(error, KeyStateError)
    assert error.nte == NTE.BAD_KEY_STATE
    assert "direction=" in str(error.hint)


def test_a_told_direction_holds() -> None:
    """A key imported in the middle of encrypting does not decrypt before that stream has ended."""
    key = Provider().import_raw(keystate("aes-128-cbc", b"F" * 16), direction=Direction.ENCRYPT)
    assert isinstance(key, CipherKey)
    assert refused(key.decrypt, TEXT).nte == NTE.BAD_KEY_STATE


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<BBHI", 0x0C, 2, 0, 0x6601) + bytes(range(24)),  # DES
        struct.pack("<BBHI", 0x0C, 2, 0, 0x6801) + bytes(16) + bytes(range(256)) + b"\0\0",  # RC4
        struct.pack("<BBHI", 0x0C, 2, 0, 0x660F) + bytes(24 + 16 + 2 * 208 + 16),  # AES-192: no layout
    ],
    ids=["DES", "RC4", "AES-192"],
)
def test_key_states_that_are_not_taken(data: bytes) -> None:
    """Key states of DES, RC4 and AES-192 are NTE_BAD_ALGID."""
    assert refused(Provider().import_raw, data, direction=Direction.ENCRYPT).nte == NTE.BAD_ALGID


# ---- KEYSTATEBLOB, out


@NAMES
def test_a_written_blob_is_the_one_put_together_by_hand(name: str) -> None:
    """An exported blob has Microsoft's size, key, IV, FIPS 197 schedule and the register of openssl's stream."""
    block = BLOCKS[name]
    key = new_key(name)
    begun = key.encrypt(TEXT[: 3 * block])
    data = Provider().export_raw(key, KEYSTATE)
    by_hand = keystate(name, openssl(name, TEXT[: 3 * block], "-nopad", iv=IV[:block])[-block:])
    assert len(data) == 8 + SIZES[name]
    # all but the decryption schedule, for which no order of bytes is published
    front = len(by_hand) - block - (len(ROUND_KEYS[len(KEYS[name])]) if block == 16 else 0)
    assert (data[:front], data[-block:]) == (by_hand[:front], by_hand[-block:])
    assert begun[-block:] == data[-block:]
    assert begun + key.encrypt(TEXT[3 * block :], final=True) == openssl(name, TEXT, iv=IV[:block])


@NAMES
def test_between_streams_the_register_is_the_iv(name: str) -> None:
    """A key whose stream has ended, or not begun, is written with feedback and IV the same."""
    block, key = BLOCKS[name], new_key(name)
    fresh = Provider().export_raw(key, KEYSTATE)
    assert fresh[-block:] == IV[:block]
    key.encrypt(TEXT, final=True)
    assert Provider().export_raw(key, KEYSTATE) == fresh


@NAMES
@pytest.mark.parametrize("direction", Direction)
@given(stop=st.integers(0, 9))
def test_a_stream_goes_on_in_another_key(name: str, direction: Direction, stop: int) -> None:
    """A stream stopped after any number of blocks, out and in again, ends as the stream that was never moved."""
    size, iv = stop * BLOCKS[name], IV[: BLOCKS[name]]
    sealed = openssl(name, TEXT, "-nopad", iv=iv)
    source, wanted = (TEXT, sealed) if direction is Direction.ENCRYPT else (sealed, TEXT)
    key = new_key(name, Padding.NONE)
    begun = getattr(key, direction)(source[:size])
    data = Provider().export_raw(key, KEYSTATE)
    arrived = Provider().import_raw(data, direction=direction, padding=Padding.NONE)
    assert begun + getattr(arrived, direction)(source[size:], final=True) == wanted


@NAMES
@pytest.mark.parametrize("stop", [1, 7, 17, 159])
def test_part_of_a_block_does_not_fit(name: str, stop: int) -> None:
    """A stream that holds a part of a block back is NTE_BAD_KEY_STATE, and goes on here as if nobody had asked."""
    key = new_key(name)
    begun = key.encrypt(TEXT[:stop])
    assert refused(Provider().export_raw, key, KEYSTATE).nte == NTE.BAD_KEY_STATE
    assert begun + key.encrypt(TEXT[stop:], final=True) == openssl(name, TEXT, iv=IV[: BLOCKS[name]])


@NAMES
def test_the_block_that_padding_holds_back_does_not_fit(name: str) -> None:
    """Decryption with PKCS5 padding holds a whole block back: NTE_BAD_KEY_STATE; without padding it fits."""
    sealed = openssl(name, TEXT, "-nopad", iv=IV[: BLOCKS[name]])
    held, free = new_key(name), new_key(name, Padding.NONE)
    held.decrypt(sealed[:48])
    free.decrypt(sealed[:48])
    error = refused(Provider().export_raw, held, KEYSTATE)
    assert error.nte == NTE.BAD_KEY_STATE
    assert "KP_PADDING" in str(error.hint)
    assert Provider().export_raw(free, KEYSTATE)[-BLOCKS[name] :] == sealed[48 - BLOCKS[name] : 48]


@pytest.mark.parametrize("mode", [CryptMode.ECB, CryptMode.OFB, CryptMode.CFB, CryptMode.CTR])
def test_modes_that_do_not_fit(mode: CryptMode) -> None:
    """A key in any mode but CBC has no KEYSTATEBLOB: NTE_BAD_KEY_STATE, between streams and in one."""
    key = new_key("aes-256-cbc")
    set_param(key, KP.MODE, mode)
    assert refused(Provider().export_raw, key, KEYSTATE).nte == NTE.BAD_KEY_STATE
    key.encrypt(TEXT[:32])
    assert refused(Provider().export_raw, key, KEYSTATE).nte == NTE.BAD_KEY_STATE


def test_there_is_no_key_state_of_aes_192() -> None:
    """Microsoft lays out AES-128 and AES-256: an AES-192 key is NTE_BAD_ALGID."""
    key = CipherKey(Cipher.AES, bytearray(24))
    assert refused(Provider().export_raw, key, KEYSTATE).nte == NTE.BAD_ALGID


# ---- PLAINTEXTKEYBLOB


@pytest.mark.parametrize(
    ("alg_id", "size", "name"),
    [
        (0x660E, 16, "aes-128-cbc"),
        (0x660F, 24, "aes-192-cbc"),
        (0x6610, 32, "aes-256-cbc"),
        (0x6611, 24, "aes-192-cbc"),
        (0x6603, 24, "des-ede3-cbc"),
    ],
)
def test_a_plaintext_blob_is_a_new_key(alg_id: int, size: int, name: str) -> None:
    """A PLAINTEXTKEYBLOB put together by hand is a key with CryptoAPI's defaults, by the word of openssl."""
    value = secrets.token_bytes(size)
    key = Provider().import_raw(plaintext(alg_id, value))
    assert isinstance(key, CipherKey)
    zero_iv = bytes(8 if alg_id == 0x6603 else 16)
    assert (get_param(key, KP.MODE), get_param(key, KP.IV), get_param(key, KP.PADDING)) == (1, zero_iv, 1)
    assert key.encrypt(TEXT, final=True) == openssl(name, TEXT, key=value, iv=zero_iv)
    # CALG_AES is written with its size, which says more
    written = plaintext(0x660F if alg_id == 0x6611 else alg_id, value)
    assert Provider().export_raw(key, PLAINTEXT) == written


@pytest.mark.parametrize("alg_id", [0x8009, 0x6602])
@pytest.mark.parametrize(
    ("mac", "digest"), [(Mac.HMAC_SHA1, "sha1"), (Mac.HMAC_SHA256, "sha256"), (Mac.HMAC_SHA512, "sha512")]
)
@pytest.mark.parametrize("size", [1, 32, 200])
def test_an_hmac_key(alg_id: int, mac: Mac, digest: str, size: int) -> None:
    """An HMAC key comes as CALG_HMAC or, as in CryptoAPI, CALG_RC2; told its hash it agrees with Python's hmac."""
    value = secrets.token_bytes(size)
    key = Provider().import_raw(plaintext(alg_id, value), mac=mac)
    assert isinstance(key, MacKey)
    assert key.sign(TEXT) == hmac.new(value, TEXT, getattr(hashlib, digest)).digest()
    assert Provider().export_raw(key, PLAINTEXT) == plaintext(0x8009, value)


def test_a_cmac_key() -> None:
    """An AES key is a CMAC key for who says so, and is written as an AES key again."""
    value = secrets.token_bytes(16)
    key = Provider().import_raw(plaintext(0x660E, value), mac=Mac.CMAC_AES)
    assert isinstance(key, MacKey)
    judge = cmac.CMAC(algorithms.AES(value))
    judge.update(TEXT)
    assert key.sign(TEXT) == judge.finalize()
    assert Provider().export_raw(key, PLAINTEXT) == plaintext(0x660E, value)


@pytest.mark.parametrize(
    ("alg_id", "size", "mac", "word"),
    [
        (0x8009, 32, None, "mac="),
        (0x6602, 32, None, "mac="),
        (0x6609, 16, None, "CALG_3DES"),
        (0x6601, 8, None, "AES"),
        (0x6801, 16, None, "AES"),
        (0xBEEF, 16, None, "AES"),
        (0x6610, 32, Mac.HMAC_SHA256, "CALG_HMAC"),
        (0x8009, 32, Mac.CMAC_AES, "CALG_AES"),
    ],
)
def test_algorithms_that_are_not_taken(alg_id: int, size: int, mac: Mac | None, word: str) -> None:
    """An HMAC key without its hash, a key that is not of the MAC, and what is not supported are NTE_BAD_ALGID."""
    error = refused(Provider().import_raw, plaintext(alg_id, secrets.token_bytes(size)), mac=mac)
    assert isinstance(error, BlobError)
    assert error.nte == NTE.BAD_ALGID
    assert word in str(error.hint)


def test_an_hmac_key_that_is_too_long() -> None:
    """An HMAC key of more than 1,024 bytes is NTE_BAD_LEN."""
    assert refused(Provider().import_raw, plaintext(0x8009, bytes(1025)), mac=Mac.HMAC_SHA256).nte == NTE.BAD_LEN


def test_a_running_stream_does_not_fit_into_a_plaintext_blob() -> None:
    """A PLAINTEXTKEYBLOB has no state: in the middle of a stream it is NTE_BAD_KEY_STATE, afterwards it is written."""
    key = new_key("aes-256-cbc")
    key.encrypt(TEXT[:16])
    assert refused(Provider().export_raw, key, PLAINTEXT).nte == NTE.BAD_KEY_STATE
    key.encrypt(b"", final=True)
    assert Provider().export_raw(key, PLAINTEXT) == plaintext(0x6610, KEYS["aes-256-cbc"])


@pytest.mark.parametrize("mode", [CryptMode.OFB, CryptMode.CTR])
def test_a_nonce_is_not_left_behind(mode: CryptMode) -> None:
    """A key in CTR or OFB has its nonce in its state, which a PLAINTEXTKEYBLOB would lose: NTE_BAD_KEY_STATE."""
    key = new_key("aes-256-cbc")
    set_param(key, KP.MODE, mode)
    for direction in Direction:
        getattr(key, direction)(TEXT[:5])
        error = refused(Provider().export_raw, key, PLAINTEXT)
        assert error.nte == NTE.BAD_KEY_STATE
        assert "move" in str(error.hint)
        getattr(key, direction)(b"", final=True)
    # one that only decrypts may be copied, and then the OPAQUEKEYBLOB is the one that has room for the IV
    set_param(key, KP.PERMISSIONS, int(DEFAULT & ~Permission.ENCRYPT))
    error = refused(Provider().export_raw, key, PLAINTEXT)
    assert error.nte == NTE.BAD_KEY_STATE
    assert "OPAQUEKEYBLOB" in str(error.hint)


def test_a_mac_keys_state_is_not_left_behind() -> None:
    """A MAC key with a record sequence, a shorter tag or a running MAC has no PLAINTEXTKEYBLOB: NTE_BAD_KEY_STATE."""
    counted = MacKey(Mac.HMAC_SHA256, bytearray(32))
    counted.sign_record(TEXT)
    short = MacKey(Mac.HMAC_SHA256, bytearray(32), MacState(tag_size=16))
    running = MacKey(Mac.HMAC_SHA256, bytearray(32))
    running.begin().update(TEXT)
    for key in (counted, short, running):
        assert refused(Provider().export_raw, key, PLAINTEXT).nte == NTE.BAD_KEY_STATE


# ---- both


@pytest.mark.parametrize("kind", [PLAINTEXT, KEYSTATE])
@pytest.mark.parametrize("missing", [Permission.EXPORT, Permission.READ])
def test_both_permissions_are_needed(kind: BlobType, missing: Permission) -> None:
    """The key itself is read and exported: without CRYPT_EXPORT or without CRYPT_READ it is NTE_PERM."""
    key = new_key("aes-256-cbc", permissions=DEFAULT & ~missing)
    error = refused(Provider().export_raw, key, kind)
    assert isinstance(error, PermissionDeniedError)
    assert error.nte == NTE.PERM
    assert missing.name is not None
    assert missing.name in str(error)


@pytest.mark.parametrize("kind", [PLAINTEXT, KEYSTATE])
def test_frozen_and_destroyed_keys(kind: BlobType) -> None:
    """A key that was exported for a move is NTE_BAD_KEY_STATE, a destroyed one NTE_BAD_KEY."""
    frozen, destroyed = new_key("aes-256-cbc"), new_key("aes-256-cbc")
    frozen.freeze()
    Provider().destroy_key(destroyed)
    assert refused(Provider().export_raw, frozen, kind).nte == NTE.BAD_KEY_STATE
    assert refused(Provider().export_raw, destroyed, kind).nte == NTE.BAD_KEY


@pytest.mark.parametrize("kind", [PLAINTEXT, KEYSTATE])
def test_kinds_of_keys_that_do_not_fit(kind: BlobType) -> None:
    """A record key that seals would use a nonce twice, NTE_BAD_KEY_STATE; others have no place: NTE_BAD_KEY."""
    opens = RecordState(iv=bytes(12), direction=Direction.DECRYPT, limit=10)
    sealing = RecordKey(Aead.AES_GCM, bytearray(16), replace(opens, direction=Direction.ENCRYPT))
    assert refused(Provider().export_raw, sealing, kind).nte == NTE.BAD_KEY_STATE
    assert refused(Provider().export_raw, RecordKey(Aead.AES_GCM, bytearray(16), opens), kind).nte == NTE.BAD_KEY
    assert refused(Provider().export_raw, Provider().generate_key("EC"), kind).nte == NTE.BAD_KEY


def test_a_mac_key_has_no_key_state() -> None:
    """A KEYSTATEBLOB is of a cipher: a MAC key is NTE_BAD_KEY."""
    assert refused(Provider().export_raw, MacKey(Mac.HMAC_SHA1, bytearray(20)), KEYSTATE).nte == NTE.BAD_KEY


@pytest.mark.parametrize("kind", [0x01, 0x06, 0x07, 0x09, 0x0A, 0x0B, 0x00, 0xFF])
def test_other_types_of_blobs(kind: int) -> None:
    """Every other type is NTE_BAD_TYPE, out and in; the hint for an OPAQUEKEYBLOB names the verb that takes it."""
    out = refused(Provider().export_raw, new_key("aes-256-cbc"), kind)
    back = refused(Provider().import_raw, struct.pack("<BBHI", kind, 2, 0, 0x6610) + bytes(64))
    assert (out.nte, back.nte) == (NTE.BAD_TYPE, NTE.BAD_TYPE)
    if kind == BlobType.OPAQUEKEYBLOB:
        assert "export_key" in str(out.hint)
        assert "import_key" in str(back.hint)


@pytest.mark.parametrize(
    ("damage", "nte"),
    [
        (lambda data: data[:7], NTE.BAD_LEN),
        (lambda data: data[:-1], NTE.BAD_LEN),
        (lambda data: data + b"\0", NTE.BAD_LEN),
        (lambda data: data[:1] + b"\x01" + data[2:], NTE.BAD_VER),
        (lambda data: data[:2] + b"\x01" + data[3:], NTE.BAD_DATA),
    ],
)
@pytest.mark.parametrize("data", [keystate("aes-256-cbc", IV), plaintext(0x6610, KEYS["aes-256-cbc"])])
def test_damaged_blobs(data: bytes, damage: object, nte: NTE) -> None:
    """A blob cut off, too long, of another version or with reserved bytes set has CryptoAPI's code for it."""
    assert callable(damage)
    assert refused(Provider().import_raw, damage(data)).nte == nte


def test_a_schedule_of_another_key_is_refused() -> None:
    """A flipped bit in the encryption schedule is NTE_BAD_DATA."""
    data = bytearray(keystate("aes-256-cbc", IV))
    data[8 + 32 + 16 + 100] ^= 1
    assert refused(Provider().import_raw, bytes(data)).nte == NTE.BAD_DATA


@given(
    data=st.binary(max_size=600),
    header=st.sampled_from([b"", b"\x08\x02\0\0\x10\x66\0\0", b"\x0c\x02\0\0\x0e\x66\0\0"]),
)
def test_noise_is_one_type_of_error(data: bytes, header: bytes) -> None:
    """Whatever the bytes, a refusal is an InputError."""
    with contextlib.suppress(InputError):
        Provider().import_raw(header + data, direction=Direction.ENCRYPT)


def test_import_leaves_the_callers_blob_alone() -> None:
    """The blob is the caller's: importing it twice gives two keys that share nothing."""
    data = keystate("aes-256-cbc", IV)
    kept = bytearray(data)
    first, second = Provider().import_raw(data), Provider().import_raw(data)
    assert data == kept
    Provider().destroy_key(first)
    assert second.value == KEYS["aes-256-cbc"]


def test_export_leaves_the_key_alone() -> None:
    """Neither the key nor its IV is overwritten with the copy that was made for the blob."""
    key = new_key("aes-256-cbc")
    set_param(key, KP.PADDING, CryptPadding.PKCS5)
    for kind in (PLAINTEXT, KEYSTATE):
        Provider().export_raw(key, kind)
    assert (bytes(key.value), get_param(key, KP.IV)) == (KEYS["aes-256-cbc"], IV)
    assert key.encrypt(TEXT, final=True) == openssl("aes-256-cbc", TEXT)


def test_parsed_blobs_and_keys_agree() -> None:
    """The functions below the provider's verbs give the same state, blob to key and key to blob."""
    key = new_key("des-ede3-cbc")
    key.encrypt(TEXT[:16])
    blob = keystate_blob_of(key)
    again = key_from_keystate_blob(blob, direction=Direction.ENCRYPT)
    assert again.cipher_state == key.cipher_state
    assert keystate_blob_of(again) == blob
