"""The secure process: it has the keys, uses them, hands them over, and destroys what lives in software."""

from __future__ import annotations

import io
import os
import socket
import sys
from typing import TYPE_CHECKING, Any

from hsmbridge_csp.clearpart import Purpose
from hsmbridge_csp.hardening import allow_inspection, disable_core_dumps
from hsmbridge_csp.identity import FileIdentity
from hsmbridge_csp.provider import Provider

from hsmbridge.codes import CKO
from hsmbridge.objects import find_key
from hsmbridge_cli.demo.parts import PARTS, Scene
from hsmbridge_cli.demo.script import SOCKET, Config, Frames, open_token, tell_parent

if TYPE_CHECKING:
    from hsmbridge_csp.keys import Key

__all__ = ["main"]


def main() -> None:
    """Run the secure process; the report goes to standard output as JSON."""
    disable_core_dumps()
    config = Config.from_stdin()
    config.enter()
    identity = FileIdentity.from_pem(config.identity.encode(), name="the identity of the demo")
    token = open_token(config)
    provider = Provider(token, identity=identity)
    secrets = _read_secrets(config)
    scene = Scene(token=token, config=config)
    keys = {part.name: part.key(scene, secrets[part.name]) for part in PARTS}
    kek = provider.kek(find_key(token, label=config.label("kek"), classes=(CKO.SECRET_KEY,)))
    report: list[dict[str, Any]] = []
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(SOCKET)
        frames = Frames(connection)
        for part in PARTS:
            key = keys[part.name]
            part.begin(key, config)
            found = key.classify()
            blob = provider.export_key(key, kek, purpose=Purpose.MOVE)
            frames.send_json({"name": part.name})
            frames.send(blob)
            report.append(
                {
                    "name": part.name,
                    "algorithm": part.algorithm,
                    "residency": found.residency.value,
                    "why": found.reason,
                    "evidence": list(found.evidence),
                    "transfer": "value" if found.is_software else "reference",
                }
            )
        frames.send_json({"name": None})
        _destroy(provider, keys, report, frames.receive_json()["imported"])
        frames.send_json({"destroyed": True})
    allow_inspection()  # nothing is left here that the parent, who looks at this memory now, might not see
    tell_parent({"pid": os.getpid(), "keys": report})
    sys.stdin.read()


def _read_secrets(config: Config) -> dict[str, bytearray]:
    """Read the software keys straight into the memory in which they will be overwritten."""
    secrets = {}
    with io.FileIO(config.secrets_fd) as source:
        for part in PARTS:
            secret = bytearray(part.secret_size)
            if source.readinto(secret) != part.secret_size:
                raise SystemExit("the parent gave too few key bytes")
            secrets[part.name] = secret
    return secrets


def _destroy(provider: Provider, keys: dict[str, Key], report: list[dict[str, Any]], arrived: list[str]) -> None:
    """Destroy the sources whose arrival was confirmed."""
    for entry in report:
        if entry["name"] not in arrived:
            raise SystemExit(f"the application process did not confirm {entry['name']}: nothing more is destroyed")
        disposition = provider.destroy_key(keys[entry["name"]])
        entry["source"] = disposition.outcome.value
        entry["destruction_evidence"] = list(disposition.evidence)


if __name__ == "__main__":
    main()
