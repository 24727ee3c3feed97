"""What the two processes are told when they start, on standard input: it holds the token's PIN."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hsmbridge_csp.channel import Side, Terms
from hsmbridge_csp.handoff.parties import Party
from hsmbridge_csp.identity import FileIdentity
from hsmbridge_csp.journal import Journal
from hsmbridge_csp.trust import Role, TrustStore, load_public_key, make_pin

if TYPE_CHECKING:
    from hsmbridge.token import Token

__all__ = ["SOCKET", "TlsConfig"]

SOCKET = Path("channel", "socket")


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """How to reach the token and each other.

    Attributes:
        directory: private; socket and journals are made there.
        identity: the process's own, PKCS#8 PEM; peer: the other's public key, PEM.
        module, module_args, token_label, pin: the token; empty for the application process, which needs none.
        key_label: CKA_LABEL of the certificate's key; certificate: PEM.
        requests_before: requests that the secure process answers itself before it hands a connection over.
        timeout: seconds that a client may say nothing.
    """

    directory: str
    identity: str = field(repr=False)
    peer: str
    module: str = ""
    module_args: str | None = None
    token_label: str = ""
    pin: str = field(repr=False, default="")
    key_label: str = ""
    certificate: str = ""
    requests_before: int = 0
    timeout: float = 30.0

    @classmethod
    def from_stdin(cls) -> TlsConfig:
        """Read the configuration that the parent wrote, and go to its directory: a socket's path must be short."""
        config = cls(**json.loads(sys.stdin.readline()))
        os.chdir(config.directory)
        return config

    def to_json(self) -> str:
        """Return what :meth:`from_stdin` reads."""
        return json.dumps(asdict(self))

    def party(self, side: Side) -> tuple[Party, Terms]:
        """Return who this process is in handoffs, and its terms for the channel."""
        me = FileIdentity.from_pem(self.identity.encode(), name="the identity of this process")
        pin = make_pin(Role.SENDER, "peer", load_public_key(self.peer.encode(), name="the peer's identity"))
        trust = TrustStore.parse(pin.line.encode(), name="the trust of this process")
        party = Party(identity=me, journal=Journal(Path(str(side), "journal.sqlite")), trust=trust)
        return party, Terms(side=side, identity=me, believed=frozenset({pin.fingerprint}), timeout=None)

    def open_token(self) -> Token:
        """Open and log in to the token."""
        from hsmbridge.module import Module

        token = Module.open(self.module, init_args=self.module_args).token(label=self.token_label)
        token.login(self.pin)
        return token
