"""Attribute values: reading many at once, and telling "absent" from "false" and from "not readable".

Source: PKCS#11 v3.1 sections 4 (objects) and 5.7.5 (C_GetAttributeValue).
"""

from __future__ import annotations

import ctypes
import struct
import threading
from typing import TYPE_CHECKING

from hsmbridge._ck import CkAttribute
from hsmbridge.codes import CKA, CKR, UNAVAILABLE, name_of
from hsmbridge.errors import Pkcs11Error
from hsmbridge.values import BOOLS, TEMPLATES, ULONG_SIZE, ULONGS, decode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsmbridge._calls import Calls
    from hsmbridge.template import Value

__all__ = ["AttributeQuery", "Attributes", "read_secret"]

_GUESS = 256
"""Bytes offered for a value of unknown length; RSA-2048 numbers, labels and ids fit, larger ones cost one more call."""

_MAX_VALUE = 1 << 20
_ENTRY = ctypes.sizeof(CkAttribute)


class Attributes(dict[int, "Value"]):
    """What one object answered: readable values by attribute type, and for the rest why not.

    Attributes:
        unreadable: attribute type to the CKR that was answered for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unreadable: dict[int, int] = {}

    def flag(self, kind: int) -> bool | None:
        """Return a boolean attribute, or None where it could not be read or is no boolean."""
        value = self.get(kind)
        return value if isinstance(value, bool) else None

    def number(self, kind: int) -> int | None:
        """Return a CK_ULONG attribute, or None where it is absent or CK_UNAVAILABLE_INFORMATION."""
        value = self.get(kind)
        return value if isinstance(value, int) and not isinstance(value, bool) and value != UNAVAILABLE else None

    def data(self, kind: int) -> bytes:
        """Return a byte-array attribute, empty where absent."""
        value = self.get(kind)
        return value if isinstance(value, bytes) else b""

    def text(self, kind: int) -> str:
        """Return a text attribute, empty where absent."""
        value = self.get(kind)
        return value if isinstance(value, str) else ""

    def why_not(self, kind: int) -> str:
        """Say how *kind* was refused, for an error message."""
        return name_of(CKR, self.unreadable.get(kind, CKR.OK))


class AttributeQuery:
    """A fixed set of attribute types that is read often, with one C_GetAttributeValue where the token is well behaved.

    Args:
        kinds: the attribute types.
    """

    def __init__(self, kinds: Sequence[int]) -> None:
        self.kinds = tuple(int(kind) for kind in kinds)
        self._sizes = tuple(1 if k in BOOLS else ULONG_SIZE if k in ULONGS else _GUESS for k in self.kinds)
        self._layout = struct.Struct("=" + "QQQ" * len(self.kinds))
        self._local = threading.local()

    def read(self, calls: Calls, session: int, handle: int) -> Attributes:
        """Read all attributes of the set from one object.

        After any error the attributes are asked one by one, since some tokens stop at the first that they do not know.

        Raises:
            Pkcs11Error: the object or the session is gone; what is only unreadable is noted in the answer instead.
        """
        try:
            array, pristine, values = self._local.buffers
        except AttributeError:
            array, pristine, values = self._buffers()
        ctypes.memmove(array, pristine, len(pristine))
        ckr = calls.get_attributes(session, handle, array)
        answer = Attributes()
        if ckr == CKR.OK:
            fields = self._layout.unpack_from(array)
            offset = 0
            for index, kind in enumerate(self.kinds):
                length, size = fields[3 * index + 2], self._sizes[index]
                if length > size or kind in TEMPLATES:  # CK_UNAVAILABLE_INFORMATION beside CKR_OK: some tokens do that
                    _read_one(calls, session, handle, kind, answer)
                else:
                    answer[kind] = decode(kind, values[offset : offset + length])
                offset += size
            return answer
        for kind in self.kinds:
            _read_one(calls, session, handle, kind, answer)
        return answer

    def _buffers(self) -> tuple[ctypes.Array[CkAttribute], bytes, ctypes.Array[ctypes.c_char]]:
        values = ctypes.create_string_buffer(sum(self._sizes))
        array = (CkAttribute * len(self.kinds))()
        address = ctypes.addressof(values)
        for entry, kind, size in zip(array, self.kinds, self._sizes, strict=True):
            entry.type = kind
            if kind not in TEMPLATES:  # the length alone; a nested template is read with calls of its own
                entry.pValue = address
                entry.ulValueLen = size
            address += size
        self._local.buffers = array, bytes(array), values
        buffers: tuple[ctypes.Array[CkAttribute], bytes, ctypes.Array[ctypes.c_char]] = self._local.buffers
        return buffers


_NOT_READABLE = frozenset({CKR.ATTRIBUTE_TYPE_INVALID, CKR.ATTRIBUTE_SENSITIVE, CKR.FUNCTION_FAILED, CKR.GENERAL_ERROR})
"""Answers that speak of the attribute; anything else speaks of the object, the session or the device."""


def _read_one(calls: Calls, session: int, handle: int, kind: int, answer: Attributes) -> None:
    entry = (CkAttribute * 1)(CkAttribute(kind, None, 0))
    ckr = calls.get_attributes(session, handle, entry)
    length = entry[0].ulValueLen
    if ckr == CKR.OK and length <= _MAX_VALUE:
        if kind in TEMPLATES:
            nested = _read_template(calls, session, handle, kind, length // _ENTRY)
            if nested is None:
                answer.unreadable[kind] = CKR.FUNCTION_FAILED
            else:
                answer[kind] = nested
            return
        buffer = ctypes.create_string_buffer(max(length, 1))
        entry[0].pValue = ctypes.addressof(buffer)
        ckr = calls.get_attributes(session, handle, entry)
        if ckr == CKR.OK and entry[0].ulValueLen <= length:
            answer[kind] = decode(kind, buffer.raw[: entry[0].ulValueLen])
            return
    if ckr == CKR.OK:
        ckr = CKR.FUNCTION_FAILED  # a length that cannot be: not readable, whatever the module says
    if ckr not in _NOT_READABLE:
        raise Pkcs11Error("C_GetAttributeValue", ckr)
    answer.unreadable[kind] = ckr


def _read_template(calls: Calls, session: int, handle: int, kind: int, count: int) -> dict[int, Value] | None:
    """Read a nested template: its size is known, then the lengths of its values, then the values.

    Returns: None where the module answers with pointers of its own instead of filling our buffers. NSS keeps the array
        as it was given, with pointers into the memory of whoever set it: nothing behind them can be believed.
    """
    if count == 0:
        return {}
    inner = (CkAttribute * count)()
    entry = (CkAttribute * 1)(CkAttribute(kind, ctypes.addressof(inner), count * _ENTRY))
    _expect_ok(calls.get_attributes(session, handle, entry))
    buffers = []
    for item in inner:
        buffer = ctypes.create_string_buffer(max(1, min(item.ulValueLen, _MAX_VALUE)))
        buffers.append(buffer)
        item.pValue = ctypes.addressof(buffer)
    entry[0].ulValueLen = count * _ENTRY
    _expect_ok(calls.get_attributes(session, handle, entry))
    if any(item.pValue != ctypes.addressof(buffer) for item, buffer in zip(inner, buffers, strict=True)):
        return None
    return {
        item.type: decode(item.type, buffer.raw[: item.ulValueLen]) for item, buffer in zip(inner, buffers, strict=True)
    }


def _expect_ok(ckr: int) -> None:
    if ckr != CKR.OK:
        raise Pkcs11Error("C_GetAttributeValue", ckr)


def read_secret(calls: Calls, session: int, handle: int) -> bytearray:
    """Read CKA_VALUE of a readable key; the buffer that the token filled is overwritten.

    Returns: the key's bytes, for the caller to wipe.

    Raises:
        Pkcs11Error: CKR_ATTRIBUTE_SENSITIVE and others.
    """
    entry = (CkAttribute * 1)(CkAttribute(CKA.VALUE, None, 0))
    _expect_ok(calls.get_attributes(session, handle, entry))
    size = entry[0].ulValueLen
    if size > _MAX_VALUE:
        raise Pkcs11Error("C_GetAttributeValue", CKR.ATTRIBUTE_SENSITIVE)
    buffer = ctypes.create_string_buffer(max(size, 1))
    entry[0].pValue = ctypes.addressof(buffer)
    try:
        _expect_ok(calls.get_attributes(session, handle, entry))
        return bytearray(memoryview(buffer)[: min(entry[0].ulValueLen, size)])
    finally:
        ctypes.memset(buffer, 0, len(buffer))
