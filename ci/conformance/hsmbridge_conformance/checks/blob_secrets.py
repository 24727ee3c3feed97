"""Blob, continued: what must not be found in one, nor beside it."""

from __future__ import annotations

import base64
import logging
import traceback
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from hsmbridge_csp.blob import Blob
from hsmbridge_csp.cipher_key import CipherKey
from hsmbridge_csp.modes import Cipher
from hsmbridge_csp.provider import Provider

from hsmbridge.codes import CKA, CKK
from hsmbridge.errors import HsmbridgeError
from hsmbridge_conformance.catalogue import check
from hsmbridge_conformance.handing import must_refuse, must_work, provider, recipient
from hsmbridge_conformance.keymaking import usage
from hsmbridge_conformance.uses import SECRETS
from hsmbridge_conformance.verdict import Failed, Level, Subject, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsmbridge_csp.keys import Key

    from hsmbridge_conformance.handing import Recipient
    from hsmbridge_conformance.rig import Rig

__all__: list[str] = []

_WINDOW = 8
"""Bytes in a row that nobody finds by chance."""


class _Listener(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        self.lines.append(self.format(record))


@check("HSB-BLOB-004", subject=Subject.TOOLKIT, level=Level.MUST, clauses="HSB")
def no_secret_outside(rig: Rig, case: None) -> None:
    """Neither a key nor the PIN is to be found in a blob, a log line, an error or a representation.

    Keys of known bytes, one in this process and one in the token where it takes any, are exported; imports fail in
    many ways. Everything that came out, tracebacks and log lines of all levels included, is searched for every eight
    bytes of the keys, raw, as hexadecimal digits and as base64, and for the PIN.
    """
    del case
    to, sender = recipient(rig), provider(rig)
    listener, root = _Listener(), logging.getLogger()
    level = root.level
    root.addHandler(listener)
    root.setLevel(logging.NOTSET)
    try:
        secrets, texts = _provoke(rig, to, sender)
    finally:
        root.removeHandler(listener)
        root.setLevel(level)
    haystack = b"\n".join([*texts, *(line.encode() for line in listener.lines)])
    for secret in secrets:
        if any(form in haystack for form in _forms(secret)):
            raise Failed("bytes of a key are to be read in a blob, a log line or an error")
    pin = (rig.target.pin or "").encode()
    if pin and pin in haystack:
        raise Failed("the PIN is to be read in a blob, a log line or an error")


def _forms(secret: bytes) -> Iterator[bytes]:
    """Yield every form in which a piece of a secret could be read."""
    for start in range(len(secret) - _WINDOW + 1):
        piece = secret[start : start + _WINDOW]
        yield piece
        yield piece.hex().encode()
        yield piece.hex().upper().encode()
        yield repr(piece)[2:-1].encode()
    for shift in range(3):  # base64 looks different at each of three offsets
        whole = secret[shift : len(secret) - (len(secret) - shift) % 3]
        yield base64.b64encode(whole)
        yield base64.urlsafe_b64encode(whole)


def _keys(rig: Rig, sender: Provider) -> Iterator[tuple[bytes, Key]]:
    """Make keys of known bytes: in this process, and in the token."""
    kind = SECRETS["aes:256"]
    value = kind.random()
    yield value, CipherKey(Cipher.AES, bytearray(value))
    value = kind.random()
    with suppress(Unsupported):
        yield value, sender.adopt(rig.enter(CKK.AES, value, usage(CKA.ENCRYPT, CKA.DECRYPT)))


def _provoke(rig: Rig, to: Recipient, sender: Provider) -> tuple[list[bytes], list[bytes]]:
    """Export keys and fail to import them.

    Returns: the keys' bytes, and everything that came out.
    """
    values: list[bytes] = []
    texts = [repr(one).encode() for one in (rig.target, sender, to.sealer, to.opener)]
    for value, key in _keys(rig, sender):
        values.append(value)
        with must_work("the export failed"):
            blob = sender.export_key(key, to.sealer)
        unsigned = Provider(rig.token).export_key(key, to.sealer)
        texts += [blob, unsigned, repr(key).encode(), repr(Blob.parse(blob)).encode()]
        middle = len(unsigned) // 2
        for receiver, data, allowed in (
            (sender, blob[:-1], False),
            (sender, blob[:-1] + bytes([blob[-1] ^ 1]), False),
            (sender, unsigned, False),
            (sender, unsigned[:middle] + bytes([unsigned[middle] ^ 1]) + unsigned[middle + 1 :], True),
            (sender, unsigned[:-1] + bytes([unsigned[-1] ^ 1]), True),
            (Provider(rig.token), blob, False),
            (Provider(), blob, False),
        ):
            attempt = partial(receiver.import_key, data, to.opener, allow_unsigned=allowed)
            texts.append(_all_of(must_refuse("a blob was imported that must be refused", HsmbridgeError, attempt)))
        sender.destroy_key(key)
        texts.append(repr(key).encode())
    return values, texts


def _all_of(error: HsmbridgeError) -> bytes:
    return "".join([*traceback.format_exception(error), error.hint or "", repr(error)]).encode()
