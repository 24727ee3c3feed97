"""A block cipher stream that can stop at any byte and go on in another process.

Everything that the next byte depends on is in :class:`CipherState`: nothing hides in a cipher context.

Source: NIST SP 800-38A for the registers; RFC 5652 section 6.3 for the padding; CryptoAPI's CryptEncrypt for Final.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from hsmbridge_csp.errors import NTE, BadLengthError, BlobError, CspError, KeyStateError
from hsmbridge_csp.modes import BLOCK_SIZE, Cipher, Direction, Mode, Padding

if TYPE_CHECKING:
    from hsmbridge_csp.engines import Engine

__all__ = ["CipherState", "CipherStream"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CipherState:
    """The whole state of a block cipher key.

    Attributes:
        mode: the mode of operation.
        iv: KP_IV: where the next stream begins after Final; one block (empty for ECB).
        padding: KP_PADDING, for ECB and CBC.
        direction: what the running stream does; None between streams.
        register: feedback register, or the counter block of the current block; one block (empty for ECB).
        tail: of the current block, what is needed to go on inside it, less than one block: input not yet processed
            (ECB, CBC; when decrypting with padding up to one whole block, the one held back), ciphertext so far
            (CFB128), or as many bytes as were used of the keystream block (CTR, OFB: their number alone matters in
            CTR; in OFB they are the keystream).
    """

    mode: Mode
    iv: bytes
    padding: Padding = Padding.PKCS5
    direction: Direction | None = None
    register: bytes = field(default=b"", repr=False)
    tail: bytes = field(default=b"", repr=False)

    def check(self, cipher: Cipher) -> CipherState:
        """Check the shapes that the fields must have for *cipher*.

        Raises:
            BlobError: one does not fit.
        """
        block = BLOCK_SIZE[cipher]
        size = 0 if self.mode is Mode.ECB else block
        most = block if self.mode.is_blockwise and self.direction is Direction.DECRYPT else block - 1
        if self.mode is Mode.CFB8:
            most = 0
        if (
            len(self.iv) != size
            or len(self.register) != (size if self.direction else 0)
            or len(self.tail) > (most if self.direction else 0)
        ):
            raise BlobError(f"the cipher state does not fit {cipher} in {self.mode}", nte=NTE.BAD_DATA, hint=_ASK_AGAIN)
        return self


_ASK_AGAIN = "have the sender export the key again"


class CipherStream:
    """Runs a block cipher over a stream, in pieces of any length.

    Args:
        engine: where the cipher runs.
        state: where to begin or go on.
    """

    def __init__(self, engine: Engine, state: CipherState) -> None:
        self._engine = engine
        self._block = BLOCK_SIZE[engine.cipher]
        self.state = state.check(engine.cipher)

    def update(self, direction: Direction, data: bytes, *, final: bool = False) -> bytes:
        """Process the next piece.

        Args:
            direction: must be that of the running stream.
            data: any number of bytes.
            final: ends the stream: pads or checks padding in ECB and CBC, then goes back to the IV.

        Returns: what is complete; in ECB and CBC it may lag behind by up to one block.

        Raises:
            KeyStateError: the stream runs in the other direction.
            BadLengthError: Final without padding, inside a block.
            CspError: NTE_BAD_DATA where the padding is wrong.
        """
        state = self.state
        if state.direction not in (None, direction):
            raise KeyStateError(
                f"the key is in the middle of a stream to {state.direction}",
                hint="end the stream with final=True first",
            )
        if state.direction is None:
            state = replace(state, direction=direction, register=state.iv, tail=b"")
        output, after = (self._blockwise if state.mode.is_blockwise else self._streamwise)(state, data, final=final)
        self.state = replace(after, direction=None, register=b"", tail=b"") if final else after
        return output

    def _blockwise(self, state: CipherState, data: bytes, *, final: bool) -> tuple[bytes, CipherState]:
        pending = state.tail + data
        pads = state.padding is Padding.PKCS5
        encrypting = state.direction is Direction.ENCRYPT
        if final and encrypting and pads:
            gap = self._block - len(pending) % self._block
            pending += bytes([gap]) * gap
        whole = len(pending) - len(pending) % self._block
        if final and (whole != len(pending) or (pads and not whole)):
            raise BadLengthError(
                "the stream ends inside a block", hint="give whole blocks, or set KP_PADDING to PKCS5 on both sides"
            )
        if not final and not encrypting and pads and whole == len(pending) and whole:
            whole -= self._block  # the last block may be the padded one
        chunk = pending[:whole]
        output = self._engine.run(state.mode, self._direction(state), state.register, chunk) if chunk else b""
        register = state.register
        if state.mode is Mode.CBC and chunk:
            register = (output if encrypting else chunk)[-self._block :]
        if final and not encrypting and pads:
            output = self._unpad(output)
        return output, replace(state, register=register, tail=pending[whole:])

    def _unpad(self, output: bytes) -> bytes:
        gap = output[-1]
        if not 1 <= gap <= self._block or output[-gap:] != bytes([gap]) * gap:
            raise CspError(
                "the padding of the last block is wrong",
                nte=NTE.BAD_DATA,
                hint="the data are damaged, or under another key",
            )
        return output[:-gap]

    def _streamwise(self, state: CipherState, data: bytes, *, final: bool) -> tuple[bytes, CipherState]:
        del final  # stream modes end anywhere
        if not data:
            return b"", state
        if state.mode is Mode.CFB8:
            output = self._engine.run(state.mode, self._direction(state), state.register, data)
            cipher = output if state.direction is Direction.ENCRYPT else data
            return output, replace(state, register=(state.register + cipher)[-self._block :])
        # To stand inside a block again, the engine is fed what brings it there; its output is dropped.
        lead = self._lead_in(state)
        output = self._engine.run(state.mode, self._direction(state), state.register, lead + data)[len(lead) :]
        if state.mode is Mode.CTR:
            behind = state.tail + bytes(len(data))
            return output, self._advance_counter(state, behind)
        if state.mode is Mode.OFB:
            run = bytes(a ^ b for a, b in zip(data[-2 * self._block :], output[-2 * self._block :], strict=True))
        else:
            run = (output if state.direction is Direction.ENCRYPT else data)[-2 * self._block :]
        used = len(state.tail) + len(data)
        inside = used % self._block
        known = (state.tail + run)[-(self._block + inside) :] if used >= self._block else state.tail + run
        if used < self._block:
            return output, replace(state, tail=known)
        return output, replace(state, register=known[: self._block], tail=known[self._block :])

    def _lead_in(self, state: CipherState) -> bytes:
        if state.mode is not Mode.CFB128 or state.direction is Direction.DECRYPT:
            return state.tail if state.mode is Mode.CFB128 else bytes(len(state.tail))
        if not state.tail:
            return b""
        # The plaintext that gives the ciphertext we have: ciphertext xor E(register).
        keystream = self._engine.run(Mode.ECB, Direction.ENCRYPT, b"", state.register)
        return bytes(a ^ b for a, b in zip(state.tail, keystream, strict=False))

    def _advance_counter(self, state: CipherState, behind: bytes) -> CipherState:
        blocks, inside = divmod(len(behind), self._block)
        counter = (int.from_bytes(state.register, "big") + blocks) % (1 << 8 * self._block)
        return replace(state, register=counter.to_bytes(self._block, "big"), tail=bytes(inside))

    def _direction(self, state: CipherState) -> Direction:
        return state.direction or Direction.ENCRYPT
