"""The secure process: it has the keys, uses them, hands them over, and destroys what lives in software."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from hsmbridge_csp.cipher_key import CipherKey
from hsmbridge_csp.clearpart import Purpose
from hsmbridge_csp.hardening import disable_core_dumps
from hsmbridge_csp.identity import FileIdentity
from hsmbridge_csp.modes import Cipher
from hsmbridge_csp.provider import Provider

from hsmbridge.codes import CKA, CKO
from hsmbridge.generation import generate_key
from hsmbridge.keyspec import parse_keyspec, usage_of
from hsmbridge.objects import find_key
from hsmbridge_cli.demo.script import PAUSE_AT, Config, Frames, files_of, open_token, tell_parent

if TYPE_CHECKING:
    from hsmbridge_csp.keys import Key

    from hsmbridge.template import Template

__all__ = ["main"]


def main() -> None:
    """Run the secure process; the report goes to standard output as JSON."""
    disable_core_dumps()
    config = Config.from_stdin()
    identity = FileIdentity.from_pem(config.identity.encode(), name="the identity of the demo")
    provider = Provider(open_token(config), identity=identity)
    keys = _make_keys(provider, config)
    kek = provider.kek(find_key(provider.token, label=config.label("kek"), classes=(CKO.SECRET_KEY,)))  # type: ignore[arg-type]
    report: list[dict[str, Any]] = []
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(config.socket_path)
        frames = Frames(connection)
        for name, key in keys.items():
            plain, cipher = files_of(config.directory, name)
            cipher.write_bytes(key.encrypt(plain.read_bytes()[:PAUSE_AT]))
            found = key.classify()
            blob = provider.export_key(key, kek, purpose=Purpose.MOVE)
            frames.send_json({"name": name})
            frames.send(blob)
            report.append(
                {
                    "name": name,
                    "algorithm": f"{key.algorithm}-256-CBC",
                    "residency": found.residency.value,
                    "why": found.reason,
                    "evidence": list(found.evidence),
                    "transfer": "value" if found.is_software else "reference",
                }
            )
        frames.send_json({"name": None})
        arrived = frames.receive_json()["imported"]
        for entry, (name, key) in zip(report, keys.items(), strict=True):
            if name not in arrived:
                raise SystemExit(f"the application process did not confirm {name}: nothing more is destroyed")
            disposition = provider.destroy_key(key)
            entry["source"] = disposition.outcome.value
            entry["destruction_evidence"] = list(disposition.evidence)
        frames.send_json({"destroyed": True})
    tell_parent({"pid": os.getpid(), "keys": report})


def _make_keys(provider: Provider, config: Config) -> dict[str, Key]:
    spec = parse_keyspec("aes:256")
    assert provider.token is not None  # noqa: S101 - the demo always has a token
    session: Template = {CKA.LABEL: config.label("session"), CKA.EXTRACTABLE: True, **usage_of(spec)}
    return {
        "software": CipherKey(Cipher.AES, bytearray.fromhex(config.software_key)),
        "session": provider.adopt(generate_key(provider.token, spec, session)),
        "token": provider.find_key(label=config.label("token")),
    }


if __name__ == "__main__":
    main()
