"""Removing what a run that was cut short has left in a token: objects with the run's own CKA_IDs, and nothing else.

Every run writes its random CKA_ID prefix into a small file before it makes its first object, and removes the file
when it has ended well.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from hsmbridge.codes import CKA
from hsmbridge.destruction import Ours
from hsmbridge.errors import HsmbridgeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsmbridge.token import Token

__all__ = ["PREFIX_SIZE", "RunMark", "forget", "left_behind", "remove_left_behind"]

PREFIX_SIZE = 10
"""Bytes of a run's prefix, all random: nobody else's CKA_ID begins with them. Six more make each object's own."""


def state_directory() -> Path:
    """Return where runs leave their marks: ``$XDG_STATE_HOME/hsmbridge/conformance``, made on demand."""
    base = os.environ.get("XDG_STATE_HOME")
    directory = (Path(base) if base else Path.home() / ".local" / "state") / "hsmbridge" / "conformance"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


class RunMark:
    """A run's prefix, known to the disk before the token sees it.

    Args:
        serial: the token's serial number.

    Attributes:
        prefix: the first bytes of every CKA_ID of the run.
    """

    def __init__(self, serial: str) -> None:
        self.prefix = secrets.token_bytes(PREFIX_SIZE)
        self._path = state_directory() / self.prefix.hex()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, serial.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def remove(self) -> None:
        """The run has removed its objects itself."""
        self._path.unlink(missing_ok=True)


def left_behind() -> dict[bytes, str]:
    """Return the prefixes of all runs of this user that did not end well, each with its token's serial number."""
    found = {}
    for path in sorted(state_directory().iterdir()):
        try:
            prefix = bytes.fromhex(path.name)
        except ValueError:
            continue
        if len(prefix) == PREFIX_SIZE:
            found[prefix] = path.read_text("utf-8", "replace")
    return found


def forget(serial: str) -> None:
    """Forget the runs on one token: what they left is gone."""
    for prefix, where in left_behind().items():
        if where == serial:
            (state_directory() / prefix.hex()).unlink(missing_ok=True)


def remove_left_behind(token: Token, prefixes: Sequence[bytes]) -> tuple[list[str], list[str]]:
    """Remove every token object whose CKA_ID begins with one of *prefixes*.

    Args:
        token: logged in.
        prefixes: of runs of the suite.

    Returns: the names of what was removed, and what could not be.
    """
    removed: list[str] = []
    kept: list[str] = []
    for found in token.find({CKA.TOKEN: True}):
        if not any(found.identity.id.startswith(prefix) for prefix in prefixes):
            continue
        name = str(found.identity)
        with Ours(token) as ours:
            ours.take(found)
            try:
                ours.remove(found)
            except HsmbridgeError as error:
                kept.append(f"{name}: {error}")
            else:
                removed.append(name)
    return removed, kept
