"""``hsmbridge token``: which tokens there are, and what one of them can really do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hsmbridge_cli.lazy import Command, LazyGroup
from hsmbridge_cli.options import Settings, token_options

if TYPE_CHECKING:
    from hsmbridge.token import Token
    from hsmbridge_cli.matrix import Trial
    from hsmbridge_cli.trials import Findings

__all__ = ["token", "token_ls", "token_show"]

_COMMANDS = {
    "ls": ("hsmbridge_cli.commands.token:token_ls", "List the tokens of a module."),
    "show": ("hsmbridge_cli.commands.token:token_show", "Describe one token; with --probe try what it can do."),
}
_FLAGS = {
    "login_required": 0x4,
    "write_protected": 0x2,
    "pin_pad": 0x100,
    "pin_count_low": 0x10000,
    "pin_final_try": 0x20000,
    "pin_locked": 0x40000,
}
"""CK_TOKEN_INFO flags that are worth a word (PKCS#11 v3.1 section 3.2)."""


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
    rows = [[_facts(found)[name] for name in ("slot", "label", "serial", "manufacturer", "model")] for found in tokens]
    states = [", ".join(_states(found)) or "-" for found in tokens]
    emit_table(
        ("SLOT", "LABEL", "SERIAL", "MANUFACTURER", "MODEL", "STATE"),
        [[*row, state] for row, state in zip(rows, states, strict=True)],
    )


@click.command(
    cls=Command,
    name="show",
    examples=("hsmbridge token show --token-label prod", "hsmbridge token show --token-label prod --probe --json"),
)
@click.option("--probe", is_flag=True, help="Log in, and try each wrapping mechanism with each type of key.")
@token_options
@click.pass_obj
def token_show(settings: Settings, probe: bool) -> None:
    """Describe one token; with --probe try what it can do.

    A mechanism that a token lists need not work, and need not do what its name says: what counts is what comes back
    when a key is carried through it. The trial makes session keys only, and removes them.
    """
    from hsmbridge_cli.display import emit_json, warn
    from hsmbridge_cli.opening import open_token
    from hsmbridge_cli.trials import find_out, mechanism_names, run_trials, trial_document

    with open_token(settings, login=probe) as found:
        facts, mechanisms = _facts(found), mechanism_names(found)
        findings = find_out(found) if probe else {}
        trials, debris = run_trials(found, findings) if probe else ([], [])
    for sentence in debris:
        warn(sentence)
    if settings.json:
        probed = trial_document(findings, trials, debris) if probe else {}
        emit_json("token.show", {"token": facts, "mechanisms": mechanisms, **probed})
        return
    _show(facts, _states(found), mechanisms, settings)
    if probe:
        _show_trials(findings, trials)


def _show(facts: dict[str, object], states: list[str], mechanisms: list[str], settings: Settings) -> None:
    from hsmbridge_cli.display import emit_fields

    fields = [(name.replace("_", " "), value) for name, value in facts.items() if name not in _FLAGS]
    listed = "\n".join(mechanisms) if settings.verbosity else f"{len(mechanisms)} listed (-v shows them)"
    emit_fields([*fields, ("state", ", ".join(states) or "-"), ("mechanisms", listed)])


def _show_trials(findings: Findings, trials: list[Trial]) -> None:
    from hsmbridge_cli.display import clean
    from hsmbridge_cli.trials import emit_matrix

    click.echo()
    emit_matrix(findings, trials)
    reasons = [f"{dialect}: {found}" for dialect, found in findings.items() if isinstance(found, str)]
    reasons += [f"{trial.dialect} with {trial.key_type}: {trial.why}" for trial in trials if trial.why]
    if reasons:
        click.echo("\nWhy not:")
    for reason in reasons:
        click.echo(f"  {clean(reason)}")


def _facts(found: Token) -> dict[str, object]:
    return {
        "slot": found.slot_id,
        "slot_description": found.slot_description,
        "label": found.label,
        "serial": found.serial.decode("utf-8", "replace"),
        "manufacturer": found.manufacturer,
        "model": found.model,
        "firmware_version": _version(found.firmware_version),
        **{name: bool(found.flags & bit) for name, bit in _FLAGS.items()},
    }


def _states(found: Token) -> list[str]:
    return [name.replace("_", " ") for name, bit in _FLAGS.items() if found.flags & bit]


def _version(pair: tuple[int, int]) -> str:
    return f"{pair[0]}.{pair[1]}"
