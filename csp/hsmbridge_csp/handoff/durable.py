"""Files that change their names or disappear durably: for keys that freeze, arrive, or are gone.

What a journaling or copy-on-write file system, a backup or the medium itself keeps of an overwritten file is beyond
reach: docs/limits.md.

Source: rename(2), link(2), fsync(2).
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from hsmbridge.errors import ExistsError, HsmbridgeError
from hsmbridge_csp.handoff.errors import KeyFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

__all__ = ["do_all", "erase", "give_name", "reported", "sync_directory"]

_T = TypeVar("_T")


def do_all(act: Callable[[_T], None], items: Iterable[_T]) -> None:
    """Do something to each item, though it fails for some.

    Raises:
        HsmbridgeError: the first failure.
    """
    failures: list[HsmbridgeError] = []
    for item in items:
        try:
            act(item)
        except HsmbridgeError as error:
            failures.append(error)
    if failures:
        raise failures[0]


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Turn what the file system says of a file into our error.

    Raises:
        KeyFileError: it refused or failed.
    """
    try:
        yield
    except OSError as error:
        raise KeyFileError(
            f"{path}: {(error.strerror or str(error)).lower()}",
            hint="free some space or repair the file system, then run `hsmbridge handoff recover`",
        ) from error


def give_name(path: Path, name: Path) -> None:
    """Rename *path* to *name* durably, replacing nothing; does nothing where it was done before.

    Raises:
        ExistsError: another file has that name; both are kept.
        KeyFileError: the file system refused or failed.
    """
    if not path.exists():
        return
    with reported(path):
        try:
            os.link(path, name)
        except FileExistsError:
            if not path.samefile(name):
                raise ExistsError(f"{name} is another file now", hint=f"the key is kept as {path}") from None
        path.unlink()
    sync_directory(path)


def erase(path: Path) -> None:
    """Overwrite a file and remove it durably; does nothing where there is none.

    Raises:
        KeyFileError: the file system refused or failed.
    """
    if not path.exists():
        return
    with reported(path):
        with path.open("r+b") as file:
            file.write(bytes(os.fstat(file.fileno()).st_size))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()
    sync_directory(path)


def sync_directory(path: Path) -> None:
    """Make a change of names in a file's directory durable.

    Raises:
        KeyFileError: the file system refused or failed.
    """
    with reported(path.parent):
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
