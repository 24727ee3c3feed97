"""Linux's kTLS: a direction's keys in the structure that the kernel takes.

From then on the kernel protects the records of that direction, beginning with the one whose turn it was here. The key
in this process stops: it would use the kernel's nonces.

Source: linux/tls.h; the kernel's Documentation/networking/tls.rst.
"""

from __future__ import annotations

import errno
import socket
import sys
from typing import TYPE_CHECKING

from hsmbridge_csp.errors import KeyStateError
from hsmbridge_csp.modes import Direction
from hsmbridge_csp.tls.suites import Bulk, TlsVersion
from hsmbridge_csp.wipe import wipe

if TYPE_CHECKING:
    from hsmbridge_csp.tls.record_key import TlsRecordKey
    from hsmbridge_csp.tls.state import TlsRecordState

__all__ = ["SOL_TLS", "TCP_ULP", "TLS_RX", "TLS_TX", "crypto_info", "offload"]

SOL_TLS = 282
TCP_ULP = 31
TLS_TX = 1
TLS_RX = 2

_SALT = 4
_CIPHERS = {(Bulk.AES_GCM, 16): 51, (Bulk.AES_GCM, 32): 52, (Bulk.CHACHA20_POLY1305, 32): 54}
"""TLS_CIPHER_AES_GCM_128, TLS_CIPHER_AES_GCM_256, TLS_CIPHER_CHACHA20_POLY1305."""

_NOT_HERE = (errno.ENOENT, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EINVAL)
"""No module for the protocol, a kernel without it, or one without the version or cipher."""


def crypto_info(state: TlsRecordState, value: bytearray) -> bytes:
    """Return ``struct tls12_crypto_info_…``: version, cipher, iv, key, salt, rec_seq. It holds the key: overwrite it.

    Args:
        state: of the key.
        value: its bytes, the bulk key first.

    Raises:
        KeyStateError: the kernel has no such cipher.
    """
    form = state.form
    cipher = _CIPHERS.get((form.bulk, form.key_size))
    if cipher is None:
        raise KeyStateError(f"the kernel does not do {state.suite.name}", hint="use a suite with an AEAD")
    sequence = state.sequence.to_bytes(8, "big")
    if form.bulk is Bulk.CHACHA20_POLY1305:
        iv, salt = state.iv, b""
    elif form.version is TlsVersion.TLS13:
        iv, salt = state.iv[_SALT:], state.iv[:_SALT]
    else:  # the kernel counts this one up with the sequence, and writes it in front of the record
        iv, salt = sequence, state.iv
    head = int(form.version).to_bytes(2, sys.byteorder) + cipher.to_bytes(2, sys.byteorder)
    return b"".join((head, iv, memoryview(value)[: form.key_size], salt, sequence))


def offload(sock: socket.socket, key: TlsRecordKey) -> bool:
    """Let the kernel go on with a key on its connection; the key is frozen here.

    Args:
        sock: the connected TCP socket; nothing that the kernel shall open may have been read from it.
        key: one direction's.

    Returns: whether the kernel took it. False where it has no kTLS, or not this cipher: the key goes on here.

    Raises:
        KeyStateError: the kernel knows no such suite, or the key is not usable.
        OSError: the socket is not a connected TCP socket.
    """
    info = key.ktls_info()
    try:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
        except OSError as error:
            if error.errno != errno.EEXIST:  # the other direction was first
                raise
        sock.setsockopt(SOL_TLS, TLS_TX if key.direction is Direction.ENCRYPT else TLS_RX, info)
    except OSError as error:
        key.thaw()
        if error.errno in _NOT_HERE:
            return False
        raise
    finally:
        wipe(info)
    return True
