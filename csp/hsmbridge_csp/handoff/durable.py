"""Files that change their names or disappear durably: for keys that freeze, arrive, or are gone.

What a journaling or copy-on-write file system, a backup or the medium itself keeps of an overwritten file is beyond
reach: docs/limits.md.

Source: rename(2), link(2), fsync(2).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hsmbridge.errors import ExistsError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["erase", "give_name", "sync_directory"]


def give_name(path: Path, name: Path) -> None:
    """Rename *path* to *name* durably, replacing nothing; does nothing where it was done before.

    Raises:
        ExistsError: another file has that name; both are kept.
    """
    if not path.exists():
        return
    try:
        os.link(path, name)
    except FileExistsError:
        if not path.samefile(name):
            raise ExistsError(f"{name} is another file now", hint=f"the key is kept as {path}") from None
    path.unlink()
    sync_directory(path)


def erase(path: Path) -> None:
    """Overwrite a file and remove it durably; does nothing where there is none."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        file.write(bytes(os.fstat(file.fileno()).st_size))
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
    sync_directory(path)


def sync_directory(path: Path) -> None:
    """Make a change of names in a file's directory durable."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
