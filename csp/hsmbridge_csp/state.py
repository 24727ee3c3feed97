"""Running states as they stand in a key record.

Source: docs/blob-format.md; CryptoAPI's notion of state: "all persisted values associated with a key" (IV, feedback,
…).
"""

from __future__ import annotations

from dataclasses import replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from hsmbridge_csp.errors import NTE, BlobError
from hsmbridge_csp.modes import Cipher, Direction, Mode, Padding
from hsmbridge_csp.stream import CipherState

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["cipher_state_from", "cipher_state_map"]


class Label(IntEnum):
    """Labels of a cipher state's map."""

    MODE = 1
    IV = 2
    PADDING = 3
    DIRECTION = 4
    REGISTER = 5
    TAIL = 6


def cipher_state_map(state: CipherState) -> dict[int, Any]:
    """Return the CBOR map of a block cipher's state."""
    fields: dict[int, Any] = {
        Label.MODE: state.mode.value,
        Label.IV: state.iv,
        Label.PADDING: state.padding.value,
    }
    if state.direction is not None:
        fields |= {Label.DIRECTION: state.direction.value, Label.REGISTER: state.register, Label.TAIL: state.tail}
    return {int(label): value for label, value in fields.items()}


def cipher_state_from(fields: Mapping[int, Any], cipher: Cipher) -> CipherState:
    """Read a block cipher's state and check that it fits the cipher.

    Raises:
        BlobError: it does not.
    """
    match dict(fields):
        case {Label.MODE: str() as mode, Label.IV: bytes() as iv, Label.PADDING: str() as padding, **running}:
            pass
        case _:
            raise _bad()
    try:
        idle = CipherState(mode=Mode(mode), iv=iv, padding=Padding(padding))
        state = replace(idle, **_running(running)) if running else idle
    except ValueError:
        raise _bad() from None
    return state.check(cipher)


def _running(fields: dict[Any, Any]) -> dict[str, Any]:
    match fields:
        case {
            Label.DIRECTION: str() as direction,
            Label.REGISTER: bytes() as register,
            Label.TAIL: bytes() as tail,
            **unknown,
        } if not unknown:
            return {"direction": Direction(direction), "register": register, "tail": tail}
    raise _bad()


def _bad() -> BlobError:
    return BlobError(
        "the cipher state inside the blob is not usable",
        nte=NTE.BAD_DATA,
        hint="the sender speaks another version of the format; export the key again with this one",
    )
