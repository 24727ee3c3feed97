"""Who judges the demo: programs that are not hsmbridge.

Each judgment decrypts a stream that two processes wrote, with the key as the judge has it, and compares it with what
went in.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hsmbridge.errors import UnavailableError
from hsmbridge_cli.demo.script import files_of

if TYPE_CHECKING:
    from hsmbridge_cli.demo.script import Config

__all__ = ["Judgment", "judge"]

_TIMEOUT = 60
_ZERO_IV = "00" * 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgment:
    """One verdict.

    Attributes:
        judge: the program.
        right: whether the stream decrypts to what went in.
        command: repeats the judgment by hand, in a shell in the kept directory.
    """

    judge: str
    right: bool
    command: str


def judge(config: Config, name: str, key_id: bytes, judge_module: str) -> Judgment:
    """Judge one stream.

    Args:
        config: the run.
        name: ``software``, ``session`` or ``token``.
        key_id: CKA_ID of a key in the token (pkcs11-tool finds keys by id only).
        judge_module: the PKCS#11 module as pkcs11-tool can load it.

    Raises:
        UnavailableError: the judging program is not installed.
    """
    if name == "software":
        return _openssl(config, name)
    return _pkcs11_tool(config, name, key_id, judge_module)


def _openssl(config: Config, name: str) -> Judgment:
    program = _program("openssl", "openssl")
    _, cipher = files_of(config.directory, name)
    # openssl takes a key in argv only. This one is of no use to anybody: its stream has ended.
    arguments = [program, "enc", "-d", "-aes-256-cbc", "-K", config.software_key, "-iv", _ZERO_IV, "-in", str(cipher)]
    right = _decrypts(config, name, arguments)
    command = (
        f"openssl enc -d -aes-256-cbc -K $(cat software.key) -iv {_ZERO_IV} -in {name}.cipher | cmp - {name}.plain"
    )
    return Judgment(judge="openssl", right=right, command=command)


def _pkcs11_tool(config: Config, name: str, key_id: bytes, module: str) -> Judgment:
    program = _program("pkcs11-tool", "opensc")
    _, cipher = files_of(config.directory, name)
    output = Path(config.directory, f"{name}.judged")
    common = ["--module", module, "--token-label", config.token_label, "--login", "--pin", "env:PKCS11_PIN"]
    what = ["--decrypt", "--mechanism", "AES-CBC-PAD", "--iv", _ZERO_IV, "--id", key_id.hex()]
    _decrypts(config, name, [program, *common, *what, "--input-file", str(cipher), "--output-file", str(output)])
    right = output.is_file() and output.read_bytes() == files_of(config.directory, name)[0].read_bytes()
    prefix = "PKCS11_PIN=$(cat pin) " + ("SOFTHSM2_CONF=softhsm2.conf " if "SOFTHSM2_CONF" in os.environ else "")
    shown = " ".join([*common, *what, f"--input-file {name}.cipher --output-file {name}.judged"])
    return Judgment(
        judge="pkcs11-tool", right=right, command=f"{prefix}pkcs11-tool {shown}; cmp {name}.judged {name}.plain"
    )


def _decrypts(config: Config, name: str, arguments: list[str]) -> bool:
    done = subprocess.run(  # noqa: S603 - fixed programs from PATH, without a shell
        arguments,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_TIMEOUT,
        env={**os.environ, "PKCS11_PIN": config.pin},
        check=False,
    )
    return done.returncode == 0 and done.stdout == files_of(config.directory, name)[0].read_bytes()


def _program(name: str, package: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise UnavailableError(
            f"the demo's judge {name} is not installed", hint=f"Debian, Ubuntu: apt-get install {package}"
        )
    return path
