"""Looking into a token past the shim and past the package's own search: all objects, named or not, and what they are.

In a process of its own the bare module is opened; in one that has it open under the shim, the same library is called
directly, so that its session objects are seen too.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, addressof, byref, c_ulong, c_void_p, create_string_buffer
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hsmbridge._ck import CkAttribute, CkFunctionList, CkInitializeArgs, CkMechanism
from hsmbridge.codes import CKA, CKM, CKR
from tests.sweep.bench import MOVING, QUESTION, answer_of

if TYPE_CHECKING:
    from tests.sweep.bench import Bench

__all__ = ["Found", "Look"]

_SERIAL, _LOCKING, _USER, _READ_WRITE = 4, 2, 1, 2
_ROOM = 256


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Found:
    """One object.

    Attributes:
        on_token: CKA_TOKEN; cls: CKA_CLASS; label, id: as they are, in hexadecimal.
        answer: one block under it, in hexadecimal; empty where it does not encrypt.
        handle: in the process that looked.
    """

    on_token: bool
    cls: int
    label: str
    id: str
    answer: str
    handle: int = 0


class Look:
    """A look at the token of the environment.

    Args:
        module: path of the bare module.
        pin: to log in with; None in a process that is logged in already.
    """

    def __init__(self, module: str, pin: str | None) -> None:
        get = ctypes.CDLL(module).C_GetFunctionList
        pointer = POINTER(CkFunctionList)()
        get(byref(pointer))
        self._list = pointer.contents
        self._session = c_ulong()
        if pin is not None:
            arguments = CkInitializeArgs(flags=_LOCKING)
            self._call("C_Initialize", addressof(arguments))
        slots, count = (c_ulong * 8)(), c_ulong(8)
        self._call("C_GetSlotList", 1, addressof(slots), addressof(count))
        self._call("C_OpenSession", slots[0], _SERIAL | _READ_WRITE, None, None, addressof(self._session))
        if pin is not None:
            self._call("C_Login", self._session, _USER, pin.encode(), len(pin))

    def _ask(self, function: str, *arguments: object) -> int:
        call = ctypes.CFUNCTYPE(c_ulong, *(_kind(argument) for argument in arguments))
        return int(call(getattr(self._list, function))(*arguments))

    def _call(self, function: str, *arguments: object) -> None:
        ckr = self._ask(function, *arguments)
        if ckr != CKR.OK:
            raise RuntimeError(f"the bare module: {function} answered {ckr:#x}")

    def objects(self) -> list[Found]:
        """Return all objects, sorted."""
        handles, count = (c_ulong * _ROOM)(), c_ulong()
        self._call("C_FindObjectsInit", self._session, None, 0)
        self._call("C_FindObjects", self._session, addressof(handles), _ROOM, addressof(count))
        self._call("C_FindObjectsFinal", self._session)
        return sorted(self._found(handle) for handle in handles[: count.value])

    def bystanders(self, bench: Bench) -> list[int]:
        """Return the handles of the token objects that nobody may ever destroy: all but the key that moves."""
        moving = answer_of(bench.key(MOVING))
        return [found.handle for found in self.objects() if found.on_token and found.answer != moving]

    def _found(self, handle: int) -> Found:
        return Found(
            on_token=self._read(handle, CKA.TOKEN) == b"\x01",
            cls=int.from_bytes(self._read(handle, CKA.CLASS), "little"),
            label=self._read(handle, CKA.LABEL).hex(),
            id=self._read(handle, CKA.ID).hex(),
            answer=self.answer(handle),
            handle=handle,
        )

    def _read(self, handle: int, kind: CKA) -> bytes:
        room = create_string_buffer(_ROOM)
        attribute = CkAttribute(kind, addressof(room), _ROOM)
        ckr = self._ask("C_GetAttributeValue", self._session, handle, addressof(attribute), 1)
        return room.raw[: attribute.ulValueLen] if ckr == CKR.OK else b""

    def answer(self, handle: int) -> str:
        """Return one block under a key, in hexadecimal; empty where there is none."""
        mechanism = CkMechanism(CKM.AES_ECB, None, 0)
        if self._ask("C_EncryptInit", self._session, addressof(mechanism), handle) != CKR.OK:
            return ""
        room, size = create_string_buffer(len(QUESTION)), c_ulong(len(QUESTION))
        ckr = self._ask("C_Encrypt", self._session, QUESTION, len(QUESTION), addressof(room), addressof(size))
        return room.raw.hex() if ckr == CKR.OK else ""


def _kind(argument: object) -> Any:  # noqa: ANN401 - a type of ctypes; these have no public common one
    return ctypes.c_char_p if isinstance(argument, bytes) else c_void_p if argument is None else c_ulong
