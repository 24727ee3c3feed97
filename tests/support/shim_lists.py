"""What a module's interface lists hold, and calls through them: with ctypes alone, for the shim and for the real one.

SHIM_TASK is ``interfaces`` or ``threads``.
"""

from __future__ import annotations

import ctypes
import json
import os
import threading
import time
from ctypes import POINTER, Structure, addressof, byref, c_char_p, c_ubyte, c_ulong, c_void_p
from typing import ClassVar

from hsmbridge._ck import FUNCTIONS, CkFunctionList, CkInitializeArgs

CKF_OS_LOCKING_OK = 2
SESSION_CANCEL = 71
"""C_SessionCancel's place in a 3.0 list.

Before it come the 68 of v2.40, C_GetInterfaceList, C_GetInterface and C_LoginUser.
"""
THREADS, ROUNDS = 8, 200


class List(Structure):
    """The beginning of any function list."""

    _fields_: ClassVar = [("version", c_ubyte * 2), ("functions", c_void_p * (SESSION_CANCEL + 1))]


class Interface(Structure):
    """CK_INTERFACE."""

    _fields_: ClassVar = [("name", c_char_p), ("list", POINTER(List)), ("flags", c_ulong)]


def answers(interface: Interface) -> list[object]:
    """Return the interface's version, and what three of its functions answer."""
    found = interface.list.contents
    version = list(found.version)
    call = ctypes.CFUNCTYPE(c_ulong, c_ulong, c_ulong)
    sessions = call(found.functions[FUNCTIONS.index("C_GetSessionInfo")])(0xDEAD, addressof((c_ulong * 8)()))
    cancel = call(found.functions[SESSION_CANCEL])(0xDEAD, 0) if version >= [3, 0] else None
    return [(interface.name or b"").decode(), version, interface.flags, sessions, cancel]


def interfaces(module: ctypes.CDLL) -> dict[str, object]:
    """List the standard interfaces, as the list has them and as C_GetInterface hands them out."""
    count = c_ulong()
    assert module.C_GetInterfaceList(None, byref(count)) == 0
    found = (Interface * count.value)()
    assert module.C_GetInterfaceList(found, byref(count)) == 0
    standard = [one for one in found if one.name == b"PKCS 11"]
    singly = []
    for one in standard:
        pointer = POINTER(Interface)()
        version = (c_ubyte * 2)(*one.list.contents.version)
        assert module.C_GetInterface(b"PKCS 11", version, byref(pointer), c_ulong(0)) == 0
        singly.append(answers(pointer.contents))
    nothing = POINTER(Interface)()
    unknown = module.C_GetInterface(b"no such interface", None, byref(nothing), c_ulong(0))
    return {
        "names": [one.name.decode() for one in found],
        "listed": [answers(one) for one in standard],
        "singly": singly,
        "unknown refused": unknown != 0,
    }


def threads(functions: CkFunctionList) -> dict[str, object]:
    """Call from many threads; a rule of the shim may hang one of them."""
    get_info = ctypes.CFUNCTYPE(c_ulong, c_void_p)(functions.C_GetInfo)
    done: list[int] = []

    def work() -> None:
        info = (c_ubyte * 128)()
        for _ in range(ROUNDS):
            assert get_info(addressof(info)) == 0
        done.append(1)

    workers = [threading.Thread(target=work, daemon=True) for _ in range(THREADS)]
    for worker in workers:
        worker.start()
    deadline = time.monotonic() + 20
    while len(done) < THREADS - 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)  # the one that hangs would come in now, did it not
    return {"done": len(done)}


def main() -> None:
    """Do the task and print a JSON document; without clean-up, since a thread may hang in the module."""
    module = ctypes.CDLL(os.environ["PKCS11_MODULE"])
    table = c_void_p()
    assert module.C_GetFunctionList(byref(table)) == 0
    functions = CkFunctionList.from_address(table.value or 0)
    arguments = os.environ.get("PKCS11_MODULE_ARGS")
    given = CkInitializeArgs(flags=CKF_OS_LOCKING_OK, pReserved=arguments.encode() if arguments else None)
    assert ctypes.CFUNCTYPE(c_ulong, c_void_p)(functions.C_Initialize)(addressof(given)) == 0
    task = os.environ["SHIM_TASK"]
    print(json.dumps(interfaces(module) if task == "interfaces" else threads(functions)), flush=True)  # noqa: T201 # for the parent
    os._exit(0)


if __name__ == "__main__":
    main()
