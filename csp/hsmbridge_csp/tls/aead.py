"""Records under an AEAD: TLS 1.3, and AES-GCM and ChaCha20-Poly1305 in TLS 1.2.

A full record costs 2 or 3 µs to encrypt, so the record that comes again and again has a straight way: as long as the
last, in the same memoryview, it finds its views made. They are kept for a memoryview only, which holds its memory in
any case; a bytearray is let go after each record and may be resized.

Source: RFC 8446 sections 5.2 to 5.4; RFC 5288 section 3; RFC 7905 section 2; RFC 5246 section 6.2.3.3.
"""

from __future__ import annotations

import struct
import sys
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from hsmbridge_csp.tls.alerts import AlertDescription, ContentType, TlsAlertError
from hsmbridge_csp.tls.protection import HEADER, HEADER_SIZE, WIRE_VERSION, Protection, Room
from hsmbridge_csp.tls.suites import MAX_PLAINTEXT, Bulk, TlsVersion

if TYPE_CHECKING:
    from hsmbridge_csp.tls.suites import RecordForm

__all__ = ["aead_protection"]

_TAG = 16
_EXPLICIT = 8
_APPLICATION = ContentType.APPLICATION_DATA
_APPLICATION_DATA = int(_APPLICATION)  # an int is compared faster
_NO_VIEW = memoryview(b"")
_NO_TAG = (InvalidTag, ValueError, struct.error)
"""How a record that does not open says so: the last two where it is shorter than nonce and tag."""

_BEHIND_13 = 1 + _TAG
_AROUND_13 = HEADER_SIZE + _BEHIND_13
_MAX_13 = _AROUND_13 + MAX_PLAINTEXT

_AAD = struct.Struct(">QBHH")
"""seq_num, type, version, length: what TLS 1.2 authenticates beside the fragment (RFC 5246 section 6.2.3.3)."""

_EXPLICIT_NONCE = struct.Struct(">Q")
_SALTED = struct.Struct(">IQ")
"""Nonce: salt and explicit nonce (RFC 5288 section 3)."""

_LONG_HEADER = struct.Struct(">BHHQ")
"""A header with the explicit nonce behind it."""


def aead_protection(form: RecordForm, key: memoryview, iv: bytes) -> Protection:
    """Return what seals and opens records of an AEAD suite.

    Args:
        form: of the suite.
        key: the bulk key.
        iv: the fixed IV.
    """
    aead: AESGCM | ChaCha20Poly1305 = AESGCM(key) if form.bulk is Bulk.AES_GCM else ChaCha20Poly1305(key)
    if form.version is TlsVersion.TLS13:
        return _Tls13(form, aead, iv)
    return _Aead12(form, aead, iv)


class _Aead(Protection):
    """The views of a record: its body, with the tag at its end, and its text, which lies where the body begins."""

    behind = _TAG

    def __init__(self, form: RecordForm, aead: AESGCM | ChaCha20Poly1305, iv: bytes) -> None:
        super().__init__(form)
        self._encrypt_into, self._decrypt_into = aead.encrypt_into, aead.decrypt_into
        self._fixed = int.from_bytes(iv, "big")
        self._size = self._length = sys.maxsize  # none that there can be
        self._kind, self._header = 0, b""
        self._room: memoryview | None = None
        self._let_go()

    def record_size(self, length: int) -> int:
        return self.prefix + length + self.behind

    def _aim_to_seal(self, room: Room, length: int, kind: int) -> tuple[memoryview, memoryview]:
        size = self._size
        if length != self._length or kind != _APPLICATION_DATA:
            self.check_fragment(length, kind)
            size = self.record_size(length)
            self._header = HEADER.pack(_APPLICATION_DATA, WIRE_VERSION, size - HEADER_SIZE)
        if len(room) < size:
            self.refuse_room(room, length)
        return self._aim(room, size)

    def _aim_to_open(self, room: Room, size: int) -> tuple[memoryview, memoryview]:
        if size != self._size or len(room) < size or bytes(room[:HEADER_SIZE]) != self._header:
            self._kind, self._header = self.read_header(room, size)
        return self._aim(room, size)

    def _aim(self, room: Room, size: int) -> tuple[memoryview, memoryview]:
        prefix = self.prefix
        self._size, self._length = size, size - prefix - self.behind
        view = memoryview(room)
        text, body = view[prefix : size - _TAG], view[prefix:size]
        if isinstance(room, memoryview):
            self._room, self._head, self._text, self._body = room, view[:HEADER_SIZE], text, body
        elif self._room is not None:
            self._let_go()
        return text, body

    def _let_go(self) -> None:
        self._room = None
        self._head = self._text = self._body = _NO_VIEW


class _Tls13(_Aead):
    """RFC 8446 section 5.2: the type is encrypted behind the fragment, the header is authenticated."""

    behind = _BEHIND_13

    def seal(self, room: Room, length: int, kind: int, sequence: int) -> int:
        if room is self._room and length == self._length and kind == _APPLICATION_DATA:
            text, body = self._text, self._body
        else:
            text, body = self._aim_to_seal(room, length, kind)
        header = self._header
        room[:HEADER_SIZE] = header
        room[HEADER_SIZE + length] = kind
        self._encrypt_into((self._fixed ^ sequence).to_bytes(12, "big"), text, header, body)
        return self._size

    def open(self, room: Room, size: int, sequence: int) -> tuple[ContentType, int]:
        if room is self._room and size == self._size and self._head == self._header:
            text, body = self._text, self._body
        else:
            text, body = self._aim_to_open(room, size)
        try:
            self._decrypt_into((self._fixed ^ sequence).to_bytes(12, "big"), body, self._header, text)
        except _NO_TAG:
            del text, body  # the error must not hold the caller's buffer
            self.reject(room, HEADER_SIZE, size)
        if room[size - _BEHIND_13] == _APPLICATION_DATA and size <= _MAX_13:
            return _APPLICATION, size - _AROUND_13
        del text, body
        return self._inner(bytes(room[HEADER_SIZE : size - _TAG]))

    def _inner(self, inner: bytes) -> tuple[ContentType, int]:
        if len(inner) > MAX_PLAINTEXT + 1:  # RFC 8446 section 5.4: padding does not make a record any longer
            raise TlsAlertError(AlertDescription.RECORD_OVERFLOW, "what is in the record is too long")
        content = inner.rstrip(b"\0")
        if not content:  # RFC 8446 section 5.4
            raise TlsAlertError(AlertDescription.UNEXPECTED_MESSAGE, "the record holds nothing but padding")
        return self.taken(content[-1], len(content) - 1)


class _Aead12(_Aead):
    """TLS 1.2: sequence, type, version and length are authenticated beside the fragment.

    The nonce is, with AES-GCM, a salt and eight bytes in front of the body, which are the sequence number when we seal
    (RFC 5288 section 3); with ChaCha20-Poly1305 it is that of TLS 1.3 (RFC 7905 section 2).
    """

    def __init__(self, form: RecordForm, aead: AESGCM | ChaCha20Poly1305, iv: bytes) -> None:
        self._explicit = form.bulk is Bulk.AES_GCM
        self.prefix = HEADER_SIZE + (_EXPLICIT if self._explicit else 0)
        super().__init__(form, aead, iv)

    def seal(self, room: Room, length: int, kind: int, sequence: int) -> int:
        if room is self._room and length == self._length and kind == _APPLICATION_DATA:
            text, body = self._text, self._body
        else:
            text, body = self._aim_to_seal(room, length, kind)
        size = self._size
        if self._explicit:
            _LONG_HEADER.pack_into(room, 0, kind, WIRE_VERSION, size - HEADER_SIZE, sequence)
            nonce = _SALTED.pack(self._fixed, sequence)
        else:
            HEADER.pack_into(room, 0, kind, WIRE_VERSION, size - HEADER_SIZE)
            nonce = (self._fixed ^ sequence).to_bytes(12, "big")
        self._encrypt_into(nonce, text, _AAD.pack(sequence, kind, WIRE_VERSION, length), body)
        return size

    def open(self, room: Room, size: int, sequence: int) -> tuple[ContentType, int]:
        if room is self._room and size == self._size and self._head == self._header:
            text, body = self._text, self._body
        else:
            text, body = self._aim_to_open(room, size)
        kind, length = self._kind, self._length
        try:
            if self._explicit:
                nonce = _SALTED.pack(self._fixed, *_EXPLICIT_NONCE.unpack_from(room, HEADER_SIZE))
            else:
                nonce = (self._fixed ^ sequence).to_bytes(12, "big")
            self._decrypt_into(nonce, body, _AAD.pack(sequence, kind, WIRE_VERSION, length), text)
        except _NO_TAG:
            del text, body  # the error must not hold the caller's buffer
            self.reject(room, self.prefix, size)
        if kind == _APPLICATION_DATA and length <= MAX_PLAINTEXT:
            return _APPLICATION, length
        del text, body
        return self.taken(kind, length)
