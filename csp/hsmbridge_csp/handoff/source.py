"""Keys at the source: freezing them, letting them go on, destroying them, and seeing that they are gone.

Source: docs/residency.md; docs/handoff.md.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hsmbridge.errors import NotFoundError
from hsmbridge.residency import Residency
from hsmbridge_csp.disposition import Disposition, Outcome
from hsmbridge_csp.errors import KeyStateError
from hsmbridge_csp.handoff.durable import erase, give_name, reported, sync_directory
from hsmbridge_csp.token_key import TokenKey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsmbridge_csp.keys import Key, SoftwareKey

__all__ = [
    "FILE",
    "FileSource",
    "LiveSource",
    "Source",
    "destroy_file",
    "file_digest",
    "frozen_name",
    "look_gone",
    "thaw_file",
]

FILE = "file:"
_LOOK = "import os, sys; sys.exit(any(os.path.lexists(path) for path in sys.argv[1:]))"
_LOOK_SECONDS = 30
_LOOK_AT_ONCE = 500
"""Names that surely fit into one command line."""


class Source(Protocol):
    """A key that is to move."""

    @property
    def key(self) -> Key:
        """The key."""
        ...

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

    def remains(self, handoff: bytes) -> Path | None:
        """Return the file that a fresh process must not find afterwards, None where there never was one."""
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

    def remains(self, handoff: bytes) -> Path | None:  # noqa: ARG002 - as above
        """No file."""
        return None


class FileSource:
    """A software key at rest. While it is frozen its file has another name, so that nobody uses it by mistake.

    Args:
        path: of the file.
        key: what was read from it.
        digest: :func:`file_digest` from before it was read, so that no other file is taken for it; by default that of
            now.
    """

    def __init__(self, path: Path, key: SoftwareKey, digest: bytes | None = None) -> None:
        self.path = Path(os.path.realpath(path))
        self.key = key
        self._digest = file_digest(self.path) if digest is None else digest

    @property
    def place(self) -> str:
        """``file:`` and the absolute path."""
        return f"{FILE}{self.path}"

    def freeze(self, handoff: bytes) -> None:
        """Give the file its frozen name, durably, and see that it is the file that the key was read from.

        Raises:
            KeyStateError: it was replaced since.
        """
        frozen = frozen_name(self.path, handoff)
        with reported(self.path):
            self.path.rename(frozen)
        sync_directory(self.path)
        if not hmac.compare_digest(file_digest(frozen), self._digest):
            raise KeyStateError(f"{self.path} was changed since it was read", hint="nothing was sent; try it again")
        self.key.freeze()

    def thaw(self, handoff: bytes) -> None:
        """Give the file its name back."""
        thaw_file(self.path, handoff)
        self.key.thaw()

    def destroy(self, handoff: bytes) -> Disposition:
        """Overwrite and remove the file, and the key in memory."""
        self.key.dispose()
        return destroy_file(self.path, handoff)

    def remains(self, handoff: bytes) -> Path | None:
        """Return the frozen file."""
        return frozen_name(self.path, handoff)


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
    """Overwrite and unlink a frozen key's file; does nothing to the file where that was done before."""
    erase(frozen_name(path, handoff))
    return Disposition(
        outcome=Outcome.DESTROYED, residency=Residency.SOFTWARE, evidence=(f"{path} overwritten and removed",)
    )


def look_gone(paths: Sequence[Path]) -> None:
    """Have a fresh process look whether files are gone.

    Raises:
        NotFoundError: one is still there.
    """
    for start in range(0, len(paths), _LOOK_AT_ONCE):
        looked = subprocess.run(  # noqa: S603 - this interpreter, one line of ours
            [sys.executable, "-I", "-S", "-c", _LOOK, *map(str, paths[start : start + _LOOK_AT_ONCE])],
            check=False,
            timeout=_LOOK_SECONDS,
        )
        if looked.returncode:
            raise NotFoundError(
                "a fresh process still finds the file of a key that has moved", hint="`hsmbridge handoff recover`"
            )


def file_digest(path: Path) -> bytes:
    """Return SHA-256 of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).digest()
