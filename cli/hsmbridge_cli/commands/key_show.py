"""``hsmbridge key show``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hsmbridge_cli.lazy import Command
from hsmbridge_cli.options import Settings, token_options

if TYPE_CHECKING:
    from hsmbridge_cli.kekfacts import KekFacts
    from hsmbridge_cli.keynames import KeyName

__all__ = ["key_show"]


@click.command(
    cls=Command,
    name="show",
    examples=(
        "hsmbridge key show label:transport",
        "hsmbridge key show 'pkcs11:token=prod;object=payroll;type=secret-key' --json",
        "hsmbridge key show file:payroll.pem",
        "hsmbridge key show file:payroll.bin --key-type aes:256",
    ),
)
@click.argument("key")
@click.option("--key-type", metavar="T", help="For a file: of raw bytes, what they are: aes:256, generic:20, ...")
@token_options
@click.pass_obj
def key_show(settings: Settings, key: str, key_type: str | None) -> None:
    """Say what a key is, and where it lives and why.

    For a KEK also its fingerprint, its strength, and who can read what it wrapped. No secret is ever shown; the check
    value is the first three bytes of an encrypted zero block.
    """
    from hsmbridge_cli.keynames import parse_key_name

    name = parse_key_name(key)
    if name.path is not None:
        _show_file(settings, name.path, key_type)
        return
    if key_type is not None:
        raise click.UsageError("--key-type is for file: keys; a token knows its keys' types")
    _show_token_key(settings, name)


def _show_file(settings: Settings, path: str, key_type: str | None) -> None:
    from hsmbridge_csp.hardening import disable_core_dumps

    from hsmbridge_cli.display import emit_fields, emit_json, warn
    from hsmbridge_cli.softkeys import describe_software_key

    disable_core_dumps()
    found = describe_software_key(path, key_type)
    evidence = f"{found.format} file of {found.size} bytes, mode {found.mode:03o}"
    facts: dict[str, object] = {
        "key": f"file:{path}",
        "type": found.type,
        "format": found.format,
        "residency": "software",
        "reason": "a file: its bytes are there to be read",
        "evidence": [evidence],
    }
    if found.mode & 0o077:
        warn(f"{path} is open to other users (mode {found.mode:03o})")
    if settings.json:
        emit_json("key.show", facts)
    else:
        emit_fields((field, evidence if field == "evidence" else value) for field, value in facts.items())


def _show_token_key(settings: Settings, name: KeyName) -> None:
    from hsmbridge_cli.display import emit_fields, emit_json
    from hsmbridge_cli.kekfacts import examine_kek
    from hsmbridge_cli.keyfacts import check_value, key_summary, may_wrap, shown_attributes
    from hsmbridge_cli.opening import open_token

    with open_token(settings, name) as token:
        found = name.find(token)
        summary = key_summary(found)
        attributes, unreadable = shown_attributes(found)
        kcv = check_value(found)
        kek = examine_kek(found) if may_wrap(summary) else None
    if settings.json:
        about = {"kek": None if kek is None else kek.document()}
        emit_json("key.show", {**summary, "kcv": kcv, "attributes": attributes, "unreadable": unreadable, **about})
        return
    evidence, uses = summary.pop("evidence"), summary.pop("uses")
    emit_fields(
        [
            *summary.items(),
            ("evidence", ", ".join(evidence) if isinstance(evidence, list) else evidence),
            ("may", ", ".join(uses) if isinstance(uses, list) else uses),
            ("kcv", kcv),
            *(() if kek is None else _kek_fields(kek)),
            ("attributes", _lines(attributes)),
            *((("unreadable", _lines(unreadable)),) if unreadable and settings.verbosity else ()),
        ]
    )


def _kek_fields(kek: KekFacts) -> list[tuple[str, object]]:
    from hsmbridge_cli.kekfacts import READABLE

    if not kek.unwraps:
        verdict = "it cannot unwrap"
    elif kek.readable:
        verdict = READABLE
    else:
        verdict = "what it unwraps stays hidden: its CKA_UNWRAP_TEMPLATE demands it, and the token enforces that"
    return [
        ("fingerprint", kek.fingerprint or f"none: {kek.no_fingerprint}"),
        ("as a KEK", "\n".join(kek.complaints) or "safe: it may wrap and unwrap, and nothing else"),
        ("readers", verdict),
    ]


def _lines(values: dict[str, object] | dict[str, str]) -> str:
    return "\n".join(f"{name}={_text(value)}" for name, value in values.items())


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "-"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}={_text(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    return str(value)
