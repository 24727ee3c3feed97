"""Reading one attribute at a time, from modules of every kind.

Source: PKCS#11 v3.1 section 5.7.5 (C_GetAttributeValue).
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from hsmbridge._ck import CkAttribute
from hsmbridge.codes import CKA, CKR
from hsmbridge.errors import Pkcs11Error
from hsmbridge.values import BOOLS, ULONG_SIZE, ULONGS, decode

if TYPE_CHECKING:
    from hsmbridge._calls import Calls
    from hsmbridge.template import Value

__all__ = ["GUESS", "MAX_VALUE", "SLACK", "expect_ok", "keeps_to_lengths", "read_flat", "read_secret", "read_template"]

GUESS = 256
"""Bytes offered for a value of unknown length; RSA-2048 numbers, labels and ids fit, larger ones cost one more call."""

MAX_VALUE = 1 << 20
SLACK = 4096
"""Room behind a buffer, for a value that another process makes longer between the two calls."""

_MAX_NESTED = 64
"""Attributes in a nested template; more than a template may have at all."""

_ROOM_TO_SPARE = 256
_ENTRY = ctypes.sizeof(CkAttribute)


def keeps_to_lengths(calls: Calls, session: int, handle: int) -> bool:
    """Whether the module writes no more of a value than there is room for; tried once, with room to spare.

    NSS copies the whole value whatever ulValueLen says. There a length must be asked for before the value, or a long
    label writes over our memory.
    """
    if calls.keeps_to_lengths is None:
        room = ctypes.create_string_buffer(_ROOM_TO_SPARE)
        entry = CkAttribute(CKA.CLASS, ctypes.addressof(room), 1)  # a CK_ULONG has eight bytes
        ckr = calls.get_attributes(session, handle, ctypes.addressof(entry), 1)
        if ckr not in (CKR.OK, CKR.BUFFER_TOO_SMALL):
            return False  # that says nothing of the module; the next object is asked again
        calls.keeps_to_lengths = ckr == CKR.BUFFER_TOO_SMALL and not any(room.raw)
    return calls.keeps_to_lengths


def read_flat(calls: Calls, session: int, handle: int, kind: int) -> tuple[Value | None, int]:
    """Read one attribute: straight into a buffer that is usually large enough where that is safe, else by length."""
    ckr: int = CKR.FUNCTION_FAILED
    fixed = ULONG_SIZE if kind in BOOLS or kind in ULONGS else 0
    size = fixed or (GUESS if keeps_to_lengths(calls, session, handle) else 0)
    for _ in range(3):
        buffer = ctypes.create_string_buffer(size + SLACK) if size else None
        entry = CkAttribute(kind, ctypes.addressof(buffer) if buffer is not None else None, size)
        ckr = calls.get_attributes(session, handle, ctypes.addressof(entry), 1)
        length = entry.ulValueLen
        if ckr == CKR.OK and length == 0:
            return decode(kind, b""), ckr
        if ckr == CKR.OK and buffer is not None and length <= size:
            return decode(kind, buffer.raw[:length]), ckr
        if ckr == CKR.BUFFER_TOO_SMALL:
            size = 0  # ask for the length
        elif ckr != CKR.OK or length > MAX_VALUE:
            break
        else:
            size = length
    return None, ckr if ckr != CKR.OK else CKR.FUNCTION_FAILED  # a length that cannot be is not readable either


def read_template(calls: Calls, session: int, handle: int, kind: int) -> tuple[dict[int, Value] | None, int]:
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
    expect_ok(calls.get_attributes(session, handle, ctypes.addressof(entry), 1))
    buffers = []
    for item in inner:
        buffer = ctypes.create_string_buffer(max(1, min(item.ulValueLen, MAX_VALUE)))
        buffers.append(buffer)
        item.pValue = ctypes.addressof(buffer)
    entry[0].ulValueLen = count * _ENTRY
    expect_ok(calls.get_attributes(session, handle, ctypes.addressof(entry), 1))
    if any(item.pValue != ctypes.addressof(buffer) for item, buffer in zip(inner, buffers, strict=True)):
        return None, CKR.FUNCTION_FAILED
    return {
        item.type: decode(item.type, buffer.raw[: item.ulValueLen]) for item, buffer in zip(inner, buffers, strict=True)
    }, ckr


def expect_ok(ckr: int) -> None:
    if ckr != CKR.OK:
        raise Pkcs11Error("C_GetAttributeValue", ckr)


def read_secret(calls: Calls, session: int, handle: int) -> bytearray:
    """Read CKA_VALUE of a readable key; the buffer that the token filled is overwritten.

    Returns: the key's bytes, for the caller to wipe.

    Raises:
        Pkcs11Error: CKR_ATTRIBUTE_SENSITIVE and others.
    """
    entry = (CkAttribute * 1)(CkAttribute(CKA.VALUE, None, 0))
    expect_ok(calls.get_attributes(session, handle, ctypes.addressof(entry), 1))
    size = entry[0].ulValueLen
    if size > MAX_VALUE:
        raise Pkcs11Error("C_GetAttributeValue", CKR.ATTRIBUTE_SENSITIVE)
    buffer = ctypes.create_string_buffer(size + SLACK)
    entry[0].pValue = ctypes.addressof(buffer)
    try:
        expect_ok(calls.get_attributes(session, handle, ctypes.addressof(entry), 1))
        return bytearray(memoryview(buffer)[: min(entry[0].ulValueLen, size)])
    finally:
        ctypes.memset(buffer, 0, len(buffer))
