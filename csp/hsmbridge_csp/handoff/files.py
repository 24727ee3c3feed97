"""Keys that arrive in files: written beside their place under a name of the blob's own, then given theirs.

Source: rename(2), link(2); docs/handoff.md.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from hsmbridge.errors import ExistsError
from hsmbridge_csp.errors import KeyStateError
from hsmbridge_csp.handoff.destination import Destination
from hsmbridge_csp.handoff.durable import do_all, erase, give_name, reported, sync_directory
from hsmbridge_csp.handoff.source import FILE
from hsmbridge_csp.keys import SoftwareKey
from hsmbridge_csp.record import Transfer

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsmbridge.token import Token
    from hsmbridge_csp.recipients import Opener
    from hsmbridge_csp.record import KeyRecord

__all__ = ["InFiles", "arriving_name", "finish_in_file", "remove_from_file"]


class InFiles(Destination):
    """Software keys that arrive in files of mode 600, one a key.

    Args:
        path_for: returns the file of a blob's key, by position and record.
        render: returns the file's bytes; refuses a key that a file cannot hold as it is.
        token: where references are found.
        opener: the recipient's key, for a bundle.
    """

    persistent = True

    def __init__(
        self,
        path_for: Callable[[int, KeyRecord], Path],
        render: Callable[[SoftwareKey], bytes],
        token: Token | None = None,
        opener: Opener | None = None,
    ) -> None:
        super().__init__(token, opener)
        self._path_for = path_for
        self._render = render
        self._files: dict[bytes, Path] = {}

    def place(self, record: KeyRecord, blob: bytes) -> str:
        """``file:`` and the path; ``reference`` for a key that stayed in its token."""
        if record.transfer is Transfer.REFERENCE:
            return "reference"
        if record.transfer is not Transfer.VALUE:
            raise KeyStateError("a token key does not go into a file", hint="keep it in the token: --persist")
        path = Path(os.path.realpath(self._path_for(len(self._files), record)))
        if path in self._files.values() or os.path.lexists(path):
            raise ExistsError(f"{path} is there already", hint="name another file: nothing is replaced by a handoff")
        self._files[blob] = path
        return f"{FILE}{path}"

    def make(self, record: KeyRecord, blob: bytes) -> None:
        """Write one key under its arriving name, durably."""
        key = self._take(record, persist=False)
        if not isinstance(key, SoftwareKey):
            return
        raw = self._render(key)
        path = arriving_name(self._files[blob], blob)
        with reported(path):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(descriptor)
        sync_directory(path)

    def publish(self) -> None:
        """Give every file its name; one that fails keeps no other from its own."""
        do_all(lambda named: finish_in_file(named[1], named[0]), self._files.items())

    def withdraw(self) -> None:
        """Overwrite and remove what was written."""
        super().withdraw()
        for blob, path in self._files.items():
            remove_from_file(path, blob)


def arriving_name(path: Path, blob: bytes) -> Path:
    """Return the name under which a blob's key arrives: nobody else's file has it."""
    return path.with_name(f"{path.name}.arriving-{blob.hex()}")


def finish_in_file(path: Path, blob: bytes) -> None:
    """Give an arrived file its name; does nothing where it has it.

    Raises:
        ExistsError: another file took the name meanwhile; both are kept.
    """
    give_name(arriving_name(path, blob), path)


def remove_from_file(path: Path, blob: bytes) -> None:
    """Overwrite and remove what arrived for a blob."""
    erase(arriving_name(path, blob))
