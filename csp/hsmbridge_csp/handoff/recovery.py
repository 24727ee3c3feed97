"""Settling what was cut short, from evidence only: the journal, the recipient's word, and what is really there.

It may be run any number of times, by any process of the user, and does nothing to what another process works on.

Source: docs/handoff.md, "Recovery".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hsmbridge.errors import HsmbridgeError, NotFoundError
from hsmbridge_csp.handoff.bundle import unfinished_name
from hsmbridge_csp.handoff.destination import TOKEN, arriving_id, finish_in_token, remove_from_token
from hsmbridge_csp.handoff.durable import give_name, reported
from hsmbridge_csp.handoff.files import finish_in_file, remove_from_file
from hsmbridge_csp.handoff.receiver import Receiver
from hsmbridge_csp.handoff.source import FILE, destroy_file, frozen_name, look_gone, thaw_file
from hsmbridge_csp.handoff.statement import Kind
from hsmbridge_csp.journal import Entry, KeyEntry, Phase, Role

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsmbridge.token import Token
    from hsmbridge_csp.handoff.parties import Party

__all__ = ["DIED", "Outcome", "Recovery"]

DIED = "died-with-process"
"""The remark for keys that lived only in a process that is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What recovery found out about one handoff, and did.

    Attributes:
        entry: as it is now.
        text: for a person; settled: whether there is nothing more to do.
    """

    entry: Entry
    text: str

    @property
    def settled(self) -> bool:
        """Whether there is nothing more to do."""
        return self.entry.phase.settled


class Recovery:
    """Settles handoffs of one journal.

    Args:
        party: who we are.
        token: a token that handoffs were about, logged in; None leaves those about tokens open.
    """

    def __init__(self, party: Party, token: Token | None = None) -> None:
        self._party = party
        self._journal = party.journal
        self._token = token

    def run(self) -> list[Outcome]:
        """Settle all that can be settled; the receiver's side first, since its word settles the sender's."""
        entries = sorted(self._journal.entries(open_only=True), key=lambda entry: entry.role is Role.SENDER)
        return [self.settle(entry) for entry in entries]

    def settle(self, entry: Entry) -> Outcome:
        """Settle one handoff, if the evidence is there."""
        if entry.owner.alive:
            return Outcome(entry=entry, text=f"process {entry.owner.pid} works on it")
        try:
            text = self._sender(entry) if entry.role is Role.SENDER else self._receiver(entry)
        except HsmbridgeError as error:
            text = f"left as it is: {error}"
        return Outcome(entry=self._journal.entry(entry.role, entry.handoff) or entry, text=text)

    def apply(self, statement: bytes, entry: Entry) -> Outcome:
        """Act on the recipient's word about a handoff that this side sent.

        Raises:
            StatementError: it is not that; nothing was done.
        """
        said = self._party.read_answer(entry, statement)
        if entry.owner.alive:
            return Outcome(entry=entry, text=f"process {entry.owner.pid} works on it: let it end first")
        if entry.phase is Phase.SENT:
            after = Phase.COMMITTED if said.kind is Kind.RECEIPT else Phase.THAWED
            if after is Phase.THAWED:
                self._thaw(entry)
            self._journal.advance(Role.SENDER, entry.handoff, Phase.SENT, after, statement=statement)
        return self.settle(self._journal.entry(Role.SENDER, entry.handoff) or entry)

    def _sender(self, entry: Entry) -> str:
        if entry.phase is Phase.INTENT:
            if entry.bundle:
                unfinished = unfinished_name(Path(entry.bundle), entry.handoff)
                with reported(unfinished):
                    unfinished.unlink(missing_ok=True)
            self._thaw(entry)
            self._journal.advance(Role.SENDER, entry.handoff, Phase.INTENT, Phase.THAWED, remark=self._lost(entry))
            return f"nothing had left: {self._lost(entry) or 'the keys go on at the source'}"
        if entry.phase is Phase.SENT:
            return self._in_doubt(entry)
        if entry.phase is Phase.COMMITTED:
            return self._finish(entry)
        return str(entry.phase)

    def _in_doubt(self, entry: Entry) -> str:
        """Look for the recipient's word; without it the sources stay frozen."""
        # Sender and recipient may be processes of one user: then the recipient's word is in this very journal.
        twin = self._journal.entry(Role.RECEIVER, entry.handoff)
        if twin is not None and twin.statement:
            return self.apply(twin.statement, entry).text
        if entry.bundle:
            give_name(unfinished_name(Path(entry.bundle), entry.handoff), Path(entry.bundle))
            return f"in doubt: the receipt for {entry.bundle} is not here yet; the keys stay frozen"
        if not self._files(entry):
            remark = f"{DIED}: the source is gone, whether the recipient imported is for the recipient to say"
            self._journal.advance(Role.SENDER, entry.handoff, Phase.SENT, Phase.DONE, remark=remark)
            return remark
        return "in doubt: ask the recipient (--socket), or commit its receipt; the keys stay frozen"

    def _finish(self, entry: Entry) -> str:
        """Destroy what a receipt allows to be destroyed."""
        outcomes: list[str] = []
        gone: list[Path] = []
        for key in self._journal.keys(Role.SENDER, entry.handoff):
            if key.place.startswith(FILE):
                gone.append(frozen_name(Path(key.place.removeprefix(FILE)), entry.handoff))
                done = destroy_file(Path(key.place.removeprefix(FILE)), entry.handoff)
                outcomes.append(f"{done.outcome}: {'; '.join(done.evidence)}")
            elif key.residency == "hardware":
                outcomes.append(f"retained: {key.evidence}")
            else:
                outcomes.append(DIED)
        look_gone(gone)
        self._journal.advance(Role.SENDER, entry.handoff, Phase.COMMITTED, Phase.DONE, dispositions=outcomes)
        return "; ".join(outcomes)

    def _receiver(self, entry: Entry) -> str:
        keys = self._journal.keys(Role.RECEIVER, entry.handoff)
        if entry.phase in {Phase.OFFERED, Phase.CLAIMED}:
            for key in keys:
                self._remove(key)
            if entry.bundle:
                self._journal.reopen(entry.handoff)
                return f"nothing was imported; receive {entry.bundle} again, or refuse it"
            Receiver(self._party).refuse(entry, "the receiving process died before it had imported")
            return "nothing was imported; it is refused from now on, and the sender may go on"
        if entry.phase is Phase.IMPORTED:
            for key in keys:
                self._complete(key)
            remark = DIED if any(key.place == "memory" for key in keys) else ""
            self._journal.advance(Role.RECEIVER, entry.handoff, Phase.IMPORTED, Phase.DONE, remark=remark)
            return f"imported{f'; {remark}' if remark else ' and in place'}"
        return str(entry.phase)

    def _remove(self, key: KeyEntry) -> None:
        if key.place.startswith(FILE):
            remove_from_file(Path(key.place.removeprefix(FILE)), key.blob)
        elif key.place.startswith(TOKEN):
            remove_from_token(self._the_token(key), arriving_id(key.blob))

    def _complete(self, key: KeyEntry) -> None:
        if key.place.startswith(FILE):
            finish_in_file(Path(key.place.removeprefix(FILE)), key.blob)
        elif key.place.startswith(TOKEN):
            final = bytes.fromhex(key.place.rpartition(":")[2])
            finish_in_token(self._the_token(key), arriving_id(key.blob), final)

    def _the_token(self, key: KeyEntry) -> Token:
        label = key.place.removeprefix(TOKEN).rpartition(":")[0]
        if self._token is None or self._token.label != label:
            raise NotFoundError(f"token {label!r} is needed to see what arrived", hint=f"--token-label {label}")
        return self._token

    def _thaw(self, entry: Entry) -> None:
        for path in self._files(entry):
            thaw_file(path, entry.handoff)

    def _files(self, entry: Entry) -> Sequence[Path]:
        """Return the sources of a handoff that outlive a process."""
        keys = self._journal.keys(Role.SENDER, entry.handoff)
        return [Path(key.place.removeprefix(FILE)) for key in keys if key.place.startswith(FILE)]

    def _lost(self, entry: Entry) -> str:
        keys = self._journal.keys(Role.SENDER, entry.handoff)
        return DIED if any(key.residency == "software" and not key.place.startswith(FILE) for key in keys) else ""
