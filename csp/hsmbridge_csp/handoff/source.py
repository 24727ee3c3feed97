"""Keys at the source: freezing them, letting them go on, destroying them, and seeing that they are gone.

Source: docs/residency.md; docs/handoff.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hsmbridge.errors import NotFoundError
from hsmbridge.residency import Residency
from hsmbridge_csp.disposition import Disposition, Outcome
from hsmbridge_csp.handoff.durable import erase, give_name, sync_directory
from hsmbridge_csp.token_key import TokenKey

if TYPE_CHECKING:
    from hsmbridge_csp.keys import Key, SoftwareKey

__all__ = ["FileSource", "LiveSource", "Source", "destroy_file", "frozen_name", "thaw_file"]

FILE = "file:"
_LOOK = "import os, sys; sys.exit(any(os.path.lexists(path) for path in sys.argv[1:]))"
_LOOK_SECONDS = 30


class Source(Protocol):
    """A key that is to move."""

    key: Key

    @property
    def place(self) -> str:
        """Where it lives, for the journal: ``memory``, ``token:…`` or ``file:PATH``."""
        ...

    def freeze(self, handoff: bytes) -> None:
        """Stop the key for everybody who could use it here."""
        ...

    def thaw(self, handoff: bytes) -> None:
        """Let it go on; does nothing where it was never frozen."""
        ...

    def destroy(self, handoff: bytes) -> Disposition:
        """Destroy it if it lives in software, once, and see that it is gone; retain it otherwise."""
        ...


class LiveSource:
    """A key that this process holds, in memory or as an object of a token.

    Args:
        key: the key.
    """

    def __init__(self, key: Key) -> None:
        self.key = key

    @property
    def place(self) -> str:
        """``memory``, or the token and the object's name."""
        if isinstance(self.key, TokenKey):
            found = self.key.object
            return f"token:{found.token.label}:{found.identity.id.hex()}"
        return "memory"

    def freeze(self, handoff: bytes) -> None:  # noqa: ARG002 - a live key is frozen for its process, whatever the handoff
        """Stop the key."""
        self.key.freeze()

    def thaw(self, handoff: bytes) -> None:  # noqa: ARG002 - as above
        """Let it go on."""
        self.key.thaw()

    def destroy(self, handoff: bytes) -> Disposition:  # noqa: ARG002 - as above
        """Destroy or retain it (:meth:`hsmbridge_csp.keys.Key.dispose`); another session looks whether it is gone."""
        return self.key.dispose()


class FileSource:
    """A software key at rest. While it is frozen its file has another name, so that nobody uses it by mistake.

    Args:
        path: of the file.
        key: what was read from it.
    """

    def __init__(self, path: Path, key: SoftwareKey) -> None:
        self.path = Path(os.path.realpath(path))
        self.key = key

    @property
    def place(self) -> str:
        """``file:`` and the absolute path."""
        return f"{FILE}{self.path}"

    def freeze(self, handoff: bytes) -> None:
        """Give the file its frozen name, durably."""
        self.path.rename(frozen_name(self.path, handoff))
        sync_directory(self.path)
        self.key.freeze()

    def thaw(self, handoff: bytes) -> None:
        """Give the file its name back."""
        thaw_file(self.path, handoff)
        self.key.thaw()

    def destroy(self, handoff: bytes) -> Disposition:
        """Overwrite and remove the file, and the key in memory; a fresh process looks whether it is gone."""
        self.key.dispose()
        return destroy_file(self.path, handoff)


def frozen_name(path: Path, handoff: bytes) -> Path:
    """Return the name of a frozen key's file."""
    return path.with_name(f"{path.name}.frozen-{handoff.hex()}")


def thaw_file(path: Path, handoff: bytes) -> None:
    """Give a frozen file its name back; does nothing where it was never frozen.

    Raises:
        ExistsError: there is another file of that name by now; both are kept.
    """
    give_name(frozen_name(path, handoff), path)


def destroy_file(path: Path, handoff: bytes) -> Disposition:
    """Overwrite and unlink a frozen key's file.

    Raises:
        NotFoundError: a fresh process still sees the file.
    """
    frozen = frozen_name(path, handoff)
    erase(frozen)
    looked = subprocess.run(  # noqa: S603 - this interpreter, one line of ours
        [sys.executable, "-I", "-S", "-c", _LOOK, str(frozen)], check=False, timeout=_LOOK_SECONDS
    )
    if looked.returncode:
        raise NotFoundError(f"{frozen} is still there", hint="remove it by hand: the key has moved")
    return Disposition(
        outcome=Outcome.DESTROYED,
        residency=Residency.SOFTWARE,
        evidence=(f"{path} overwritten and removed", "absent in a fresh process"),
    )
