"""``hsmbridge key ls``."""

from __future__ import annotations

import click

from hsmbridge_cli.lazy import Command
from hsmbridge_cli.options import Settings, token_options

__all__ = ["key_ls"]


@click.command(
    cls=Command,
    name="ls",
    examples=("hsmbridge key ls", "hsmbridge key ls --token-label prod --pin-file pin.txt --json"),
)
@token_options
@click.pass_obj
def key_ls(settings: Settings) -> None:
    """List the keys of a token.

    With the residency of each: a hardware key is never destroyed, by no command of this program.
    """
    from hsmbridge_cli.display import emit_json, emit_table
    from hsmbridge_cli.keyfacts import key_summary
    from hsmbridge_cli.opening import open_token
    from hsmbridge_cli.progress import watched

    with open_token(settings) as token:
        keys = [key_summary(key) for key in watched(token.keys(), "reading keys")]
        label = token.label
    if settings.json:
        emit_json("key.ls", {"token": label, "keys": keys})
        return
    rows = [
        (key["class"], key["type"], key["label"], key["id"], key["residency"], " ".join(_words(key["uses"])))
        for key in keys
    ]
    emit_table(("CLASS", "TYPE", "LABEL", "ID", "RESIDENCY", "MAY"), rows)


def _words(value: object) -> list[str]:
    return value if isinstance(value, list) else []
