"""The PKCS#11 functions that work on objects, called directly.

python-pkcs11 cannot adopt a handle, loses the handle of a new object when reading it back fails, and loses vendor
return values; so sessions come from the binding and everything that touches an *object* comes through here. Each
method is one C function (or its Init and one-shot pair) on one session; the caller sees to it that a session runs one
operation at a time. ctypes releases the GIL for the time of each call.

Source: PKCS#11 v3.1 sections 5.7 to 5.18.
"""

from __future__ import annotations

import ctypes
import threading
from ctypes import addressof, byref, c_ulong, c_void_p, create_string_buffer, string_at
from typing import TYPE_CHECKING, Any

from hsmbridge._operations import Operations, bind_function, check, check_making
from hsmbridge.codes import CKR
from hsmbridge.errors import Pkcs11Error

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsmbridge._ck import CkFunctionList
    from hsmbridge.mechanism import Mechanism
    from hsmbridge.template import PackedTemplate

__all__ = ["Calls"]

_WRAP_BUFFER = 4096
"""Bytes offered to C_WrapKey at once: any AES, EC or RSA-4096 key. A size query first would double the cost."""

_FIND_BATCH = 256
_MAX_OUTPUT = 1 << 20
"""No module has a reason to ask for more than this for one wrapped key or signature."""


class _Room(threading.local):
    """Where C_WrapKey writes: one buffer a thread, kept, since making one costs a tenth of the call."""

    def __init__(self) -> None:
        self.resize(_WRAP_BUFFER)

    def resize(self, size: int) -> None:
        """Make a buffer of another size."""
        self.size = size
        self.buffer = create_string_buffer(size)
        self.address = addressof(self.buffer)
        self.length = c_ulong()
        self.length_address = addressof(self.length)


class Calls(Operations):
    """The object functions of one module, bound to its function list.

    Args:
        functions: the module's CK_FUNCTION_LIST.
    """

    def __init__(self, functions: CkFunctionList) -> None:
        # openCryptoki 3.8.1 crashes when one thread destroys an object while another begins a search.
        self._inventory = threading.Lock()
        self._room = _Room()
        self.keeps_to_lengths: bool | None = None  # see hsmbridge._reading

        super().__init__(functions)

        def bind(name: str, *types: Any) -> Callable[..., int]:  # noqa: ANN401 - ctypes types
            return bind_function(functions, name, *types)

        ul, ptr = c_ulong, c_void_p
        self._login = bind("C_Login", ul, ul, ptr, ul)
        self._create = bind("C_CreateObject", ul, ptr, ul, ptr)
        self._copy = bind("C_CopyObject", ul, ul, ptr, ul, ptr)
        self._destroy = bind("C_DestroyObject", ul, ul)
        self._get_attributes = bind("C_GetAttributeValue", ul, ul, ptr, ul)
        self._set_attributes = bind("C_SetAttributeValue", ul, ul, ptr, ul)
        self._find_init = bind("C_FindObjectsInit", ul, ptr, ul)
        self._find = bind("C_FindObjects", ul, ptr, ul, ptr)
        self._find_final = bind("C_FindObjectsFinal", ul)
        self._generate_key = bind("C_GenerateKey", ul, ptr, ptr, ul, ptr)
        self._generate_pair = bind("C_GenerateKeyPair", ul, ptr, ptr, ul, ptr, ul, ptr, ptr)
        self._wrap = bind("C_WrapKey", ul, ptr, ul, ul, ptr, ptr)
        self._unwrap = bind("C_UnwrapKey", ul, ptr, ul, ptr, ul, ptr, ul, ptr)
        self._derive = bind("C_DeriveKey", ul, ptr, ul, ptr, ul, ptr)
        self._finalize = bind("C_Finalize", ptr)

    def finalize(self) -> None:
        """C_Finalize: every session and session object of the process is gone afterwards."""
        check("C_Finalize", self._finalize(None))

    def login(self, session: int, user_type: int, pin: bytes | None) -> int:
        """C_Login, once. None asks for the token's own PIN pad.

        Returns: the CK_RV, since the caller must tell a wrong PIN from a login that exists already.
        """
        if pin is None:
            return self._login(session, user_type, None, 0)
        buffer = create_string_buffer(pin, len(pin))
        try:
            return self._login(session, user_type, addressof(buffer), len(pin))
        finally:
            ctypes.memset(buffer, 0, len(pin))

    def create_object(self, session: int, template: PackedTemplate) -> int:
        """C_CreateObject.

        Returns: the new object's handle.
        """
        handle = c_ulong()
        check_making("C_CreateObject", self._create(session, template.pointer, template.count, byref(handle)))
        return handle.value

    def copy_object(self, session: int, handle: int, template: PackedTemplate) -> int:
        """C_CopyObject.

        Returns: the copy's handle.
        """
        copy = c_ulong()
        check_making("C_CopyObject", self._copy(session, handle, template.pointer, template.count, byref(copy)))
        return copy.value

    def destroy_object(self, session: int, handle: int) -> None:
        """C_DestroyObject. Called from :mod:`hsmbridge.destruction` only, which holds the rules."""
        with self._inventory:
            ckr = self._destroy(session, handle)
        check("C_DestroyObject", ckr)

    def get_attributes(self, session: int, handle: int, address: int, count: int) -> int:
        """C_GetAttributeValue into *count* CK_ATTRIBUTEs at *address*, as they are.

        Returns: the CK_RV; several refusals leave the other attributes filled in.
        """
        return self._get_attributes(session, handle, address, count)

    def set_attributes(self, session: int, handle: int, template: PackedTemplate) -> None:
        """C_SetAttributeValue."""
        check("C_SetAttributeValue", self._set_attributes(session, handle, template.pointer, template.count))

    def find_objects(self, session: int, template: PackedTemplate) -> list[int]:
        """Search for *template* and always end the search.

        Returns: all matching handles.
        """
        with self._inventory:
            ckr = self._find_init(session, template.pointer, template.count)
            if ckr == CKR.OPERATION_ACTIVE:  # an earlier search of this session could not be ended
                self._find_final(session)
                ckr = self._find_init(session, template.pointer, template.count)
        check("C_FindObjectsInit", ckr)
        batch = (c_ulong * _FIND_BATCH)()
        found: list[int] = []
        count = c_ulong()
        try:
            while True:
                check("C_FindObjects", self._find(session, addressof(batch), _FIND_BATCH, byref(count)))
                if count.value == 0:
                    return found
                found.extend(batch[: count.value])
        finally:
            self._find_final(session)

    def generate_key(self, session: int, mechanism: Mechanism, template: PackedTemplate) -> int:
        """C_GenerateKey.

        Returns: the new key's handle.
        """
        handle = c_ulong()
        ckr = self._generate_key(session, mechanism.pointer, template.pointer, template.count, byref(handle))
        check_making("C_GenerateKey", ckr)
        return handle.value

    def generate_key_pair(
        self, session: int, mechanism: Mechanism, public: PackedTemplate, private: PackedTemplate
    ) -> tuple[int, int]:
        """C_GenerateKeyPair.

        Returns: the handles of the public and the private key.
        """
        handles = c_ulong(), c_ulong()
        ckr = self._generate_pair(
            session,
            mechanism.pointer,
            public.pointer,
            public.count,
            private.pointer,
            private.count,
            *map(byref, handles),
        )
        check_making("C_GenerateKeyPair", ckr)
        return handles[0].value, handles[1].value

    def wrap_key(self, session: int, mechanism: Mechanism, wrapping_key: int, key: int) -> bytes:
        """C_WrapKey with a large buffer at once, and a larger one where that was too small.

        NSS answers eight bytes too few to a size query for RFC 5649, so the answer to CKR_BUFFER_TOO_SMALL is doubled.

        Returns: the wrapped key.
        """
        room = self._room
        while True:
            room.length.value = room.size
            ckr = self._wrap(session, mechanism.pointer, wrapping_key, key, room.address, room.length_address)
            length = room.length.value
            if ckr != CKR.BUFFER_TOO_SMALL or room.size >= _MAX_OUTPUT:
                check("C_WrapKey", ckr)
                if length > room.size:
                    raise Pkcs11Error("C_WrapKey", CKR.BUFFER_TOO_SMALL)
                return string_at(room.address, length)
            room.resize(min(_MAX_OUTPUT, 2 * max(room.size, min(length, _MAX_OUTPUT))))

    def wrap_key_into(  # noqa: PLR0913, PLR0917 - the parameters of the C function
        self, session: int, mechanism: Mechanism, wrapping_key: int, key: int, buffer: int | None, length: int
    ) -> int:
        """C_WrapKey with the caller's own buffer and length, both as addresses; returns the CK_RV."""
        return self._wrap(session, mechanism.pointer, wrapping_key, key, buffer, length)

    def unwrap_key(
        self, session: int, mechanism: Mechanism, unwrapping_key: int, wrapped: bytes, template: PackedTemplate
    ) -> int:
        """C_UnwrapKey, one call.

        Returns: the new object's handle.
        """
        handle = c_ulong()
        ckr = self._unwrap(
            session,
            mechanism.pointer,
            unwrapping_key,
            wrapped,
            len(wrapped),
            template.pointer,
            template.count,
            byref(handle),
        )
        check_making("C_UnwrapKey", ckr)
        return handle.value

    def derive_key(self, session: int, mechanism: Mechanism, base_key: int, template: PackedTemplate) -> int:
        """C_DeriveKey.

        Returns: the new key's handle.
        """
        handle = c_ulong()
        ckr = self._derive(session, mechanism.pointer, base_key, template.pointer, template.count, byref(handle))
        check_making("C_DeriveKey", ckr)
        return handle.value
