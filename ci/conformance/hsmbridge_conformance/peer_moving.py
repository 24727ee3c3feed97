"""The second process as a party to handoffs, and as one in which calls fail or which dies in the middle of one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from hsmbridge_csp.handoff.destination import InProcess, InToken
from hsmbridge_csp.handoff.parties import Party
from hsmbridge_csp.handoff.recovery import Recovery
from hsmbridge_csp.journal import Journal
from hsmbridge_csp.provider import Provider

from hsmbridge.codes import CKA
from hsmbridge_conformance.disturbed import answer_of
from hsmbridge_conformance.faults import Deed, Fault, FaultPlan
from hsmbridge_conformance.importing import opener_of, run_identity
from hsmbridge_conformance.moving import receive

if TYPE_CHECKING:
    from hsmbridge.objects import Object
    from hsmbridge.token import Token
    from hsmbridge_conformance.journal import CallJournal

__all__ = ["MovingVerbs"]


class MovingVerbs(ABC):
    """What the second process can be asked to do in a handoff; each public method is one verb.

    Args:
        journal: the calls that this process makes.
    """

    def __init__(self, journal: CallJournal) -> None:
        self._journal = journal

    @property
    @abstractmethod
    def token(self) -> Token:
        """The token."""

    @abstractmethod
    def _kek(self, key_id: bytes) -> Object:
        """Return the KEK of this CKA_ID."""

    def arm(self, *, at: int, deed: str, ckr: int = 0, delay: float = 0.0) -> bool:
        """Let a call of the next requests go wrong; the first call from now on is number 1."""
        fault = Fault(at=at, deed=Deed(deed), ckr=ckr, delay=delay)
        self._journal.faults = FaultPlan(fault, self.token.close)
        return True

    def disarm(self) -> list[str]:
        """Let nothing go wrong any more; the functions that were called since."""
        plan, self._journal.faults = self._journal.faults, None
        return [] if plan is None else plan.names

    def import_copy(self, blob: str, kek_id: str) -> bool:
        """Import a blob into the token, with a provider that has just begun."""
        provider = Provider(self.token, identity=run_identity())
        provider.import_key(bytes.fromhex(blob), opener_of(provider, self._kek(bytes.fromhex(kek_id))), persist=True)
        return True

    def receive(self, bundle: str, kek_id: str, journal: str, *, persist: bool = True) -> int:
        """Receive a bundle.

        Args:
            bundle: its path.
            kek_id: CKA_ID of the KEK that it is sealed for.
            journal: path of the journal.
            persist: as token objects, else as session objects of this process.

        Returns: how many keys have arrived.
        """
        identity = run_identity()
        opener = opener_of(Provider(self.token, identity=identity), self._kek(bytes.fromhex(kek_id)))
        destination = InToken(self.token, opener) if persist else InProcess(self.token, opener)
        with Journal(Path(journal)) as known:
            return len(receive(Party(identity=identity, journal=known), Path(bundle), opener, destination).keys)

    def answer(self, key_id: str) -> list[str]:
        """Return what each token object of a CKA_ID makes of a certain block."""
        return [answer_of(key).hex() for key in self.token.find({CKA.TOKEN: True, CKA.ID: bytes.fromhex(key_id)})]

    def recover(self, journal: str) -> list[str]:
        """Settle what is open in a journal; the phases of all its handoffs afterwards."""
        with Journal(Path(journal)) as known:
            Recovery(Party(identity=run_identity(), journal=known), self.token).run()
            return [str(entry.phase) for entry in known.entries()]
