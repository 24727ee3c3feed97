"""Records under AES-CBC and HMAC with encrypt-then-MAC, in TLS 1.2.

The MAC is checked first, over what came from the wire: nothing is decrypted, and no padding looked at, that the peer
did not make. MAC-then-encrypt has it the other way round, and is refused (see :mod:`hsmbridge_csp.tls.state`).

Source: RFC 7366 section 3; RFC 5246 section 6.2.3.2.
"""

from __future__ import annotations

import hmac
import os
import struct
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hmac import HMAC

from hsmbridge_csp.tls.protection import HEADER, HEADER_SIZE, WIRE_VERSION, Protection, Room

if TYPE_CHECKING:
    from hsmbridge_csp.tls.alerts import ContentType
    from hsmbridge_csp.tls.suites import RecordForm

__all__ = ["EncryptThenMac"]

_BLOCK = 16
_SLACK = _BLOCK - 1
"""Bytes that ``update_into`` wants behind what it writes; every MAC is longer, and not written yet."""

_SEQUENCE = struct.Struct(">Q")
_HASHES = {"SHA1": hashes.SHA1, "SHA256": hashes.SHA256}


class EncryptThenMac(Protection):
    """IV, ciphertext, MAC over both.

    Args:
        form: of a CBC suite.
        key: the bulk key.
        mac_key: the MAC key.
    """

    prefix = HEADER_SIZE + _BLOCK

    def __init__(self, form: RecordForm, key: memoryview, mac_key: memoryview) -> None:
        super().__init__(form)
        self._aes = AES(key)
        self._mac = HMAC(mac_key, _HASHES[form.mac]())

    def record_size(self, length: int) -> int:
        """Return the size of the record: at least one byte of padding, up to a whole block."""
        return self.prefix + (length // _BLOCK + 1) * _BLOCK + self._form.mac_size

    def seal(self, room: Room, length: int, kind: int, sequence: int) -> int:
        """Pad, encrypt under a random IV, then MAC."""
        self.check_fragment(length, kind)
        size = self.record_size(length)
        if len(room) < size:
            self.refuse_room(room, length)
        start, mac_at = self.prefix, size - self._form.mac_size
        view = memoryview(room)
        padding = mac_at - start - length
        view[start + length : mac_at] = bytes((padding - 1,)) * padding
        iv = os.urandom(_BLOCK)
        view[HEADER_SIZE:start] = iv
        encryptor = Cipher(self._aes, CBC(iv)).encryptor()
        encryptor.update_into(view[start:mac_at], view[start : mac_at + _SLACK])
        view[mac_at:size] = self._mac_of(sequence, kind, view[HEADER_SIZE:mac_at])
        HEADER.pack_into(view, 0, kind, WIRE_VERSION, size - HEADER_SIZE)
        return size

    def open(self, room: Room, size: int, sequence: int) -> tuple[ContentType, int]:
        """Check the MAC, decrypt, take the padding off."""
        kind, _ = self.read_header(room, size)
        start, mac_at = self.prefix, size - self._form.mac_size
        length = self._decrypt(memoryview(room), kind, (start, mac_at, size), sequence)
        if length < 0:
            self.reject(room, start, size)
        return self.taken(kind, length)

    def _decrypt(self, view: memoryview, kind: int, marks: tuple[int, int, int], sequence: int) -> int:
        start, mac_at, size = marks
        if mac_at - start < _BLOCK or (mac_at - start) % _BLOCK:
            return -1
        if not hmac.compare_digest(self._mac_of(sequence, kind, view[HEADER_SIZE:mac_at]), view[mac_at:size]):
            return -1
        decryptor = Cipher(self._aes, CBC(bytes(view[HEADER_SIZE:start]))).decryptor()
        decryptor.update_into(view[start:mac_at], view[start : mac_at + _SLACK])
        padding = view[mac_at - 1] + 1
        end = mac_at - padding
        if end < start or bytes(view[end:mac_at]) != bytes((padding - 1,)) * padding:
            return -1
        return end - start

    def _mac_of(self, sequence: int, kind: int, body: memoryview) -> bytes:
        mac = self._mac.copy()
        mac.update(_SEQUENCE.pack(sequence) + HEADER.pack(kind, WIRE_VERSION, len(body)))
        mac.update(body)
        return mac.finalize()
