"""What the journal says about one handoff, and about each key in it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hsmbridge_csp.journal.owner import Owner

__all__ = ["Entry", "KeyEntry", "Phase", "Role"]


class Role(StrEnum):
    """Which side of a handoff this journal's owner is."""

    SENDER = "sender"
    RECEIVER = "receiver"


class Phase(StrEnum):
    """How far a handoff has come. Each is durable before the next thing is done.

    The sender's go ``intent``, ``sent``, ``committed``, ``done``; or, before a sealed byte has left and on the
    recipient's tombstone, ``thawed``. The receiver's go ``offered``, ``claimed``, ``imported``, ``done``; or, as long
    as nothing was imported, ``refused``.
    """

    INTENT = "intent"
    SENT = "sent"
    COMMITTED = "committed"
    DONE = "done"
    THAWED = "thawed"
    OFFERED = "offered"
    CLAIMED = "claimed"
    IMPORTED = "imported"
    REFUSED = "refused"

    @property
    def settled(self) -> bool:
        """Whether there is nothing more to do."""
        return self in {Phase.DONE, Phase.THAWED, Phase.REFUSED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One handoff, from one side.

    Attributes:
        handoff: its id, 16 bytes.
        role, phase: see there.
        peer: fingerprint of the other side's identity.
        nonce: the sender's, which a receipt repeats.
        count: of keys; digest: running hash over all blobs, empty until all were sealed.
        proof: hash over the keys' answers that a receipt has to give, at the sender.
        bundle: path of the bundle of an offline handoff, empty over a channel.
        owner: the process that works on it.
        created: seconds since 1970-01-01 UTC.
        statement: the signed receipt or tombstone, empty as long as there is none.
        remark: the last thing worth telling.
    """

    handoff: bytes
    role: Role
    phase: Phase
    peer: bytes
    nonce: bytes
    count: int
    digest: bytes
    proof: bytes
    bundle: str
    owner: Owner
    created: int
    statement: bytes
    remark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEntry:
    """One key of a handoff.

    Attributes:
        position: from 0, in the order of delivery.
        blob: id of its blob, 16 bytes; empty until it was sealed.
        place: where it lives: ``memory``, ``token:…`` or ``file:PATH``.
        residency: software or hardware; evidence: what says so.
        disposition: what became of it, empty until that is known.
    """

    position: int
    blob: bytes
    place: str
    residency: str
    evidence: str
    disposition: str = ""
