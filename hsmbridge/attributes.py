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
    from collections.abc import Callable, Sequence

    from hsmbridge._calls import Calls
    from hsmbridge.template import Value

__all__ = ["AttributeQuery", "Attributes", "read_secret"]

_GUESS = 256
"""Bytes offered for a value of unknown length; RSA-2048 numbers, labels and ids fit, larger ones cost one more call."""

_MAX_VALUE = 1 << 20
_MAX_NESTED = 64
"""Attributes in a nested template; more than a template may have at all."""

_ENTRY = ctypes.sizeof(CkAttribute)


class Attributes(dict[int, "Value"]):
    """What one object answered: readable values by attribute type, and for the rest why not. Not to be changed.

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
        local = self._local
        try:
            address, pristine, room = local.address, local.pristine, local.room
        except AttributeError:
            address, pristine, room = self._make_buffer()
        ctypes.memmove(address, pristine, len(pristine))
        ckr = calls.get_attributes(session, handle, address, len(self.kinds))
        if ckr != CKR.OK:
            answer = Attributes()
            for kind in self.kinds:
                _read_one(calls, session, handle, kind, answer)
            return answer
        # Keys that are alike answer with the same bytes, and the same bytes mean the same: decode them once.
        seen = ctypes.string_at(address, room)
        if seen == local.seen:
            last: Attributes = local.answer
            return last
        answer = self._decode(calls, session, handle, seen)
        if not any(answer.get(kind) for kind in TEMPLATES):  # what a nested template holds is not in these bytes
            local.seen, local.answer = seen, answer
        return answer

    def _decode(self, calls: Calls, session: int, handle: int, seen: bytes) -> Attributes:
        answer = Attributes()
        fields = self._layout.unpack_from(seen)
        offset = self._layout.size
        for index, kind in enumerate(self.kinds):
            length, size = fields[3 * index + 2], self._sizes[index]
            if kind in TEMPLATES and length == 0:
                answer[kind] = {}
            elif length > size or kind in TEMPLATES:  # CK_UNAVAILABLE_INFORMATION beside CKR_OK: some tokens do that
                _read_one(calls, session, handle, kind, answer)
            else:
                answer[kind] = decode(kind, seen[offset : offset + length])
            offset += size
        return answer

    def _make_buffer(self) -> tuple[int, bytes, int]:
        """Make this thread's buffer: the array of CK_ATTRIBUTE, and behind it the room for the values."""
        room = self._layout.size + sum(self._sizes)
        buffer = ctypes.create_string_buffer(room)
        start = ctypes.addressof(buffer)
        entries: list[int] = []
        address = start + self._layout.size
        for kind, size in zip(self.kinds, self._sizes, strict=True):
            # Of a nested template the length alone: it is read with calls of its own.
            entries += (kind, 0, 0) if kind in TEMPLATES else (kind, address, size)
            address += size
        local = self._local
        local.buffer, local.seen = buffer, None
        local.address, local.pristine, local.room = start, self._layout.pack(*entries), room
        return start, local.pristine, room


_NOT_READABLE = frozenset({CKR.ATTRIBUTE_TYPE_INVALID, CKR.ATTRIBUTE_SENSITIVE, CKR.FUNCTION_FAILED, CKR.GENERAL_ERROR})
"""Answers that speak of the attribute; anything else speaks of the object, the session or the device."""


def _read_one(calls: Calls, session: int, handle: int, kind: int, answer: Attributes) -> None:
    read: Callable[..., tuple[Value | None, int]] = _read_template if kind in TEMPLATES else _read_flat
    value, ckr = read(calls, session, handle, kind)
    if value is not None:
        answer[kind] = value
        return
    if ckr not in _NOT_READABLE:
        raise Pkcs11Error("C_GetAttributeValue", ckr)
    answer.unreadable[kind] = ckr


def _read_flat(calls: Calls, session: int, handle: int, kind: int) -> tuple[Value | None, int]:
    """Read one attribute into a buffer that is usually large enough, else into one of the size that the token names."""
    size = _GUESS
    for _ in range(2):
        buffer = ctypes.create_string_buffer(size)
        entry = (CkAttribute * 1)(CkAttribute(kind, ctypes.addressof(buffer), size))
        ckr = calls.get_attributes(session, handle, ctypes.addressof(entry), 1)
        length = entry[0].ulValueLen
        if ckr == CKR.OK and length <= size:
            return decode(kind, buffer.raw[:length]), ckr
        if ckr not in (CKR.OK, CKR.BUFFER_TOO_SMALL):
            return None, ckr
        entry = (CkAttribute * 1)(CkAttribute(kind, None, 0))
        ckr, size = calls.get_attributes(session, handle, ctypes.addressof(entry), 1), entry[0].ulValueLen
        if ckr != CKR.OK:
            return None, ckr
        if size > _MAX_VALUE:
            break
    return None, CKR.FUNCTION_FAILED  # a length that cannot be: not readable, whatever the module says


def _read_template(calls: Calls, session: int, handle: int, kind: int) -> tuple[dict[int, Value] | None, int]:
    """Read a nested template: how many attributes it has, then their lengths, then their values.

    None where the module answers with pointers of its own instead of filling our buffers. NSS keeps the array as it was
    given, with pointers into the memory of whoever set it: nothing behind them can be believed.
    """
    entry = (CkAttribute * 1)(CkAttribute(kind, None, 0))
    ckr = calls.get_attributes(session, handle, ctypes.addressof(entry), 1)
    count = entry[0].ulValueLen // _ENTRY
    if ckr != CKR.OK or count == 0 or count > _MAX_NESTED:
        return ({}, ckr) if ckr == CKR.OK and count == 0 else (None, ckr or CKR.FUNCTION_FAILED)
    inner = (CkAttribute * count)()
    entry[0].pValue, entry[0].ulValueLen = ctypes.addressof(inner), count * _ENTRY
    _expect_ok(calls.get_attributes(session, handle, ctypes.addressof(entry), 1))
    buffers = []
    for item in inner:
        buffer = ctypes.create_string_buffer(max(1, min(item.ulValueLen, _MAX_VALUE)))
        buffers.append(buffer)
        item.pValue = ctypes.addressof(buffer)
    entry[0].ulValueLen = count * _ENTRY
    _expect_ok(calls.get_attributes(session, handle, ctypes.addressof(entry), 1))
    if any(item.pValue != ctypes.addressof(buffer) for item, buffer in zip(inner, buffers, strict=True)):
        return None, CKR.FUNCTION_FAILED
    return {
        item.type: decode(item.type, buffer.raw[: item.ulValueLen]) for item, buffer in zip(inner, buffers, strict=True)
    }, ckr


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
    _expect_ok(calls.get_attributes(session, handle, ctypes.addressof(entry), 1))
    size = entry[0].ulValueLen
    if size > _MAX_VALUE:
        raise Pkcs11Error("C_GetAttributeValue", CKR.ATTRIBUTE_SENSITIVE)
    buffer = ctypes.create_string_buffer(max(size, 1))
    entry[0].pValue = ctypes.addressof(buffer)
    try:
        _expect_ok(calls.get_attributes(session, handle, ctypes.addressof(entry), 1))
        return bytearray(memoryview(buffer)[: min(entry[0].ulValueLen, size)])
    finally:
        ctypes.memset(buffer, 0, len(buffer))
