"""What the basic checks hand to a module: long templates, short structures, guarded buffers."""

from __future__ import annotations

import ctypes

import pytest
from hsmbridge_conformance.barecalls import short_gcm
from hsmbridge_conformance.barereading import LongTemplate
from hsmbridge_conformance.violating import GuardedBuffer

from hsmbridge._ck import CkAttribute, CkMechanism
from hsmbridge.codes import CKA
from hsmbridge.mechanism import Mechanism, aes_gcm


def entries(template: LongTemplate) -> list[tuple[int, bytes]]:
    """Return type and value of each entry, as a module would read them."""
    array = (CkAttribute * template.count).from_address(template.pointer)
    return [(entry.type, ctypes.string_at(entry.pValue, entry.ulValueLen)) for entry in array]


def parameter_size(mechanism: Mechanism) -> int:
    """Return ulParameterLen."""
    return int(CkMechanism.from_address(mechanism.pointer).ulParameterLen)


@pytest.mark.parametrize("count", [2, 3, 28, 29, 64])
def test_a_long_template_repeats_its_last_attribute(count: int) -> None:
    """All entries are there, and whatever is beyond them is the last one, with the same value."""
    template = LongTemplate({CKA.TOKEN: False, CKA.LABEL: "x"}, count)
    assert entries(template) == [(CKA.TOKEN, b"\x00")] + [(CKA.LABEL, b"x")] * (count - 1)


def test_the_short_gcm_structure_lacks_one_number() -> None:
    """Without ulIvBits the structure has five fields of eight bytes instead of six."""
    assert parameter_size(short_gcm(bytes(12))) == 40
    assert parameter_size(aes_gcm(bytes(12), b"")) == 48


def test_a_guarded_buffer_tells_what_was_written() -> None:
    """Bytes within the buffer count as written, and one behind it as an overrun."""
    buffer = GuardedBuffer(8)
    assert (buffer.written(), buffer.overrun()) == (0, False)
    ctypes.memset(buffer.address, 0, 5)
    assert (buffer.written(), buffer.overrun()) == (5, False)
    ctypes.memset(buffer.address, 0, 9)
    assert (buffer.written(), buffer.overrun()) == (8, True)
