"""Who judges the demo: programs that are not hsmbridge.

Each judgment takes what two processes wrote with one key, and the key as the judge has it, and says whether the second
went on exactly where the first had stopped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hsmbridge.errors import UnavailableError
from hsmbridge_cli.demo.parts import IV, RECORD, RECORDS, files_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hsmbridge_cli.demo.script import Config

__all__ = ["Case", "Judgment", "judge"]

_TIMEOUT = 60
_TAG = 32
_GCM_TAG = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a judge gets.

    Attributes:
        config: the run.
        name: of the part.
        key: a software key's bytes; empty for a key in the token.
        key_id: CKA_ID of a key in the token (pkcs11-tool finds keys by id).
        judge_module: the PKCS#11 module as pkcs11-tool can load it.
    """

    config: Config
    name: str
    key: bytes
    key_id: bytes
    judge_module: str

    @property
    def source(self) -> Path:
        """What went in."""
        return files_of(self.config.directory, self.name)[0]

    @property
    def target(self) -> Path:
        """What came out."""
        return files_of(self.config.directory, self.name)[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgment:
    """One verdict.

    Attributes:
        judge: the program.
        right: whether it is as if the key had never moved.
        command: repeats the judgment by hand, in a shell in the kept directory.
    """

    judge: str
    right: bool
    command: str


def judge(case: Case) -> Judgment:
    """Judge one part.

    Raises:
        UnavailableError: the judging program is not installed.
    """
    return _JUDGES[case.name](case)


def _stream(case: Case, cipher: str) -> Judgment:
    # openssl takes a key in argv only. This one is of no use to anybody: its stream has ended.
    options = ["enc", "-d", cipher, "-iv", IV.hex(), "-in"]
    done = _run(case, _program("openssl", "openssl"), *options, str(case.target), "-K", case.key.hex())
    command = (
        f"openssl enc -d {cipher} -iv {IV.hex()} -K $(cat {case.name}.key) -in {case.name}.out | cmp - {case.name}.in"
    )
    right = done.returncode == 0 and done.stdout == case.source.read_bytes()
    return Judgment(judge="openssl", right=right, command=command)


def _gcm(case: Case) -> Judgment:
    gcm, sealed, size = AESGCM(case.key), case.target.read_bytes(), RECORD + _GCM_TAG
    plaintext = b""
    try:
        for number in range(RECORDS):
            nonce = (int.from_bytes(IV[:12], "big") ^ number).to_bytes(12, "big")
            plaintext += gcm.decrypt(nonce, sealed[number * size : (number + 1) * size], b"")
    except InvalidTag:
        plaintext = b""
    command = (
        f'{sys.executable} -c "import sys; from cryptography.hazmat.primitives.ciphers.aead import AESGCM as G; '
        f"g = G(bytes.fromhex(open('gcm.key').read())); s = open('gcm.out', 'rb').read(); "
        f"i = int('{IV[:12].hex()}', 16); "
        f"sys.exit(b''.join(g.decrypt((i ^ n).to_bytes(12, 'big'), s[n*{size}:(n+1)*{size}], b'') "
        f"for n in range({RECORDS})) != open('gcm.in', 'rb').read())\""
    )
    right = plaintext == case.source.read_bytes() and len(sealed) == RECORDS * size
    return Judgment(judge="cryptography", right=right, command=command)


def _hmac(case: Case) -> Judgment:
    tags, plaintext, program = case.target.read_bytes(), case.source.read_bytes(), _program("openssl", "openssl")
    options = ["dgst", "-sha256", "-mac", "HMAC", "-macopt", f"hexkey:{case.key.hex()}", "-binary"]
    computed = b""
    for number in range(RECORDS):
        record = number.to_bytes(8, "big") + plaintext[number * RECORD : (number + 1) * RECORD]
        computed += _run(case, program, *options, data=record).stdout
    command = (
        f"for n in $(seq 0 {RECORDS - 1}); do {{ printf '\\0\\0\\0\\0\\0\\0\\0'; printf \"\\\\00$n\"; "
        f"tail -c +$((n * {RECORD} + 1)) hmac.in | head -c {RECORD}; }} | openssl dgst -sha256 -mac HMAC "
        "-macopt hexkey:$(cat hmac.key) -binary; done | cmp - hmac.out"
    )
    return Judgment(judge="openssl", right=computed == tags and len(tags) == RECORDS * _TAG, command=command)


def _token_stream(case: Case) -> Judgment:
    output = case.target.with_suffix(".judged")
    what = ["--decrypt", "--mechanism", "AES-CBC-PAD", "--iv", IV.hex(), "--id", case.key_id.hex()]
    arguments = [*_token_arguments(case), *what, "--input-file", str(case.target), "--output-file", str(output)]
    _run(case, _program("pkcs11-tool", "opensc"), *arguments)
    right = output.is_file() and output.read_bytes() == case.source.read_bytes()
    shown = f"{' '.join(what)} --input-file {case.name}.out --output-file {case.name}.judged"
    command = f"{_shell_prefix()}pkcs11-tool {_shown_token(case)} {shown}; cmp {case.name}.judged {case.name}.in"
    return Judgment(judge="pkcs11-tool", right=right, command=command)


def _signatures(case: Case) -> Judgment:
    public = case.target.with_suffix(".pub")
    what = ["--read-object", "--type", "pubkey", "--id", case.key_id.hex()]
    _run(case, _program("pkcs11-tool", "opensc"), *_token_arguments(case), *what, "--output-file", str(public))
    verdicts = []
    for which in ("begun", "finished"):
        signature, data = case.target.with_suffix(f".{which}.sig"), case.target.with_suffix(f".{which}")
        options = [
            "dgst",
            "-sha256",
            "-verify",
            str(public),
            "-keyform",
            "DER",
            "-signature",
            str(signature),
            str(data),
        ]
        verdicts.append(_run(case, _program("openssl", "openssl"), *options).returncode == 0)
    command = (
        f"{_shell_prefix()}pkcs11-tool {_shown_token(case)} {' '.join(what)} --output-file ec.pub; "
        "openssl dgst -sha256 -verify ec.pub -keyform DER -signature ec.begun.sig ec.begun && "
        "openssl dgst -sha256 -verify ec.pub -keyform DER -signature ec.finished.sig ec.finished"
    )
    return Judgment(judge="openssl", right=all(verdicts), command=command)


_JUDGES: dict[str, Callable[[Case], Judgment]] = {
    "cbc": lambda case: _stream(case, "-aes-256-cbc"),
    "ctr": lambda case: _stream(case, "-aes-128-ctr"),
    "gcm": _gcm,
    "hmac": _hmac,
    "session": _token_stream,
    "token": _token_stream,
    "ec": _signatures,
}


def _token_arguments(case: Case) -> list[str]:
    return [
        "--module",
        case.judge_module,
        "--token-label",
        case.config.token_label,
        "--login",
        "--pin",
        "env:PKCS11_PIN",
    ]


def _shown_token(case: Case) -> str:
    return " ".join(_token_arguments(case))


def _shell_prefix() -> str:
    return "PKCS11_PIN=$(cat pin) " + ("SOFTHSM2_CONF=softhsm2.conf " if "SOFTHSM2_CONF" in os.environ else "")


def _run(case: Case, *arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(  # noqa: S603 - fixed programs from PATH, without a shell
        arguments,
        input=data,
        capture_output=True,
        timeout=_TIMEOUT,
        env={**os.environ, "PKCS11_PIN": case.config.pin},
        check=False,
    )


def _program(name: str, package: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise UnavailableError(
            f"the demo's judge {name} is not installed", hint=f"Debian, Ubuntu: apt-get install {package}"
        )
    return path
