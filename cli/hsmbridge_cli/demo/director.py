"""Directs the demo: prepares the token, starts the two processes, and calls the judges.

The parent knows the software key and the plaintexts, since it judges; it never talks to the processes while they work.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsmbridge_csp.identity import FileIdentity
from hsmbridge_csp.trust import Role, make_pin

from hsmbridge.codes import CKA
from hsmbridge.destruction import Ours
from hsmbridge.errors import HsmbridgeError
from hsmbridge.generation import generate_kek, generate_key
from hsmbridge.keyspec import parse_keyspec, usage_of
from hsmbridge.objects import find_key
from hsmbridge_cli.demo.judges import Judgment, judge
from hsmbridge_cli.demo.script import Config, files_of, open_token

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsmbridge.token import Token

__all__ = ["Outcome", "direct", "keep"]

_NAMES = ("software", "session", "token")
_PLAINTEXT_BYTES = 2005  # pkcs11-tool decrypts no more than its buffer holds
_TIMEOUT = 120


class ProcessFailedError(HsmbridgeError):
    """One of the demo's two processes failed; its own words are in the message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What happened.

    Attributes:
        secure_pid, application_pid: the two processes.
        keys: one entry a key, as the JSON output shows them.
        judgments: by key name.
    """

    secure_pid: int
    application_pid: int
    keys: list[dict[str, Any]]
    judgments: dict[str, Judgment]

    @property
    def ok(self) -> bool:
        """Whether every stream went on as if its key had never moved, and every key ended as it should."""
        return all(
            key["state_continued"] and key["source"] == ("destroyed" if key["residency"] == "software" else "retained")
            for key in self.keys
        ) and len(self.keys) == len(_NAMES)


def direct(config: Config, judge_module: str) -> Outcome:
    """Run the demo on a token.

    The token keys that it needs are made here and removed at the end: they are this operation's own.

    Raises:
        ProcessFailedError: a process ended with an error.
        UnavailableError: a judge is not installed, or the token cannot be opened.
    """
    for name in _NAMES:
        files_of(config.directory, name)[0].write_bytes(secrets.token_bytes(_PLAINTEXT_BYTES))
    token, aes = open_token(config), parse_keyspec("aes:256")
    with Ours(token) as ours:
        # No CKA_UNWRAP_TEMPLATE: the session key must arrive as extractable as it left, or it would not be in the
        # same state.
        kek = ours.take(generate_kek(token, aes, label=config.label("kek"), unwrap_template=False))
        key = ours.take(generate_key(token, aes, {CKA.TOKEN: True, CKA.LABEL: config.label("token"), **usage_of(aes)}))
        identity = FileIdentity.generate()
        sender = make_pin(Role.SENDER, "demo", identity.public_key).line
        with _process("application", replace(config, software_key="", sender=sender)) as application:
            _read(application)  # it listens
            with _process("secure", replace(config, identity=identity.to_pem().decode())) as secure:
                secure_report = _read(secure)
            application_report = _read(application)
            judgments = {name: judge(config, name, _id_of(token, config, name), judge_module) for name in _NAMES}
        if config.keep:
            ours.release(kek)
            ours.release(key)
    for entry in secure_report["keys"]:
        entry["state_continued"] = judgments[entry["name"]].right
        entry["judge"] = judgments[entry["name"]].judge
    return Outcome(
        secure_pid=secure_report["pid"],
        application_pid=application_report["pid"],
        keys=secure_report["keys"],
        judgments=judgments,
    )


def _id_of(token: Token, config: Config, name: str) -> bytes:
    """CKA_ID of the key that the judge shall use; the software key has none."""
    return b"" if name == "software" else find_key(token, label=config.label(name)).identity.id


@contextmanager
def _process(name: str, config: Config) -> Iterator[subprocess.Popen[str]]:
    """Start one of the two processes; at the end let it go, and end it if it does not."""
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-m", f"hsmbridge_cli.demo.{name}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    assert process.stdin is not None  # noqa: S101 - asked for above
    try:
        process.stdin.write(config.to_json() + "\n")
        process.stdin.flush()
        yield process
        process.stdin.close()
        if process.wait(_TIMEOUT) != 0:
            raise ProcessFailedError(f"the {name} process failed", hint="its own message is above")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdin.close()
        if process.stdout is not None:
            process.stdout.close()


def _read(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None  # noqa: S101 - asked for above
    line = process.stdout.readline()
    if not line:
        raise ProcessFailedError("a process of the demo ended without a report", hint="its own message is above")
    report: dict[str, Any] = json.loads(line)
    return report


def keep(config: Config) -> None:
    """Leave what a person needs to repeat the judgments."""
    Path(config.directory, "software.key").write_text(config.software_key)
    Path(config.directory, "pin").write_text(config.pin)
