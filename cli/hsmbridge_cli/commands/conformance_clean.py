"""``hsmbridge conformance clean``."""

from __future__ import annotations

import click

from hsmbridge_cli.lazy import Command
from hsmbridge_cli.options import Settings, token_options

__all__ = ["conformance_clean"]

_FAILED = 1


@click.command(
    cls=Command,
    name="clean",
    examples=("hsmbridge conformance clean --module ./vendor.so --token-label test --pin-file pin",),
)
@token_options
@click.pass_obj
def conformance_clean(settings: Settings) -> int:
    """Remove what a run that was cut short has left in the token.

    Removes objects whose CKA_ID begins with a run's own ten random bytes, and nothing else. Runs note these bytes in
    $XDG_STATE_HOME/hsmbridge/conformance before they make anything. Ends with 1 if the token did not let go of one.
    """
    from hsmbridge_conformance.orders import clean

    from hsmbridge_cli.display import clean as printable
    from hsmbridge_cli.display import emit_json
    from hsmbridge_cli.targets import make_target

    done = clean(make_target(settings))
    if settings.json:
        document = {"token": done.label, "removed": list(done.removed), "kept": list(done.kept)}
        emit_json("conformance.clean", document)
    else:
        for name in done.removed:
            click.echo(f"removed {printable(name)}")
        for name in done.kept:
            click.echo(f"kept {printable(name)}")
        if not done.removed and not done.kept:
            click.echo(f"nothing to remove from token {printable(done.label)}")
    return _FAILED if done.kept else 0
