"""AES key schedules, against FIPS 197 and against AES itself."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hsmbridge_csp.aes_schedule import decryption_schedule, encryption_schedule, schedule_bytes
from hypothesis import given
from hypothesis import strategies as st

# FIPS 197 (2001), appendix A.1, words w0 to w43, and from A.2 and A.3 the first expanded and the last words.
A1 = """
2b7e1516 28aed2a6 abf71588 09cf4f3c a0fafe17 88542cb1 23a33939 2a6c7605 f2c295f2 7a96b943 5935807a 7359f67f
3d80477d 4716fe3e 1e237e44 6d7a883b ef44a541 a8525b7f b671253b db0bad00 d4d1c6f8 7c839d87 caf2b8bc 11f915bc
6d88a37a 110b3efd dbf98641 ca0093fd 4e54f70e 5f5fc9f3 84a64fb2 4ea6dc4f ead27321 b58dbad2 312bf560 7f8d292f
ac7766f3 19fadc21 28d12941 575c006e d014f9a8 c9ee2589 e13f0cc8 b6630ca6
"""
A2_KEY = "8e73b0f7 da0e6452 c810f32b 809079e5 62f8ead2 522c6b7b"
A2_NEXT, A2_LAST = "fe0c91f7 2402f5a5 ec12068e 6c827f6b", "e98ba06f 448c773c 8ecc7204 01002202"
A3_KEY = "603deb10 15ca71be 2b73aef0 857d7781 1f352c07 3b6108d7 2d9810a3 0914dff4"
A3_NEXT, A3_LAST = "9ba35411 8e6925af a51a8b5f 2067fcde", "fe4890d1 e6188d0b 046df344 706c631e"

# FIPS 197 (2001), appendix C.1, equivalent inverse cipher: its ik_sch of rounds 10, 9, ... 0, which is the order of dw.
C1 = """
000102030405060708090a0b0c0d0e0f 8c56dff0825dd3f9805ad3fc8659d7fd a0db02992286d160a2dc029c2485d561
c7c6e391e54032f1479c306d6319e50c a8a2f5044de2c7f50a7ef79869671294 2ec410276326d7d26958204a003f32de
72e3098d11c5de5f789dfe1578a2cccb 8d82fc749c47222be4dadc3e9c7810f5 1362a4638f2586486bff5a76f7874a83
13aa29be9c8faff6f770f58000f7bf03 13111d7fe3944a17f307a78b4d2b30c5
"""


def test_aes128_expansion_of_the_standard() -> None:
    """All 44 words of FIPS 197 appendix A.1 come out of its key."""
    assert encryption_schedule(bytes.fromhex(A1)[:16]) == bytes.fromhex(A1)


@pytest.mark.parametrize(
    ("key", "after", "last", "length"), [(A2_KEY, A2_NEXT, A2_LAST, 208), (A3_KEY, A3_NEXT, A3_LAST, 240)]
)
def test_longer_expansions_of_the_standard(key: str, after: str, last: str, length: int) -> None:
    """The schedules of FIPS 197 appendices A.2 and A.3 begin with the key, go on and end as printed there."""
    schedule = encryption_schedule(bytes.fromhex(key))
    assert schedule.startswith(bytes.fromhex(key + after))
    assert schedule.endswith(bytes.fromhex(last))
    assert len(schedule) == length


def test_decryption_schedule_of_the_standard() -> None:
    """The round keys of the equivalent inverse cipher are those of FIPS 197 appendix C.1."""
    assert decryption_schedule(bytes(range(16))) == bytes.fromhex(C1)


@given(st.one_of(*(st.binary(min_size=n, max_size=n) for n in (16, 24, 32))), st.binary(min_size=16, max_size=16))
def test_schedules_drive_aes(key: bytes, block: bytes) -> None:
    """A plain AES run on the two schedules encrypts and decrypts as `cryptography` does, for any key."""
    theirs = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block)  # noqa: S305 -- one block, as a judge
    assert _encrypt(encryption_schedule(key), block) == theirs
    assert _decrypt(decryption_schedule(key), theirs) == block


@pytest.mark.parametrize("length", [0, 15, 17, 33])
def test_other_lengths_are_refused(length: int) -> None:
    """Only 16, 24 and 32 bytes are AES keys."""
    for expand in (encryption_schedule, decryption_schedule):
        with pytest.raises(ValueError, match="16, 24 or 32"):
            expand(bytes(length))
    with pytest.raises(ValueError, match="16, 24 or 32"):
        schedule_bytes(length)


def _times(a: int, b: int) -> int:
    """Multiply in GF(2^8), from the top bit down: not the way of the code under test."""
    product = 0
    for bit in reversed(range(8)):
        product = product << 1 ^ (0x11B if product & 0x80 else 0) ^ (a if b >> bit & 1 else 0)
    return product


def _substitute(value: int) -> int:
    """Compute the S-box bit by bit, with x^254 as the inverse (FIPS 197 equation 5.1)."""
    inverse = 1
    for _ in range(254):
        inverse = _times(inverse, value)
    bits = [inverse >> i & 1 for i in range(8)]
    mapped = [bits[i] ^ bits[(i + 4) % 8] ^ bits[(i + 5) % 8] ^ bits[(i + 6) % 8] ^ bits[(i + 7) % 8] for i in range(8)]
    return sum(bit << i for i, bit in enumerate(mapped)) ^ 0x63


SBOX = bytes(_substitute(value) for value in range(256))
INVERSE_SBOX = bytes(SBOX.index(value) for value in range(256))
PRODUCTS = {factor: bytes(_times(factor, value) for value in range(256)) for factor in (1, 2, 3, 9, 11, 13, 14)}


def _run(schedule: list[bytes], block: bytes, sbox: bytes, shift: int, mix: tuple[int, int, int, int]) -> bytes:
    """Run the rounds of FIPS 197 figure 5 or figure 15, which differ only in the S-box, the shift and the mixing."""
    state = bytes(a ^ b for a, b in zip(block, schedule[0], strict=True))
    for number, round_key in enumerate(schedule[1:], 1):
        state = state.translate(sbox)
        state = bytes(state[4 * ((c + shift * r) % 4) + r] for c in range(4) for r in range(4))
        if number < len(schedule) - 1:
            state = bytes(
                PRODUCTS[mix[(0 - r) % 4]][state[4 * c]]
                ^ PRODUCTS[mix[(1 - r) % 4]][state[4 * c + 1]]
                ^ PRODUCTS[mix[(2 - r) % 4]][state[4 * c + 2]]
                ^ PRODUCTS[mix[(3 - r) % 4]][state[4 * c + 3]]
                for c in range(4)
                for r in range(4)
            )
        state = bytes(a ^ b for a, b in zip(state, round_key, strict=True))
    return state


def _round_keys(schedule: bytes) -> list[bytes]:
    return [schedule[i : i + 16] for i in range(0, len(schedule), 16)]


def _encrypt(schedule: bytes, block: bytes) -> bytes:
    return _run(_round_keys(schedule), block, SBOX, 1, (2, 3, 1, 1))


def _decrypt(schedule: bytes, block: bytes) -> bytes:
    return _run(_round_keys(schedule)[::-1], block, INVERSE_SBOX, -1, (14, 11, 13, 9))
