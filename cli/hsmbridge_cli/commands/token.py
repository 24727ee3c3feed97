"""``hsmbridge token``: which tokens there are, and what one of them can really do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hsmbridge_cli.lazy import Command, LazyGroup
from hsmbridge_cli.options import Settings, token_options

if TYPE_CHECKING:
    from hsmbridge.token import Token

__all__ = ["token"]

_COMMANDS = {
    "ls": ("hsmbridge_cli.commands.token:token_ls", "List the tokens of a module."),
    "show": ("hsmbridge_cli.commands.token:token_show", "Describe one token; with --probe try what it can do."),
}


@click.group(cls=LazyGroup, lazy=_COMMANDS)
@token_options
def token() -> None:
    """List tokens, and try what they can do."""


@click.command(cls=Command, name="ls", examples=("hsmbridge token ls --module /usr/lib/softhsm/libsofthsm2.so",))
@token_options
@click.pass_obj
def token_ls(settings: Settings) -> None:
    """List the tokens of a module.

    Needs no PIN. Tokens that are not initialised are left out.
    """
    from hsmbridge_cli.display import emit_json, emit_table
    from hsmbridge_cli.opening import open_module, uris_of

    module = open_module(settings, uris_of(settings))
    tokens = module.tokens()
    if settings.json:
        about = {
            "path": module.path,
            "manufacturer": module.manufacturer,
            "description": module.description,
            "library_version": _version(module.library_version),
            "cryptoki_version": _version(module.cryptoki_version),
        }
        emit_json("token.ls", {"module": about, "tokens": [_facts(found) for found in tokens]})
        return
    rows = [
        (found.slot_id, found.label, found.serial.decode("utf-8", "replace"), found.manufacturer, found.model, _state(found))
        for found in tokens
    ]
    emit_table(("SLOT", "LABEL", "SERIAL", "MANUFACTURER", "MODEL", "STATE"), rows)


@click.command(
    cls=Command,
    name="show",
    examples=("hsmbridge token show --token-label prod", "hsmbridge token show --token-label prod --probe --json"),
)
@click.option("--probe", is_flag=True, help="Log in and try each wrapping mechanism with each type of key.")
@token_options
@click.pass_obj
def token_show(settings: Settings, probe: bool) -> None:
    """Describe one token; with --probe try what it can do.

    The trial makes session keys only, and removes them. A mechanism that a token lists need not work, and need not do what its name
    says: what counts is what came back.
    """
    from hsmbridge_cli.display import emit_fields, emit_json, emit_table, warn
    from hsmbridge_cli.opening import open_token
    from hsmbridge_cli.trials import findings_of, mechanism_names, run_trials

    with open_token(settings, login=probe) as found:
        facts = _facts(found)
        facts["mechanisms"] = mechanism_names(found)
        findings = findings_of(found) if probe else []
        trials, debris = run_trials(found) if probe else ([], [])
    for sentence in debris:
        warn(sentence)
    if settings.json:
        probed = (
            {"dialects": findings, "matrix": [_trial(trial) for trial in trials], "debris": debris} if probe else {}
        )
        emit_json("token.show", {"token": facts, **probed})
        return
    names = mechanism_names(found) if not settings.verbosity else facts["mechanisms"]
    del names
    emit_fields((name.replace("_", " "), value) for name, value in facts.items() if name != "mechanisms")
