"""The two processes of `hsmbridge demo --tls` on a token, for tests with clients of their own."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cryptography.hazmat.primitives.serialization import load_der_public_key
from hsmbridge_cli.demo.tls.scene import Scene, play
from hsmbridge_cli.demo.tls.script import TlsConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptography.hazmat.primitives.asymmetric import ec

    from tests.cli.conftest import Cli

__all__ = ["Stage", "open_stage"]


@dataclass(kw_only=True)
class Stage:
    """Both processes, waiting for clients.

    Attributes:
        scene: the processes.
        directory: for what clients write.
    """

    scene: Scene
    directory: Path
    _seen: dict[str, int] = field(default_factory=lambda: {"secure": 0, "application": 0})

    @property
    def port(self) -> int:
        """Where clients connect."""
        return self.scene.port

    @property
    def authority(self) -> Path:
        """What clients trust."""
        return self.scene.authority

    @property
    def secure_answer(self) -> bytes:
        """What GET / gives while the secure process has the connection."""
        return f"process {self.scene.secure.pid}\n".encode()

    @property
    def answer(self) -> bytes:
        """What GET / gives after the handoff."""
        return f"process {self.scene.application.pid}\n".encode()

    def file(self, name: str) -> Path:
        """Return a path that nothing has yet."""
        return self.directory / f"{name}-{secrets.token_hex(4)}"

    def secure_report(self) -> list[dict[str, Any]]:
        """Return what the secure process says of the connections since the last time; it waits for their handoffs."""
        return self._new("secure", self.scene.report(self.scene.secure))

    def application_report(self) -> list[dict[str, Any]]:
        """Return what the application process says of those since the last time; it waits for their ends."""
        return self._new("application", self.scene.report(self.scene.application))

    def _new(self, who: str, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        seen, self._seen[who] = self._seen[who], len(entries)
        return entries[seen:]


@contextmanager
def open_stage(cli: Cli, kind: str, requests_before: int) -> Iterator[Stage]:
    """Make a certificate key and start both processes; at the end the secure one must have kept the key.

    Args:
        cli: whose token it is.
        kind: ``ec:p-256`` or ``rsa:2048``.
        requests_before: that the secure process answers before it hands a connection over.
    """
    label = f"tls-{secrets.token_hex(6)}"
    cli("key", "generate", "--type", kind, "--label", label)
    directory = Path(tempfile.mkdtemp(prefix="ht."))
    try:
        der = directory / "public.der"
        cli.tool("--read-object", "--type", "pubkey", "--label", label, "-o", der)
        public = cast("ec.EllipticCurvePublicKey", load_der_public_key(der.read_bytes()))
        config = TlsConfig(
            directory=str(directory),
            identity="",
            peer="",
            module=cli.variables["PKCS11_MODULE"],
            module_args=cli.variables.get("PKCS11_MODULE_ARGS"),
            token_label=cli.variables["PKCS11_TOKEN_LABEL"],
            pin=cli.variables["PKCS11_PIN"],
            key_label=label,
            requests_before=requests_before,
        )
        with play(config, public, cli.variables) as scene:
            yield Stage(scene=scene, directory=directory)
            ended = scene.finish()
        assert ended["token_key"] == "retained"
        assert sum(label in line for line in cli.inventory()) == 2
    finally:
        shutil.rmtree(directory)
