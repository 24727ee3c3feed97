"""The journal's file: made private, opened with everything durable, and one transaction at a time.

Source: SQLite, "Write-Ahead Logging" and PRAGMA synchronous.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sqlite3
import stat
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from hsmbridge.errors import HsmbridgeError, PolicyError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

__all__ = ["JournalError", "JournalFile", "journal_path"]

_BUSY_SECONDS = 30.0
_VERSION = 1
_SCHEMA = """
CREATE TABLE handoff (
    id BLOB NOT NULL, role TEXT NOT NULL, phase TEXT NOT NULL, peer BLOB NOT NULL, nonce BLOB NOT NULL,
    count INTEGER NOT NULL, digest BLOB NOT NULL, proof BLOB NOT NULL, bundle TEXT NOT NULL, owner TEXT NOT NULL,
    created INTEGER NOT NULL,
    statement BLOB NOT NULL DEFAULT x'', remark TEXT NOT NULL DEFAULT '', PRIMARY KEY (role, id)
);
CREATE TABLE key (
    role TEXT NOT NULL, handoff BLOB NOT NULL, position INTEGER NOT NULL, blob BLOB, place TEXT NOT NULL,
    residency TEXT NOT NULL, evidence TEXT NOT NULL, disposition TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (role, handoff, position)
) WITHOUT ROWID;
CREATE UNIQUE INDEX one_import ON key (blob) WHERE role = 'receiver';
CREATE TABLE step (
    role TEXT NOT NULL, handoff BLOB NOT NULL, at INTEGER NOT NULL, phase TEXT NOT NULL, remark TEXT NOT NULL
);
"""


class JournalError(HsmbridgeError):
    """The journal cannot be read or written: nothing is handed over without one."""


def journal_path() -> Path:
    """Return the journal of this user and host.

    It lies in ``$HSMBRIDGE_STATE``, else in ``$XDG_STATE_HOME/hsmbridge``. The host's name is part of the file's: a
    home directory may be shared by hosts, a SQLite file may not.
    """
    given = os.environ.get("HSMBRIDGE_STATE")
    base = os.environ.get("XDG_STATE_HOME")
    directory = Path(given) if given else (Path(base) if base else Path.home() / ".local" / "state") / "hsmbridge"
    return directory / f"journal-{socket.gethostname()}.sqlite"


class JournalFile:
    """The file. One object may be used by several threads.

    Args:
        path: of the file, made with its directory where there is none.

    Raises:
        PolicyError: others may read or write it.
        JournalError: it cannot be opened or written, or is of another version.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or journal_path()
        self._lock = threading.RLock()
        with _reported(self.path), self._alone():
            self._make_private()
            self._database = sqlite3.connect(
                self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._prepare()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Open one at a time: SQLite does not wait for whoever is just switching a new file to WAL."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _make_private(self) -> None:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077 or status.st_uid != os.geteuid():
            raise PolicyError(f"journal {self.path} is not private", hint=f"chmod 600 {self.path}")

    def _prepare(self) -> None:
        with self.transaction() as database:
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version={_VERSION}")
            elif version != _VERSION:
                raise JournalError(
                    f"journal {self.path} is of version {version}, this program knows {_VERSION}",
                    hint="use the hsmbridge that wrote it to settle what is open: `hsmbridge handoff recover`",
                )

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Do several things at once, durably, or none of them."""
        with self._lock, _reported(self.path):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read."""
        with self._lock, _reported(self.path):
            yield self._database

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Turn what SQLite and the file system say into our error."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        text = error.strerror if isinstance(error, OSError) else str(error)
        raise JournalError(
            f"journal {path}: {text}",
            hint="free some space or repair the file system; nothing is handed over without a journal",
        ) from None
