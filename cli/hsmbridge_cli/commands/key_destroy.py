"""``hsmbridge key destroy``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from hsmbridge_cli.lazy import Command
from hsmbridge_cli.options import Settings, token_options

if TYPE_CHECKING:
    from hsmbridge_cli.keynames import KeyName

__all__ = ["key_destroy"]


@click.command(
    cls=Command,
    name="destroy",
    examples=(
        "hsmbridge key destroy file:payroll.pem",
        "hsmbridge key destroy file:payroll.bin --key-type aes:256 --yes",
    ),
)
@click.argument("key")
@click.option("--key-type", metavar="T", help="For a file: of raw bytes, what they are: aes:256, generic:20, ...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@token_options
@click.pass_obj
def key_destroy(settings: Settings, key: str, key_type: str | None, yes: bool) -> None:
    """Destroy a software key; refuses what lives in hardware.

    A key file is overwritten, and its name removed. Copies that the file system, flash memory, snapshots or backups
    made are beyond reach. A key that is kept in a token counts as hardware, and stays.
    """
    from hsmbridge_cli.keynames import parse_key_name

    name = parse_key_name(key)
    if name.path is not None:
        _destroy_file(settings, name.path, key_type, sure=yes)
        return
    if key_type is not None:
        raise click.UsageError("--key-type is for file: keys; a token knows its keys' types")
    _destroy_in_token(settings, name, sure=yes)


def _destroy_file(settings: Settings, path: str, key_type: str | None, *, sure: bool) -> None:
    from hsmbridge_csp.hardening import disable_core_dumps

    from hsmbridge_cli.display import warn
    from hsmbridge_cli.softkeys import describe_software_key, destroy_key_file

    disable_core_dumps()
    # Looked at first: a mistyped name must not cost a file that is no key.
    found = describe_software_key(path, key_type)
    _confirm(f"Destroy {found.type or 'the key'} in {path}?", sure=sure)
    if found.links > 1:
        warn(f"{path} has {found.links - 1} more names in the file system: they stay, and name an empty file now")
    destroy_key_file(path)
    _tell(settings, f"file:{path}", f"{found.format} file of {found.size} bytes")


def _destroy_in_token(settings: Settings, name: KeyName, *, sure: bool) -> None:
    from hsmbridge.destruction import destroy_session_key
    from hsmbridge.residency import classify
    from hsmbridge_cli.opening import open_token

    with open_token(settings, name) as token:
        found = name.find(token)
        if classify(found).is_software:
            _confirm(f"Destroy {found.identity}?", sure=sure)
        # Classifies once more, and refuses hardware before anything is called.
        destroyed = destroy_session_key(found)
    _tell(settings, name.text, ", ".join(destroyed.classification.evidence))


def _confirm(question: str, *, sure: bool) -> None:
    from hsmbridge.errors import UsageError

    if sure:
        return
    if not sys.stdin.isatty():
        raise UsageError("nobody is there to confirm it; nothing was destroyed", hint="say --yes if you are sure")
    if not click.confirm(question, err=True):
        raise UsageError("not confirmed; nothing was destroyed", hint="say --yes to be asked no more")


def _tell(settings: Settings, name: str, evidence: str) -> None:
    from hsmbridge_cli.display import clean, emit_json

    if settings.json:
        document = {"key": name, "residency": "software", "evidence": [evidence], "disposition": "destroyed"}
        emit_json("key.destroy", document)
    else:
        click.echo(f"destroyed {clean(name)} ({clean(evidence)})")
