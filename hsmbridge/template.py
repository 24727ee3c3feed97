"""Templates: attribute values packed as an array of CK_ATTRIBUTE.

Source: PKCS#11 v3.1 section 4.1 (attributes) and 4.1.1 (templates).
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING

from hsmbridge._ck import CkAttribute
from hsmbridge.codes import CKA
from hsmbridge.errors import UsageError

if TYPE_CHECKING:
    from typing import TypeAlias

__all__ = ["MAX_ENTRIES", "PackedTemplate", "Template", "Value"]

Value: TypeAlias = "bool | int | bytes | str | tuple[int, ...] | Mapping[int, Value]"
"""CK_BBOOL, CK_ULONG, byte array or CK_DATE, RFC 2279 string, CK_ULONG array, nested template."""

Template: TypeAlias = "Mapping[int, Value]"
"""Attribute type (CKA) to value, in the order in which the token shall see them."""

MAX_ENTRIES = 28
"""SoftHSM 2.6.1 refuses longer templates with CKR_TEMPLATE_INCONSISTENT."""

_ENTRY = ctypes.sizeof(CkAttribute)


class PackedTemplate:
    """A template in memory, in the layout that C functions take.

    CKA_MODIFIABLE goes last whatever its place: SoftHSM refuses what follows it once it is false.

    Args:
        template: the attributes.

    Raises:
        UsageError: more than :data:`MAX_ENTRIES` attributes.
    """

    __slots__ = ("_array", "_buffers", "count", "pointer")

    def __init__(self, template: Template) -> None:
        self.count = len(template)
        if self.count > MAX_ENTRIES:
            raise UsageError(f"a template of {self.count} attributes is too long", hint=f"give at most {MAX_ENTRIES}")
        self._array = (CkAttribute * self.count)()
        self._buffers: list[object] = []
        ordered = sorted(template.items(), key=lambda item: item[0] == CKA.MODIFIABLE)
        for entry, (kind, value) in zip(self._array, ordered, strict=True):
            entry.type = kind
            entry.pValue, entry.ulValueLen = self._store(value)
        self.pointer = ctypes.addressof(self._array)

    def wipe(self) -> None:
        """Overwrite all values, after a call that took a secret in."""
        for buffer in self._buffers:
            if isinstance(buffer, PackedTemplate):
                buffer.wipe()
            elif isinstance(buffer, ctypes.Array):
                ctypes.memset(buffer, 0, len(buffer))

    def _store(self, value: Value) -> tuple[int | None, int]:
        if isinstance(value, Mapping):
            nested = PackedTemplate(value)
            self._buffers.append(nested)
            return nested.pointer, nested.count * _ENTRY
        raw = encode(value)
        buffer = ctypes.create_string_buffer(raw, len(raw))
        self._buffers.append(buffer)
        return (ctypes.addressof(buffer) if raw else None), len(raw)


def encode(value: bool | int | bytes | str | tuple[int, ...]) -> bytes:  # noqa: FBT001 - a CK_BBOOL is a value, not a flag
    """Return the bytes of a flat attribute value; integers are CK_ULONG in the machine's own order."""
    if isinstance(value, bool):
        return b"\x01" if value else b"\x00"
    if isinstance(value, int):
        return struct.pack("=Q", value)
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, tuple):
        return struct.pack(f"={len(value)}Q", *value)
    return bytes(value)
