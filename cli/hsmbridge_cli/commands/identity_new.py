"""``hsmbridge identity new``."""

from __future__ import annotations

import click

from hsmbridge_cli.lazy import Command
from hsmbridge_cli.options import Settings, token_options

__all__ = ["identity_new"]


@click.command(cls=Command, name="new", examples=("hsmbridge identity new", "hsmbridge identity new -o batch.pem"))
@click.option("-o", "--output", metavar="FILE", help="Another file than your own identity's.")
@token_options
@click.pass_obj
def identity_new(settings: Settings, output: str | None) -> None:
    """Make the key that signs what you export.

    An Ed25519 key in PKCS#8 PEM, mode 600. One that is there is never replaced: receivers have pinned it. The first
    export makes one too.
    """
    from pathlib import Path

    from hsmbridge_csp.hardening import disable_core_dumps

    from hsmbridge_cli.commands.identity_show import tell_identity
    from hsmbridge_cli.identities import identity_path, make_identity

    disable_core_dumps()
    path = identity_path() if output is None else Path(output)
    tell_identity(settings, "identity.new", make_identity(path), str(path))
