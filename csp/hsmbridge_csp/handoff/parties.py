"""Who takes part in handoffs here: our identity, whom we believe, and our journal.

Source: docs/identity.md; docs/handoff.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from hsmbridge_csp.handoff.statement import Kind, Statement, read_statement, sign_statement
from hsmbridge_csp.trust import TrustStore, UnknownSenderError

if TYPE_CHECKING:
    from hsmbridge_csp.identity import Identity, VerifyingKey
    from hsmbridge_csp.journal import Entry, Journal

__all__ = ["Party"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """One side of handoffs.

    Attributes:
        identity: signs blobs, bundles and statements.
        journal: of this user and host.
        trust: pinned keys; one's own identity is believed without a pin.
    """

    identity: Identity
    journal: Journal
    trust: TrustStore = field(default_factory=TrustStore)

    def key_of(self, fingerprint: bytes) -> VerifyingKey:
        """Return the public key of an identity that is pinned, in whichever role, or one's own.

        Raises:
            UnknownSenderError: nobody vouches for it.
        """
        if fingerprint == self.identity.fingerprint:
            return self.identity.public_key
        for pin in self.trust.pins:
            if pin.fingerprint == fingerprint and isinstance(
                pin.key, (ed25519.Ed25519PublicKey, ec.EllipticCurvePublicKey)
            ):
                return pin.key
        raise UnknownSenderError(
            f"nobody vouches here for {fingerprint.hex()}",
            hint="pin the other side's identity: `hsmbridge identity trust --name NAME FILE`",
        )

    def read_answer(self, entry: Entry, data: bytes) -> Statement:
        """Verify the statement that ends a handoff which this side sent.

        Raises:
            StatementError: not the recipient's word about that handoff.
        """
        statement = read_statement(data, entry.peer, self.key_of)
        statement.check(
            Statement(
                kind=Kind.RECEIPT,
                handoff=entry.handoff,
                digest=entry.digest,
                count=entry.count,
                sender=self.identity.fingerprint,
                recipient=entry.peer,
                nonce=entry.nonce,
                persisted=False,
                proof=entry.proof,
            )
        )
        return statement

    def state(self, entry: Entry, kind: Kind, *, persisted: bool = False, proof: bytes = b"") -> bytes:
        """Sign the statement that ends a handoff which this side received."""
        return sign_statement(
            Statement(
                kind=kind,
                handoff=entry.handoff,
                digest=entry.digest,
                count=entry.count,
                sender=entry.peer,
                recipient=self.identity.fingerprint,
                nonce=entry.nonce,
                persisted=persisted,
                proof=proof,
            ),
            self.identity,
        )
