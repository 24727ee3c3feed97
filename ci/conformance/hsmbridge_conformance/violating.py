"""What only a conformance suite does: calls with buffers, handles and destroys that hsmbridge itself would refuse.

Everything here works on session objects that the suite has just made, with names of its own.

Source: PKCS#11 v3.1 sections 5.2 (output buffers) and 5.7.3 (C_DestroyObject).
"""

from __future__ import annotations

import ctypes
import mmap
from ctypes import addressof, c_int, c_size_t, c_ulong, c_void_p
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hsmbridge.codes import CKA, ckr_name
from hsmbridge.errors import HardwareKeyError

if TYPE_CHECKING:
    from hsmbridge.objects import Object
    from hsmbridge_conformance.rig import Rig
    from hsmbridge_conformance.wrapcases import WrapCase

__all__ = ["Filled", "GuardedBuffer", "destroy_for_test", "wrap_into"]

_FILL = 0xA5
_PROT_NONE = 0
_FRONT = 64
"""Bytes between the buffer's end and the page that must not be touched: they tell an overrun from a crash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """What C_WrapKey did with a buffer.

    Attributes:
        ckr: its return value.
        length: what it left in *pulWrappedKeyLen.
        written: how many bytes from the start were touched.
        overrun: whether a byte behind the buffer was touched.
    """

    ckr: int
    length: int
    written: int
    overrun: bool

    @property
    def name(self) -> str:
        """The return value's name."""
        return ckr_name(self.ckr)


class GuardedBuffer:
    """Memory whose last page may not be touched; the buffer lies a few marked bytes before it."""

    def __init__(self, size: int) -> None:
        page = mmap.PAGESIZE
        self._room = -(-(size + _FRONT) // page) * page
        self._map = mmap.mmap(-1, self._room + page)
        self._base = addressof(ctypes.c_char.from_buffer(self._map))
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mprotect.argtypes = (c_void_p, c_size_t, c_int)
        self._libc.mprotect(self._base + self._room, page, _PROT_NONE)
        ctypes.memset(self._base, _FILL, self._room)
        self.size = size
        self.address = self._base + self._room - _FRONT - size

    def written(self) -> int:
        """Return how far the buffer was touched."""
        raw = ctypes.string_at(self.address, self.size)
        return len(raw.rstrip(bytes([_FILL])))

    def overrun(self) -> bool:
        """Whether the bytes behind it were touched."""
        return ctypes.string_at(self.address + self.size, _FRONT) != bytes([_FILL]) * _FRONT


def wrap_into(rig: Rig, case: WrapCase, wrapping: Object, key: Object, size: int | None) -> Filled:
    """C_WrapKey into a guarded buffer of *size* bytes; None asks for the size only."""
    buffer = GuardedBuffer(size or 0)
    length = c_ulong(size or 0)
    with rig.token.sessions as session:
        ckr = rig.calls.wrap_key_into(
            session,
            case.mechanism,
            wrapping.handle,
            key.handle,
            None if size is None else buffer.address,
            addressof(length),
        )
    return Filled(ckr=ckr, length=length.value, written=buffer.written(), overrun=buffer.overrun())


def destroy_for_test(rig: Rig, key: Object) -> int:
    """Destroy a session object of the suite.

    Returns: the handle, which stands for nothing from now on.

    Raises:
        HardwareKeyError: it is no session object of this run; Pkcs11Error: the module refuses.
    """
    if key.read_identity().id[: len(rig.prefix)] != rig.prefix or rig.attribute(key, CKA.TOKEN) is not False:
        raise HardwareKeyError("only session objects of the suite are destroyed in a test", hint="nothing was called")
    handle = key.handle
    rig.ours.remove(key)
    return handle
