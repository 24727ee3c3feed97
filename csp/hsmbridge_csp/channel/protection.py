"""One direction's AES-256-GCM: a key, an IV and a counter.

The nonce is the IV exclusive-or the counter, so the 96 bits differ for every frame of a key; the counter is also in the
header, so that a frame out of order is told from one that was changed.

Source: docs/channel.md, "Frames"; NIST SP 800-38D section 8.2.1 (deterministic nonces); RFC 8446 sections 5.3 and 5.5.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hsmbridge_csp.channel.errors import ExhaustedError, NotAuthenticError, WrongCounterError
from hsmbridge_csp.channel.frames import HEADER, TAG_SIZE
from hsmbridge_csp.wipe import wipe

__all__ = ["IV_SIZE", "KEY_SIZE", "LAST_COUNTER", "MAX_BLOCKS", "Inbound", "Outbound"]

KEY_SIZE = 32
IV_SIZE = 12

LAST_COUNTER = (1 << 64) - 1
"""Never used: the counter behind it would not fit."""

MAX_BLOCKS = 1 << 34
"""16-byte blocks that one key may protect: RFC 8446 section 5.5 allows 2^24.5 records of 2^10 blocks."""

_BLOCK_SHIFT = 4
_BLOCKS_OF_A_FRAME = 4  # a block begun, header and lengths in GHASH, the tag's


class _Direction:
    """What both directions have.

    Args:
        key: 32 bytes, ours to overwrite.
        iv: 12 bytes, ours to overwrite.
        counter: of the next frame.
    """

    __slots__ = ("_aead", "_blocks", "_counter", "_iv", "_key")

    def __init__(self, key: bytes, iv: bytes, counter: int = 0) -> None:
        self._aead: AESGCM | None = AESGCM(key)
        self._key = key  # kept to be overwritten at the end: the library may read it when it first needs it
        self._iv = int.from_bytes(iv, "big")
        self._counter = counter
        self._blocks = MAX_BLOCKS
        wipe(iv)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self._counter}>"

    def forget(self) -> None:
        """Overwrite the key. What the library copied of it is overwritten by OpenSSL when its context is freed."""
        self._aead = None
        wipe(self._key)
        self._key = b""
        self._iv = 0


class Outbound(_Direction):
    """Protects what this end sends."""

    __slots__ = ()

    def seal(self, kind: int, payload: bytes | bytearray, descriptors: int = 0) -> bytes:
        """Return the next frame, header and body.

        Args:
            kind: the frame's type.
            payload: at most MAX_PAYLOAD bytes.
            descriptors: how many travel with it.

        Raises:
            ExhaustedError: the counters are used up, or the key has protected all that it may.
        """
        aead, counter, size = self._aead, self._counter, len(payload)
        blocks = self._blocks - (size >> _BLOCK_SHIFT) - _BLOCKS_OF_A_FRAME
        if aead is None or counter >= LAST_COUNTER or blocks < 0:
            raise ExhaustedError(
                f"the channel's key has protected {counter} frames, which is all that it may",
                hint="open a new channel for what is left",
            )
        header = HEADER.pack(size + TAG_SIZE, kind, descriptors, counter)
        # Counted before it is used: whatever happens now, this nonce is not used again.
        self._counter, self._blocks = counter + 1, blocks
        return header + aead.encrypt((self._iv ^ counter).to_bytes(IV_SIZE, "big"), payload, header)


class Inbound(_Direction):
    """Checks what the peer sends."""

    __slots__ = ()

    def open(self, header: bytes, body: bytes) -> tuple[int, int, bytes]:
        """Open the next frame.

        Args:
            header: 14 bytes.
            body: ciphertext and tag.

        Returns: type, number of descriptors and payload, all of them authentic.

        Raises:
            WrongCounterError: not the next frame.
            NotAuthenticError: it does not decrypt.
        """
        _, kind, descriptors, counter = HEADER.unpack(header)
        aead = self._aead
        if counter != self._counter or counter >= LAST_COUNTER:
            raise WrongCounterError(
                f"frame {counter} came where frame {self._counter} was due",
                hint="frames were replayed, re-ordered or left out; start the handoff again",
            )
        try:
            payload = aead.decrypt((self._iv ^ counter).to_bytes(IV_SIZE, "big"), body, header) if aead else None
        except InvalidTag:
            payload = None
        if payload is None:
            raise NotAuthenticError(
                f"frame {counter} is not authentic",
                hint="nothing of it was used: it was changed, reflected or is another channel's; start again",
            )
        self._counter = counter + 1
        return kind, descriptors, payload
