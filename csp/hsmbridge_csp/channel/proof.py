"""The second message of each end, encrypted: who it is, and that it is so in this very channel.

The signature is over the hash of both hellos, so that it is of no use in another channel. The MAC binds the identity to
the shared secret: who signs has also computed it. This is SIGMA with both ends speaking at once.

Source: docs/channel.md, "Proof of identity"; H. Krawczyk, SIGMA (CRYPTO 2003) section 5.1; RFC 9052 section 4.4.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from hsmbridge.errors import InputError
from hsmbridge_csp import cbor
from hsmbridge_csp.channel.errors import ProofError, UnpinnedPeerError
from hsmbridge_csp.channel.schedule import PROTOCOL
from hsmbridge_csp.cose import CoseSign1, Header
from hsmbridge_csp.errors import BlobError
from hsmbridge_csp.identity import verify
from hsmbridge_csp.trust import load_public_key

if TYPE_CHECKING:
    from hsmbridge_csp.channel.schedule import Schedule
    from hsmbridge_csp.channel.terms import Side
    from hsmbridge_csp.identity import Identity

__all__ = ["Proof", "make_proof", "verify_proof"]

_HINT = "the peer is not who it says, or somebody is in between; start the handoff again"


class _Label(IntEnum):
    PUBLIC_KEY = 1
    ALGORITHM = 2
    SIGNATURE = 3
    CONFIRMATION = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A proof of identity.

    Attributes:
        public_key: DER SubjectPublicKeyInfo.
        algorithm: COSE's number of the signature algorithm.
        signature: as COSE has it; r and s for ES256.
        confirmation: MAC over the identity, 32 bytes.
    """

    public_key: bytes = field(repr=False)
    algorithm: int
    signature: bytes = field(repr=False)
    confirmation: bytes = field(repr=False)

    def encode(self) -> bytes:
        """Return the CBOR map."""
        labels = {
            _Label.PUBLIC_KEY: self.public_key,
            _Label.ALGORITHM: self.algorithm,
            _Label.SIGNATURE: self.signature,
            _Label.CONFIRMATION: self.confirmation,
        }
        return cbor.encode({int(label): value for label, value in labels.items()})

    @classmethod
    def decode(cls, payload: bytes) -> Proof:
        """Parse a proof.

        Raises:
            ProofError: not one.
        """
        try:
            fields = cbor.decode(payload)
        except BlobError:
            fields = None
        match fields:
            case {
                _Label.PUBLIC_KEY: bytes() as public_key,
                _Label.ALGORITHM: int() as algorithm,
                _Label.SIGNATURE: bytes() as signature,
                _Label.CONFIRMATION: bytes() as confirmation,
                **unknown,
            } if not unknown:
                return cls(public_key=public_key, algorithm=algorithm, signature=signature, confirmation=confirmation)
        raise ProofError("the peer's proof of identity does not have its shape", hint=_HINT)


def make_proof(identity: Identity, side: Side, hellos: bytes, schedule: Schedule) -> Proof:
    """Prove who we are.

    Args:
        identity: signs.
        side: our part.
        hellos: hash of both hellos.
        schedule: of this handshake.
    """
    public_key = identity.public_key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    algorithm = int(identity.algorithm)
    return Proof(
        public_key=public_key,
        algorithm=algorithm,
        signature=identity.sign(_to_be_signed(algorithm, side, hellos, public_key)),
        confirmation=schedule.confirmation(side, public_key),
    )


def verify_proof(proof: Proof, believed: frozenset[bytes], side: Side, hellos: bytes, schedule: Schedule) -> bytes:
    """Verify the peer's proof.

    Args:
        proof: what came.
        believed: fingerprints of those who may be there.
        side: the peer's part.
        hellos: hash of both hellos.
        schedule: of this handshake.

    Returns: the peer's fingerprint.

    Raises:
        UnpinnedPeerError: none of those.
        ProofError: the proof does not hold, or not for this channel.
    """
    fingerprint = hashlib.sha256(proof.public_key).digest()
    if fingerprint not in believed:
        raise UnpinnedPeerError(
            f"the peer is {fingerprint.hex()}, whom nobody vouches for here",
            hint="if you know who that is, pin the public key: `hsmbridge identity trust --name NAME FILE`",
        )
    message = _to_be_signed(proof.algorithm, side, hellos, proof.public_key)
    try:
        key = load_public_key(proof.public_key, name="the peer's identity")
        if not isinstance(key, (ed25519.Ed25519PublicKey, ec.EllipticCurvePublicKey)):
            raise ProofError("the peer's identity is of a kind that does not sign", hint=_HINT)
        verify(key, proof.algorithm, message, proof.signature)
    except InputError:
        raise ProofError("the peer's signature is not over this channel's handshake", hint=_HINT) from None
    if not hmac.compare_digest(proof.confirmation, schedule.confirmation(side, proof.public_key)):
        raise ProofError("the peer's identity is not bound to this channel's secret", hint=_HINT)
    return fingerprint


def _to_be_signed(algorithm: int, side: Side, hellos: bytes, public_key: bytes) -> bytes:
    # COSE's Sig_structure, whose external_aad says what is signed: a blob has its BLOBHEADER there, so that no
    # signature of one kind passes for one of the other.
    context = cbor.encode([f"{PROTOCOL} proof", side.value, hellos])
    protected = cbor.encode({int(Header.ALG): algorithm})
    return CoseSign1(protected=protected, kid=b"", payload=public_key, signature=b"").to_be_signed(context)
