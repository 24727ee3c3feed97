"""Orders to workers that have one answer, and what every run needs around it."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsmbridge_csp.identity import FileIdentity

from hsmbridge.errors import ModuleError, UnavailableError
from hsmbridge_conformance.cleaning import forget, left_behind
from hsmbridge_conformance.importing import RUN_IDENTITY
from hsmbridge_conformance.process import HANG_SECONDS, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsmbridge_conformance.target import Target

__all__ = ["Removed", "ask", "clean", "private_directory"]

_ELSEWHERE = "try it with another program first, such as pkcs11-tool --module PATH -L"


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What :func:`clean` did.

    Attributes:
        removed: names of objects; kept: those that the token did not let go of, with the reason.
        label: the token's.
    """

    removed: tuple[str, ...]
    kept: tuple[str, ...]
    label: str


def clean(target: Target) -> Removed:
    """Remove what earlier runs of this user left in the token: objects with the runs' own random CKA_IDs only.

    Raises:
        UnavailableError: no module, no token, or no login.
    """
    with private_directory() as directory:
        reply = ask(target, directory, "clean", prefixes=[prefix.hex() for prefix in left_behind()])
    if not reply["kept"]:
        forget(reply["serial"])
    return Removed(removed=tuple(reply["removed"]), kept=tuple(reply["kept"]), label=reply["label"])


def ask(
    target: Target,
    directory: Path,
    task: str,
    hang_seconds: float = HANG_SECONDS,
    **fields: Any,  # noqa: ANN401 - JSON both ways
) -> dict[str, Any]:
    """Have a worker do something that has one answer.

    Args:
        target: the token.
        directory: the run's own.
        task: ``describe`` or ``clean``.
        hang_seconds: silence that counts as a hang.
        fields: of the order.

    Raises:
        UnavailableError: no module, no token, no login; or the module crashes, hangs or fails before anything is done.
    """
    order = {"task": task, "target": target.message(), **fields}
    with WorkerProcess(order, directory, hang_seconds) as worker:
        for message in worker.messages():
            if "stopped" not in message:
                return message
            if message["stopped"] == "unavailable":
                raise UnavailableError(message["text"], hint=message["hint"])
            raise ModuleError(f"the module cannot be used: {message['text']}", hint=message["hint"] or _ELSEWHERE)
        _, function, _ = worker.position
        how = f"{worker.ended} in {function}" if function else worker.ended
        raise ModuleError(f"the module cannot be used: {how}", hint=_ELSEWHERE)


@contextmanager
def private_directory() -> Iterator[Path]:
    """A directory for the run's files, which only its owner can enter, and the run's identity in it."""
    with tempfile.TemporaryDirectory(prefix="hsmbridge-conformance.") as name:
        directory = Path(name)
        identity = directory / RUN_IDENTITY
        identity.touch(mode=0o600)
        identity.write_bytes(FileIdentity.generate().to_pem())
        yield directory
