"""A whole handoff while calls fail: two threads of this process, a channel between them, and one journal for both.

Source: docs/handoff.md, "Recovery" and "Guarantees".
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hsmbridge_csp.errors import CspError
from hsmbridge_csp.handoff.destination import InProcess, InToken, arriving_id
from hsmbridge_csp.handoff.errors import InDoubtError, RefusedError
from hsmbridge_csp.handoff.recovery import Recovery
from hsmbridge_csp.handoff.sender import Pending, Sender
from hsmbridge_csp.handoff.source import LiveSource
from hsmbridge_csp.journal import Owner, Phase, Role

from hsmbridge.codes import CKA
from hsmbridge.errors import HsmbridgeError
from hsmbridge_conformance.disturbed import Operation
from hsmbridge_conformance.faults import changing, sample
from hsmbridge_conformance.moving import Ends, new_party, run_ends

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsmbridge_csp.channel import Channel
    from hsmbridge_csp.handoff.destination import Destination
    from hsmbridge_csp.handoff.parties import Party
    from hsmbridge_csp.journal import Entry

    from hsmbridge.objects import Object
    from hsmbridge_conformance.faults import FaultPlan
    from hsmbridge_conformance.rig import Rig

__all__ = ["Handoff", "HandoffPersisted"]

_NOBODY = Owner(pid=0, start=0, boot="")
"""A process that is not there: recovery leaves alone what a living one works on."""


class Handoff(Operation):
    """A session key that moves by value into another session object."""

    settles = True
    persist = False

    def __init__(self, rig: Rig) -> None:
        super().__init__(rig)
        self.key = self.provider.adopt(self.source)
        self.may_destroy = frozenset({self.handle})
        self.party: Party = rig.kept("journal for faults", lambda: new_party(rig.directory, durable=False))
        self.ends = Ends(sender=None, receiver=None, received=None)
        self.id = b""

    def numbers(self, names: list[str]) -> list[int]:
        """It takes a hundred calls and two journals: only what changes something is tried."""
        return changing(names)

    def run(self) -> None:
        """Hand the key over; the sender's error counts first."""
        known = {entry.handoff for entry in self.party.journal.entries(open_only=False)[-2:]}
        self.ends = run_ends(self.party, self._send, self._destination())
        self.errors = [error for error in (self.ends.sender, self.ends.receiver) if error is not None]
        new = [entry.handoff for entry in self.party.journal.entries()[-2:] if entry.handoff not in known]
        self.id = new[0] if new else b""
        for error in self.errors:
            raise error

    def _send(self, channel: Channel) -> None:
        Sender(self.party, self.rig.token).send([LiveSource(self.key)], channel, self.sealer())

    def _destination(self) -> Destination:
        opener = self.opener()
        return InToken(self.rig.token, opener) if self.persist else InProcess(self.rig.token, opener)

    # ---- who has the key

    @property
    def results(self) -> list[Object]:
        """The key that arrived."""
        received = self.ends.received
        found = [key.object for key in received.keys if hasattr(key, "object")] if received is not None else []
        # Once the receipt is signed, what is in the token under one of its names is the key, whoever returned it.
        return self.in_token() if self.persist and self._imported() else found

    def _imported(self) -> bool:
        """Whether the receipt is signed."""
        receiver = self._entry(Role.RECEIVER)
        return receiver is not None and receiver.phase in {Phase.IMPORTED, Phase.DONE}

    def in_token(self) -> list[Object]:
        """Return token objects that have the key's name, or an arriving one."""
        names = [self.key_id, *self._arriving()]
        return [found for name in names for found in self.rig.token.find({CKA.TOKEN: True, CKA.ID: name})]

    def _arriving(self) -> list[bytes]:
        keys = self.party.journal.keys(Role.RECEIVER, self.id) if self.id else []
        return [arriving_id(key.blob) for key in keys if key.blob]

    def _entry(self, role: Role) -> Entry | None:
        return self.party.journal.entry(role, self.id) if self.id else None

    def _at_source(self) -> bool:
        try:
            self.key.check_usable()
        except CspError:
            return False
        return self.source.alive and self._ask(self.source) == self.answer

    def _at_destination(self) -> bool:
        return any(made.alive and self._ask(made) == self.answer for made in self.results)

    # ---- judging

    def judge(self, plan: FaultPlan, error: BaseException | None) -> Iterator[str]:
        """At most one usable holder; a source is destroyed on a receipt only; who says that all went well is right."""
        at_source, at_destination = self._at_source(), self._at_destination()
        if at_source and at_destination:
            yield "the key has two usable holders"
        if self.handle in plan.foreign and not self._imported():
            yield "the source was destroyed, and no receipt was signed"
        if error is None and not at_destination:
            yield "both ends say that the key has moved, and it is not there"
        if isinstance(self.ends.sender, RefusedError) and not at_source:
            yield "the receiver refused, and the source does not go on"

    def left_behind(self, objects: list[Object]) -> Iterator[str]:
        """What has an arriving name is known to be the handoff's own; only while it is in doubt may it be there.

        A session object that the token refused to remove may stay where the key has arrived: it dies with its holder.
        """
        if any(isinstance(error, InDoubtError) for error in self.errors):
            return
        arrived = self._imported()
        for left in objects:
            lasting = self.rig.attribute(left, CKA.TOKEN) is not False
            if left.read_identity().id in self._arriving() and (lasting or not arrived):
                yield "an object is left under its arriving name, and the handoff is settled"

    # ---- recovering

    def again(self) -> None:
        """Settle what is open as another process would, twice, and ask again; then hand over what still can be."""
        for _ in range(2):
            self._settle()
        if self._at_source() and not self.persist:
            self.run()
        holders = (self._at_source(), self._at_destination())
        if holders == (False, False) and (self.persist or not self._imported()):  # else it dies with this process
            raise HsmbridgeError("after recovery nobody can use the key")
        if holders == (True, True):
            raise HsmbridgeError("after recovery two can use the key")

    def _settle(self) -> None:
        receiver, sender = self._entry(Role.RECEIVER), self._entry(Role.SENDER)
        if receiver is not None and not receiver.phase.settled:
            phase = receiver.phase
            self.party.journal.advance(Role.RECEIVER, self.id, phase, phase, owner=_NOBODY)
            outcome = Recovery(self.party, self.rig.token).settle(replace(receiver, owner=_NOBODY))
            if not outcome.settled:
                raise HsmbridgeError(f"recovery leaves the handoff {outcome.entry.phase}: {outcome.text}")
        if sender is not None and sender.phase is Phase.SENT:
            pending = Pending(entry=sender, sources=(LiveSource(self.key),))
            run_ends(self.party, lambda channel: Sender(self.party).ask(pending, channel), self._destination())


class HandoffPersisted(Handoff):
    """A session key that moves by value into a token object."""

    persist = True

    def numbers(self, names: list[str]) -> list[int]:
        """Here it is the first and the last call of each function."""
        return sample(names)
