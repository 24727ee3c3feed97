"""COSE_Encrypt0: encryption for whoever has the key already, as both ends of a channel have.

Source: RFC 9052 sections 5.2 and 5.3.
"""

from __future__ import annotations

from dataclasses import dataclass

from hsmbridge_csp import cbor
from hsmbridge_csp.cose import IV_SIZE, TAG_SIZE, Header, enc_structure
from hsmbridge_csp.errors import NTE, BlobError

__all__ = ["TAG_ENCRYPT0", "CoseEncrypt0"]

TAG_ENCRYPT0 = b"\xd0"
"""The encoding of CBOR tag 16 (RFC 9052 section 2, table 1)."""

_HINT = "the blob was damaged or not made by hsmbridge; start the handoff again"


@dataclass(frozen=True, slots=True, kw_only=True)
class CoseEncrypt0:
    """COSE_Encrypt0.

    Attributes:
        protected: the protected header's bytes.
        iv: 12 bytes.
        ciphertext: AES-GCM output, tag behind.
    """

    protected: bytes
    iv: bytes
    ciphertext: bytes

    def encode(self) -> bytes:
        """Return the tagged encoding."""
        return TAG_ENCRYPT0 + cbor.encode([self.protected, {int(Header.IV): self.iv}, self.ciphertext])

    def aad(self, external_aad: bytes) -> bytes:
        """Return the Enc_structure that AES-GCM authenticates."""
        return enc_structure(self.protected, external_aad, "Encrypt0")

    @classmethod
    def decode(cls, data: bytes) -> CoseEncrypt0:
        """Parse a tagged COSE_Encrypt0. What its protected header says is not looked at.

        Raises:
            BlobError: not one, or not of the exact shape that a blob has.
        """
        match cbor.decode(data[len(TAG_ENCRYPT0) :]) if data.startswith(TAG_ENCRYPT0) else None:
            case [bytes() as protected, {Header.IV: bytes() as iv, **more}, bytes() as ciphertext]:
                pass
            case _:
                raise BlobError("not a COSE_Encrypt0 of a blob", nte=NTE.BAD_DATA, hint=_HINT)
        if more or len(iv) != IV_SIZE or len(ciphertext) < TAG_SIZE:
            raise BlobError("the COSE_Encrypt0 does not have a blob's shape", nte=NTE.BAD_DATA, hint=_HINT)
        return cls(protected=protected, iv=iv, ciphertext=ciphertext)
