"""Typed errors of a handoff."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsmbridge.errors import InputError, PolicyError
from hsmbridge_csp.errors import NTE, CspError

if TYPE_CHECKING:
    from hsmbridge_csp.handoff.receiver import Received

__all__ = [
    "AlreadyImportedError",
    "HandoffError",
    "InDoubtError",
    "KeyFileError",
    "RefusedError",
    "StatementError",
    "UnpublishedError",
]


class HandoffError(CspError):
    """A handoff did not come to its end; what the message says of the source is so."""


class InDoubtError(HandoffError):
    """Nobody can tell yet whether the keys were imported: the source stays frozen.

    Attributes:
        handoff: the id, for ``recover`` or ``settle``.
    """

    nte = NTE.BAD_KEY_STATE

    def __init__(self, message: str, *, handoff: bytes) -> None:
        number = handoff.hex()
        super().__init__(
            f"handoff {number} is in doubt: {message}; the source stays frozen",
            hint="`hsmbridge handoff recover` settles it from evidence; a receipt file goes to `handoff commit`",
        )
        self.handoff = handoff


class KeyFileError(HandoffError):
    """The file system refused or failed to write, rename or remove a key's file or a bundle."""


class RefusedError(HandoffError):
    """The recipient did not import and has promised never to: the source goes on."""


class AlreadyImportedError(HandoffError, PolicyError):
    """The same move was imported before, or is being imported by another process."""

    nte = NTE.EXISTS


class StatementError(HandoffError, InputError):
    """A receipt or tombstone is malformed, forged, or about something else; nothing was destroyed for it."""

    nte = NTE.BAD_SIGNATURE


class UnpublishedError(HandoffError):
    """The keys are this side's, and it has signed for them, but not all of them could be given their own names.

    Attributes:
        received: what :meth:`Receiver.serve` would have returned; its keys can be used.
    """

    def __init__(self, received: Received, reason: BaseException) -> None:
        number = received.handoff.hex()
        super().__init__(
            f"the keys of handoff {number} are here for good, but not all under their own names: {reason}",
            hint=f"`hsmbridge handoff recover` names them; `hsmbridge handoff show {number} --receipt FILE` writes the "
            "receipt, which a sender over a channel has",
        )
        self.received = received
