"""A live connection changes process: socket, both record keys and every unread byte, in one transaction.

The keys are a handoff's keys like any others: sealed, proven, destroyed at the source on a receipt. The socket's
descriptor travels with the offer, the unread bytes are under the running hash that the recipient signs.

Source: docs/tls.md, "A live connection changes process"; docs/handoff.md.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from hsmbridge_csp import cbor
from hsmbridge_csp.channel.passing import close_all
from hsmbridge_csp.errors import NTE, BlobError, CspError, KeyStateError
from hsmbridge_csp.handoff.destination import InProcess
from hsmbridge_csp.handoff.messages import MAX_ATTACHMENT
from hsmbridge_csp.handoff.source import LiveSource
from hsmbridge_csp.tls.connection import TlsConnection
from hsmbridge_csp.tls.record_key import TlsRecordKey

if TYPE_CHECKING:
    from hsmbridge_csp.channel import Channel
    from hsmbridge_csp.handoff.ends import Moved
    from hsmbridge_csp.handoff.receiver import Receiver
    from hsmbridge_csp.handoff.sender import Sender

__all__ = ["TIMEOUT", "hand_over", "take_over"]

TIMEOUT = 60.0
"""Seconds that a connection which arrived waits for its peer, unless set otherwise."""

_VERSION, _RECORDS, _PLAINTEXT, _ENDED = 1, 2, 3, 4
"""Labels of the attachment's map: its version, bytes not yet opened, bytes opened and not yet read, and
whether the peer has closed its side."""

_ROOM_FOR_CBOR = 64


def hand_over(sender: Sender, connection: TlsConnection, channel: Channel) -> Moved:
    """Hand a connection over to the process at the other end of a channel.

    Args:
        sender: who we are.
        connection: afterwards this process can neither read nor write it.
        channel: to the recipient.

    Returns: what became of the keys here.

    Raises:
        KeyStateError: NTE_BAD_KEY_STATE: a write, a handshake message or a read is pending; nothing has changed.
        TlsClosedError: this process does not have it any more.
        RefusedError: the recipient did not take it; the connection goes on here.
        InDoubtError: nobody knows; the keys stay frozen, so that nothing is read or written here.
        HsmbridgeError: the handoff could not begin; the connection goes on here.
    """
    with connection.at_rest():
        sources = [LiveSource(connection.sending), LiveSource(connection.receiving)]
        moved = sender.send(sources, channel, attachment=_packed(connection), fds=[connection.socket.fileno()])
        connection.abandon()
    return moved


def take_over(receiver: Receiver, channel: Channel, *, timeout: float | None = TIMEOUT) -> TlsConnection:
    """Take over the connection that the process at the other end of a channel hands over.

    Args:
        receiver: who we are.
        channel: from the sender.
        timeout: seconds that one operation of the connection may wait, None for ever.

    Raises:
        BlobError: what came is a handoff, but not of a connection; the keys were destroyed.
        CspError: the sender only asked about an earlier handoff, and was answered: serve the channel again.
        HsmbridgeError: nothing arrived; as :meth:`hsmbridge_csp.handoff.receiver.Receiver.serve`.
    """
    received = receiver.serve(channel, InProcess())
    if received is None:
        raise CspError("the sender asked what became of an earlier handoff", hint="it was answered; serve again")
    fds = list(received.fds)
    try:
        sending, receiving = _keys(received.keys)
        unread, plaintext, ended = _unpacked(received.attachment)
        sock = _socket(fds)
        fds.clear()
        sock.settimeout(timeout)
        return TlsConnection(sock, sending, receiving, unread, plaintext=plaintext, ended=ended)
    except BaseException:
        for key in received.keys:
            with contextlib.suppress(CspError):
                key.dispose()
        raise
    finally:
        close_all(fds)


def _packed(connection: TlsConnection) -> bytes:
    """Return the attachment of a connection that is at rest."""
    records, plaintext = connection.reader.unread, connection.plaintext
    if len(records) + len(plaintext) > MAX_ATTACHMENT - _ROOM_FOR_CBOR:
        raise KeyStateError(
            f"{len(records) + len(plaintext)} bytes that were not read are too many to go along",
            hint=f"read until there are fewer than {MAX_ATTACHMENT}",
        )
    return cbor.encode({_VERSION: 1, _RECORDS: records, _PLAINTEXT: plaintext, _ENDED: connection.ended})


def _unpacked(attachment: bytes) -> tuple[bytes, bytes, bool]:
    match cbor.decode(attachment):
        case {1: 1, 2: bytes() as records, 3: bytes() as plaintext, 4: bool() as ended, **rest} if not rest:
            return records, plaintext, ended
    raise _refusal("its unread bytes are not as they should be")


def _socket(fds: list[int]) -> socket.socket:
    if len(fds) != 1:
        raise _refusal(f"{len(fds)} file descriptors came")
    try:
        return socket.socket(fileno=fds[0])
    except OSError as error:
        raise _refusal(f"what came is no socket: {error}") from error


def _keys(keys: tuple[object, ...]) -> tuple[TlsRecordKey, TlsRecordKey]:
    match keys:
        case (TlsRecordKey() as sending, TlsRecordKey() as receiving):
            return sending, receiving
    raise _refusal("the keys are not those of a connection")


def _refusal(why: str) -> BlobError:
    return BlobError(
        f"the handoff is not of a TLS connection: {why}",
        nte=NTE.BAD_DATA,
        hint="both ends must run versions of hsmbridge that speak the same protocol",
    )
