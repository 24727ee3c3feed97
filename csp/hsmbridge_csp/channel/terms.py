"""On what terms an end opens a channel: which part it plays, who it is, whom it believes, how long it waits.

Source: docs/channel.md, "Who may be at the other end"; unix(7), SO_PEERCRED.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from hsmbridge_csp.channel.errors import WrongUserError

if TYPE_CHECKING:
    from hsmbridge_csp.identity import Identity
    from hsmbridge_csp.trust import Role, TrustStore

__all__ = ["HANDSHAKE_TIMEOUT", "TIMEOUT", "Credentials", "Peer", "Side", "Terms", "peer_credentials", "pinned"]

TIMEOUT = 30.0
"""Seconds that one operation may wait."""

HANDSHAKE_TIMEOUT = 30.0
"""Seconds for the whole handshake; a token may have to sign in it."""

_UCRED = struct.Struct("3i")


class Side(StrEnum):
    """Which part an end plays: of the keys, not of the connection. Either may be the one that listens."""

    SENDER = "sender"
    RECEIVER = "receiver"

    @property
    def other(self) -> Side:
        """The peer's part."""
        return Side.RECEIVER if self is Side.SENDER else Side.SENDER


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What the kernel says of the process at the other end, as it was when it connected or began to listen.

    Attributes:
        pid: process id, 0 where that process is in another namespace.
        uid: effective user id.
    """

    pid: int
    uid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Who is at the other end.

    Attributes:
        fingerprint: of its identity, proven.
        uid: effective user id, by the kernel.
        pid: process id, by the kernel; to be shown, never to be decided by: numbers are used again.
    """

    fingerprint: bytes
    uid: int
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The terms of one end.

    Attributes:
        side: the part that this end plays.
        identity: who this end is.
        believed: fingerprints of identities, one of which the peer must prove to be.
        uids: users as which the peer may run; our own, unless others are given.
        timeout: seconds that one operation may wait, None for ever.
        handshake_timeout: seconds for the whole handshake.
    """

    side: Side
    identity: Identity
    believed: frozenset[bytes]
    uids: frozenset[int] = field(default_factory=lambda: frozenset({os.geteuid()}))
    timeout: float | None = TIMEOUT
    handshake_timeout: float = HANDSHAKE_TIMEOUT


def pinned(store: TrustStore, *roles: Role) -> frozenset[bytes]:
    """Return the fingerprints of pinned keys that can be an identity: those that sign, Ed25519 and EC.

    Args:
        store: the pins.
        roles: in which roles they are pinned; all where none is given.
    """
    return frozenset(
        pin.fingerprint
        for pin in store.pins
        if (not roles or pin.role in roles)
        and isinstance(pin.key, (ed25519.Ed25519PublicKey, ec.EllipticCurvePublicKey))
    )


def peer_credentials(connection: socket.socket, uids: frozenset[int]) -> Credentials:
    """Ask the kernel who is at the other end, and check it.

    Raises:
        WrongUserError: another user than one of *uids*.
    """
    pid, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if uid not in uids:
        expected = ", ".join(str(each) for each in sorted(uids))
        raise WrongUserError(
            f"the peer, process {pid}, runs as user {uid}, expected was {expected}",
            hint="both ends must run as the same user, or each must be told the other's",
        )
    return Credentials(pid=pid, uid=uid)
