"""A cipher state as it stands in a key record: its form, and what is no state."""

from __future__ import annotations

from typing import Any

import pytest
from hsmbridge_csp import cbor
from hsmbridge_csp.errors import NTE, BlobError
from hsmbridge_csp.modes import BLOCK_SIZE, Cipher, Direction, Mode, Padding
from hsmbridge_csp.state import cipher_state_from, cipher_state_map
from hsmbridge_csp.stream import CipherState
from hypothesis import given
from hypothesis import strategies as st

# docs/blob-format.md
MODE, IV, PADDING, DIRECTION, REGISTER, TAIL = range(1, 7)


def running(mode: Mode = Mode.CBC, direction: Direction = Direction.ENCRYPT, tail: bytes = b"tail") -> dict[int, Any]:
    """Return the map of a running AES state, put together by hand."""
    block = b"" if mode is Mode.ECB else bytes(16)
    return {
        MODE: mode.value,
        IV: block,
        PADDING: "PKCS5",
        DIRECTION: direction.value,
        REGISTER: block,
        TAIL: tail,
    }


@st.composite
def states(draw: st.DrawFn, cipher: Cipher) -> CipherState:
    """Any state that a stream can be in."""
    block, mode = BLOCK_SIZE[cipher], draw(st.sampled_from(Mode))
    size = 0 if mode is Mode.ECB else block
    iv, padding = draw(st.binary(min_size=size, max_size=size)), draw(st.sampled_from(Padding))
    if draw(st.booleans()):
        return CipherState(mode=mode, iv=iv, padding=padding)
    return CipherState(
        mode=mode,
        iv=iv,
        padding=padding,
        direction=draw(st.sampled_from(Direction)),
        register=draw(st.binary(min_size=size, max_size=size)),
        tail=b"" if mode is Mode.CFB8 else draw(st.binary(max_size=block - 1)),
    )


@pytest.mark.parametrize("cipher", Cipher)
@given(data=st.data())
def test_what_goes_out_comes_in(cipher: Cipher, data: st.DataObject) -> None:
    """Every state of every mode comes back equal from its encoding."""
    state = data.draw(states(cipher).filter(lambda state: (cipher, state.mode) != (Cipher.TDES, Mode.CTR)))
    assert cipher_state_from(cbor.decode(cbor.encode(cipher_state_map(state))), cipher) == state


def test_the_documented_form() -> None:
    """A map put together by hand is read field by field, and the state gives just that map again."""
    fields = running(Mode.CFB128, Direction.DECRYPT)
    state = cipher_state_from(fields, Cipher.AES)
    assert (state.mode, state.direction, state.padding) == (Mode.CFB128, Direction.DECRYPT, Padding.PKCS5)
    assert (state.iv, state.register, state.tail) == (bytes(16), bytes(16), b"tail")
    assert cipher_state_map(state) == fields


@pytest.mark.parametrize("label", [MODE, IV, PADDING, DIRECTION, REGISTER])
@pytest.mark.parametrize("value", [None, 1, True, "", "cbc", b"", b"CBC", b"x" * 17, b"x" * 15, [], {}])
def test_a_field_of_the_wrong_shape(label: int, value: object) -> None:
    """One field of the wrong type, length or name makes it no state: BlobError, NTE_BAD_DATA."""
    with pytest.raises(BlobError) as caught:
        cipher_state_from({**running(), label: value}, Cipher.AES)
    assert caught.value.nte == NTE.BAD_DATA
    assert caught.value.hint


@pytest.mark.parametrize("value", [None, 4, "tail", b"x" * 16, [], {}])
def test_a_tail_of_the_wrong_shape(value: object) -> None:
    """What waits for the rest of its block is less than a block of bytes."""
    with pytest.raises(BlobError):
        cipher_state_from({**running(), TAIL: value}, Cipher.AES)


@pytest.mark.parametrize("label", [MODE, IV, PADDING, DIRECTION, REGISTER, TAIL])
def test_a_missing_field(label: int) -> None:
    """A state without one of its fields is refused; direction, register and tail come together or not at all."""
    fields = running()
    del fields[label]
    with pytest.raises(BlobError):
        cipher_state_from(fields, Cipher.AES)


@pytest.mark.parametrize("label", [0, 7, -1, "mode", b"\x01"])
@pytest.mark.parametrize("fields", [running(), {MODE: "CBC", IV: bytes(16), PADDING: "NONE"}, {}])
def test_an_unknown_field(fields: dict[Any, Any], label: Any) -> None:  # noqa: ANN401 - any CBOR value
    """A field of a later version is never ignored: the key would not be in the same state."""
    with pytest.raises(BlobError):
        cipher_state_from({**fields, label: b""}, Cipher.AES)


@pytest.mark.parametrize("mode", Mode)
def test_a_state_of_the_other_cipher(mode: Mode) -> None:
    """A running AES state is no state of a triple DES key, nor the other way round."""
    with pytest.raises(BlobError):
        cipher_state_from(running(mode, tail=b"" if mode is Mode.CFB8 else b"x" * 15), Cipher.TDES)
    if mode is not Mode.ECB:
        short = {**running(mode, tail=b""), IV: bytes(8), REGISTER: bytes(8)}
        with pytest.raises(BlobError):
            cipher_state_from(short, Cipher.AES)


@pytest.mark.parametrize(
    ("mode", "direction", "most"),
    [
        (Mode.ECB, Direction.ENCRYPT, 15),
        (Mode.CBC, Direction.ENCRYPT, 15),
        (Mode.ECB, Direction.DECRYPT, 16),
        (Mode.CBC, Direction.DECRYPT, 16),
        (Mode.CFB128, Direction.ENCRYPT, 15),
        (Mode.OFB, Direction.DECRYPT, 15),
        (Mode.CTR, Direction.ENCRYPT, 15),
        (Mode.CFB8, Direction.ENCRYPT, 0),
    ],
)
def test_how_much_may_be_held_back(mode: Mode, direction: Direction, most: int) -> None:
    """Less than a block is held back, a whole one when decrypting with padding, nothing in CFB8."""
    assert cipher_state_from(running(mode, direction, b"x" * most), Cipher.AES).tail == b"x" * most
    with pytest.raises(BlobError):
        cipher_state_from(running(mode, direction, b"x" * (most + 1)), Cipher.AES)


VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.binary(max_size=20), st.text(max_size=6))


@given(
    fields=st.dictionaries(st.one_of(st.integers(0, 8), st.text(max_size=3), st.booleans()), VALUES),
    change=st.booleans(),
    cipher=st.sampled_from(Cipher),
)
def test_any_map_is_a_state_or_a_blob_error(fields: dict[Any, Any], cipher: Cipher, *, change: bool) -> None:
    """Whatever stands in the map, BlobError is the only error; and what is read is written the same again."""
    fields = {**running(), **fields} if change else fields
    try:
        state = cipher_state_from(fields, cipher)
    except BlobError:
        return
    assert cipher_state_map(state) == fields
