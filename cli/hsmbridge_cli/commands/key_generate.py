"""``hsmbridge key generate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hsmbridge_cli.lazy import Command
from hsmbridge_cli.options import Settings, token_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsmbridge.keyspec import KeySpec
    from hsmbridge.objects import Object
    from hsmbridge.template import Value
    from hsmbridge.token import Token

__all__ = ["key_generate"]


@click.command(
    cls=Command,
    name="generate",
    examples=(
        "hsmbridge key generate --type aes:256 --label payroll --extractable",
        "hsmbridge key generate --type aes:256 --label transport --kek",
        "hsmbridge key generate --type ec:p-256 --label signer --id 0a1b -a DERIVE=true",
    ),
)
@click.option(
    "--type", "key_type", required=True, metavar="T", help="aes:256, des3, generic:BYTES, rsa:3072, ec:p-256, ed25519."
)
@click.option("--label", required=True, metavar="NAME", help="CKA_LABEL.")
@click.option("--id", "key_id", metavar="HEX", help="CKA_ID; random unless given.")
@click.option(
    "--kek", is_flag=True, help="A key that may wrap and unwrap, and nothing else; its id is its fingerprint."
)
@click.option(
    "--no-unwrap-template",
    is_flag=True,
    help="Let this KEK unwrap readable keys: whoever may log in can read them then.",
)
@click.option("--extractable", is_flag=True, help="Let the key leave the token, wrapped.")
@click.option("-a", "attributes", multiple=True, metavar="NAME=VALUE", help="Another attribute; may be repeated.")
@token_options
@click.pass_obj
def key_generate(
    settings: Settings,
    *,
    key_type: str,
    label: str,
    key_id: str | None,
    kek: bool,
    no_unwrap_template: bool,
    extractable: bool,
    attributes: tuple[str, ...],
) -> None:
    """Generate a key, or a safe KEK, in the token.

    The key is a token object, sensitive, and not extractable unless that is asked for.
    """
    from hsmbridge.keyspec import parse_keyspec
    from hsmbridge_cli.attributevalues import parse_attributes
    from hsmbridge_cli.keynames import parse_id
    from hsmbridge_cli.opening import open_token

    spec = parse_keyspec(key_type)
    if kek and (key_id is not None or extractable or attributes):
        raise click.UsageError(
            "--kek takes no --id, --extractable or -a: a KEK is named by its fingerprint and does one thing"
        )
    if no_unwrap_template and not kek:
        raise click.UsageError("--no-unwrap-template goes with --kek")
    template = _template(
        spec, label, extractable=extractable, more=parse_attributes(attributes), key_id=key_id and parse_id(key_id)
    )
    with open_token(settings) as token:
        if kek:
            made = _generate_kek(token, spec, label, unwrap_template=not no_unwrap_template)
        else:
            made = _generate(token, spec, template)
        _tell(settings, made, kek=kek)


def _template(
    spec: KeySpec, label: str, *, extractable: bool, more: Mapping[int, Value], key_id: bytes | str | None
) -> dict[int, Value]:
    from hsmbridge.codes import CKA
    from hsmbridge.errors import UsageError
    from hsmbridge.keyspec import usage_of

    if not spec.bits:
        raise UsageError(f"{spec} says no size", hint="for example aes:256, rsa:3072, ec:p-256, generic:32")
    named: dict[int, Value] = {CKA.LABEL: label, **({CKA.EXTRACTABLE: True} if extractable else {})}
    if isinstance(key_id, bytes):
        named[CKA.ID] = key_id
    twice = [kind for kind in named if kind in more]
    if twice:
        raise UsageError(f"attribute {CKA(twice[0]).name} is given twice", hint="it has an option of its own")
    return {CKA.TOKEN: True, **usage_of(spec), **named, **more}


def _generate(token: Token, spec: KeySpec, template: Mapping[int, Value]) -> Object:
    from hsmbridge.codes import CKA
    from hsmbridge.generation import generate_key

    # The public half may do the other end of what the private half may do.
    public = {CKA.VERIFY: CKA.SIGN, CKA.ENCRYPT: CKA.DECRYPT, CKA.WRAP: CKA.UNWRAP}
    return generate_key(token, spec, template, {theirs: template.get(ours) is True for theirs, ours in public.items()})


def _generate_kek(token: Token, spec: KeySpec, label: str, *, unwrap_template: bool) -> Object:
    from hsmbridge.generation import generate_kek

    return generate_kek(token, spec, label=label, unwrap_template=unwrap_template)


def _tell(settings: Settings, made: Object, *, kek: bool) -> None:
    from hsmbridge_cli.display import emit_fields, emit_json, warn
    from hsmbridge_cli.kekfacts import READABLE, examine_kek
    from hsmbridge_cli.keyfacts import key_summary

    summary = key_summary(made)
    facts = examine_kek(made) if kek else None
    if facts is not None and facts.readable:
        warn(READABLE)
    if settings.json:
        emit_json("key.generate", {**summary, "kek": None if facts is None else facts.document()})
        return
    emit_fields((name, summary[name]) for name in ("type", "label", "id", "residency", "uri"))
