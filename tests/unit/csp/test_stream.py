"""A cipher stream stops at any byte and goes on as if it had not, by the word of `openssl enc`."""

from __future__ import annotations

import functools
import subprocess
from dataclasses import replace

import pytest
from hsmbridge_csp import cbor
from hsmbridge_csp.engines import SoftwareEngine
from hsmbridge_csp.errors import NTE, BadLengthError, BlobError, CspError, KeyStateError
from hsmbridge_csp.modes import BLOCK_SIZE, Cipher, Direction, Mode, Padding
from hsmbridge_csp.state import cipher_state_from, cipher_state_map
from hsmbridge_csp.stream import CipherState, CipherStream
from hypothesis import given
from hypothesis import strategies as st

# One key and one text for all examples, so that one run of openssl judges all streams of the same length.
KEY = bytes(range(0x11, 0x11 + 32))
TEXT = bytes(7 * number % 251 for number in range(400))
IVS = {"ordinary": bytes(range(0xA0, 0xB0)), "counter about to wrap": b"\xff" * 15 + b"\xfe"}
KEY_BYTES = {Cipher.AES: 32, Cipher.TDES: 24}
NAMES = {
    Mode.ECB: "ecb",
    Mode.CBC: "cbc",
    Mode.CFB8: "cfb8",
    Mode.CFB128: "cfb",
    Mode.OFB: "ofb",
    Mode.CTR: "ctr",
}
# openssl has no triple DES in counter mode either.
ALL = [(cipher, mode) for cipher in Cipher for mode in Mode if (cipher, mode) != (Cipher.TDES, Mode.CTR)]
BLOCKWISE = [(cipher, mode) for cipher, mode in ALL if mode.is_blockwise]

PIECES = st.lists(st.integers(0, 40), min_size=1, max_size=8)


def state_of(cipher: Cipher, mode: Mode, padding: Padding = Padding.PKCS5, iv: bytes = IVS["ordinary"]) -> CipherState:
    """Return the state before the first byte."""
    return CipherState(mode=mode, iv=b"" if mode is Mode.ECB else iv[-BLOCK_SIZE[cipher] :], padding=padding)


def stream_of(cipher: Cipher, state: CipherState) -> CipherStream:
    """Return a stream as a process would have it that was given nothing but key and state."""
    return CipherStream(SoftwareEngine(cipher, bytearray(KEY[: KEY_BYTES[cipher]])), state)


@functools.cache
def openssl(cipher: Cipher, state: CipherState, direction: Direction, data: bytes) -> bytes:
    """Let `openssl enc` do it in one go."""
    family = "aes-256" if cipher is Cipher.AES else "des-ede3"
    name = "des-ede3" if (cipher, state.mode) == (Cipher.TDES, Mode.ECB) else f"{family}-{NAMES[state.mode]}"
    command = ["openssl", "enc", f"-{name}", "-K", KEY[: KEY_BYTES[cipher]].hex()]
    command += ["-iv", state.iv.hex()] if state.iv else []
    command += ["-d"] if direction is Direction.DECRYPT else []
    command += ["-nopad"] if state.padding is Padding.NONE else []
    return subprocess.run(command, input=data, capture_output=True, check=True, timeout=60).stdout


def carry(state: CipherState, cipher: Cipher) -> CipherState:
    """Take a state to another process: out as CBOR, and in again."""
    return cipher_state_from(cbor.decode(cbor.encode(cipher_state_map(state))), cipher)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """Cut *data* into pieces of these sizes; what is left over is the last one."""
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]


def run(cipher: Cipher, state: CipherState, direction: Direction, pieces: list[bytes]) -> bytes:
    """Run a stream over *pieces*, each in a stream of its own that knows only the carried state; the last is final."""
    output = b""
    for piece in pieces[:-1]:
        stream = stream_of(cipher, state)
        output += stream.update(direction, piece)
        state = carry(stream.state, cipher)
    return output + stream_of(cipher, state).update(direction, pieces[-1], final=True)


@pytest.mark.parametrize("iv", IVS.values(), ids=IVS)
@pytest.mark.parametrize(("cipher", "mode"), ALL)
@given(sizes=PIECES, length=st.integers(0, 100))
def test_stops_anywhere_and_goes_on(cipher: Cipher, mode: Mode, iv: bytes, sizes: list[int], length: int) -> None:
    """Cut anywhere and carried at each cut, both directions give what openssl gives in one go."""
    state, plain = state_of(cipher, mode, iv=iv), TEXT[:length]
    sealed = openssl(cipher, state, Direction.ENCRYPT, plain)
    assert run(cipher, state, Direction.ENCRYPT, cut(plain, sizes)) == sealed
    assert run(cipher, state, Direction.DECRYPT, cut(sealed, sizes)) == plain


@pytest.mark.parametrize(("cipher", "mode"), BLOCKWISE)
@given(sizes=PIECES, blocks=st.integers(0, 8))
def test_without_padding(cipher: Cipher, mode: Mode, sizes: list[int], blocks: int) -> None:
    """Whole blocks without padding, cut inside blocks too: what openssl gives with -nopad."""
    state, plain = state_of(cipher, mode, Padding.NONE), TEXT[: blocks * BLOCK_SIZE[cipher]]
    sealed = openssl(cipher, state, Direction.ENCRYPT, plain)
    assert run(cipher, state, Direction.ENCRYPT, cut(plain, sizes)) == sealed
    assert run(cipher, state, Direction.DECRYPT, cut(sealed, sizes)) == plain


@pytest.mark.parametrize(("cipher", "mode"), ALL)
def test_every_byte_a_piece(cipher: Cipher, mode: Mode) -> None:
    """A stream that moves after each single byte is openssl's stream, and openssl reads it back."""
    state, plain = state_of(cipher, mode), TEXT[:77]
    sealed = run(cipher, state, Direction.ENCRYPT, [plain[at : at + 1] for at in range(len(plain))])
    assert sealed == openssl(cipher, state, Direction.ENCRYPT, plain)
    assert openssl(cipher, state, Direction.DECRYPT, sealed) == plain
    assert run(cipher, state, Direction.DECRYPT, [sealed[at : at + 1] for at in range(len(sealed))]) == plain


@pytest.mark.parametrize(("cipher", "mode"), ALL)
@given(sizes=PIECES)
def test_output_lags_by_a_block_at_most(cipher: Cipher, mode: Mode, sizes: list[int]) -> None:
    """What came out so far is a prefix of the whole, and no more than one block behind; stream modes never lag."""
    plain = TEXT[: sum(sizes)]
    whole = openssl(cipher, state_of(cipher, mode), Direction.ENCRYPT, plain)
    for direction, data, expected in (
        (Direction.ENCRYPT, plain, whole),
        (Direction.DECRYPT, whole, plain),
    ):
        stream, given_so_far, output = stream_of(cipher, state_of(cipher, mode)), 0, b""
        for piece in cut(data, sizes)[:-1]:
            output += stream.update(direction, piece)
            given_so_far += len(piece)
            assert expected.startswith(output)
            assert 0 <= given_so_far - len(output) <= (BLOCK_SIZE[cipher] if mode.is_blockwise else 0)


@pytest.mark.parametrize(("cipher", "mode"), ALL)
def test_the_state_stays_small(cipher: Cipher, mode: Mode) -> None:
    """After any number of bytes the carried state is less than 100 bytes: nothing is replayed."""
    stream = stream_of(cipher, state_of(cipher, mode))
    for size in (1, 16, 333, 5000):
        stream.update(Direction.DECRYPT, bytes(size))
        assert len(cbor.encode(cipher_state_map(stream.state))) < 100


@pytest.mark.parametrize(("cipher", "mode"), ALL)
def test_final_goes_back_to_the_iv(cipher: Cipher, mode: Mode) -> None:
    """After Final the key stands where it stood before the first byte: the same input gives the same output."""
    stream = stream_of(cipher, state_of(cipher, mode))
    before = stream.state
    first = stream.update(Direction.ENCRYPT, TEXT[:55], final=True)
    assert stream.state == before
    assert stream.update(Direction.ENCRYPT, TEXT[:55], final=True) == first
    assert stream.update(Direction.DECRYPT, first, final=True) == TEXT[:55]


@pytest.mark.parametrize(("cipher", "mode"), ALL)
@pytest.mark.parametrize("first", Direction)
def test_no_change_of_direction_inside_a_stream(cipher: Cipher, mode: Mode, first: Direction) -> None:
    """A running stream takes the other direction only after Final: NTE_BAD_KEY_STATE, and the stream is unharmed."""
    other = Direction.DECRYPT if first is Direction.ENCRYPT else Direction.ENCRYPT
    state = state_of(cipher, mode)
    data = openssl(cipher, state, Direction.ENCRYPT, TEXT[:50]) if first is Direction.DECRYPT else TEXT[:50]
    stream = stream_of(cipher, state)
    output = stream.update(first, data[:21])
    for final in (False, True):
        with pytest.raises(KeyStateError) as caught:
            stream.update(other, bytes(16), final=final)
        assert caught.value.nte == NTE.BAD_KEY_STATE
        assert caught.value.hint
    assert output + stream.update(first, data[21:], final=True) == openssl(cipher, state, first, data)
    stream.update(other, b"")


@pytest.mark.parametrize(("cipher", "mode"), BLOCKWISE)
@pytest.mark.parametrize("direction", Direction)
def test_final_inside_a_block_without_padding(cipher: Cipher, mode: Mode, direction: Direction) -> None:
    """Without padding Final takes whole blocks only: NTE_BAD_LEN; the rest of the block may still follow."""
    state, data = state_of(cipher, mode, Padding.NONE), TEXT[: 2 * BLOCK_SIZE[cipher]]
    stream = stream_of(cipher, state)
    with pytest.raises(BadLengthError) as caught:
        stream.update(direction, data[:-1], final=True)
    assert caught.value.nte == NTE.BAD_LEN
    assert caught.value.hint
    assert stream.update(direction, data, final=True) == openssl(cipher, state, direction, data)


@pytest.mark.parametrize(("cipher", "mode"), BLOCKWISE)
@pytest.mark.parametrize("missing", [1, 7, "all"])
def test_padded_ciphertext_that_is_cut_off(cipher: Cipher, mode: Mode, missing: int | str) -> None:
    """Padded ciphertext that ends inside a block, or is not there at all, is NTE_BAD_LEN."""
    state = state_of(cipher, mode)
    sealed = openssl(cipher, state, Direction.ENCRYPT, TEXT[:40])
    part = b"" if isinstance(missing, str) else sealed[:-missing]
    with pytest.raises(BadLengthError) as caught:
        stream_of(cipher, state).update(Direction.DECRYPT, part, final=True)
    assert caught.value.nte == NTE.BAD_LEN


@pytest.mark.parametrize(("cipher", "mode"), BLOCKWISE)
@pytest.mark.parametrize("ending", ["zero", "more than a block", "not all alike", "all ones"])
def test_wrong_padding(cipher: Cipher, mode: Mode, ending: str) -> None:
    """A last block whose padding openssl would not have written is NTE_BAD_DATA, and no plaintext comes with it."""
    block, state = BLOCK_SIZE[cipher], state_of(cipher, mode)
    last = {
        "zero": bytes(block),
        "more than a block": bytes([block + 1]) * block,
        "not all alike": bytes(block - 3) + b"\x02\x03\x03",
        "all ones": b"\xff" * block,
    }[ending]
    sealed = openssl(cipher, replace(state, padding=Padding.NONE), Direction.ENCRYPT, TEXT[:block] + last)
    with pytest.raises(CspError) as caught:
        stream_of(cipher, state).update(Direction.DECRYPT, sealed, final=True)
    assert caught.value.nte == NTE.BAD_DATA
    assert caught.value.hint


def test_a_representation_shows_no_keystream() -> None:
    """repr() of a state, which ends up in logs and tracebacks, does not show the keystream that an OFB state holds."""
    stream = stream_of(Cipher.AES, state_of(Cipher.AES, Mode.OFB))
    keystream = stream.update(Direction.ENCRYPT, bytes(16 + 9))
    shown = repr(stream.state)
    for secret in (keystream[:16], keystream[16:]):
        assert repr(secret)[2:-1] not in shown
        assert secret.hex() not in shown


@pytest.mark.parametrize("mode", [Mode.ECB, Mode.CBC])
def test_a_representation_shows_no_buffered_plaintext(mode: Mode) -> None:
    """repr() of a state does not show the input that waits for the rest of its block."""
    stream = stream_of(Cipher.AES, state_of(Cipher.AES, mode))
    stream.update(Direction.ENCRYPT, b"the secret")
    assert "secret" not in repr(stream.state)


def test_triple_des_counts_in_counter_mode() -> None:
    """Triple DES in CTR is the ECB of counter blocks, past the wrap of the counter (SP 800-38A section 6.5)."""
    first = b"\xff" * 7 + b"\xfe"
    stream = stream_of(Cipher.TDES, CipherState(mode=Mode.CTR, iv=first))
    text = TEXT[:27]
    sealed = stream.update(Direction.ENCRYPT, text[:11]) + stream.update(Direction.ENCRYPT, text[11:], final=True)
    counters = b"".join(((int.from_bytes(first, "big") + n) % (1 << 64)).to_bytes(8, "big") for n in range(4))
    keystream = stream_of(Cipher.TDES, CipherState(mode=Mode.ECB, iv=b"", padding=Padding.NONE)).update(
        Direction.ENCRYPT, counters, final=True
    )
    assert sealed == bytes(a ^ b for a, b in zip(text, keystream, strict=False))


@pytest.mark.parametrize(("cipher", "mode"), ALL)
def test_a_state_that_does_not_fit(cipher: Cipher, mode: Mode) -> None:
    """An IV of another length than a block (ECB: any at all) never starts a stream."""
    block = BLOCK_SIZE[cipher]
    for size in {0, 1, block - 1, block + 1, 2 * block} - {0 if mode is Mode.ECB else block}:
        with pytest.raises(BlobError) as caught:
            stream_of(cipher, CipherState(mode=mode, iv=bytes(size)))
        assert caught.value.nte == NTE.BAD_DATA
        assert caught.value.hint
