"""``hsmbridge conformance``: the suite that a vendor runs against its own module."""

from __future__ import annotations

import click

from hsmbridge_cli.lazy import LazyGroup
from hsmbridge_cli.options import token_options

__all__ = ["conformance"]

_COMMANDS = {
    "run": ("hsmbridge_cli.commands.conformance_run:conformance_run", "Run the checks on a token, and report."),
    "list": ("hsmbridge_cli.commands.conformance_list:conformance_list", "List the checks."),
    "explain": (
        "hsmbridge_cli.commands.conformance_explain:conformance_explain",
        "Say what a check does, and why.",
    ),
    "diff": ("hsmbridge_cli.commands.conformance_diff:conformance_diff", "Compare two runs."),
    "clean": (
        "hsmbridge_cli.commands.conformance_clean:conformance_clean",
        "Remove what a run that was cut short has left in the token.",
    ),
}


@click.group(cls=LazyGroup, lazy=_COMMANDS)
@token_options
def conformance() -> None:
    """Judge a PKCS#11 module by a suite of checks.

    Says whether keys can be handed over safely with a token, and what is wrong where not. A token is left as it was.
    """
