"""The journal: the few transactions that handoffs are made of.

Every change of phase is a compare-and-set: whoever comes second, in this process or another, finds that he did, and a
receipt and a tombstone can never both be written for one handoff.

Source: docs/handoff.md.
"""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, Any

from hsmbridge_csp.journal.entries import Entry, KeyEntry, Phase, Role
from hsmbridge_csp.journal.file import JournalError, JournalFile
from hsmbridge_csp.journal.owner import Owner

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Journal"]

_ENTRY = "id, role, phase, peer, nonce, count, digest, proof, bundle, owner, created, statement, remark"


class Journal(JournalFile):
    """The journal of this user and host."""

    def begin(self, entry: Entry, keys: Iterable[KeyEntry] = ()) -> bool:
        """Write a new handoff durably.

        Returns: False where this side has it already.
        """
        values = (
            entry.handoff, str(entry.role), str(entry.phase), entry.peer, entry.nonce, entry.count, entry.digest,
            entry.proof, entry.bundle, str(entry.owner), entry.created, entry.statement, entry.remark,
        )  # fmt: skip
        with self.transaction() as database:
            marks = ", ".join("?" * len(values))
            try:
                database.execute(f"INSERT INTO handoff ({_ENTRY}) VALUES ({marks})", values)  # noqa: S608 - constants
            except sqlite3.IntegrityError:
                return False
            self._add_keys(database, entry.role, entry.handoff, keys)
            self._note(database, entry.role, entry.handoff, entry.phase, entry.remark)
        return True

    def claim(self, handoff: bytes, keys: Sequence[KeyEntry], digest: bytes) -> bool:
        """Claim the blobs of an offered handoff for this receiver: of all who try, on this journal, one succeeds.

        Returns: False where the handoff is not ``offered`` any more, or a blob was claimed by another one.
        """
        with self.transaction() as database:
            if not self._step(database, Role.RECEIVER, handoff, Phase.OFFERED, Phase.CLAIMED, {"digest": digest}):
                return False
            try:
                self._add_keys(database, Role.RECEIVER, handoff, keys)
            except sqlite3.IntegrityError:
                database.execute("ROLLBACK")
                database.execute("BEGIN IMMEDIATE")
                return False
        return True

    def reopen(self, handoff: bytes) -> bool:
        """Give a claim up of which nothing is left, so that the bundle can be received again.

        Returns: False where the handoff is decided.
        """
        with self.transaction() as database:
            phases = (Phase.OFFERED, Phase.CLAIMED)
            if not self._step(database, Role.RECEIVER, handoff, phases, Phase.OFFERED, {"remark": "given up"}):
                return False
            database.execute("DELETE FROM key WHERE role=? AND handoff=?", (str(Role.RECEIVER), handoff))
        return True

    def advance(  # noqa: PLR0913 - from where to where, and what goes with it
        self,
        role: Role,
        handoff: bytes,
        before: Phase | tuple[Phase, ...],
        after: Phase,
        *,
        remark: str = "",
        blobs: Sequence[bytes] = (),
        dispositions: Sequence[str] = (),
        **fields: Any,  # noqa: ANN401 - columns: statement, digest, owner
    ) -> bool:
        """Change the phase durably, if it is what the caller believes.

        Args:
            role: which side.
            handoff: its id.
            before: the phase, or phases, from which it may go.
            after: the new one.
            remark: what happened.
            blobs: the keys' blob ids, in order, where they are known now.
            dispositions: what became of the keys, in order.
            fields: columns to set with it: ``statement``, ``digest``, ``owner``.

        Returns: False where another process was faster.
        """
        with self.transaction() as database:
            if not self._step(database, role, handoff, before, after, {**fields, "remark": remark}):
                return False
            for column, values in (("blob", blobs), ("disposition", dispositions)):
                database.executemany(
                    f"UPDATE key SET {column}=? WHERE role=? AND handoff=? AND position=?",  # noqa: S608 - constants
                    ((value, str(role), handoff, position) for position, value in enumerate(values)),
                )
        return True

    def _step(  # noqa: PLR0913, PLR0917 - a row of the table
        self,
        database: sqlite3.Connection,
        role: Role,
        handoff: bytes,
        before: Phase | tuple[Phase, ...],
        after: Phase,
        fields: dict[str, Any],
    ) -> bool:
        phases = before if isinstance(before, tuple) else (before,)
        columns = ", ".join(f"{name}=?" for name in ("phase", *fields))
        marks = ", ".join("?" * len(phases))
        changed = database.execute(
            f"UPDATE handoff SET {columns} WHERE role=? AND id=? AND phase IN ({marks})",  # noqa: S608 - names of ours
            (str(after), *(_plain(value) for value in fields.values()), str(role), handoff, *map(str, phases)),
        ).rowcount
        if changed:
            self._note(database, role, handoff, after, str(fields.get("remark", "")))
        return changed == 1

    def _add_keys(self, database: sqlite3.Connection, role: Role, handoff: bytes, keys: Iterable[KeyEntry]) -> None:
        database.executemany(
            "INSERT INTO key (role, handoff, position, blob, place, residency, evidence) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                (str(role), handoff, key.position, key.blob or None, key.place, key.residency, key.evidence)
                for key in keys
            ),
        )

    def _note(self, database: sqlite3.Connection, role: Role, handoff: bytes, phase: Phase, remark: str) -> None:
        database.execute(
            "INSERT INTO step (role, handoff, at, phase, remark) VALUES (?, ?, ?, ?, ?)",
            (str(role), handoff, int(time.time()), str(phase), remark),
        )

    # ---- reading

    def entry(self, role: Role, handoff: bytes) -> Entry | None:
        """Return what is known of a handoff, None where nothing is."""
        found = self._entries("role=? AND id=?", (str(role), handoff))
        return found[0] if found else None

    def entries(self, *, open_only: bool = False) -> list[Entry]:
        """Return all handoffs, the oldest first; with *open_only* those that are not settled."""
        return [entry for entry in self._entries("1", ()) if not (open_only and entry.phase.settled)]

    def keys(self, role: Role, handoff: bytes) -> list[KeyEntry]:
        """Return the keys of a handoff in order."""
        with self.reading() as database:
            rows = database.execute(
                "SELECT position, blob, place, residency, evidence, disposition FROM key"
                " WHERE role=? AND handoff=? ORDER BY position",
                (str(role), handoff),
            ).fetchall()
        names = ("position", "blob", "place", "residency", "evidence", "disposition")
        return [KeyEntry(**{**dict(zip(names, row, strict=True)), "blob": row[1] or b""}) for row in rows]

    def knows_blob(self, blob: bytes) -> bool:
        """Whether a blob was claimed by a receiver of this journal."""
        with self.reading() as database:
            row = database.execute("SELECT 1 FROM key WHERE role='receiver' AND blob=?", (blob,)).fetchone()
        return row is not None

    def steps(self, role: Role, handoff: bytes) -> list[tuple[int, str, str]]:
        """Return when a handoff went into which phase, with remarks."""
        with self.reading() as database:
            return database.execute(
                "SELECT at, phase, remark FROM step WHERE role=? AND handoff=? ORDER BY rowid", (str(role), handoff)
            ).fetchall()

    def _entries(self, where: str, values: tuple[Any, ...]) -> list[Entry]:
        with self.reading() as database:
            rows = database.execute(
                f"SELECT {_ENTRY} FROM handoff WHERE {where} ORDER BY rowid",  # noqa: S608 - constants
                values,
            ).fetchall()
        try:
            return [_entry(row) for row in rows]
        except (AttributeError, TypeError, ValueError):
            raise JournalError(
                f"journal {self.path} has a row that no hsmbridge wrote", hint="restore the file from a backup"
            ) from None


def _entry(row: tuple[Any, ...]) -> Entry:
    handoff, role, phase, peer, nonce, count, digest, proof, bundle, owner, created, statement, remark = row
    return Entry(
        handoff=handoff, role=Role(role), phase=Phase(phase), peer=peer, nonce=nonce, count=count, digest=digest,
        proof=proof, bundle=bundle, owner=Owner.parse(owner), created=created, statement=statement, remark=remark,
    )  # fmt: skip


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Owner) else value
