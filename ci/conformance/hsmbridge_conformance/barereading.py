"""C_GetAttributeValue and templates as a careless caller would have them: short buffers, nested ones, long templates.

Of what comes back only lengths and pointers are looked at: no pointer that the module wrote is ever followed.

Source: PKCS#11 v3.1 sections 4.1 (templates) and 5.7.5 (C_GetAttributeValue).
"""

from __future__ import annotations

import ctypes
from ctypes import addressof, create_string_buffer
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hsmbridge._ck import CkAttribute
from hsmbridge._operations import check
from hsmbridge.codes import CKA, CKR, UNAVAILABLE, ckr_name
from hsmbridge.template import PackedTemplate
from hsmbridge_conformance.violating import GuardedBuffer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsmbridge.objects import Object
    from hsmbridge.template import Template
    from hsmbridge_conformance.rig import Rig

__all__ = ["LongTemplate", "Read", "foreign_pointers", "read_into", "read_together"]

_ROOM = 4096
"""Bytes for each attribute where they shall all fit."""

_ENTRY = ctypes.sizeof(CkAttribute)
_MOST = 64
"""Attributes that a nested template may have here; the suite's have one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What C_GetAttributeValue did with one buffer.

    Attributes:
        ckr: its return value.
        length: what it left in ulValueLen; None for CK_UNAVAILABLE_INFORMATION.
        written: how many bytes of the buffer were touched.
        overrun: whether a byte behind the buffer was touched.
    """

    ckr: int
    length: int | None
    written: int
    overrun: bool

    @property
    def name(self) -> str:
        """The return value's name."""
        return ckr_name(self.ckr)


class LongTemplate(PackedTemplate):
    """A template in which the last attribute stands again and again, always with the same value.

    There are not enough attributes to make a long template of different ones: a secret key has some 27.

    Args:
        template: the attributes.
        count: how many entries there shall be.
    """

    __slots__ = ("_long",)

    def __init__(self, template: Template, count: int) -> None:
        super().__init__(template)
        entries = [CkAttribute(entry.type, entry.pValue, entry.ulValueLen) for entry in self._array]
        entries += entries[-1:] * (count - len(entries))
        self._long = (CkAttribute * len(entries))(*entries)
        self.count, self.pointer = len(entries), addressof(self._long)


def read_into(rig: Rig, key: Object, kind: CKA, size: int) -> Read:
    """Read one attribute into a guarded buffer of *size* bytes."""
    buffer = GuardedBuffer(size)
    entry = CkAttribute(kind, buffer.address, size)
    with rig.token.sessions as session:
        ckr = rig.calls.get_attributes(session, key.handle, addressof(entry), 1)
    length = None if entry.ulValueLen == UNAVAILABLE else int(entry.ulValueLen)
    return Read(ckr=ckr, length=length, written=buffer.written(), overrun=buffer.overrun())


def read_together(rig: Rig, key: Object, kinds: Sequence[int]) -> dict[int, bytes | None]:
    """Read attributes with one call; None for each that the module does not give."""
    buffers = [create_string_buffer(_ROOM) for _ in kinds]
    entries = (CkAttribute * len(kinds))(
        *(CkAttribute(kind, addressof(buffer), _ROOM) for kind, buffer in zip(kinds, buffers, strict=True))
    )
    with rig.token.sessions as session:
        rig.calls.get_attributes(session, key.handle, addressof(entries), len(kinds))
    return {
        entry.type: None if entry.ulValueLen > _ROOM else buffer.raw[: entry.ulValueLen]
        for entry, buffer in zip(entries, buffers, strict=True)
    }


def foreign_pointers(rig: Rig, key: Object, kind: CKA) -> int | None:
    """Read a nested template with buffers of our own, as section 5.7.5 has it, and see which pointers come back.

    Returns: how many of them are not ours; None where the module does not give the attribute.

    Raises:
        Pkcs11Error: the module gave the template's length, and then refused the template.
    """
    entry = CkAttribute(kind, None, 0)
    with rig.token.sessions as session:

        def ask() -> int:
            return rig.calls.get_attributes(session, key.handle, addressof(entry), 1)

        count = -1 if ask() != CKR.OK else entry.ulValueLen // _ENTRY
        if not 0 < count <= _MOST:
            return None
        inner = (CkAttribute * count)()
        entry.pValue, entry.ulValueLen = addressof(inner), count * _ENTRY
        check("C_GetAttributeValue", ask())  # asks for types and lengths: every pointer is null
        foreign = len([item for item in inner if item.pValue is not None])
        if foreign:
            return foreign
        buffers = [create_string_buffer(_ROOM) for _ in inner]
        for item, buffer in zip(inner, buffers, strict=True):
            item.pValue = addressof(buffer)
            item.ulValueLen = _ROOM
        entry.ulValueLen = count * _ENTRY
        check("C_GetAttributeValue", ask())
        given = [addressof(buffer) for buffer in buffers]
        return len([item for item, address in zip(inner, given, strict=True) if item.pValue != address])
