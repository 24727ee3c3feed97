"""``hsmbridge identity``: who signs, and whom we believe."""

from __future__ import annotations

import click

from hsmbridge_cli.lazy import LazyGroup
from hsmbridge_cli.options import token_options

__all__ = ["identity"]

_COMMANDS = {
    "new": ("hsmbridge_cli.commands.identity_new:identity_new", "Make the key that signs what you export."),
    "show": ("hsmbridge_cli.commands.identity_show:identity_show", "Show the key that signs what you export."),
    "trust": ("hsmbridge_cli.commands.identity_trust:identity_trust", "Pin a sender's or a recipient's public key."),
    "ls": ("hsmbridge_cli.commands.identity_ls:identity_ls", "List whom you believe."),
    "forget": ("hsmbridge_cli.commands.identity_forget:identity_forget", "Believe somebody no longer."),
}


@click.group(cls=LazyGroup, lazy=_COMMANDS)
@token_options
def identity() -> None:
    """Say who signs, and whom you believe.

    Identity and pins are two files in $HSMBRIDGE_HOME, else in hsmbridge/ under $XDG_CONFIG_HOME or ~/.config. Nobody
    is believed on first use.
    """
