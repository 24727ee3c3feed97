"""The engine in software: the published vectors, and openssl."""

from __future__ import annotations

import secrets
import subprocess

import pytest
from hsmbridge_csp.engines import SoftwareEngine
from hsmbridge_csp.modes import Cipher, Direction, Mode

# NIST SP 800-38A (2001), appendix F: AES-128 key and plaintext of all examples, IV of F.2 to F.4, counter of F.5.
KEY = "2b7e151628aed2a6abf7158809cf4f3c"
PLAIN = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
IV = "000102030405060708090a0b0c0d0e0f"
COUNTER = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"
VECTORS = [
    # F.1.1
    (Mode.ECB, "", "3ad77bb40d7a3660a89ecaf32466ef97f5d3d58503b9699de785895a96fdbaaf"),
    # F.2.1
    (Mode.CBC, IV, "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2"),
    # F.3.7, which has 18 bytes
    (Mode.CFB8, IV, "3b79424c9c0dd436bace9e0ed4586a4f32b9"),
    # F.3.13
    (Mode.CFB128, IV, "3b3fd92eb72dad20333449f8e83cfb4ac8a64537a0b3a93fcde3cdad9f1ce58b"),
    # F.4.1
    (Mode.OFB, IV, "3b3fd92eb72dad20333449f8e83cfb4a7789508d16918f03f53c52dac54ed825"),
    # F.5.1
    (Mode.CTR, COUNTER, "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff"),
]


@pytest.mark.parametrize(("mode", "register", "cipher_text"), VECTORS, ids=[mode for mode, _, _ in VECTORS])
def test_the_vectors_of_sp_800_38a(mode: Mode, register: str, cipher_text: str) -> None:
    """AES-128 in each mode gives the bytes that NIST SP 800-38A appendix F prints, in both directions."""
    engine, sealed = SoftwareEngine(Cipher.AES, bytearray.fromhex(KEY)), bytes.fromhex(cipher_text)
    plain = bytes.fromhex(PLAIN)[: len(sealed)]
    assert engine.run(mode, Direction.ENCRYPT, bytes.fromhex(register), plain) == sealed
    assert engine.run(mode, Direction.DECRYPT, bytes.fromhex(register), sealed) == plain


@pytest.mark.parametrize(
    ("cipher", "size", "name"),
    [
        (Cipher.AES, 16, "aes-128-cbc"),
        (Cipher.AES, 24, "aes-192-cbc"),
        (Cipher.AES, 32, "aes-256-cbc"),
        (Cipher.TDES, 24, "des-ede3-cbc"),
    ],
)
def test_every_key_size(cipher: Cipher, size: int, name: str) -> None:
    """Each key size runs the cipher that openssl runs under it."""
    key, iv, plain = secrets.token_bytes(size), secrets.token_bytes(16), secrets.token_bytes(96)
    iv = iv if cipher is Cipher.AES else iv[:8]
    command = ["openssl", "enc", f"-{name}", "-nopad", "-K", key.hex(), "-iv", iv.hex()]
    judged = subprocess.run(command, input=plain, capture_output=True, check=True, timeout=60).stdout
    engine = SoftwareEngine(cipher, bytearray(key))
    assert engine.run(Mode.CBC, Direction.ENCRYPT, iv, plain) == judged
    assert engine.run(Mode.CBC, Direction.DECRYPT, iv, judged) == plain


def test_an_engine_keeps_no_state() -> None:
    """Two runs from one register give the same bytes: whatever a stream needs is told to the engine each time."""
    engine = SoftwareEngine(Cipher.AES, bytearray.fromhex(KEY))
    for mode, register, cipher_text in VECTORS:
        size = len(cipher_text) // 2
        for _ in range(2):
            output = engine.run(mode, Direction.ENCRYPT, bytes.fromhex(register), bytes.fromhex(PLAIN)[:size])
            assert output.hex() == cipher_text


def test_an_engine_has_no_copy_of_the_key() -> None:
    """Once the caller's bytes are overwritten, the engine cannot encrypt under the key any more."""
    key = bytearray.fromhex(KEY)
    engine = SoftwareEngine(Cipher.AES, key)
    before = engine.run(Mode.ECB, Direction.ENCRYPT, b"", bytes.fromhex(PLAIN))
    key[:] = bytes(len(key))
    assert engine.run(Mode.ECB, Direction.ENCRYPT, b"", bytes.fromhex(PLAIN)) != before
