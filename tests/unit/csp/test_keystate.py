"""KEYSTATEBLOB: layouts, sizes, and the checks that tell a state from noise."""

from __future__ import annotations

import os

import pytest
from hsmbridge_csp.blobheader import AlgId
from hsmbridge_csp.cryptoapi_blobs import describe, parse_blob
from hsmbridge_csp.errors import NTE, BlobError
from hsmbridge_csp.keystate import AesKeyState, DesKeyState, Rc4KeyState

# The schedule of FIPS 197 (2001), appendix A.1: its first 16 bytes are the key.
SCHEDULE = bytes.fromhex(
    "2b7e151628aed2a6abf7158809cf4f3ca0fafe1788542cb123a339392a6c7605f2c295f27a96b9435935807a7359f67f"
    "3d80477d4716fe3e1e237e446d7a883bef44a541a8525b7fb671253bdb0bad00d4d1c6f87c839d87caf2b8bc11f915bc"
    "6d88a37a110b3efddbf98641ca0093fd4e54f70e5f5fc9f384a64fb24ea6dc4fead27321b58dbad2312bf5607f8d292f"
    "ac7766f319fadc2128d12941575c006ed014f9a8c9ee2589e13f0cc8b6630ca6"
)
AES_128_HEADER = bytes.fromhex("0c0200000e660000")
IV, FEEDBACK = b"I" * 16, b"F" * 16


def test_aes_blob_has_the_documented_layout() -> None:
    """A CRYPT_AES_128_KEY_STATE put together by hand is read field by field; any decryption schedule is kept."""
    data = AES_128_HEADER + SCHEDULE[:16] + IV + SCHEDULE + b"\xdd" * 176 + FEEDBACK
    blob = parse_blob(data)
    assert isinstance(blob, AesKeyState)
    assert (blob.key, blob.iv, blob.feedback) == (SCHEDULE[:16], IV, FEEDBACK)
    assert blob.encryption == SCHEDULE
    assert blob.decryption == b"\xdd" * 176
    assert blob.to_bytes() == data


def test_written_aes_blob_matches_the_vector() -> None:
    """What is written for the key of FIPS 197 appendix A.1 holds the schedule that is printed there."""
    data = AesKeyState.from_key(SCHEDULE[:16], iv=IV, feedback=FEEDBACK).to_bytes()
    assert data[:8] == AES_128_HEADER
    assert data[8:216] == SCHEDULE[:16] + IV + SCHEDULE
    assert data[-16:] == FEEDBACK


@pytest.mark.parametrize(("algorithm", "size"), [(AlgId.AES_128, 400), (AlgId.AES_256, 544)])
def test_aes_sizes(algorithm: AlgId, size: int) -> None:
    """The bodies are as long as Microsoft's structures: 400 and 544 bytes."""
    key = os.urandom({AlgId.AES_128: 16, AlgId.AES_256: 32}[algorithm])
    blob = AesKeyState.from_key(key, iv=IV, feedback=FEEDBACK)
    assert blob.algorithm == algorithm
    assert len(blob.to_bytes()) == 8 + size
    assert parse_blob(blob.to_bytes()) == blob


@pytest.mark.parametrize("offset", range(8 + 32, 8 + 32 + 176, 5))
def test_aes_schedule_must_belong_to_the_key(offset: int) -> None:
    """A flipped bit anywhere in the encryption schedule makes key and schedule disagree: NTE_BAD_DATA."""
    data = bytearray(AesKeyState.from_key(SCHEDULE[:16], iv=IV, feedback=FEEDBACK).to_bytes())
    data[offset] ^= 0x10
    with pytest.raises(BlobError, match="not that of the key") as caught:
        parse_blob(bytes(data))
    assert caught.value.nte == NTE.BAD_DATA


@pytest.mark.parametrize("offset", range(8, 24))
def test_aes_key_must_belong_to_the_schedule(offset: int) -> None:
    """A flipped bit in the key itself is found in the same way."""
    data = bytearray(AesKeyState.from_key(SCHEDULE[:16], iv=IV, feedback=FEEDBACK).to_bytes())
    data[offset] ^= 0x01
    with pytest.raises(BlobError, match="not that of the key"):
        parse_blob(bytes(data))


@pytest.mark.parametrize(("algorithm", "alg_id", "key_bytes"), [("DES", "01660000", 8), ("TRIPLE_DES", "03660000", 24)])
def test_des_blobs_have_the_documented_layout(algorithm: str, alg_id: str, key_bytes: int) -> None:
    """CRYPT_DES_KEY_STATE and CRYPT_3DES_KEY_STATE are key, IV and feedback: 24 and 40 bytes."""
    data = bytes.fromhex("0c020000" + alg_id) + b"K" * key_bytes + b"I" * 8 + b"F" * 8
    blob = parse_blob(data)
    assert blob == DesKeyState(algorithm=AlgId[algorithm], key=b"K" * key_bytes, iv=b"I" * 8, feedback=b"F" * 8)
    assert blob.to_bytes() == data


def test_rc4_blob_has_the_documented_layout() -> None:
    """CRYPT_RC4_KEY_STATE is a key of 16 bytes, the S-box and two indices: 274 bytes."""
    data = bytes.fromhex("0c02000001680000") + b"K" * 16 + bytes(range(256)) + b"\x07\xff"
    assert len(data) == 8 + 274
    blob = parse_blob(data)
    assert blob == Rc4KeyState(key=b"K" * 16, sbox=bytes(range(256)), i=7, j=255)
    assert blob.to_bytes() == data


def test_rc4_sbox_must_be_a_permutation() -> None:
    """RC4 only swaps entries, so an S-box with an entry twice is no state it can reach: NTE_BAD_DATA."""
    sbox = bytes([1, *range(1, 256)])
    with pytest.raises(BlobError, match="permutation") as caught:
        parse_blob(bytes.fromhex("0c02000001680000") + b"K" * 16 + sbox + b"\0\0")
    assert caught.value.nte == NTE.BAD_DATA


@pytest.mark.parametrize(
    "algorithm", [AlgId.AES_192, AlgId.AES, AlgId.RC2, AlgId.TRIPLE_DES_112, AlgId.NONE, AlgId(0x1234)]
)
def test_undocumented_layouts_are_refused(algorithm: AlgId) -> None:
    """Where Microsoft documents no layout, AES-192 among them, the answer is NTE_BAD_ALGID and names the algorithm."""
    data = bytes.fromhex("0c020000") + algorithm.to_bytes(4, "little") + bytes(472)
    with pytest.raises(BlobError, match=algorithm.label) as caught:
        parse_blob(data)
    assert caught.value.nte == NTE.BAD_ALGID


def test_states_cannot_be_made_wrong() -> None:
    """The checks of the parser hold for states made by hand, too."""
    with pytest.raises(BlobError, match="AES_192") as caught:
        AesKeyState.from_key(bytes(24), iv=IV, feedback=FEEDBACK)
    assert caught.value.nte == NTE.BAD_ALGID
    with pytest.raises(BlobError, match="not 20"):
        AesKeyState.from_key(bytes(20), iv=IV, feedback=FEEDBACK)
    with pytest.raises(BlobError, match="the IV has 8 bytes, not 16"):
        AesKeyState.from_key(bytes(16), iv=bytes(8), feedback=FEEDBACK)
    with pytest.raises(BlobError, match="feedback register has 16 bytes, not 8"):
        DesKeyState(algorithm=AlgId.DES, key=bytes(8), iv=bytes(8), feedback=FEEDBACK)
    with pytest.raises(BlobError, match="CALG_AES_128"):
        DesKeyState(algorithm=AlgId.AES_128, key=bytes(8), iv=bytes(8), feedback=bytes(8))
    with pytest.raises(BlobError, match="CALG_DES"):
        Rc4KeyState(algorithm=AlgId.DES, key=bytes(16), sbox=bytes(range(256)), i=0, j=0)
    with pytest.raises(BlobError, match="no byte"):
        Rc4KeyState(key=bytes(16), sbox=bytes(range(256)), i=0, j=256)


def test_description_says_what_state_is_there() -> None:
    """The description names the parts of the state and the key's size, and that nothing protects them."""
    blob = AesKeyState.from_key(SCHEDULE[:16], iv=IV, feedback=FEEDBACK)
    assert describe(blob) == {
        "type": "KEYSTATEBLOB",
        "version": 2,
        "algorithm": "CALG_AES_128",
        "alg_id": "0x0000660e",
        "key_bits": 128,
        "state": ["IV", "encryption key schedule", "decryption key schedule", "feedback register"],
        "protected": False,
    }
