"""What all cases of a sweep share: a prepared token to be copied, known keys, two identities, shim and interposer."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hsmbridge_csp.identity import FileIdentity
from hsmbridge_csp.provider import Provider

from hsmbridge.codes import CKA, CKK
from hsmbridge.destruction import Ours
from hsmbridge.generation import generate_kek
from hsmbridge.keyspec import parse_keyspec
from hsmbridge.module import Module
from tests.support.shim import build_shim
from tests.support.tokens import enter, usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsmbridge_csp.identity import Identity

    from hsmbridge.objects import Object
    from hsmbridge.template import Template
    from hsmbridge.token import Token

__all__ = ["FILE", "HARDWARE", "KEK", "MOVING", "QUESTION", "RECORD", "Bench", "answer_of", "moving_key"]

ROOT = Path(__file__).resolve().parents[2]
KEK, HARDWARE, MOVING, RECORD, FILE = "kek", "hardware", "moving", "record", "file"
_KEYS = (HARDWARE, MOVING, RECORD, FILE)
QUESTION = b"which key is it?"
_USE = usage(CKA.ENCRYPT, CKA.DECRYPT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The shared part of all cases.

    Attributes:
        directory: holds everything; module: path of SoftHSM; label, pin: of the token.
        shim, interposer: what was compiled.
        keys: known AES-256 keys by name, in hexadecimal.
        identities: of both sides, PEM.
        blob: a copy of the moving key under the KEK, signed by the sender, in hexadecimal.
    """

    directory: str
    module: str
    label: str
    pin: str
    shim: str
    interposer: str
    keys: dict[str, str]
    identities: dict[str, str]
    blob: str = ""

    @classmethod
    def prepare(cls, directory: Path) -> Bench:
        """Make token, keys, identities and a blob; write all of it down for the workers."""
        printed = subprocess.run(
            [ROOT / "ci" / "softhsm" / "start", directory / "token"], check=True, capture_output=True, text=True
        ).stdout
        variables = dict(shlex.split(line)[1].split("=", 1) for line in printed.splitlines())
        interposer = directory / "interpose.so"
        flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC", "-fvisibility=hidden"]
        compiler = os.environ.get("CC", "cc")
        source = Path(__file__).with_name("interpose.c")
        subprocess.run([compiler, *flags, "-o", interposer, source, "-ldl"], check=True, timeout=60)
        bench = cls(
            directory=str(directory),
            module=variables["PKCS11_MODULE"],
            label=variables["PKCS11_TOKEN_LABEL"],
            pin=variables["PKCS11_PIN"],
            shim=str(build_shim(directory)),
            interposer=str(interposer),
            keys={name: secrets.token_hex(32) for name in _KEYS},
            identities={side: FileIdentity.generate().to_pem().decode() for side in ("sender", "receiver")},
        )
        os.environ["SOFTHSM2_CONF"] = variables["SOFTHSM2_CONF"]
        blob = bench.fill()
        bench = cls(**{**asdict(bench), "blob": blob.hex()})
        path = directory / "bench.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(asdict(bench)), "utf-8")
        return bench

    @classmethod
    def load(cls, directory: Path) -> Bench:
        """Read what :meth:`prepare` wrote."""
        return cls(**json.loads((directory / "bench.json").read_text("utf-8")))

    def key(self, name: str) -> bytes:
        """Return a known key."""
        return bytes.fromhex(self.keys[name])

    def identity(self, side: str) -> Identity:
        """Return the identity of a side."""
        return FileIdentity.from_pem(self.identities[side].encode(), name=side)

    def answers(self) -> Mapping[str, str]:
        """Return the names of the known keys by their answers."""
        return {answer_of(self.key(name)): name for name in self.keys}

    def open_token(self, module: str) -> Token:
        """Open and log in to the token of the environment, through the shim or bare."""
        token = Module.open(module).token(label=self.label)
        token.login(self.pin)
        return token

    def fill(self) -> bytes:
        """Put a KEK, a hardware key and a bystander without any name into the token; export the moving key."""
        token = self.open_token(self.module)
        kek = generate_kek(token, parse_keyspec("aes:256"), label=KEK, unwrap_template=False)
        with Ours(token) as ours:
            kept: Template = {CKA.TOKEN: True, CKA.EXTRACTABLE: False, **_USE}
            named: Template = {CKA.LABEL: HARDWARE, CKA.ID: b"hardware key's id"}
            ours.release(enter(ours, token, CKK.AES, self.key(HARDWARE), {**kept, **named}))
            nameless: Template = {CKA.LABEL: "", CKA.ID: b""}
            ours.release(enter(ours, token, CKK.AES, secrets.token_bytes(32), {**kept, **nameless}))
            provider = Provider(token, identity=self.identity("sender"))
            moving = ours.take(moving_key(token, self.key(MOVING)))
            blob = provider.export_key(provider.adopt(moving), provider.kek(kek))
        token.close()
        token.calls.finalize()
        return blob


def moving_key(token: Token, value: bytes) -> Object:
    """Put the extractable session key into the token that is going to be exported, destroyed or moved."""
    ours = Ours(token)
    template = {CKA.LABEL: MOVING, CKA.ID: b"moving key's id", **_USE}
    return ours.release(enter(ours, token, CKK.AES, value, template))


def answer_of(key: bytes) -> str:
    """Return by what an AES key is known without being seen: one block under it, in hexadecimal."""
    encryptor = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()  # noqa: S305 - one fixed block
    return encryptor.update(QUESTION).hex()
