"""The entry point: the table of commands, and the one place where errors become exit codes.

This module imports click and the version, nothing else: everything more is paid for by `hsmbridge --version` too.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from hsmbridge._version import __version__
from hsmbridge_cli.lazy import LazyGroup
from hsmbridge_cli.options import Settings, token_options

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COMMANDS", "cli", "main"]

COMMANDS = {
    "demo": ("hsmbridge_cli.commands.demo:demo", "Hand seven keys from one process to another on a throw-away token."),
    "doctor": ("hsmbridge_cli.commands.doctor:doctor", "Say what is wrong with this set-up."),
    "token": ("hsmbridge_cli.commands.token:token", "List tokens, and try what they can do."),
    "key": ("hsmbridge_cli.commands.key:key", "List, show, generate and destroy keys."),
    "wrap": ("hsmbridge_cli.commands.wrap:wrap", "Wrap a key of the token under a KEK."),
    "unwrap": ("hsmbridge_cli.commands.unwrap:unwrap", "Unwrap a key into the token."),
    "export": ("hsmbridge_cli.commands.export:export", "Export keys as signed blobs; the keys stay."),
    "import": ("hsmbridge_cli.commands.import_:import_", "Import a key from a signed blob."),
    "handoff": ("hsmbridge_cli.commands.handoff:handoff", "Move keys: hand them over, and destroy them here."),
    "identity": ("hsmbridge_cli.commands.identity:identity", "Say who signs, and whom you believe."),
    "inspect": ("hsmbridge_cli.commands.inspect:inspect", "Say what a key blob holds, without a token."),
    "conformance": ("hsmbridge_cli.commands.conformance:conformance", "Judge a PKCS#11 module by a suite of checks."),
    "completion": ("hsmbridge_cli.commands.completion:completion", "Print the completion script of a shell."),
}
"""Name to (``module:object``, help). The help is repeated here so that `--help` need not import the commands."""

_EXAMPLES = (
    "hsmbridge doctor --module /usr/lib/softhsm/libsofthsm2.so",
    "hsmbridge key generate --kek --type aes:256 --label transport",
    "hsmbridge wrap label:payroll --kek label:transport -o payroll.wrapped",
    "hsmbridge unwrap --kek label:transport -i payroll.wrapped --key-type aes --label payroll --persist",
)

_CTRL_C = 130


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    examples=_EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@token_options
@click.version_option(__version__, message="hsmbridge %(version)s")
def cli() -> None:
    """Move keys between processes and PKCS#11 tokens, and leave alone what lives in hardware.

    A KEY is a PKCS#11 URI (RFC 7512), label:NAME, id:HEX, or file:PATH for a software key at rest.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments, by default those of the process.

    Returns: 0 done; 1 the token refused or failed; 2 usage; 3 bad input; 4 refused by policy; 5 module, token or login
        not available; 130 interrupted.
    """
    settings = Settings()
    color = False if os.environ.get("NO_COLOR") else None
    try:
        status = cli.main(
            args=None if argv is None else list(argv),
            prog_name="hsmbridge",
            standalone_mode=False,
            obj=settings,
            color=color,
        )
    except click.Abort as abort:
        if isinstance(abort.__cause__, EOFError):
            click.echo("hsmbridge: error: the input ended where an answer was expected", err=True)
            return 2
        return _CTRL_C
    except KeyboardInterrupt:
        return _CTRL_C
    except Exception as error:  # noqa: BLE001 - the last line of defence: whatever it is, the user sees no traceback
        from hsmbridge_cli.failures import report

        return report(error, settings.verbosity)
    return status if isinstance(status, int) else 0


if __name__ == "__main__":
    sys.exit(main())
