"""The demo's token: a throw-away SoftHSM, or one that the user names."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from pathlib import Path

from hsmbridge.errors import ModuleError, TokenError

__all__ = ["find_softhsm", "make_softhsm"]

_PLACES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
)
_INSTALL = (
    "install it (Debian, Ubuntu: apt-get install softhsm2), or name a token of yours with --module and --token-label"
)
_TIMEOUT = 60


def find_softhsm() -> str:
    """Return the path of the SoftHSM module.

    Raises:
        ModuleError: it is not installed.
    """
    for place in _PLACES:
        if Path(place).is_file():
            return place
    raise ModuleError("SoftHSM is not installed", hint=_INSTALL)


def make_softhsm(directory: Path) -> tuple[str, str, str]:
    """Make a throw-away SoftHSM token in a private directory.

    SOFTHSM2_CONF is set for this process and those that it starts.

    Args:
        directory: private; the token's files go there.

    Returns: module, token label, PIN.

    Raises:
        ModuleError: SoftHSM is not installed.
        TokenError: softhsm2-util failed.
    """
    module, tool = find_softhsm(), shutil.which("softhsm2-util")
    if tool is None:
        raise ModuleError("softhsm2-util is not installed", hint=_INSTALL)
    tokens = directory / "tokens"
    tokens.mkdir(mode=0o700)
    configuration = directory / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(configuration)
    label, pin, so_pin = f"hsmbridge-demo-{secrets.token_hex(4)}", secrets.token_hex(8), secrets.token_hex(8)
    # softhsm2-util takes PINs as arguments or at a terminal only; these open a token that lives for seconds.
    done = subprocess.run(  # noqa: S603 - a fixed program from PATH, without a shell
        [tool, "--init-token", "--free", "--label", label, "--so-pin", so_pin, "--pin", pin],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    if done.returncode != 0:
        raise TokenError(
            f"softhsm2-util failed: {done.stderr.strip() or done.stdout.strip()}", hint="run `hsmbridge doctor`"
        )
    return module, label, pin
