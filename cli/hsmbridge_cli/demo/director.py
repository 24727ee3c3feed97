"""Directs the demo: prepares the token, starts the processes, calls the judges, and searches the memory that is left.

The parent knows the software keys and what goes into the streams, since it judges; it never talks to the processes
while they work.
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
from hsmbridge_cli.demo.judges import Case, Judgment, judge
from hsmbridge_cli.demo.memory import count_in_memory
from hsmbridge_cli.demo.parts import PARTS, PLAINTEXT_BYTES, Part, files_of
from hsmbridge_cli.demo.script import Config, open_token

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hsmbridge.objects import Object
    from hsmbridge.token import Token

__all__ = ["Outcome", "direct"]

_TIMEOUT = 120


class ProcessFailedError(HsmbridgeError):
    """One of the demo's two processes failed; its own words are on standard error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What happened.

    Attributes:
        secure_pid, application_pid: the two processes.
        keys: one entry a key, as the JSON output shows them.
        judgments: by key name.
        memory: how often each destroyed software key was found in the secure process; None where nobody may look.
    """

    secure_pid: int
    application_pid: int
    keys: list[dict[str, Any]]
    judgments: dict[str, Judgment]
    memory: dict[str, int] | None

    @property
    def ok(self) -> bool:
        """Whether every stream went on as if its key had never moved, and every key ended as it should."""
        return len(self.keys) == len(PARTS) and all(
            key["state_continued"] and key["source"] == ("destroyed" if key["residency"] == "software" else "retained")
            for key in self.keys
        )


def direct(config: Config, judge_module: str, *, keep: bool) -> Outcome:
    """Run the demo on a token.

    The token keys that it needs are made here and removed at the end: they are this operation's own.

    Args:
        config: the run.
        judge_module: the module as pkcs11-tool can load it.
        keep: leave keys and files, so that a person can repeat the judgments.

    Raises:
        ProcessFailedError: a process ended with an error.
        UnavailableError: a judge is not installed, or the token cannot be opened.
    """
    software = {part.name: secrets.token_bytes(part.secret_size) for part in PARTS if part.secret_size}
    for part in PARTS:
        files_of(config.directory, part.name)[0].write_bytes(secrets.token_bytes(PLAINTEXT_BYTES))
    token = open_token(config)
    with Ours(token) as ours:
        made = _make_token_keys(ours, token, config)
        identity = FileIdentity.generate()
        sender = make_pin(Role.SENDER, "demo", identity.public_key).line
        with _process("application", replace(config, sender=sender)) as application:
            _read(application)  # it listens
            with _pipe(b"".join(software.values())) as descriptor:
                begun = replace(config, identity=identity.to_pem().decode(), secrets_fd=descriptor)
                with _process("secure", begun, (descriptor,)) as secure:
                    report = _read(secure)
                    memory = count_in_memory(secure.pid, software)
            finished = _read(application)
            judgments = {
                part.name: judge(_case(token, config, part, software.get(part.name, b""), judge_module))
                for part in PARTS
            }
        if keep:
            for key in made:
                ours.release(key)
            _keep_secrets(config, software)
    for entry in report["keys"]:
        name = entry["name"]
        entry |= {"state_continued": judgments[name].right, "judge": judgments[name].judge}
        if memory is not None and name in memory:
            entry["found_in_memory"] = memory[name]
    return Outcome(
        secure_pid=report["pid"],
        application_pid=finished["pid"],
        keys=report["keys"],
        judgments=judgments,
        memory=memory,
    )


def _make_token_keys(ours: Ours, token: Token, config: Config) -> list[Object]:
    """Make the KEK and the keys that live in the token."""
    aes, curve = parse_keyspec("aes:256"), parse_keyspec("ec:p-256")
    # No CKA_UNWRAP_TEMPLATE: the session key must arrive as extractable as it left, to be in the same state.
    made = [ours.take(generate_kek(token, aes, label=config.label("kek"), unwrap_template=False))]
    for part in PARTS:
        if part.on_token:
            spec = curve if part.name == "ec" else aes
            template = {**usage_of(spec), CKA.TOKEN: True, CKA.LABEL: config.label(part.name)}
            key = ours.take(generate_key(token, spec, template))
            made.append(key)
            made.extend(ours.take(half) for half in token.find({CKA.ID: key.identity.id}) if half is not key)
    return made


def _case(token: Token, config: Config, part: Part, key: bytes, judge_module: str) -> Case:
    in_token = not part.secret_size
    key_id = find_key(token, label=config.label(part.name)).identity.id if in_token else b""
    return Case(config=config, name=part.name, key=key, key_id=key_id, judge_module=judge_module)


@contextmanager
def _pipe(data: bytes) -> Iterator[int]:
    """Give a descriptor from which a child can read *data*, which is shorter than a pipe's buffer."""
    reading, writing = os.pipe()
    try:
        os.write(writing, data)
        os.close(writing)
        yield reading
    finally:
        os.close(reading)


@contextmanager
def _process(name: str, config: Config, descriptors: Sequence[int] = ()) -> Iterator[subprocess.Popen[str]]:
    """Start one of the two processes; at the end let it go, and end it if it does not."""
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-m", f"hsmbridge_cli.demo.{name}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=descriptors,
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


def _keep_secrets(config: Config, software: dict[str, bytes]) -> None:
    """Leave what a person needs to repeat the judgments, in the private directory."""
    for name, key in software.items():
        _write_private(Path(config.directory, f"{name}.key"), key.hex())
    _write_private(Path(config.directory, "pin"), config.pin)


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
