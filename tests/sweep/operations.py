"""The operations that are swept."""

from __future__ import annotations

from dataclasses import dataclass

from tests.sweep.bench import FILE, HARDWARE, MOVING, RECORD

__all__ = ["OPERATIONS", "Operation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation.

    Attributes:
        name: it is called by.
        sources: names of the keys that it is about.
        destination: of a handoff: ``process``, ``token`` or ``files``.
        sealed: whether a handoff seals for the KEK, not for the channel alone.
        offline: whether it goes by a bundle.
        processes: whose calls and steps are swept.
        before: what goes wrong beforehand in each case, so that what is swept is how the operation is undone, or
            recovered: the process, the function whose last call in an undisturbed run it is (``step:FUNCTION`` is the
            last such step), and the action.
    """

    name: str
    sources: tuple[str, ...]
    destination: str = ""
    sealed: bool = True
    offline: bool = False
    processes: tuple[str, ...] = ("sender", "receiver")
    before: tuple[str, str, str] | None = None

    @property
    def is_handoff(self) -> bool:
        """Whether keys move between two processes."""
        return bool(self.destination)


_ALL = (
    Operation(name="export", sources=(MOVING,), processes=("actor",)),
    Operation(name="import-session", sources=(MOVING,), processes=("actor",)),
    Operation(name="import-token", sources=(MOVING,), processes=("actor",)),
    Operation(name="destroy-software", sources=(MOVING,), processes=("actor",)),
    Operation(name="destroy-hardware", sources=(HARDWARE,), processes=("actor",)),
    Operation(name="handoff-value", sources=(MOVING,), destination="token"),
    Operation(name="handoff-reference", sources=(HARDWARE,), destination="process", sealed=False),
    Operation(name="handoff-mixed", sources=(MOVING, RECORD, HARDWARE, FILE), destination="process"),
    Operation(name="handoff-files", sources=(FILE, HARDWARE), destination="files", sealed=False),
    Operation(name="bundle-files", sources=(FILE,), destination="files", offline=True),
    Operation(name="bundle-token", sources=(MOVING,), destination="token", offline=True),
    Operation(
        name="undo-value",
        sources=(MOVING,),
        destination="token",
        processes=("receiver",),
        before=("receiver", "C_FindObjectsInit", "before:0x30"),
    ),
    Operation(
        name="undo-mixed",
        sources=(MOVING, RECORD, HARDWARE, FILE),
        destination="process",
        processes=("receiver",),
        before=("receiver", "C_GetAttributeValue", "before:0x30"),
    ),
    Operation(
        name="recover-receiver",
        sources=(MOVING,),
        destination="token",
        processes=("receiver-recovery",),
        before=("receiver", "C_UnwrapKey", "kill-after"),
    ),
    Operation(
        name="recover-naming",
        sources=(MOVING,),
        destination="token",
        processes=("receiver-recovery",),
        before=("receiver", "C_SetAttributeValue", "kill-before"),
    ),
    Operation(
        name="recover-committed",
        sources=(FILE, HARDWARE),
        destination="files",
        sealed=False,
        processes=("sender-recovery",),
        before=("sender", "step:unlink", "kill-before"),
    ),
    Operation(
        name="recover-frozen",
        sources=(FILE, HARDWARE),
        destination="files",
        sealed=False,
        processes=("sender-recovery",),
        before=("sender", "step:rename", "kill-after"),
    ),
)

OPERATIONS = {operation.name: operation for operation in _ALL}
