"""The COSE structures that a blob is made of: COSE_Encrypt with one or more recipients, and COSE_Sign1 around it.

Only what the blob uses, but all of that in the standard's own terms, so that other COSE libraries open it.

Source: RFC 9052 sections 3 (headers), 4.4 (Sig_structure), 5.1 and 5.3 (Enc_structure); RFC 9053 (algorithms).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from hsmbridge_csp import cbor
from hsmbridge_csp.errors import NTE, BlobError

__all__ = ["TAG_ENCRYPT", "TAG_SIGN1", "Algorithm", "CoseEncrypt", "CoseRecipient", "CoseSign1", "Header"]

TAG_ENCRYPT = b"\xd8\x60"
"""The encoding of CBOR tag 96 (RFC 9052 section 2, table 1)."""

TAG_SIGN1 = b"\xd2"
"""The encoding of CBOR tag 18."""

IV_SIZE = 12
TAG_SIZE = 16
_HINT = "the blob was damaged or not made by hsmbridge; have the sender export the key again"


class Algorithm(IntEnum):
    """COSE algorithm identifiers (RFC 9053; IANA COSE Algorithms)."""

    A256GCM = 3
    A256KW = -5
    ES256 = -7
    EDDSA = -8
    ECDH_ES_A256KW = -31
    RSAES_OAEP_SHA_256 = -41


class Header(IntEnum):
    """COSE header parameters (RFC 9052 section 3.1)."""

    ALG = 1
    CRIT = 2
    CONTENT_TYPE = 3
    KID = 4
    IV = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class CoseRecipient:
    """One COSE_recipient.

    Attributes:
        protected: the protected header's bytes; empty for A256KW.
        unprotected: unprotected header.
        ciphertext: the content key as wrapped for this recipient.
    """

    protected: bytes
    unprotected: dict[Any, Any]
    ciphertext: bytes

    @property
    def algorithm(self) -> object:
        """The algorithm, from whichever header the algorithm's rules put it in."""
        if self.protected:
            return _header_map(self.protected).get(Header.ALG)
        return self.unprotected.get(Header.ALG)

    @property
    def kid(self) -> bytes:
        """The recipient's key identifier, empty where there is none."""
        kid = self.unprotected.get(Header.KID, b"")
        return kid if isinstance(kid, bytes) else b""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoseEncrypt:
    """COSE_Encrypt.

    Attributes:
        protected: the protected header's bytes.
        iv: 12 bytes.
        ciphertext: AES-GCM output, tag behind.
        recipients: one or more.
    """

    protected: bytes
    iv: bytes
    ciphertext: bytes
    recipients: tuple[CoseRecipient, ...]

    @property
    def header(self) -> dict[Any, Any]:
        """The protected header, decoded."""
        return _header_map(self.protected)

    def encode(self) -> bytes:
        """Return the tagged encoding."""
        recipients = [[r.protected, r.unprotected, r.ciphertext] for r in self.recipients]
        body = [self.protected, {int(Header.IV): self.iv}, self.ciphertext, recipients]
        return TAG_ENCRYPT + cbor.encode(body)

    def aad(self, external_aad: bytes) -> bytes:
        """Return the Enc_structure that AES-GCM authenticates."""
        return enc_structure(self.protected, external_aad)

    @classmethod
    def decode(cls, data: bytes) -> CoseEncrypt:
        """Parse a tagged COSE_Encrypt.

        Raises:
            BlobError: not one, or not of the exact shape that a blob has.
        """
        match _decode_tagged(data, TAG_ENCRYPT):
            case [
                bytes() as protected,
                {Header.IV: bytes() as iv, **more},
                bytes() as ciphertext,
                [*recipients],
            ]:
                pass
            case _:
                raise BlobError("not a COSE_Encrypt of a blob", nte=NTE.BAD_DATA, hint=_HINT)
        if more or len(iv) != IV_SIZE or len(ciphertext) < TAG_SIZE or not recipients:
            raise BlobError("the COSE_Encrypt does not have a blob's shape", nte=NTE.BAD_DATA, hint=_HINT)
        _header_map(protected)
        return cls(
            protected=protected, iv=iv, ciphertext=ciphertext, recipients=tuple(_recipient(item) for item in recipients)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CoseSign1:
    """COSE_Sign1 with the payload inside.

    Attributes:
        protected: the protected header's bytes.
        kid: the signer's key identifier.
        payload: what is signed.
        signature: over :meth:`to_be_signed`.
    """

    protected: bytes
    kid: bytes
    payload: bytes
    signature: bytes

    @property
    def algorithm(self) -> object:
        """The signature algorithm."""
        return _header_map(self.protected).get(Header.ALG)

    def encode(self) -> bytes:
        """Return the tagged encoding."""
        body = [self.protected, {int(Header.KID): self.kid}, self.payload, self.signature]
        return TAG_SIGN1 + cbor.encode(body)

    def to_be_signed(self, external_aad: bytes) -> bytes:
        """Return the Sig_structure."""
        return cbor.encode(["Signature1", self.protected, external_aad, self.payload])

    @classmethod
    def decode(cls, data: bytes) -> CoseSign1:
        """Parse a tagged COSE_Sign1.

        Raises:
            BlobError: not one, or not of the exact shape that a blob has.
        """
        match _decode_tagged(data, TAG_SIGN1):
            case [
                bytes() as protected,
                {Header.KID: bytes() as kid, **more},
                bytes() as payload,
                bytes() as signature,
            ]:
                pass
            case _:
                raise BlobError("not a COSE_Sign1 of a blob", nte=NTE.BAD_DATA, hint=_HINT)
        if more or set(_header_map(protected)) != {Header.ALG}:
            raise BlobError("the COSE_Sign1 does not have a blob's shape", nte=NTE.BAD_DATA, hint=_HINT)
        return cls(protected=protected, kid=kid, payload=payload, signature=signature)


def enc_structure(protected: bytes, external_aad: bytes, context: str = "Encrypt") -> bytes:
    """Return the Enc_structure of RFC 9052 section 5.3."""
    return cbor.encode([context, protected, external_aad])


def _decode_tagged(data: bytes, tag: bytes) -> object:
    """Decode what is behind a tag.

    The validator lets no tag through, so the one that belongs here is taken off first.
    """
    return cbor.decode(data[len(tag) :]) if data.startswith(tag) else None


def _header_map(protected: bytes) -> dict[Any, Any]:
    header = cbor.decode(protected)
    if not isinstance(header, dict):
        raise BlobError("a protected header is no map", nte=NTE.BAD_DATA, hint=_HINT)
    return header


def _recipient(item: object) -> CoseRecipient:
    match item:
        case [bytes() as protected, dict() as unprotected, bytes() as ciphertext]:
            recipient = CoseRecipient(protected=protected, unprotected=unprotected, ciphertext=ciphertext)
        case _:
            raise BlobError("a recipient does not have its shape", nte=NTE.BAD_DATA, hint=_HINT)
    if not isinstance(recipient.algorithm, int):
        raise BlobError("a recipient names no algorithm", nte=NTE.BAD_ALGID, hint=_HINT)
    return recipient
