"""What a recipient promises about a handoff: a receipt, or a tombstone.

A receipt says that every key was imported and read back; a tombstone, that none was and that none ever will be. Of the
two a recipient signs one at most for a handoff, and it is durable before it leaves.

A statement is a COSE_Sign1 (EdDSA or ES256) over a deterministic CBOR map, with a context string of its own as
external_aad, so that no blob and no proof of a channel can stand in for it.

Source: docs/handoff.md; RFC 9052 section 4.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from hsmbridge.errors import InputError
from hsmbridge_csp import cbor
from hsmbridge_csp.cose import CoseSign1, Header
from hsmbridge_csp.handoff.errors import StatementError
from hsmbridge_csp.identity import verify

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsmbridge_csp.identity import Identity, VerifyingKey

__all__ = ["MAX_STATEMENT", "Kind", "Statement", "peek_handoff", "read_statement", "sign_statement"]

MAX_STATEMENT = 4096
"""Bytes; a statement has a few hundred."""

_CONTEXT = b"hsmbridge statement/1"
_DIGEST = 32
_HANDOFF = 16
_HINT = "ask the recipient for the receipt again: `hsmbridge handoff recover`; the source stays frozen meanwhile"


class Kind(IntEnum):
    """What is promised."""

    RECEIPT = 1
    TOMBSTONE = 2


class Label(IntEnum):
    """Labels of the signed map."""

    KIND = 1
    HANDOFF = 2
    DIGEST = 3
    COUNT = 4
    SENDER = 5
    RECIPIENT = 6
    NONCE = 7
    PERSISTED = 8
    PROOF = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A promise, as its signer means it.

    Attributes:
        kind: receipt or tombstone.
        handoff: 16 bytes.
        digest: running hash over every blob's digest, 32 bytes; empty in a tombstone for blobs that never came.
        count: of keys.
        sender, recipient: fingerprints of both identities.
        nonce: the sender's, 32 bytes; empty in a tombstone for a handoff that the recipient never heard of.
        persisted: whether the keys outlive the recipient's process.
        proof: hash over one answer for each key that only its holder can give; empty in a tombstone.
    """

    kind: Kind
    handoff: bytes
    digest: bytes
    count: int
    sender: bytes
    recipient: bytes
    nonce: bytes
    persisted: bool
    proof: bytes

    def encode(self) -> bytes:
        """Return the map that is signed."""
        fields: dict[Label, Any] = {
            Label.KIND: int(self.kind),
            Label.HANDOFF: self.handoff,
            Label.DIGEST: self.digest,
            Label.COUNT: self.count,
            Label.SENDER: self.sender,
            Label.RECIPIENT: self.recipient,
            Label.NONCE: self.nonce,
            Label.PERSISTED: self.persisted,
            Label.PROOF: self.proof,
        }
        return cbor.encode({int(label): value for label, value in fields.items()})

    def check(self, wanted: Statement) -> None:
        """Compare with what the sender waits for.

        Args:
            wanted: the receipt that would be right; a tombstone is compared in what it has.

        Raises:
            StatementError: another handoff, other blobs, another nonce, another recipient, or a key that does not
                answer as the source does.
        """
        pairs = [
            (self.handoff, wanted.handoff),
            (self.sender, wanted.sender),
            (self.recipient, wanted.recipient),
            (self.nonce, wanted.nonce),
        ]
        if self.kind is Kind.RECEIPT:  # a tombstone may be for keys that never came
            pairs += [(self.digest, wanted.digest), (self.proof, wanted.proof)]
            if self.count != wanted.count:
                raise StatementError("the receipt counts other keys", hint=_HINT)
        if not all(hmac.compare_digest(mine, other) for mine, other in pairs):
            raise StatementError("the statement is for another handoff, or the keys arrived changed", hint=_HINT)


def sign_statement(statement: Statement, identity: Identity) -> bytes:
    """Sign a statement.

    Returns: the tagged COSE_Sign1.
    """
    unsigned = CoseSign1(
        protected=cbor.encode({int(Header.ALG): int(identity.algorithm)}),
        kid=identity.fingerprint,
        payload=statement.encode(),
        signature=b"",
    )
    signature = identity.sign(unsigned.to_be_signed(_CONTEXT))
    return CoseSign1(
        protected=unsigned.protected, kid=unsigned.kid, payload=unsigned.payload, signature=signature
    ).encode()


def read_statement(data: bytes, recipient: bytes, key_of: Callable[[bytes], VerifyingKey]) -> Statement:
    """Verify a statement's signature, then read it.

    Args:
        data: the COSE_Sign1.
        recipient: fingerprint of the identity that must have signed.
        key_of: returns the public key for a believed fingerprint, or raises.

    Raises:
        StatementError: malformed, or signed by anybody else.
    """
    if len(data) > MAX_STATEMENT:
        raise StatementError(f"a statement has at most {MAX_STATEMENT} bytes", hint=_HINT)
    try:
        signed = CoseSign1.decode(data)
    except InputError as error:
        raise StatementError(f"not a statement: {error}", hint=_HINT) from None
    if signed.kid != recipient:
        raise StatementError("the statement is not signed by the recipient of this handoff", hint=_HINT)
    signer = key_of(signed.kid)
    try:
        verify(signer, signed.algorithm, signed.to_be_signed(_CONTEXT), signed.signature)
        statement = _decode(signed.payload)
    except StatementError:
        raise
    except InputError as error:
        raise StatementError(f"not a statement of the recipient: {error}", hint=_HINT) from None
    if statement.recipient != recipient:
        raise StatementError("the statement names another recipient than its signer", hint=_HINT)
    return statement


def peek_handoff(data: bytes) -> bytes:
    """Return the id of the handoff that a statement is about, unverified: good for looking it up, and for nothing else.

    Raises:
        StatementError: malformed.
    """
    if len(data) > MAX_STATEMENT:
        raise StatementError(f"a statement has at most {MAX_STATEMENT} bytes", hint=_HINT)
    try:
        return _decode(CoseSign1.decode(data).payload).handoff
    except StatementError:
        raise
    except InputError as error:
        raise StatementError(f"not a statement: {error}", hint=_HINT) from None


def _decode(payload: bytes) -> Statement:
    match cbor.decode(payload):
        case {
            Label.KIND: 1 | 2 as kind,
            Label.HANDOFF: bytes() as handoff,
            Label.DIGEST: bytes() as digest,
            Label.COUNT: int() as count,
            Label.SENDER: bytes() as sender,
            Label.RECIPIENT: bytes() as recipient,
            Label.NONCE: bytes() as nonce,
            Label.PERSISTED: bool() as persisted,
            Label.PROOF: bytes() as proof,
            **unknown,
        } if not unknown and type(kind) is int and type(count) is int:
            pass
        case _:
            raise StatementError("the statement does not have its shape", hint=_HINT)
    sizes = {len(digest), len(nonce), len(proof)}
    if len(handoff) != _HANDOFF or (sizes != {_DIGEST} if kind == Kind.RECEIPT else not sizes <= {0, _DIGEST}):
        raise StatementError("a field of the statement has the wrong length", hint=_HINT)
    return Statement(
        kind=Kind(kind),
        handoff=handoff,
        digest=digest,
        count=count,
        sender=sender,
        recipient=recipient,
        nonce=nonce,
        persisted=persisted,
        proof=proof,
    )
