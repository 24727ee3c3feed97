"""What the `handoff` commands share: who we are, whom we believe, the journal, and one handoff by its number.

Source: docs/handoff.md; docs/identity.md.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hsmbridge_csp.channel import Side, Terms, pinned
from hsmbridge_csp.handoff.parties import Party
from hsmbridge_csp.journal import Phase
from hsmbridge_csp.trust import TrustStore, UnknownSenderError

from hsmbridge.errors import NotFoundError, UsageError
from hsmbridge_cli.handoffwatch import WatchedJournal
from hsmbridge_cli.identities import own_identity, signer, trust_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsmbridge_csp.identity import Identity
    from hsmbridge_csp.journal import Entry, Journal, KeyEntry, Role

    from hsmbridge.token import Token
    from hsmbridge_cli.handoffwatch import Watch
    from hsmbridge_cli.keynames import KeyName

__all__ = [
    "Neighbours",
    "age_of",
    "describe_entry",
    "describe_key",
    "describe_side",
    "entry_named",
    "entry_of",
    "identity_for",
    "party_for",
]

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_ALL = "see `hsmbridge handoff ls --all`"
_TRUST = "pin the other side's identity: `hsmbridge identity trust --name NAME FILE`"


def identity_for(name: KeyName | None, token: Token | None) -> Identity:
    """Return who we are in a handoff: what --identity names, else our own identity, which must be there.

    A receipt is for one identity: a handoff begun under one that is then lost could never be settled.

    Raises:
        UsageError: there is none; PolicyError, InputError, KeyStateError: as for :func:`signer`.
    """
    if name is not None:
        return signer(name, token)
    own = own_identity()
    if own is None:
        raise UsageError(
            "there is no identity here yet",
            hint="make one with `hsmbridge identity new`, and let the other side pin it",
        )
    return own


@contextmanager
def party_for(identity: Identity, watch: Watch) -> Iterator[Party]:
    """Open the journal, each of whose steps is then told to *watch*.

    Raises:
        JournalError: it cannot be used; PolicyError: others may read it, or change the pins.
    """
    with WatchedJournal(watch) as journal:
        yield Party(identity=identity, journal=journal, trust=TrustStore.load(trust_path()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """Whom we may hand keys to, and take them from.

    Attributes:
        trust: the pins.
        own: our own fingerprint, None where we have no identity.
        believed: fingerprints of all that --peer leaves.
    """

    trust: TrustStore
    own: bytes | None
    believed: frozenset[bytes]

    @classmethod
    def of(cls, party: Party, peer: str | None) -> Neighbours:
        """Return all who are pinned, in whichever role, and ourselves; of these, with *peer*, one.

        Args:
            party: we.
            peer: a pin's name or a fingerprint.

        Raises:
            UsageError: nobody, or more than one, is called so.
        """
        own = party.identity.fingerprint
        known = pinned(party.trust) | {own}
        if peer is not None:
            named = {pin.fingerprint for pin in party.trust.pins if pin.name == peer} & known
            known = frozenset(named or {each for each in known if each.hex() == peer.lower()})
            if len(known) != 1:
                how_many = "more than one identity is" if known else "no identity is"
                raise UsageError(
                    f"{how_many} pinned as {peer}", hint="see `hsmbridge identity ls`; or give all 64 digits"
                )
        return cls(trust=party.trust, own=own, believed=known)

    @classmethod
    def to_be_shown(cls) -> Neighbours:
        """Return what is known of names, to show them; nobody is believed by it."""
        identity = own_identity()
        own = None if identity is None else identity.fingerprint
        return cls(trust=TrustStore.load(trust_path()), own=own, believed=frozenset())

    def the_one(self) -> bytes:
        """Return the one who is to sign the receipt of a bundle: named, or the only one whom we believe.

        Raises:
            UsageError: there are several.
        """
        others = self.believed - {self.own} or self.believed
        if len(others) != 1:
            raise UsageError(
                f"{len(others)} identities are pinned here", hint="say with --peer which of them is to sign the receipt"
            )
        return next(iter(others))

    def check(self, fingerprint: bytes) -> None:
        """Refuse somebody whom we do not believe, or not in this run.

        Raises:
            UnknownSenderError: so it is.
        """
        if fingerprint not in self.believed:
            raise UnknownSenderError(
                f"the keys come from {self.name_of(fingerprint)}, who is not believed", hint=_TRUST
            )

    def name_of(self, fingerprint: bytes) -> str:
        """Return what somebody is called here, else the fingerprint."""
        if fingerprint == self.own:
            return "yourself"
        return next((pin.name for pin in self.trust.pins if pin.fingerprint == fingerprint), fingerprint.hex())

    def terms(self, party: Party, side: Side, timeout: float) -> Terms:
        """Return the terms of our end of a channel."""
        return Terms(side=side, identity=party.identity, believed=self.believed, timeout=timeout)


def entry_named(journal: Journal, text: str) -> list[Entry]:
    """Find a handoff by its number, or the first digits of it; both sides of it, where both are in this journal.

    Raises:
        UsageError: no number, or one that several begin with; NotFoundError: unknown here.
    """
    wanted = text.lower()
    found = [entry for entry in journal.entries() if entry.handoff.hex().startswith(wanted)] if wanted else []
    if not found:
        raise NotFoundError(f"the journal knows no handoff {text}", hint=_ALL)
    if len({entry.handoff for entry in found}) > 1:
        raise UsageError(f"several handoffs begin with {text}", hint="give more digits: `hsmbridge handoff ls --all`")
    return found


def entry_of(journal: Journal, role: Role, handoff: bytes) -> Entry:
    """Return one side of a handoff that has just been worked on.

    Raises:
        NotFoundError: the journal has lost it.
    """
    entry = journal.entry(role, handoff)
    if entry is None:
        raise NotFoundError(f"the journal has no handoff {handoff.hex()}", hint=_ALL)
    return entry


def describe_entry(entry: Entry, neighbours: Neighbours) -> dict[str, object]:
    """Return a handoff JSON-ready."""
    return {
        "handoff": entry.handoff.hex(),
        "role": str(entry.role),
        "phase": str(entry.phase),
        "settled": entry.phase.settled,
        "peer": {"fingerprint": entry.peer.hex(), "name": neighbours.name_of(entry.peer)},
        "keys": entry.count,
        "bundle": entry.bundle or None,
        "created": entry.created,
        "process": {"pid": entry.owner.pid, "alive": entry.owner.alive},
        "remark": entry.remark or None,
    }


def describe_key(key: KeyEntry) -> dict[str, object]:
    """Return a key of a handoff JSON-ready."""
    return {
        "position": key.position,
        "blob_id": key.blob.hex() or None,
        "place": key.place,
        "residency": key.residency or None,
        "evidence": key.evidence or None,
        "disposition": key.disposition or None,
    }


def describe_side(journal: Journal, entry: Entry, neighbours: Neighbours) -> dict[str, object]:
    """Return all that the journal has of one side, JSON-ready."""
    steps = journal.steps(entry.role, entry.handoff)
    return {
        **describe_entry(entry, neighbours),
        "statement": _kind(entry),
        "of_keys": [describe_key(key) for key in journal.keys(entry.role, entry.handoff)],
        "steps": [{"at": at, "phase": phase, "remark": remark or None} for at, phase, remark in steps],
    }


def _kind(entry: Entry) -> str | None:
    if not entry.statement:
        return None
    return "tombstone" if entry.phase in {Phase.REFUSED, Phase.THAWED} else "receipt"


def age_of(created: int) -> str:
    """Return how long ago something was, in the largest unit that fits."""
    seconds = max(0, int(time.time()) - created)
    for size, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
