"""``hsmbridge key``: the keys of a token, and software keys at rest."""

from __future__ import annotations

import click

from hsmbridge_cli.lazy import LazyGroup
from hsmbridge_cli.options import token_options

__all__ = ["key"]

_COMMANDS = {
    "ls": ("hsmbridge_cli.commands.key_ls:key_ls", "List the keys of a token."),
    "show": ("hsmbridge_cli.commands.key_show:key_show", "Say what a key is, and where it lives and why."),
    "generate": ("hsmbridge_cli.commands.key_generate:key_generate", "Generate a key, or a safe KEK, in the token."),
    "destroy": (
        "hsmbridge_cli.commands.key_destroy:key_destroy",
        "Destroy a software key; refuses what lives in hardware.",
    ),
}


@click.group(cls=LazyGroup, lazy=_COMMANDS)
@token_options
def key() -> None:
    """List, show, generate and destroy keys.

    A KEY is a PKCS#11 URI (RFC 7512), label:NAME, id:HEX, or file:PATH for a software key at rest.
    """
