"""Directs the scene: a token, a key in it, two processes, a client for each version, and a search of the memory.

Source: docs/tls.md, "A live connection changes process".
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsmbridge_csp.tls.suites import CipherSuite, TlsVersion
from hsmbridge_csp.tls.tokensigner import HandshakeSigner
from hsmbridge_csp.token_key import TokenKey

from hsmbridge.codes import CKA
from hsmbridge.destruction import Ours
from hsmbridge.errors import HsmbridgeError
from hsmbridge.generation import generate_key
from hsmbridge.keyspec import parse_keyspec, usage_of
from hsmbridge_cli.demo.memory import count_in_memory
from hsmbridge_cli.demo.script import Config, open_token
from hsmbridge_cli.demo.tls.clients import Fetched, fetch
from hsmbridge_cli.demo.tls.needles import directions, read_key_log
from hsmbridge_cli.demo.tls.relay import Capture, Relay
from hsmbridge_cli.demo.tls.scene import Scene, play
from hsmbridge_cli.demo.tls.script import TlsConfig
from hsmbridge_cli.demo.tls.web import content

if TYPE_CHECKING:
    from hsmbridge.token import Token

__all__ = ["TlsOutcome", "direct"]

_SIZE = 1 << 20
_PATHS = ("/", f"/bytes/{_SIZE}", "/")
_BEFORE = 1
"""Requests that the secure process answers before it hands the connection over."""


class ClientFailedError(HsmbridgeError):
    """A client did not get what it had asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsOutcome:
    """What happened.

    Attributes:
        secure_pid, application_pid: the two processes.
        token_key: what became of the certificate's key, and why.
        connections: one entry for each, as the JSON output shows them.
    """

    secure_pid: int
    application_pid: int
    token_key: dict[str, Any]
    connections: list[dict[str, Any]]

    @property
    def ok(self) -> bool:
        """Whether each client noticed nothing, the token's key is where it was, and no record key is left behind."""
        return (
            self.token_key["outcome"] == "retained"
            and self.token_key["still_in_token"]
            and {each["version"] for each in self.connections} == {"TLS 1.2", "TLS 1.3"}
            and all(
                each["right"]
                and each["connections"] == 1
                and each["record_keys"] == ["destroyed", "destroyed"]
                and each["refused_afterwards"]
                and not each["found_in_memory"]
                for each in self.connections
            )
        )


def direct(config: Config) -> TlsOutcome:
    """Run the scene on a token. The key that it needs is made here and removed at the end.

    Raises:
        ProcessFailedError: a process ended with an error.
        ClientFailedError: a client did.
        UnavailableError: the token cannot be opened, or the handshake library is not installed.
    """
    import_module("hsmbridge_csp.tls.tlslite_ng")  # says what to install, before a key is made
    token = open_token(config)
    label = config.label("tls")
    spec = parse_keyspec("ec:p-256")
    with Ours(token) as ours:
        private = ours.take(generate_key(token, spec, {**usage_of(spec), CKA.TOKEN: True, CKA.LABEL: label}))
        for half in token.find({CKA.ID: private.identity.id}):
            if half is not private:
                ours.take(half)
        signer = HandshakeSigner(TokenKey(private))
        tls = TlsConfig(
            directory=config.directory,
            identity="",
            peer="",
            module=config.module,
            module_args=config.module_args,
            token_label=config.token_label,
            pin=config.pin,
            key_label=label,
            requests_before=_BEFORE,
        )
        with play(tls, signer.public) as scene:
            seen = [_visit(scene, version, Path(config.directory)) for version in TlsVersion]
            secure, application = scene.report(scene.secure), scene.report(scene.application)
            connections = [
                _entry(scene, visit, said, served)
                for visit, said, served in zip(seen, secure, application, strict=True)
            ]
            ended = scene.finish()
        token_key = {
            "outcome": ended["token_key"],
            "residency": ended["residency"],
            "why": ended["why"],
            "still_in_token": _signs(token, label),
        }
        return TlsOutcome(
            secure_pid=scene.secure.pid,
            application_pid=scene.application.pid,
            token_key=token_key,
            connections=connections,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Visit:
    version: TlsVersion
    fetched: Fetched
    capture: Capture
    key_log: Path


def _visit(scene: Scene, version: TlsVersion, directory: Path) -> _Visit:
    key_log = directory / f"{version.name}.keys"
    with Relay(scene.port) as relay:
        try:
            fetched = fetch(version, relay.port, scene.authority, _PATHS, key_log)
        except OSError as error:
            raise ClientFailedError(f"the client failed: {error}", hint="what the processes said is above") from error
        return _Visit(version=version, fetched=fetched, capture=relay.captures[0], key_log=key_log)


def _entry(scene: Scene, visit: _Visit, secure: dict[str, Any], application: dict[str, Any]) -> dict[str, Any]:
    suite = CipherSuite[application["suite"]]
    log = read_key_log(visit.key_log.read_text("ascii"))
    both = directions(suite, log, bytes(visit.capture.up), bytes(visit.capture.down))
    names = {"client": both[0], "server": both[1]}
    needles = {f"{name} key": found.key for name, found in names.items()}
    needles |= {f"{name} secret": found.secret for name, found in names.items()}
    memory = count_in_memory(scene.secure.pid, needles)
    before, after = (f"process {process.pid}\n".encode() for process in (scene.secure, scene.application))
    return {
        "version": {TlsVersion.TLS12: "TLS 1.2", TlsVersion.TLS13: "TLS 1.3"}[visit.version],
        "suite": suite.name,
        "client": visit.fetched.client,
        "requests_before": secure["requests"],
        "requests_after": application["requests"],
        "connections": visit.fetched.connections,
        "right": visit.fetched.bodies == (before, b"".join(content(_SIZE)), after),
        "unread_bytes_moved": application["unread"],
        "sequences_at_handoff": secure["sequences"],
        "sequences_at_end": application["last"],
        "record_keys": secure["keys"],
        "refused_afterwards": secure["refused_afterwards"],
        "found_in_memory": None if memory is None else sum(memory.values()),
    }


def _signs(token: Token, label: str) -> bool:
    """Whether the key is in the token, and signs."""
    from hsmbridge.codes import CKO
    from hsmbridge.objects import find_key

    key = TokenKey(find_key(token, label=label, classes=(CKO.PRIVATE_KEY,)))
    return bool(key.sign(b"still here"))
