"""A cursor over bytes that never reads past their end."""

from __future__ import annotations

from hsmbridge_csp.errors import NTE, BlobError

__all__ = ["ByteCursor"]

_DAMAGED = "the blob is damaged or was cut off; export it again"


class ByteCursor:
    """Reads fixed-length little-endian fields from *data*, front to back.

    The remaining length is compared with what a field needs before anything is copied, so a length field that lies
    costs nothing. Integers are little-endian because every CryptoAPI blob is.
    """

    __slots__ = ("_data", "_offset")

    def __init__(self, data: bytes, offset: int = 0) -> None:
        self._data = data
        self._offset = offset

    @property
    def remaining(self) -> int:
        """How many bytes have not been read yet."""
        return len(self._data) - self._offset

    def take(self, length: int, what: str) -> bytes:
        """Return the next *length* bytes.

        Args:
            length: bytes wanted, zero or more.
            what: the field's name, for the message.

        Raises:
            BlobError: fewer bytes are left (NTE_BAD_LEN).
        """
        if length > self.remaining:
            message = f"the blob ends inside its {what}: {length} bytes needed, {self.remaining} left"
            raise BlobError(message, nte=NTE.BAD_LEN, hint=_DAMAGED)
        start = self._offset
        self._offset += length
        return self._data[start : self._offset]

    def uint(self, length: int, what: str) -> int:
        """Return the next *length* bytes as an unsigned little-endian integer."""
        return int.from_bytes(self.take(length, what), "little")

    def u32(self, what: str) -> int:
        """Return the next four bytes as an unsigned little-endian integer."""
        return self.uint(4, what)

    def rest(self) -> bytes:
        """Return everything that is left."""
        return self.take(self.remaining, "body")

    def finish(self) -> None:
        """Insist that nothing is left.

        Raises:
            BlobError: bytes follow the last field (NTE_BAD_LEN).
        """
        if self.remaining:
            message = f"{self.remaining} bytes follow the end of the blob"
            raise BlobError(
                message, nte=NTE.BAD_LEN, hint="pass exactly one blob, without padding or a second one behind it"
            )
