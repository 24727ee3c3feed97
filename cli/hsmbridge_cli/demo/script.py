"""What the demo's processes tell each other: the configuration they start with, and the frames on their socket.

The configuration comes on standard input, never in argv or the environment: it holds the PIN of the token.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from hsmbridge.errors import InputError

if TYPE_CHECKING:
    from hsmbridge.token import Token

__all__ = ["SOCKET", "Config", "Frames", "open_token", "tell_parent"]

SOCKET = "handoff.sock"

_LENGTH = struct.Struct(">I")
_MAX_FRAME = 1 << 20
_TIMEOUT = 60.0
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How to reach the token, where the streams lie, and the names under which keys are found in the token.

    Attributes:
        module: PKCS#11 module; module_args: its init arguments; token_label and pin: the token and its user PIN.
        directory: private directory with the socket and the streams.
        run: random hex that all labels of this run carry.
        secrets_fd: descriptor from which the secure process reads the software keys' bytes.
        identity: the secure process's identity, PKCS#8 PEM; empty for the application process.
        sender: the secure process's public key as a line of a trust file.
        keep: leave the demo's keys in the token, so that a person can repeat the judgments.
    """

    module: str
    module_args: str | None
    token_label: str
    pin: str = field(repr=False)
    directory: str
    run: str
    secrets_fd: int = -1
    identity: str = field(repr=False, default="")
    sender: str = ""
    keep: bool = False

    @classmethod
    def from_stdin(cls) -> Config:
        """Read the configuration that the parent wrote."""
        return cls(**json.loads(sys.stdin.readline()))

    def to_json(self) -> str:
        """Return what :meth:`from_stdin` reads."""
        return json.dumps(asdict(self))

    def enter(self) -> None:
        """Go to the private directory: a Unix socket's path has 107 bytes at most, and a relative one always fits."""
        os.chdir(self.directory)

    def label(self, name: str) -> str:
        """Return the CKA_LABEL of one of the demo's keys."""
        return f"hsmbridge-demo-{self.run}-{name}"


def open_token(config: Config) -> Token:
    """Open and log in to the demo's token."""
    from hsmbridge.module import Module

    token = Module.open(config.module, init_args=config.module_args).token(label=config.token_label)
    token.login(config.pin)
    return token


class Frames:
    """Length-prefixed frames on a Unix socket between two processes of one user.

    Args:
        connection: a connected socket.

    Raises:
        InputError: the peer runs under another user.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.settimeout(_TIMEOUT)
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, _ = _CREDENTIALS.unpack(raw)
        if uid != os.geteuid():
            raise InputError("the peer runs under another user", hint="both processes must be started by the same user")

    def send(self, payload: bytes) -> None:
        """Send one frame."""
        self._connection.sendall(_LENGTH.pack(len(payload)) + payload)

    def receive(self) -> bytes:
        """Receive one frame.

        Raises:
            InputError: the peer is gone, or announces more than a blob can have.
        """
        (size,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        if size > _MAX_FRAME:
            raise InputError(f"a frame of {size} bytes is too long", hint="the peer is not hsmbridge")
        return self._exactly(size)

    def send_json(self, value: dict[str, Any]) -> None:
        """Send one frame that holds JSON."""
        self.send(json.dumps(value).encode())

    def receive_json(self) -> dict[str, Any]:
        """Receive one frame that holds JSON."""
        value: dict[str, Any] = json.loads(self.receive())
        return value

    def _exactly(self, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            part = self._connection.recv(size - len(received))
            if not part:
                raise InputError("the peer closed the connection", hint="its own error message says why")
            received += part
        return bytes(received)


def tell_parent(value: dict[str, Any]) -> None:
    """Write one line of JSON to standard output, where the parent reads."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
