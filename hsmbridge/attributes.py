"""Attribute values: reading many at once, and telling "absent" from "false" and from "not readable".

Source: PKCS#11 v3.1 sections 4 (objects) and 5.7.5 (C_GetAttributeValue).
"""

from __future__ import annotations

import ctypes
import struct
import threading
from typing import TYPE_CHECKING

from hsmbridge._ck import CkAttribute
from hsmbridge._reading import (
    GUESS,
    MAX_VALUE,
    SLACK,
    expect_ok,
    keeps_to_lengths,
    read_flat,
    read_secret,
    read_template,
)
from hsmbridge.codes import CKR, UNAVAILABLE, name_of
from hsmbridge.errors import Pkcs11Error
from hsmbridge.values import BOOLS, TEMPLATES, ULONG_SIZE, ULONGS, decode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hsmbridge._calls import Calls
    from hsmbridge.template import Value

__all__ = ["AttributeQuery", "Attributes", "read_secret"]


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
        self._sizes = tuple(1 if k in BOOLS else ULONG_SIZE if k in ULONGS else GUESS for k in self.kinds)
        self._guesses = any(k not in BOOLS and k not in ULONGS and k not in TEMPLATES for k in self.kinds)
        self._layout = struct.Struct("=" + "QQQ" * len(self.kinds))
        self._local = threading.local()

    def read(self, calls: Calls, session: int, handle: int) -> Attributes:
        """Read all attributes of the set from one object.

        After any error the attributes are asked one by one, since some tokens stop at the first that they do not know.

        Raises:
            Pkcs11Error: the object or the session is gone; what is only unreadable is noted in the answer instead.
        """
        if self._guesses and not keeps_to_lengths(calls, session, handle):
            return self._read_by_length(calls, session, handle)
        local = self._local
        try:
            address, pristine, room = local.address, local.pristine, local.room
        except AttributeError:
            address, pristine, room = self._make_buffer()
        ctypes.memmove(address, pristine, len(pristine))
        ckr = calls.get_attributes(session, handle, address, len(self.kinds))
        if ckr != CKR.OK:
            return self._read_singly(calls, session, handle)
        # Keys that are alike answer with the same bytes, and the same bytes mean the same: decode them once.
        seen = ctypes.string_at(address, room)
        if seen == local.seen:
            last: Attributes = local.answer
            return last
        answer = self._decode(calls, session, handle, seen)
        if not any(answer.get(kind) for kind in TEMPLATES):  # what a nested template holds is not in these bytes
            local.seen, local.answer = seen, answer
        return answer

    def _read_singly(self, calls: Calls, session: int, handle: int) -> Attributes:
        answer = Attributes()
        for kind in self.kinds:
            _read_one(calls, session, handle, kind, answer)
        return answer

    def _read_by_length(self, calls: Calls, session: int, handle: int) -> Attributes:
        """Ask for all lengths, then for all values: for modules that write past a buffer that is too small."""
        count = len(self.kinds)
        array = (CkAttribute * count)(*(CkAttribute(kind, None, 0) for kind in self.kinds))
        if calls.get_attributes(session, handle, ctypes.addressof(array), count) != CKR.OK or any(
            entry.type in TEMPLATES or entry.ulValueLen > MAX_VALUE for entry in array
        ):
            return self._read_singly(calls, session, handle)
        buffers = [ctypes.create_string_buffer(entry.ulValueLen + SLACK) for entry in array]
        for entry, buffer in zip(array, buffers, strict=True):
            entry.pValue = ctypes.addressof(buffer)
        expect_ok(calls.get_attributes(session, handle, ctypes.addressof(array), count))
        answer = Attributes()
        for entry, buffer in zip(array, buffers, strict=True):
            answer[entry.type] = decode(entry.type, buffer.raw[: entry.ulValueLen])
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
    read: Callable[..., tuple[Value | None, int]] = read_template if kind in TEMPLATES else read_flat
    value, ckr = read(calls, session, handle, kind)
    if value is not None:
        answer[kind] = value
        return
    if ckr not in _NOT_READABLE:
        raise Pkcs11Error("C_GetAttributeValue", ckr)
    answer.unreadable[kind] = ckr
