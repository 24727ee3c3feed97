"""C functions that hsmbridge itself never calls, for checks that ask whether a caller could rely on them.

They go to the same module as everything else (the library is loaded once in a process), past the locks that
:mod:`hsmbridge._calls` holds, and are noted by the journal like all others.

Source: PKCS#11 v3.1 sections 5.4 (general-purpose functions), 5.5 (slots and mechanisms), 5.6 (operation state), 5.7.7
(C_FindObjectsInit) and 5.11 (message digesting).
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, byref, c_char, c_char_p, c_ubyte, c_ulong, c_void_p, create_string_buffer
from typing import TYPE_CHECKING, Any, ClassVar

from hsmbridge._ck import CkFunctionList
from hsmbridge._operations import bind_function, check
from hsmbridge.codes import CKM, CKR
from hsmbridge.mechanism import Mechanism

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsmbridge.template import PackedTemplate

__all__ = ["CKF_WRAP", "BareCalls", "short_gcm"]

CKF_WRAP = 0x20000
"""In CK_MECHANISM_INFO.flags: the mechanism can be used with C_WrapKey. For nothing else does hsmbridge look at it."""

_ROOM = 4096
"""Bytes for an operation state or a digest: a SHA-256 state is a few hundred."""

_TAG_BITS = 128


class _CkMechanismInfo(Structure):
    """CK_MECHANISM_INFO."""

    _fields_: ClassVar = [("ulMinKeySize", c_ulong), ("ulMaxKeySize", c_ulong), ("flags", c_ulong)]


class _CkSlotInfo(Structure):
    """CK_SLOT_INFO."""

    _fields_: ClassVar = [
        ("slotDescription", c_char * 64),
        ("manufacturerID", c_char * 32),
        ("flags", c_ulong),
        ("hardwareVersion", c_ubyte * 2),
        ("firmwareVersion", c_ubyte * 2),
    ]


class _CkShortGcmParams(Structure):
    """CK_GCM_PARAMS without ulIvBits, as some programs still have it."""

    _fields_: ClassVar = [
        ("pIv", c_char_p),
        ("ulIvLen", c_ulong),
        ("pAAD", c_char_p),
        ("ulAADLen", c_ulong),
        ("ulTagBits", c_ulong),
    ]


def short_gcm(iv: bytes) -> Mechanism:
    """CKM_AES_GCM with a structure that has no ulIvBits, no additional data and a tag of 16 bytes."""
    return Mechanism(CKM.AES_GCM, _CkShortGcmParams(iv, len(iv), b"", 0, _TAG_BITS), keep=iv)


class BareCalls:
    """The functions of one module.

    Args:
        path: the module's file.

    Raises:
        Pkcs11Error: C_GetFunctionList fails, as each method does where its function does.
    """

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)
        pointer = POINTER(CkFunctionList)()
        check("C_GetFunctionList", self._library.C_GetFunctionList(byref(pointer)))
        functions = pointer.contents

        def bind(name: str, *types: Any) -> Callable[..., int]:  # noqa: ANN401 - ctypes types
            return bind_function(functions, name, *types)

        ul, ptr = c_ulong, c_void_p
        self._initialize = bind("C_Initialize", ptr)
        self._finalize = bind("C_Finalize", ptr)
        self._slot_info = bind("C_GetSlotInfo", ul, ptr)
        self._mechanism_info = bind("C_GetMechanismInfo", ul, ul, ptr)
        self._get_state = bind("C_GetOperationState", ul, ptr, ptr)
        self._set_state = bind("C_SetOperationState", ul, ptr, ul, ul, ul)
        self._digest_init = bind("C_DigestInit", ul, ptr)
        self._digest_update = bind("C_DigestUpdate", ul, ptr, ul)
        self._digest_final = bind("C_DigestFinal", ul, ptr, ptr)
        self._find_init = bind("C_FindObjectsInit", ul, ptr, ul)
        self._find = bind("C_FindObjects", ul, ptr, ul, ptr)
        self._find_final = bind("C_FindObjectsFinal", ul)

    def initialize(self) -> int:
        """C_Initialize(NULL); where it answers CKR_OK, C_Finalize too.

        Returns: the CK_RV of C_Initialize.
        """
        ckr = self._initialize(None)
        if ckr == CKR.OK:
            check("C_Finalize", self._finalize(None))
        return ckr

    def slot_flags(self, slot: int) -> int:
        """Return CK_SLOT_INFO.flags."""
        info = _CkSlotInfo()
        check("C_GetSlotInfo", self._slot_info(slot, byref(info)))
        return int(info.flags)

    def mechanism_flags(self, slot: int, mechanism: int, *, before: int = 0) -> int:
        """Return CK_MECHANISM_INFO.flags; *before* is what the field holds when the function is called."""
        info = _CkMechanismInfo(0, 0, before)
        check("C_GetMechanismInfo", self._mechanism_info(slot, mechanism, byref(info)))
        return int(info.flags)

    def search(self, session: int, template: PackedTemplate) -> int:
        """Begin a search and end it, with no regard to what other threads do.

        Returns: how many objects the first C_FindObjects gave, 16 at most.
        """
        handles, count = (c_ulong * 16)(), c_ulong()
        check("C_FindObjectsInit", self._find_init(session, template.pointer, template.count))
        try:
            check("C_FindObjects", self._find(session, byref(handles), len(handles), byref(count)))
        finally:
            self._find_final(session)
        return count.value

    def digest_begin(self, session: int, data: bytes) -> bytes:
        """Begin a SHA-256 digest and take its state; the digest is ended here.

        Returns: what C_GetOperationState gave.
        """
        sha256 = Mechanism(CKM.SHA256)
        check("C_DigestInit", self._digest_init(session, sha256.pointer))
        state, length = create_string_buffer(_ROOM), c_ulong(_ROOM)
        try:
            check("C_DigestUpdate", self._digest_update(session, data, len(data)))
            check("C_GetOperationState", self._get_state(session, byref(state), byref(length)))
        finally:
            self._end_digest(session)
        return state.raw[: length.value]

    def digest_end(self, session: int, state: bytes, data: bytes) -> bytes:
        """Go on with a digest from its state.

        Returns: the digest.
        """
        check("C_SetOperationState", self._set_state(session, state, len(state), 0, 0))
        check("C_DigestUpdate", self._digest_update(session, data, len(data)))
        return self._end_digest(session)

    def _end_digest(self, session: int) -> bytes:
        digest, length = create_string_buffer(_ROOM), c_ulong(_ROOM)
        check("C_DigestFinal", self._digest_final(session, byref(digest), byref(length)))
        return digest.raw[: length.value]
