"""The first message of each end, in clear: version, part, ephemeral key, nonce.

Source: docs/channel.md, "Handshake".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from hsmbridge_csp import cbor
from hsmbridge_csp.channel.errors import HandshakeError
from hsmbridge_csp.channel.terms import Side
from hsmbridge_csp.errors import BlobError

__all__ = ["NONCE_SIZE", "PUBLIC_SIZE", "VERSION", "Hello"]

VERSION = 1
PUBLIC_SIZE = 32
NONCE_SIZE = 32


class _Label(IntEnum):
    VERSION = 1
    SIDE = 2
    PUBLIC = 3
    NONCE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """A hello.

    Attributes:
        side: the part that its sender plays.
        public: ephemeral X25519 key, 32 bytes.
        nonce: 32 random bytes.
    """

    side: Side
    public: bytes = field(repr=False)
    nonce: bytes = field(repr=False)

    def encode(self) -> bytes:
        """Return the CBOR map."""
        labels = {
            _Label.VERSION: VERSION,
            _Label.SIDE: self.side.value,
            _Label.PUBLIC: self.public,
            _Label.NONCE: self.nonce,
        }
        return cbor.encode({int(label): value for label, value in labels.items()})

    @classmethod
    def decode(cls, body: bytes) -> Hello:
        """Parse a hello.

        Raises:
            HandshakeError: not one, or of another version.
        """
        try:
            fields = cbor.decode(body)
        except BlobError:
            fields = None
        match fields:
            case {
                _Label.VERSION: 1,
                _Label.SIDE: "sender" | "receiver" as side,
                _Label.PUBLIC: bytes() as public,
                _Label.NONCE: bytes() as nonce,
            } if len(public) == PUBLIC_SIZE and len(nonce) == NONCE_SIZE:
                hello = cls(side=Side(side), public=public, nonce=nonce)
                # The same bytes again: nothing more in the map, and no true that passes for a 1.
                if hello.encode() == body:
                    return hello
            case {_Label.VERSION: int() as version} if version != VERSION:
                raise HandshakeError(
                    f"the peer speaks version {version} of the channel's protocol, this is version {VERSION}",
                    hint="use the same release of hsmbridge at both ends",
                )
        raise HandshakeError(
            "the peer does not speak the channel's protocol", hint="look what listens at, or connects to, this socket"
        )
