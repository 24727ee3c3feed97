"""AES key wrapping in software: every format that modules are known to use, and wrapped keys that nobody may accept.

Source: RFC 3394; RFC 5649; NIST SP 800-38F.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "FORMATS",
    "INVALID",
    "NIST_INVALID",
    "RFC_3394",
    "RFC_3394_VECTORS",
    "RFC_5649",
    "RFC_5649_VECTORS",
    "Format",
    "Vector",
    "name_format",
]

_SEMIBLOCK = 8
_KW_MINIMUM = 16
_KW_ICV = bytes.fromhex("a6a6a6a6a6a6a6a6")
_KWP_ICV = bytes.fromhex("a65959a6")


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector:
    """A known answer: *key* under *kek* is *wrapped*."""

    kek: bytes
    key: bytes
    wrapped: bytes


def _vector(kek: str, key: str, wrapped: str) -> Vector:
    return Vector(kek=bytes.fromhex(kek), key=bytes.fromhex(key), wrapped=bytes.fromhex(wrapped))


_KEK = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
_KEY = "00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f"

RFC_3394_VECTORS = (
    # RFC 3394 section 4.1 to 4.6: 128 bits under 128, 192 and 256; 192 under 192 and 256; 256 under 256.
    _vector(_KEK[:32], _KEY[:32], "1fa68b0a8112b447aef34bd8fb5a7b829d3e862371d2cfe5"),
    _vector(_KEK[:48], _KEY[:32], "96778b25ae6ca435f92b5b97c050aed2468ab8a17ad84e5d"),
    _vector(_KEK, _KEY[:32], "64e8c3f9ce0f5ba263e9777905818a2a93c8191e7d6e8ae7"),
    _vector(_KEK[:48], _KEY[:48], "031d33264e15d33268f24ec260743edce1c6c7ddee725a936ba814915c6762d2"),
    _vector(_KEK, _KEY[:48], "a8f9bc1612c68b3ff6e6f4fbe30e71e4769c8b80a32cb8958cd5d17d6b254da1"),
    _vector(_KEK, _KEY, "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21"),
)

_KEK_5649 = "5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8"

RFC_5649_VECTORS = (
    # RFC 5649 section 6: 20 octets and 7 octets under a 192-bit KEK.
    _vector(
        _KEK_5649,
        "c37b7e6492584340bed12207808941155068f738",
        "138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a",
    ),
    _vector(_KEK_5649, "466f7250617369", "afbeb0f07dfbf5419200f2ccb50bb24f"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How a key becomes bytes.

    Attributes:
        name: as in reports.
        wrap: KEK and key to wrapped key; ValueError for a length that the format does not take.
        silent: it changes lengths: zeros that nobody can tell from the key.
    """

    name: str
    wrap: Callable[[bytes, bytes], bytes]
    silent: bool = False


def _zeros(key: bytes) -> bytes:
    return key + bytes(-len(key) % _SEMIBLOCK)


def _pkcs7(key: bytes, block: int) -> bytes:
    gap = block - len(key) % block
    return key + bytes([gap]) * gap


RFC_3394 = Format(name="RFC 3394", wrap=keywrap.aes_key_wrap)
RFC_5649 = Format(name="RFC 5649", wrap=keywrap.aes_key_wrap_with_padding)
PKCS7 = Format(
    name="PKCS#7 padding to 8 bytes, then RFC 3394",
    wrap=lambda kek, key: keywrap.aes_key_wrap(kek, _pkcs7(key, _SEMIBLOCK)),
)
FORMATS = (
    RFC_5649,
    RFC_3394,
    PKCS7,
    Format(
        name="PKCS#7 padding to 16 bytes, then RFC 3394",
        wrap=lambda kek, key: keywrap.aes_key_wrap(kek, _pkcs7(key, 2 * _SEMIBLOCK)),
    ),
    Format(
        name="zeros to a multiple of 8 bytes, then RFC 5649",
        wrap=lambda kek, key: keywrap.aes_key_wrap_with_padding(kek, _zeros(key)),
        silent=True,
    ),
    Format(
        name="zeros to a multiple of 8 bytes, then RFC 3394",
        wrap=lambda kek, key: keywrap.aes_key_wrap(kek, _zeros(key)),
        silent=True,
    ),
)
"""The plain ones first: without anything to fill up, the last two are the same as those."""


def name_format(kek: bytes, key: bytes, wrapped: bytes) -> Format | None:
    """Return the format in which *wrapped* holds *key*; None for one that is not known."""
    for candidate in FORMATS:
        try:
            if candidate.wrap(kek, key) == wrapped:
                return candidate
        except ValueError:
            continue
    return None


def _w(kek: bytes, head: bytes, body: bytes) -> bytes:
    """RFC 3394 section 2.2.1 with any first block, so also with one that is wrong."""
    cipher = Cipher(algorithms.AES(kek), modes.ECB()).encryptor()  # noqa: S305 - AES itself, the block of key wrap
    blocks = [body[start : start + _SEMIBLOCK] for start in range(0, len(body), _SEMIBLOCK)]
    if len(blocks) == 1:  # RFC 5649 section 4.1
        return cipher.update(head + body)
    for step in range(6 * len(blocks)):
        place = step % len(blocks)
        mixed = cipher.update(head + blocks[place])
        counter = int.from_bytes(mixed[:_SEMIBLOCK], "big") ^ (step + 1)
        head, blocks[place] = counter.to_bytes(_SEMIBLOCK, "big"), mixed[_SEMIBLOCK:]
    return head + b"".join(blocks)


def _kwp(kek: bytes, length: int, padded: bytes, icv: bytes = _KWP_ICV) -> bytes:
    return _w(kek, icv + length.to_bytes(4, "big"), padded)


def _heads(kek: bytes) -> dict[str, bytes]:
    """First blocks that belong to neither format."""
    body = secrets.token_bytes(16)
    wrong = {
        "zeros": bytes(8),
        "one bit off RFC 3394": bytes.fromhex("a6a6a6a6a6a6a6a7"),
        "half of it": _KW_ICV[:4] + bytes(4),
        "one bit off RFC 5649": bytes.fromhex("a65959a7") + (16).to_bytes(4, "big"),
        "RFC 5649 backwards": bytes.fromhex("5959a6a6") + (16).to_bytes(4, "big"),
    }
    return {f"integrity value: {name}": _w(kek, head, body) for name, head in wrong.items()}


def _lengths(kek: bytes) -> dict[str, bytes]:
    body = secrets.token_bytes(16)
    wrong = {"0": 0, "8 of 16": 8, "one more": 17, "a block more": 24, "2^31": 1 << 31, "2^32-1": (1 << 32) - 1}
    short = {"one block, 0": 0, "one block, 9": 9}
    return {f"length field: {name}": _kwp(kek, length, body) for name, length in wrong.items()} | {
        f"length field: {name}": _kwp(kek, length, body[:8]) for name, length in short.items()
    }


def _kwp_padding(kek: bytes) -> dict[str, bytes]:
    key = secrets.token_bytes(20)
    return {
        "padding: last byte 1": _kwp(kek, 20, key + b"\0\0\0\1"),
        "padding: first byte 128": _kwp(kek, 20, key + b"\x80\0\0\0"),
        "padding: of PKCS#7": _kwp(kek, 20, key + b"\4\4\4\4"),
        "padding: one block": _kwp(kek, 7, key[:7] + b"\xff"),
    }


def _pkcs7_padding(kek: bytes) -> dict[str, bytes]:
    key = secrets.token_bytes(20)
    return {
        f"padding: {tail.hex()}": keywrap.aes_key_wrap(kek, key + tail)
        for tail in (b"\0\0\0\0", b"\1\2\3\0", b"\1\1\1\t", b"\4\4\3\4", b"\0\0\0\xff")
    }


def _sizes(kek: bytes) -> dict[str, bytes]:
    good = keywrap.aes_key_wrap(kek, secrets.token_bytes(16))
    cut = {f"size: {size} bytes": good[:size] for size in (0, 1, 7, 8, 15, 17, 23)}
    return cut | {"size: one byte more": good + b"\0", "size: eight zeros more": good + bytes(8)}


INVALID: dict[str, dict[str, Callable[[bytes], dict[str, bytes]]]] = {
    RFC_3394.name: {
        "integrity-value": _heads,
        "size": _sizes,
        "one-block": lambda kek: {"a key of 8 bytes": _w(kek, _KW_ICV, secrets.token_bytes(8))},
        "other-format": lambda kek: {"RFC 5649": RFC_5649.wrap(kek, secrets.token_bytes(16))},
    },
    RFC_5649.name: {
        "integrity-value": _heads,
        "size": _sizes,
        "length-field": _lengths,
        "padding": _kwp_padding,
        "other-format": lambda kek: {"RFC 3394": RFC_3394.wrap(kek, secrets.token_bytes(16))},
    },
    PKCS7.name: {
        "integrity-value": _heads,
        "size": _sizes,
        "padding": _pkcs7_padding,
        "other-format": lambda kek: {"RFC 5649": RFC_5649.wrap(kek, secrets.token_bytes(16))},
    },
}
"""Format to kind of mistake to wrapped keys that must be refused, each with what is wrong with it."""

NIST_INVALID = {
    # NIST CAVP, kwtestvectors: the first FAIL of KW_AD_128.txt and of KWP_AD_128.txt; KEK and wrapped key.
    RFC_3394.name: (
        bytes.fromhex("5d4899ee66beff1bda1fc717a1ad4c50"),
        bytes.fromhex("bb7fd0bce778bd775e4e88d904d26a7134364c53a6c493a0"),
    ),
    RFC_5649.name: (
        bytes.fromhex("30be7ff51227f0eef786cb7be2482510"),
        bytes.fromhex("7f61a0a8b2fe7803f2947d233ec3a255"),
    ),
}
"""Format to a published wrapped key that must be refused."""
