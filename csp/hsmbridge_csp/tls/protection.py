"""What the ways to protect a record have in common: headers, limits, failures.

Records are sealed and opened where they stand: the fragment lies in the caller's buffer at the offset ``prefix``,
behind the header and whatever the form puts in front of it.

Source: RFC 8446 sections 5.1 and 5.2; RFC 5246 section 6.2.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NoReturn

from hsmbridge_csp.errors import NTE, BadLengthError, CspError
from hsmbridge_csp.tls.alerts import AlertDescription, ContentType, TlsAlertError
from hsmbridge_csp.tls.suites import MAX_PLAINTEXT, TlsVersion

if TYPE_CHECKING:
    from hsmbridge_csp.tls.suites import RecordForm

__all__ = ["HEADER_SIZE", "Protection", "Room"]

Room = bytearray | memoryview
"""Where a record stands: writable, one byte an item."""

HEADER_SIZE = 5
WIRE_VERSION = 0x0303
"""The version in every record's header, in TLS 1.3 too (RFC 8446 section 5.1)."""

HEADER = struct.Struct(">BHH")
_TYPES = {int(kind): kind for kind in ContentType}


class Protection(ABC):
    """Seals and opens the records of one direction. It keeps no sequence: that is the key's state.

    Args:
        form: of the suite.

    Attributes:
        prefix: bytes in front of the fragment.
    """

    prefix = HEADER_SIZE

    def __init__(self, form: RecordForm) -> None:
        self._form = form

    @abstractmethod
    def record_size(self, length: int) -> int:
        """Return the size of the record of a fragment of *length* bytes."""

    @abstractmethod
    def seal(self, room: Room, length: int, kind: int, sequence: int) -> int:
        """Make the fragment in *room* a record.

        Returns: the record's size.

        Raises:
            BadLengthError: the fragment is longer than a record's, or *room* is too small; nothing was done.
            CspError: NTE_BAD_TYPE, no such content type; nothing was done.
        """

    @abstractmethod
    def open(self, room: Room, size: int, sequence: int) -> tuple[ContentType, int]:
        """Make the record in *room* its fragment.

        Returns: content type and length of the fragment.

        Raises:
            TlsAlertError: anything is wrong with it; what would have been the fragment is overwritten.
        """

    def check_fragment(self, length: int, kind: int) -> None:
        """Refuse a fragment that no record can hold."""
        if not 0 <= length <= MAX_PLAINTEXT:
            raise BadLengthError(
                f"a fragment of {length} bytes does not fit a record", hint=f"send {MAX_PLAINTEXT} bytes at most"
            )
        if kind not in _TYPES or (kind == ContentType.CHANGE_CIPHER_SPEC and self._is_13):
            raise CspError(f"{kind} is no type of a record", nte=NTE.BAD_TYPE, hint="use one of ContentType")
        if not length and kind != ContentType.APPLICATION_DATA:
            raise BadLengthError("only application data may be empty", hint="send no record instead")

    def read_header(self, room: Room, size: int) -> tuple[int, bytes]:
        """Read a record's header.

        Args:
            room: where the record stands.
            size: of the record.

        Returns: the content type, and the header as it stands.

        Raises:
            TlsAlertError: not a record that may come now.
        """
        header = bytes(room[:HEADER_SIZE])
        if len(header) != HEADER_SIZE:
            raise TlsAlertError(AlertDescription.DECODE_ERROR, "the record has no whole header")
        kind: int
        kind, version, length = HEADER.unpack(header)
        if kind not in _TYPES or (self._is_13 and kind != ContentType.APPLICATION_DATA):
            raise TlsAlertError(AlertDescription.UNEXPECTED_MESSAGE, f"a record of type {kind} cannot come here")
        if version != WIRE_VERSION and not self._is_13:  # RFC 8446 5.1: in TLS 1.3 it says nothing
            raise TlsAlertError(AlertDescription.PROTOCOL_VERSION, f"the record is of version 0x{version:04x}")
        if length > self._form.max_ciphertext:
            raise TlsAlertError(AlertDescription.RECORD_OVERFLOW, f"a record of {length} bytes is too long")
        if length != size - HEADER_SIZE or size > len(room):
            raise TlsAlertError(AlertDescription.DECODE_ERROR, "the record is not as long as its header says")
        return kind, header

    def taken(self, kind: int, length: int) -> tuple[ContentType, int]:
        """Look at what was in an authentic record.

        Returns: content type and length of the fragment.

        Raises:
            TlsAlertError: it may not come.
        """
        known = _TYPES.get(kind)
        if known is None or (known is ContentType.CHANGE_CIPHER_SPEC and self._is_13):
            raise TlsAlertError(AlertDescription.UNEXPECTED_MESSAGE, f"the record holds content of type {kind}")
        if length > MAX_PLAINTEXT:
            raise TlsAlertError(AlertDescription.RECORD_OVERFLOW, f"a fragment of {length} bytes is too long")
        if not length and known is not ContentType.APPLICATION_DATA:
            raise TlsAlertError(AlertDescription.UNEXPECTED_MESSAGE, f"an empty {known.name.lower()} record")
        return known, length

    def reject(self, room: Room, start: int, end: int) -> NoReturn:
        """Overwrite what did not open, and say the one thing that is ever said of it."""
        room[start:end] = bytes(max(0, min(end, len(room)) - start))
        raise TlsAlertError(AlertDescription.BAD_RECORD_MAC, "the record does not open: changed, or out of sequence")

    def refuse_room(self, room: Room, length: int) -> NoReturn:
        """Say that a record does not fit where it shall be sealed."""
        raise BadLengthError(
            f"the record of {length} bytes does not fit into a buffer of {len(room)}",
            hint=f"offer {self.record_size(length)} bytes, with the fragment at offset {self.prefix}",
        )

    @property
    def _is_13(self) -> bool:
        return self._form.version is TlsVersion.TLS13
