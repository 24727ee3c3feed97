"""``hsmbridge identity forget``."""

from __future__ import annotations

import click

from hsmbridge_cli.lazy import Command
from hsmbridge_cli.options import Settings, token_options

__all__ = ["identity_forget"]


@click.command(
    cls=Command,
    name="forget",
    examples=("hsmbridge identity forget alice", "hsmbridge identity forget partner --role recipient"),
)
@click.argument("name")
@click.option(
    "--role", type=click.Choice(["sender", "recipient"]), default="sender", show_default=True, help="In which role."
)
@token_options
@click.pass_obj
def identity_forget(settings: Settings, name: str, role: str) -> None:
    """Believe somebody no longer.

    The pin is removed. What was imported before stays.
    """
    from hsmbridge_csp.trust import Role, TrustStore

    from hsmbridge.errors import NotFoundError
    from hsmbridge_cli.commands.identity_ls import describe_pin
    from hsmbridge_cli.display import emit_json
    from hsmbridge_cli.files import OutputFile
    from hsmbridge_cli.identities import trust_path

    path = trust_path()
    pin = TrustStore.load(path).named(Role(role), name)
    if pin is None:
        raise NotFoundError(f"no {role} is pinned as {name!r}", hint="see `hsmbridge identity ls`")
    # By lines, not from the parsed pins: comments stay.
    begins = f"{role} {name} ".encode()
    kept = [line for line in path.read_bytes().splitlines(keepends=True) if not line.startswith(begins)]
    OutputFile(str(path), force=True).write(b"".join(kept))
    if settings.json:
        emit_json("identity.forget", describe_pin(pin))
    else:
        click.echo(f"forgot {role} {name} ({pin.fingerprint.hex()})")
