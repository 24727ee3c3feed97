"""Every use of python-pkcs11 that is not its public interface, in one place.

The binding loads the module and owns slots, tokens and sessions. Three of its habits are replaced here:

* it calls ``C_Initialize(NULL)``, after which SoftHSM uses no locks at all while the binding releases the GIL: two
  threads are enough to crash the process. We ask for ``CKF_OS_LOCKING_OK`` and can pass the library parameters that
  NSS insists on;
* it has no way to hand out the function list, which :mod:`hsmbridge._calls` needs;
* its exceptions lose the numbers of return values that it does not know.

The reasons for the two routes to one module are in ``docs/adr/0001-two-routes-to-one-module.md``.
"""

from __future__ import annotations

import ctypes
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import pkcs11
from pkcs11 import _pkcs11

from hsmbridge._ck import CkFunctionList, CkInitializeArgs
from hsmbridge.codes import CKF, CKR, ckr_name
from hsmbridge.errors import ModuleError, Pkcs11Error
from hsmbridge.observing import current_observer

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Library", "binding_call", "ckr_of"]

_GET_FUNCTION_LIST = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.POINTER(ctypes.POINTER(CkFunctionList)))
_C_INITIALIZE = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)


def _snake_to_camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


_CKR_BY_EXCEPTION = {_snake_to_camel(code.name).lower(): int(code) for code in CKR}


def ckr_of(error: pkcs11.PKCS11Error) -> int:
    """Return the CK_RV behind one of the binding's exceptions.

    The binding names its classes after the codes (``CKR_PIN_INCORRECT`` is ``PinIncorrect``); codes that it does not
    know are found in its message only. Where nothing tells, CKR_GENERAL_ERROR.
    """
    named = _CKR_BY_EXCEPTION.get(type(error).__name__.lower())
    if named is not None:
        return named
    number = re.search(r"(0x[0-9a-fA-F]+|\b\d+\b)", str(error))
    return int(number.group(1), 0) if number else CKR.GENERAL_ERROR


@contextmanager
def binding_call(function: str) -> Iterator[None]:
    """Turn the binding's exceptions into :class:`Pkcs11Error` for the C function that is being called."""
    observer = current_observer()
    if observer is not None:
        observer.entering(function, ())
    ckr: int = CKR.OK
    try:
        yield
    except pkcs11.PKCS11Error as error:
        ckr = ckr_of(error)
        raise Pkcs11Error(function, ckr) from None
    finally:
        if observer is not None:
            observer.returned(function, ckr)


class Library(_pkcs11.lib):
    """The binding's module object, initialised with operating-system locking.

    Attributes:
        functions: address of the module's CK_FUNCTION_LIST.
    """

    def __new__(cls, path: str, init_args: str | None) -> Self:  # noqa: ARG004 - the binding's takes the path only
        """Load the shared object; C_Initialize follows in ``__init__``."""
        try:
            library: Self = super().__new__(cls, path)  # type: ignore[call-arg]  # the stub lacks __cinit__
        except (pkcs11.PKCS11Error, OSError) as error:
            raise ModuleError(
                f"cannot load the PKCS#11 module {path}: {error}",
                hint="--module takes the path of a PKCS#11 library (.so); try `hsmbridge doctor --module PATH`",
            ) from None
        return library

    def __init__(self, path: str, init_args: str | None) -> None:
        self._init_args = init_args.encode() if init_args is not None else None
        self._handle = ctypes.CDLL(path)  # the same library once more: dlopen counts references
        self.functions = self._function_list()
        with binding_call("C_GetInfo"):
            super().__init__(path)

    def _function_list(self) -> Any:  # noqa: ANN401 - a ctypes structure, whose fields are made at run time
        get = _GET_FUNCTION_LIST(("C_GetFunctionList", self._handle))
        pointer = ctypes.POINTER(CkFunctionList)()
        ckr = get(ctypes.byref(pointer))
        if ckr != CKR.OK or not pointer:
            raise ModuleError(f"C_GetFunctionList failed: {ckr_name(ckr)}")
        return pointer.contents

    def initialize(self) -> None:
        """Call C_Initialize with CKF_OS_LOCKING_OK; a module that is initialised already is taken as it is.

        Raises:
            ModuleError: the module refuses.
        Source: PKCS#11 v3.1 section 5.4.1.
        """
        args = CkInitializeArgs(flags=CKF.INIT_OS_LOCKING_OK, pReserved=self._init_args)
        observer = current_observer()
        if observer is not None:
            observer.entering("C_Initialize", ())
        ckr = _C_INITIALIZE(self.functions.C_Initialize)(ctypes.addressof(args))
        if observer is not None:
            observer.returned("C_Initialize", ckr)
        if ckr not in (CKR.OK, CKR.CRYPTOKI_ALREADY_INITIALIZED):
            hint = "some modules need init arguments (NSS: configdir='sql:DIR' …): --module-args or PKCS11_MODULE_ARGS"
            raise ModuleError(f"C_Initialize of {self.so} failed: {ckr_name(ckr)}", hint=hint)
