"""The key schedule: everything that is derived from the X25519 secret and the transcript.

Source: docs/channel.md, "Keys"; RFC 7748 (X25519); RFC 5869 (HKDF).
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hsmbridge_csp import cbor
from hsmbridge_csp.channel.errors import HandshakeError
from hsmbridge_csp.channel.protection import IV_SIZE, KEY_SIZE, Inbound, Outbound
from hsmbridge_csp.channel.terms import Side
from hsmbridge_csp.wipe import wipe

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

__all__ = ["PROTOCOL", "Schedule", "content_key", "hash_hellos", "hash_proofs"]

PROTOCOL = "hsmbridge channel/1"
_SECRET_SIZE = 32
_CONTENT_KEY = {side: f"{PROTOCOL} {side} content key ".encode() for side in Side}
_LAST_BLOCK = b"\x01"


def hash_hellos(hellos: dict[Side, bytes]) -> bytes:
    """Hash both hellos, the sender's first, whoever came first on the wire."""
    return _hash("hellos", hellos[Side.SENDER], hellos[Side.RECEIVER])


def hash_proofs(hellos: bytes, proofs: dict[Side, bytes]) -> bytes:
    """Hash the whole handshake: the hash of the hellos, and both proofs."""
    return _hash("proofs", hellos, proofs[Side.SENDER], proofs[Side.RECEIVER])


def _hash(what: str, *parts: bytes) -> bytes:
    return hashlib.sha256(cbor.encode([f"{PROTOCOL} {what}", *parts])).digest()


class Schedule:
    """Derives keys; of use during a handshake only.

    Args:
        private: our ephemeral key.
        public: the peer's, 32 bytes.
        hellos: what :func:`hash_hellos` gave.

    Raises:
        HandshakeError: the peer's key is of small order, so that the secret would be known to everybody.
    """

    def __init__(self, private: X25519PrivateKey, public: bytes, hellos: bytes) -> None:
        try:
            # OpenSSL refuses an all-zero result (RFC 7748 section 6.1), and with it every point of small order.
            self._secret = private.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            raise HandshakeError(
                "the peer's ephemeral key is not usable", hint="the peer is not hsmbridge; start the handoff again"
            ) from None
        self._hellos = hellos

    def outbound(self, side: Side) -> Outbound:
        """Return the protection of what *side*, our own, sends."""
        return Outbound(*self._keys(side))

    def inbound(self, side: Side) -> Inbound:
        """Return the protection of what *side*, the peer, sends."""
        return Inbound(*self._keys(side))

    def confirmation(self, side: Side, public_key: bytes) -> bytes:
        """Return the MAC by which *side* binds its identity to the secret, 32 bytes.

        Args:
            side: who sends it.
            public_key: DER SubjectPublicKeyInfo of its identity.
        """
        key = self._derive(f"{side} confirmation", _SECRET_SIZE, self._hellos)
        mac = hmac.digest(key, self._hellos + public_key, "sha256")
        wipe(key)
        return mac

    def exporter(self, transcript: bytes) -> bytearray:
        """Return the secret from which content keys are derived, 32 bytes."""
        secret = self._derive("exporter", _SECRET_SIZE, transcript)
        copy = bytearray(secret)
        wipe(secret)
        return copy

    def forget(self) -> None:
        """Overwrite the shared secret."""
        wipe(self._secret)
        self._secret = b""

    def _keys(self, side: Side) -> tuple[bytes, bytes]:
        return (
            self._derive(f"{side} key", KEY_SIZE, self._hellos),
            self._derive(f"{side} iv", IV_SIZE, self._hellos),
        )

    def _derive(self, purpose: str, size: int, salt: bytes) -> bytes:
        info = f"{PROTOCOL} {purpose}".encode()
        return HKDF(algorithm=hashes.SHA256(), length=size, salt=salt, info=info).derive(self._secret)


def content_key(exporter: bytearray, side: Side, label: bytes) -> bytes:
    """Derive an AES-256 key for something that *side* sends.

    HKDF-Expand to one block of SHA-256 is a single HMAC (RFC 5869 section 2.3), and this is called for each key that
    travels.

    Args:
        exporter: the channel's secret.
        side: who seals with it.
        label: what it is for; another label is another key.
    """
    return hmac.digest(exporter, _CONTENT_KEY[side] + label + _LAST_BLOCK, "sha256")
