"""Every kind of software key goes on after an export and an import as if it had never moved.

No token: the blob is sealed for a P-256 key and signed by an Ed25519 identity. The judge is `cryptography`, called
directly on the whole input at once.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.decrepit.ciphers import algorithms as old_algorithms
from cryptography.hazmat.decrepit.ciphers import modes as old_modes
from cryptography.hazmat.primitives import ciphers, cmac, hashes, padding
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric import padding as rsa_padding
from cryptography.hazmat.primitives.ciphers import algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from hsmbridge_csp.cipher_key import CipherKey
from hsmbridge_csp.clearpart import Purpose
from hsmbridge_csp.errors import NTE, KeyStateError
from hsmbridge_csp.identity import FileIdentity
from hsmbridge_csp.mac_key import Mac, MacKey, MacState
from hsmbridge_csp.modes import BLOCK_SIZE, Cipher, Direction, Mode
from hsmbridge_csp.private_key import PrivateKey
from hsmbridge_csp.provider import Provider
from hsmbridge_csp.recipient_ecdh import EcdhOpener, EcdhSealer
from hsmbridge_csp.record_key import Aead, RecordKey, RecordState
from hsmbridge_csp.stream import CipherState
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsmbridge_csp.keys import Key

DIGESTS = {Mac.HMAC_SHA1: "sha1", Mac.HMAC_SHA256: "sha256", Mac.HMAC_SHA384: "sha384", Mac.HMAC_SHA512: "sha512"}
MODES: dict[Mode, Callable[[bytes], modes.Mode]] = {
    Mode.CBC: modes.CBC,
    Mode.CTR: modes.CTR,
    Mode.OFB: old_modes.OFB,
    Mode.CFB8: old_modes.CFB8,
    Mode.CFB128: old_modes.CFB,
}
STREAMS = [
    (cipher, mode) for cipher in Cipher for mode in Mode if (cipher, mode) != (Cipher.TDES, Mode.CTR)
]  # cryptography has no CTR for 3DES: test_stream.py judges that one by ECB
SPLIT, TEXT = st.integers(min_value=0, max_value=70), st.binary(min_size=0, max_size=70)


@cache
def recipient() -> ec.EllipticCurvePrivateKey:
    """Return the one P-256 key of this module."""
    return ec.generate_private_key(ec.SECP256R1())


@cache
def provider() -> Provider:
    """Return a provider without a token."""
    return Provider(identity=FileIdentity.generate())


def moved(key: Key) -> Key:
    """Export a key for a move, destroy it, and import it."""
    blob = provider().export_key(key, EcdhSealer(recipient().public_key()), purpose=Purpose.MOVE)
    provider().destroy_key(key)
    return provider().import_key(blob, EcdhOpener(recipient()))


def sealed_at_once(cipher: Cipher, mode: Mode, key: bytes, iv: bytes, text: bytes) -> bytes:
    """Encrypt the whole text with `cryptography`."""
    algorithm = algorithms.AES(key) if cipher is Cipher.AES else old_algorithms.TripleDES(key)
    chosen = modes.ECB() if mode is Mode.ECB else MODES[mode](iv)  # noqa: S305 - one of the modes under test
    judge: ciphers.Cipher[Any] = ciphers.Cipher(algorithm, chosen)
    context = judge.encryptor()
    if mode.is_blockwise:
        padder = padding.PKCS7(8 * BLOCK_SIZE[cipher]).padder()
        text = padder.update(text) + padder.finalize()
    return bytes(context.update(text) + context.finalize())


@pytest.mark.parametrize(("cipher", "mode"), STREAMS)
@given(text=TEXT, split=SPLIT, encrypts=st.booleans())
def test_streams(cipher: Cipher, mode: Mode, text: bytes, split: int, *, encrypts: bool) -> None:
    """A block cipher stream may stop at any byte, in either direction."""
    value, block = secrets.token_bytes(24 if cipher is Cipher.TDES else 32), BLOCK_SIZE[cipher]
    iv = b"" if mode is Mode.ECB else secrets.token_bytes(block)
    sealed = sealed_at_once(cipher, mode, value, iv, text)
    source, wanted = (text, sealed) if encrypts else (sealed, text)
    key = CipherKey(cipher, bytearray(value), CipherState(mode=mode, iv=iv))
    begun = key.encrypt(source[:split]) if encrypts else key.decrypt(source[:split])
    there = moved(key)
    assert isinstance(there, CipherKey)
    run = there.encrypt if encrypts else there.decrypt
    assert begun + run(source[split:], final=True) == wanted


@pytest.mark.parametrize("aead", list(Aead))
@given(before=st.integers(0, 4), after=st.integers(1, 4), aad=st.binary(max_size=20), first=st.integers(0, (1 << 63)))
def test_records(aead: Aead, before: int, after: int, aad: bytes, first: int) -> None:
    """Record keys go on with the next sequence number on both sides, wherever each of them stopped."""
    value, iv = secrets.token_bytes(32), secrets.token_bytes(12)
    judge = AESGCM(value) if aead is Aead.AES_GCM else ChaCha20Poly1305(value)

    def key(direction: Direction) -> Key:
        return RecordKey(
            aead, bytearray(value), RecordState(iv=iv, direction=direction, sequence=first, limit=aead.limit)
        )

    sealer, opener = key(Direction.ENCRYPT), key(Direction.DECRYPT)
    for number in range(before + after):
        if number == before:
            sealer, opener = moved(sealer), moved(opener)
        assert isinstance(sealer, RecordKey)
        assert isinstance(opener, RecordKey)
        nonce = (int.from_bytes(iv, "big") ^ (first + number)).to_bytes(12, "big")
        record = sealer.seal(b"record", aad)
        assert record == judge.encrypt(nonce, b"record", aad)
        assert opener.open(record, aad) == b"record"
    assert isinstance(sealer, RecordKey)
    assert sealer.state.used == before + after


@pytest.mark.parametrize("mac", list(Mac))
@given(before=st.integers(0, 3), tag_size=st.integers(4, 16), data=TEXT)
def test_macs(mac: Mac, before: int, tag_size: int, data: bytes) -> None:
    """MAC keys keep their truncation and go on with the next record."""
    value = secrets.token_bytes(32)
    key: Key = MacKey(mac, bytearray(value), MacState(tag_size=tag_size))
    for number in range(before + 2):
        if number == before:
            key = moved(key)
        assert isinstance(key, MacKey)
        message = number.to_bytes(8, "big") + data
        if mac is Mac.CMAC_AES:
            judge = cmac.CMAC(algorithms.AES(value))
            judge.update(message)
            wanted = judge.finalize()
        else:
            wanted = hmac.digest(value, message, DIGESTS[mac])
        assert key.sign_record(data) == wanted[:tag_size]


@pytest.mark.parametrize(("algorithm", "bits"), [("RSA", 2048), ("EC", 256), ("EC", 521), ("Ed25519", 0)])
def test_private_keys(algorithm: str, bits: int) -> None:
    """A private key signs there, and its first public key verifies here."""
    key = provider().generate_key(algorithm, bits)
    assert isinstance(key, PrivateKey)
    public = key.public_key
    there = moved(key)
    assert isinstance(there, PrivateKey)
    signature = there.sign(b"message")
    if algorithm == "RSA":
        pss = rsa_padding.PSS(rsa_padding.MGF1(hashes.SHA256()), hashlib.sha256().digest_size)
        public.verify(signature, b"message", pss, hashes.SHA256())  # type: ignore[call-arg,arg-type]
    elif algorithm == "EC":
        public.verify(signature, b"message", ec.ECDSA(hashes.SHA256()))  # type: ignore[call-arg,arg-type]
    else:
        public.verify(signature, b"message")  # type: ignore[call-arg]


@pytest.mark.parametrize("algorithm", ["AES-GCM", "CHACHA20-POLY1305"])
def test_sealers_are_not_copied(algorithm: str) -> None:
    """A record key that seals is exported for a move only, and not duplicated: NTE_BAD_KEY_STATE."""
    key = provider().generate_key(algorithm)
    for attempt in (
        lambda: provider().export_key(key, EcdhSealer(recipient().public_key())),
        lambda: provider().duplicate_key(key),
    ):
        with pytest.raises(KeyStateError) as refusal:
            attempt()
        assert refusal.value.nte == NTE.BAD_KEY_STATE


def test_a_running_mac_is_not_dropped() -> None:
    """A key with a MAC under way is not exported: NTE_BAD_KEY_STATE; it can be once the MAC has ended."""
    key = provider().generate_key("HMAC-SHA256")
    assert isinstance(key, MacKey)
    running = key.begin()
    running.update(b"half")
    with pytest.raises(KeyStateError) as refusal:
        provider().export_key(key, EcdhSealer(recipient().public_key()))
    assert refusal.value.nte == NTE.BAD_KEY_STATE
    assert running.sign() == hmac.digest(bytes(key.value), b"half", "sha256")
    assert isinstance(moved(key), MacKey)
