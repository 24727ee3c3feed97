"""AES key schedules, as a KEYSTATEBLOB carries them.

Only the expansion of a key into round keys lives here; no data is ever encrypted with this code. Table look-ups make it
vulnerable to a cache-timing observer on the same machine, which is why it must not grow into a cipher.
"""

from __future__ import annotations

from functools import cache

__all__ = ["AES_BLOCK_BYTES", "decryption_schedule", "encryption_schedule", "schedule_bytes"]

AES_BLOCK_BYTES = 16
_WORD_BYTES = 4
_KEY_BYTES = (16, 24, 32)
_REDUCTION = 0x11B
"""x^8 + x^4 + x^3 + x + 1, FIPS 197 section 4.2."""


def _double(value: int) -> int:
    """Multiply by x in GF(2^8)."""
    value <<= 1
    return value ^ _REDUCTION if value & 0x100 else value


def _multiply(left: int, right: int) -> int:
    """Multiply two elements of GF(2^8)."""
    product = 0
    while right:
        if right & 1:
            product ^= left
        left = _double(left)
        right >>= 1
    return product


@cache
def _sbox() -> bytes:
    """Compute the S-box: the inverse in GF(2^8), then the affine map of FIPS 197 section 5.1.1."""
    sbox = bytearray(256)
    sbox[0] = 0x63
    # 0x03 generates the multiplicative group and 0xf6 is its inverse, so the two walk through all pairs (x, 1/x).
    element, inverse = 1, 1
    for _ in range(255):
        spread = inverse | inverse << 8
        sbox[element] = (spread ^ spread >> 4 ^ spread >> 5 ^ spread >> 6 ^ spread >> 7) & 0xFF ^ 0x63
        element = _double(element) ^ element
        inverse = _multiply(inverse, 0xF6)
    return bytes(sbox)


@cache
def _multiples(factor: int) -> bytes:
    """Tabulate the products of all bytes with *factor*."""
    return bytes(_multiply(value, factor) for value in range(256))


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def schedule_bytes(key_bytes: int) -> int:
    """Return the length of a schedule for a key of *key_bytes* bytes: 176, 208 or 240.

    Raises:
        ValueError: not an AES key length.

    Source: FIPS 197 figure 4: Nr = Nk + 6, and one round key more than rounds.
    """
    if key_bytes not in _KEY_BYTES:
        message = f"an AES key has 16, 24 or 32 bytes, not {key_bytes}"
        raise ValueError(message)
    return (key_bytes // _WORD_BYTES + 7) * AES_BLOCK_BYTES


def encryption_schedule(key: bytes) -> bytes:
    """Expand *key* into the round keys of the cipher, in the order of use.

    Args:
        key: 16, 24 or 32 bytes.

    Returns:
        11, 13 or 15 round keys of 16 bytes; the first bytes are the key itself.

    Raises:
        ValueError: not an AES key length.

    Source: FIPS 197 section 5.2.
    """
    total = schedule_bytes(len(key)) // _WORD_BYTES
    per_key = len(key) // _WORD_BYTES
    words = [key[i : i + _WORD_BYTES] for i in range(0, len(key), _WORD_BYTES)]
    sbox = _sbox()
    round_constant = 1
    for i in range(per_key, total):
        word = words[i - 1]
        if i % per_key == 0:
            rotated = (word[1:] + word[:1]).translate(sbox)
            word = bytes((rotated[0] ^ round_constant,)) + rotated[1:]
            round_constant = _double(round_constant)
        elif per_key > 6 and i % per_key == 4:  # noqa: PLR2004 -- Nk > 6 and i mod Nk = 4, FIPS 197 figure 11
            word = word.translate(sbox)
        words.append(_xor(words[i - per_key], word))
    return b"".join(words)


def decryption_schedule(key: bytes) -> bytes:
    """Expand *key* into the round keys of the equivalent inverse cipher.

    The order is that of the standard's ``dw``: round key 0 first, although the inverse cipher uses it last.

    Args:
        key: 16, 24 or 32 bytes.

    Returns:
        11, 13 or 15 round keys of 16 bytes; all but the first and the last went through InvMixColumns.

    Raises:
        ValueError: not an AES key length.

    Source: FIPS 197 section 5.3.5, figure 15.
    """
    schedule = encryption_schedule(key)
    inner = range(AES_BLOCK_BYTES, len(schedule) - AES_BLOCK_BYTES, _WORD_BYTES)
    mixed = b"".join(_inverse_mix(schedule[i : i + _WORD_BYTES]) for i in inner)
    return schedule[:AES_BLOCK_BYTES] + mixed + schedule[-AES_BLOCK_BYTES:]


def _inverse_mix(column: bytes) -> bytes:
    """Apply InvMixColumns to one column (FIPS 197 section 5.3.3)."""
    by_e, by_b, by_d, by_9 = _multiples(0x0E), _multiples(0x0B), _multiples(0x0D), _multiples(0x09)
    a, b, c, d = column
    return bytes(
        (
            by_e[a] ^ by_b[b] ^ by_d[c] ^ by_9[d],
            by_9[a] ^ by_e[b] ^ by_b[c] ^ by_d[d],
            by_d[a] ^ by_9[b] ^ by_e[c] ^ by_b[d],
            by_b[a] ^ by_d[b] ^ by_9[c] ^ by_e[d],
        )
    )
