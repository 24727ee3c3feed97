"""Key parameters have CryptoAPI's numbers and values; what they set is what the streams do, by openssl's word."""

from __future__ import annotations

import re
import secrets
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hsmbridge_csp.blobheader import AlgId
from hsmbridge_csp.cipher_key import CipherKey
from hsmbridge_csp.errors import NTE, BadKeyError, BadLengthError, CspError, KeyStateError, PermissionDeniedError
from hsmbridge_csp.mac_key import Mac, MacKey
from hsmbridge_csp.modes import Cipher, Direction
from hsmbridge_csp.params import KP, CryptMode, CryptPadding, get_param, set_param
from hsmbridge_csp.permissions import DEFAULT, Permission
from hsmbridge_csp.private_key import PrivateKey
from hsmbridge_csp.provider import Provider
from hsmbridge_csp.record_key import Aead, RecordKey, RecordState

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsmbridge_csp.keys import Key

IV = bytes(range(0xA0, 0xB0))
TEXT = bytes(5 * number % 251 for number in range(96))  # whole blocks, so that padding is seen
SETTABLE: dict[KP, int | bytes] = {
    KP.IV: IV,
    KP.PADDING: 0,
    KP.MODE: CryptMode.CFB,
    KP.MODE_BITS: 8,
    KP.PERMISSIONS: int(DEFAULT),
}
UNSUPPORTED = (KP.SALT, KP.EFFECTIVE_KEYLEN, KP.SCHANNEL_ALG, KP.CLIENT_RANDOM, KP.SERVER_RANDOM)


def aes(size: int = 32, permissions: Permission = DEFAULT) -> CipherKey:
    """Make an AES key."""
    return CipherKey(Cipher.AES, bytearray(secrets.token_bytes(size)), permissions=permissions)


def tdes() -> CipherKey:
    """Make a 3DES key."""
    return CipherKey(Cipher.TDES, bytearray(secrets.token_bytes(24)))


def record_key() -> RecordKey:
    """Make a record key that opens."""
    state = RecordState(iv=bytes(12), direction=Direction.DECRYPT, limit=10)
    return RecordKey(Aead.CHACHA20_POLY1305, bytearray(32), state)


def openssl(name: str, key: CipherKey, iv: bytes = IV, *more: str) -> bytes:
    """Let `openssl enc` encrypt TEXT in one go."""
    command = ["openssl", "enc", f"-{name}", "-K", key.value.hex(), *more]
    command += ["-iv", iv.hex()] if iv else []
    return subprocess.run(command, input=TEXT, capture_output=True, check=True, timeout=60).stdout


def refused(call: Callable[[], object]) -> CspError:
    """Return the error of *call*, which must say what to do instead."""
    with pytest.raises(CspError) as caught:
        call()
    assert caught.value.hint
    return caught.value


# ---- numbers


def test_numbers_are_those_of_wincrypt() -> None:
    """KP_*, CRYPT_MODE_* and *_PADDING have the numbers of wincrypt.h; what is ours keeps away from them."""
    numbers = {1: "IV", 2: "SALT", 3: "PADDING", 4: "MODE", 5: "MODE_BITS", 6: "PERMISSIONS", 7: "ALGID", 8: "BLOCKLEN"}
    numbers |= {9: "KEYLEN", 19: "EFFECTIVE_KEYLEN", 20: "SCHANNEL_ALG", 21: "CLIENT_RANDOM", 22: "SERVER_RANDOM"}
    assert {int(kp): kp.name for kp in KP} == numbers
    assert [CryptMode(number).name for number in range(1, 6)] == ["CBC", "ECB", "OFB", "CFB", "CTS"]
    assert [CryptPadding(number).name for number in range(1, 4)] == ["PKCS5", "RANDOM", "ZERO"]
    assert (CryptMode.CTR, CryptPadding.NONE) == (0x100, 0)


def test_a_new_key_has_the_defaults() -> None:
    """A new AES key is in CBC, with an IV of zeros, PKCS5 padding and 8 bits of feedback."""
    key = aes()
    found = {kp: get_param(key, kp) for kp in (KP.IV, KP.PADDING, KP.MODE, KP.MODE_BITS, KP.PERMISSIONS)}
    assert found == {KP.IV: bytes(16), KP.PADDING: 1, KP.MODE: 1, KP.MODE_BITS: 8, KP.PERMISSIONS: 0x3F}


@pytest.mark.parametrize(
    ("make", "algorithm", "bits", "block"),
    [
        (lambda: aes(16), AlgId.AES_128, 128, 128),
        (lambda: aes(24), AlgId.AES_192, 192, 128),
        (lambda: aes(32), AlgId.AES_256, 256, 128),
        (tdes, AlgId.TRIPLE_DES, 192, 64),
        (record_key, AlgId.NONE, 256, 0),
        (lambda: PrivateKey.from_key(rsa.generate_private_key(65537, 2048)), AlgId.RSA_KEYX, 2048, 2048),
        (lambda: PrivateKey.from_key(ec.generate_private_key(ec.SECP384R1())), AlgId.ECDSA, 384, None),
        (lambda: PrivateKey.from_key(ed25519.Ed25519PrivateKey.generate()), AlgId.NONE, 256, None),
        (lambda: MacKey(Mac.HMAC_SHA256, bytearray(20)), AlgId.HMAC, 160, None),
        (lambda: MacKey(Mac.CMAC_AES, bytearray(16)), AlgId.AES_128, 128, None),
    ],
)
def test_what_a_key_is(make: Callable[[], Key], algorithm: AlgId, bits: int, block: int | None) -> None:
    """KP_ALGID and KP_KEYLEN answer for every kind of key, KP_BLOCKLEN for those that encrypt; none can be set."""
    key = make()
    assert (get_param(key, KP.ALGID), get_param(key, KP.KEYLEN)) == (algorithm, bits)
    if block is None:
        assert refused(lambda: get_param(key, KP.BLOCKLEN)).nte == NTE.BAD_TYPE
    else:
        assert get_param(key, KP.BLOCKLEN) == block
    for kp in (KP.ALGID, KP.KEYLEN, KP.BLOCKLEN):
        assert refused(lambda kp=kp: set_param(key, kp, bits)).nte == NTE.BAD_TYPE  # type: ignore[misc]


# ---- what is set is what the stream does


@pytest.mark.parametrize(
    ("mode", "bits", "name", "more"),
    [
        (CryptMode.CBC, None, "aes-256-cbc", ()),
        (CryptMode.OFB, None, "aes-256-ofb", ()),
        (CryptMode.OFB, 128, "aes-256-ofb", ()),
        (CryptMode.CFB, None, "aes-256-cfb8", ()),
        (CryptMode.CFB, 8, "aes-256-cfb8", ()),
        (CryptMode.CFB, 128, "aes-256-cfb", ()),
        (CryptMode.CTR, None, "aes-256-ctr", ()),
    ],
)
def test_modes(mode: CryptMode, bits: int | None, name: str, more: tuple[str, ...]) -> None:
    """KP_MODE, KP_MODE_BITS and KP_IV give the stream that openssl has under that name, and read as they were set."""
    key, provider = aes(), Provider()
    provider.set_param(key, KP.MODE, mode)
    if bits is not None:
        provider.set_param(key, KP.MODE_BITS, bits)
        assert provider.get_param(key, KP.MODE_BITS) == bits
    provider.set_param(key, KP.IV, IV)
    assert (provider.get_param(key, KP.MODE), provider.get_param(key, KP.IV)) == (mode, IV)
    assert key.encrypt(TEXT, final=True) == openssl(name, key, IV, *more)


def test_tdes_cfb_is_64_bits_wide() -> None:
    """With 3DES the block is 64 bits, and 128 is no KP_MODE_BITS of it."""
    key = tdes()
    set_param(key, KP.MODE, CryptMode.CFB)
    set_param(key, KP.MODE_BITS, 64)
    assert get_param(key, KP.MODE_BITS) == 64
    set_param(key, KP.IV, IV[:8])
    assert key.encrypt(TEXT, final=True) == openssl("des-ede3-cfb", key, IV[:8])
    assert refused(lambda: set_param(key, KP.MODE_BITS, 128)).nte == NTE.BAD_DATA


def test_ecb_has_no_iv_and_padding_can_be_left_out() -> None:
    """KP_MODE ECB drops the IV, which comes back as zeros; KP_PADDING NONE adds nothing at Final."""
    key = aes()
    set_param(key, KP.IV, IV)
    set_param(key, KP.MODE, CryptMode.ECB)
    assert get_param(key, KP.IV) == b""
    assert refused(lambda: set_param(key, KP.IV, IV)).nte == NTE.BAD_KEY_STATE
    set_param(key, KP.PADDING, CryptPadding.NONE)
    assert get_param(key, KP.PADDING) == 0
    assert key.encrypt(TEXT, final=True) == openssl("aes-256-ecb", key, b"", "-nopad")
    set_param(key, KP.MODE, CryptMode.CBC)
    set_param(key, KP.PADDING, CryptPadding.PKCS5)
    assert get_param(key, KP.IV) == bytes(16)
    assert key.encrypt(TEXT, final=True) == openssl("aes-256-cbc", key, bytes(16))


def test_feedback_is_kept_when_the_mode_is_set_again() -> None:
    """KP_MODE CFB on a key in full-block CFB leaves it there, and KP_MODE_BITS brings it back to 8."""
    key = aes()
    set_param(key, KP.MODE, CryptMode.CFB)
    set_param(key, KP.MODE_BITS, 128)
    set_param(key, KP.MODE, CryptMode.CFB)
    assert get_param(key, KP.MODE_BITS) == 128
    set_param(key, KP.MODE_BITS, 8)
    set_param(key, KP.IV, IV)
    assert key.encrypt(TEXT, final=True) == openssl("aes-256-cfb8", key)


# ---- in the middle of a stream


@pytest.mark.parametrize("kp", [KP.IV, KP.PADDING, KP.MODE, KP.MODE_BITS])
def test_a_running_stream_is_not_changed(kp: KP) -> None:
    """In the middle of a stream its parameters can be read and not be set, and trying leaves the stream as it is."""
    key = aes()
    set_param(key, KP.IV, IV)
    begun = key.encrypt(TEXT[:23])
    before = get_param(key, kp)
    error = refused(lambda: set_param(key, kp, SETTABLE[kp]))
    assert isinstance(error, KeyStateError)
    assert error.nte == NTE.BAD_KEY_STATE
    assert get_param(key, kp) == before
    assert begun + key.encrypt(TEXT[23:], final=True) == openssl("aes-256-cbc", key)


def test_the_iv_is_where_the_next_stream_begins() -> None:
    """KP_IV is the IV while a stream runs, not its feedback register, and Final goes back to it."""
    key = aes()
    set_param(key, KP.IV, IV)
    key.encrypt(TEXT)
    assert get_param(key, KP.IV) == IV
    key.encrypt(b"", final=True)
    assert key.encrypt(TEXT, final=True) == openssl("aes-256-cbc", key)


def test_permissions_can_be_given_up_in_the_middle_of_a_stream() -> None:
    """KP_PERMISSIONS is no part of the stream: giving up EXPORT leaves it running."""
    key = aes()
    set_param(key, KP.IV, IV)
    begun = key.encrypt(TEXT[:23])
    set_param(key, KP.PERMISSIONS, int(DEFAULT & ~Permission.EXPORT))
    assert begun + key.encrypt(TEXT[23:], final=True) == openssl("aes-256-cbc", key)
    with pytest.raises(PermissionDeniedError):
        key.check_usable(Permission.EXPORT)


# ---- permissions


@pytest.mark.parametrize("kp", [KP.IV, KP.PADDING, KP.MODE, KP.MODE_BITS])
def test_read_governs_the_stream_parameters(kp: KP) -> None:
    """Without CRYPT_READ how a stream stands cannot be read: NTE_PERM; what the key is can be."""
    key = aes(permissions=DEFAULT & ~Permission.READ)
    assert refused(lambda: get_param(key, kp)).nte == NTE.PERM
    assert get_param(key, KP.PERMISSIONS) == 0x37
    assert (get_param(key, KP.ALGID), get_param(key, KP.KEYLEN), get_param(key, KP.BLOCKLEN)) == (0x6610, 256, 128)


@pytest.mark.parametrize("kp", SETTABLE)
def test_write_governs_everything_that_is_set(kp: KP) -> None:
    """Without CRYPT_WRITE nothing can be set, the permissions neither: NTE_PERM."""
    key = aes(permissions=DEFAULT & ~Permission.WRITE)
    value = 0 if kp is KP.PERMISSIONS else SETTABLE[kp]
    state = key.cipher_state
    assert refused(lambda: set_param(key, kp, value)).nte == NTE.PERM
    assert (key.cipher_state, key.permissions) == (state, DEFAULT & ~Permission.WRITE)


@pytest.mark.parametrize("bit", [*Permission, 0x200, 0x8000_0000])
def test_permissions_only_narrow(bit: int) -> None:
    """Each bit can be given up and not be had back: NTE_PERM, as for a bit that no permission has."""
    key = aes(permissions=DEFAULT)
    set_param(key, KP.PERMISSIONS, int(DEFAULT) & ~bit)
    assert get_param(key, KP.PERMISSIONS) == int(DEFAULT) & ~bit
    error = refused(lambda: set_param(key, KP.PERMISSIONS, int(DEFAULT) | bit))
    assert isinstance(error, PermissionDeniedError)
    assert get_param(key, KP.PERMISSIONS) == int(DEFAULT) & ~bit


def test_given_up_is_enforced() -> None:
    """A key without CRYPT_ENCRYPT decrypts, and does not encrypt: NTE_PERM."""
    key = aes()
    sealed = key.encrypt(TEXT, final=True)
    set_param(key, KP.PERMISSIONS, int(DEFAULT & ~Permission.ENCRYPT))
    assert key.decrypt(sealed, final=True) == TEXT
    assert refused(lambda: key.encrypt(TEXT)).nte == NTE.PERM


# ---- refusals


@pytest.mark.parametrize("kp", [*UNSUPPORTED, 0, 10, 18, 39, -1, 1 << 40])
def test_unsupported_parameters(kp: int) -> None:
    """KP_SALT, RC2's and Schannel's parameters and unknown numbers are NTE_BAD_TYPE, both ways."""
    key = aes()
    assert refused(lambda: get_param(key, kp)).nte == NTE.BAD_TYPE
    assert refused(lambda: set_param(key, kp, 1)).nte == NTE.BAD_TYPE


@pytest.mark.parametrize(
    ("kp", "value"),
    [
        (KP.PADDING, CryptPadding.RANDOM),
        (KP.PADDING, CryptPadding.ZERO),
        (KP.PADDING, 4),
        (KP.PADDING, b"\x01"),
        (KP.MODE, CryptMode.CTS),
        (KP.MODE, 0),
        (KP.MODE, 6),
        (KP.MODE, -1),
        (KP.MODE_BITS, 0),
        (KP.MODE_BITS, 64),
        (KP.PERMISSIONS, -1),
        (KP.PERMISSIONS, b"\x3f\0\0\0"),
        (KP.IV, 0),
    ],
)
def test_values_that_a_parameter_does_not_have(kp: KP, value: int | bytes) -> None:
    """A value that a parameter cannot have is NTE_BAD_DATA and changes nothing."""
    key = aes()
    before = (key.cipher_state, key.permissions)
    assert refused(lambda: set_param(key, kp, value)).nte == NTE.BAD_DATA
    assert (key.cipher_state, key.permissions) == before


@pytest.mark.parametrize("size", [0, 8, 15, 17, 32])
def test_an_iv_is_one_block(size: int) -> None:
    """An IV of another length than the block's is NTE_BAD_LEN."""
    error = refused(lambda: set_param(aes(), KP.IV, bytes(size)))
    assert isinstance(error, BadLengthError)
    assert error.nte == NTE.BAD_LEN


def test_feedback_needs_a_mode_that_has_it() -> None:
    """KP_MODE_BITS 128 in CBC is NTE_BAD_KEY_STATE, 8 in OFB NTE_BAD_DATA; 8 in CBC is what it has."""
    key = aes()
    set_param(key, KP.MODE_BITS, 8)
    assert refused(lambda: set_param(key, KP.MODE_BITS, 128)).nte == NTE.BAD_KEY_STATE
    set_param(key, KP.MODE, CryptMode.OFB)
    assert refused(lambda: set_param(key, KP.MODE_BITS, 8)).nte == NTE.BAD_DATA


def test_tdes_has_no_counter_mode() -> None:
    """KP_MODE CTR on a 3DES key is refused when it is set, not when the first byte comes: NTE_BAD_DATA."""
    assert refused(lambda: set_param(tdes(), KP.MODE, CryptMode.CTR)).nte == NTE.BAD_DATA


@pytest.mark.parametrize("kp", [KP.IV, KP.PADDING, KP.MODE, KP.MODE_BITS])
@pytest.mark.parametrize("make", [record_key, lambda: MacKey(Mac.HMAC_SHA256, bytearray(32))])
def test_keys_without_a_stream(make: Callable[[], Key], kp: KP) -> None:
    """Record and MAC keys have no stream parameters: NTE_BAD_TYPE, both ways."""
    key = make()
    assert refused(lambda: get_param(key, kp)).nte == NTE.BAD_TYPE
    assert refused(lambda: set_param(key, kp, SETTABLE[kp])).nte == NTE.BAD_TYPE


def test_a_frozen_key_answers_and_is_not_changed() -> None:
    """A key that was exported for a move can be read; setting anything is NTE_BAD_KEY_STATE."""
    key = aes()
    set_param(key, KP.IV, IV)
    key.freeze()
    assert (get_param(key, KP.IV), get_param(key, KP.KEYLEN)) == (IV, 256)
    for kp, value in SETTABLE.items():
        assert refused(lambda kp=kp, value=value: set_param(key, kp, value)).nte == NTE.BAD_KEY_STATE  # type: ignore[misc]


@pytest.mark.parametrize("kp", KP)
def test_a_destroyed_key_has_no_parameters(kp: KP) -> None:
    """A destroyed key is NTE_BAD_KEY, whatever is asked."""
    key = aes()
    Provider().destroy_key(key)
    for call in (lambda: get_param(key, kp), lambda: set_param(key, kp, 0)):
        error = refused(call)
        assert isinstance(error, BadKeyError)
        assert error.nte == NTE.BAD_KEY


# ---- documentation


def test_the_documentation_has_every_number() -> None:
    """docs/cryptoapi.md lists each parameter, each permission and each error code once, beside its number."""
    page = (Path(__file__).parents[3] / "docs" / "cryptoapi.md").read_text("utf-8")
    cells = [[cell.strip() for cell in line.split("|")[1:3]] for line in page.splitlines() if line.startswith("| ")]
    listed = {name: number for name, number in cells if re.fullmatch(r"\d+|0x[0-9A-F]+", number)}
    wanted = {f"KP_{kp.name}": str(int(kp)) for kp in KP}
    wanted |= {f"CRYPT_{bit.name}": f"0x{int(bit):02X}" for bit in Permission}
    wanted |= {f"NTE_{code.name}": f"0x{int(code):08X}" for code in NTE}
    assert listed == wanted
