"""``hsmbridge unwrap``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hsmbridge_cli.lazy import Command
from hsmbridge_cli.options import Settings, complete_dialect, token_options

if TYPE_CHECKING:
    from hsmbridge_cli.arrivals import Arrived

__all__ = ["unwrap"]


@click.command(
    cls=Command,
    examples=(
        "hsmbridge unwrap --kek label:transport -i payroll.wrapped --key-type aes --dry-run",
        "hsmbridge unwrap --kek label:transport -i payroll.wrapped --key-type aes:256 --label payroll --persist",
        "hsmbridge unwrap --kek label:mine -i sealed.bin --mechanism rsa-oaep-sha256 --key-type generic:20 --persist",
    ),
)
@click.option("--kek", required=True, metavar="KEY", help="An AES key or an RSA private key of the token.")
@click.option("-i", "--input", "source", required=True, metavar="FILE", help="The wrapped key; - is standard input.")
@click.option(
    "--key-type",
    required=True,
    metavar="T",
    help="What it is: aes, aes:256, des3, generic, generic:20, rsa, ec:p-256, ed25519.",
)
@click.option(
    "--mechanism",
    metavar="M",
    shell_complete=complete_dialect,
    help="aes-kwp, aes-kw, rsa-oaep-sha256, ...: what made it.",
)
@click.option("--allow-unsafe-kek", is_flag=True, help="Take a KEK that may also decrypt.")
@click.option("--label", metavar="NAME", help="CKA_LABEL of the new key.")
@click.option("--id", "key_id", metavar="HEX", help="CKA_ID of the new key; random unless given.")
@click.option("-a", "attributes", multiple=True, metavar="NAME=VALUE", help="Another attribute; may be repeated.")
@click.option(
    "--public-key", metavar="FILE", help="The public key of an EC key, which NSS cannot do without (PEM or DER)."
)
@click.option("--sensitive/--no-sensitive", default=True, help="CKA_SENSITIVE; true unless said otherwise.")
@click.option("--extractable/--no-extractable", default=False, help="CKA_EXTRACTABLE; false unless said otherwise.")
@click.option("--persist", is_flag=True, help="DEST: keep the key in the token.")
@click.option("--dry-run", is_flag=True, help="DEST: unwrap to a session object, read it back, tell, and remove it.")
@token_options
@click.pass_obj
def unwrap(
    settings: Settings,
    *,
    kek: str,
    source: str,
    key_type: str,
    mechanism: str | None,
    allow_unsafe_kek: bool,
    label: str | None,
    key_id: str | None,
    attributes: tuple[str, ...],
    public_key: str | None,
    sensitive: bool,
    extractable: bool,
    persist: bool,
    dry_run: bool,
) -> None:
    """Unwrap a key into the token.

    DEST must be said: --persist or --dry-run. The key becomes a session object first and is read back; only what came
    out as asked is kept, and after a failure nothing is left.
    """
    from hsmbridge.dialects import dialect_named
    from hsmbridge_cli.arrivals import Wish, bring_in, request_of
    from hsmbridge_cli.attributevalues import parse_attributes
    from hsmbridge_cli.files import MAX_WRAP_BYTES, STANDARD_STREAM, read_input
    from hsmbridge_cli.keynames import UNWRAPPING_KEY, parse_id, parse_key_name
    from hsmbridge_cli.opening import open_token

    if persist == dry_run:
        raise click.UsageError("say where the key goes: --persist or --dry-run")
    if source == STANDARD_STREAM and settings.pin_file == STANDARD_STREAM:
        raise click.UsageError("-i - and --pin-file - both want standard input")
    kek_name = parse_key_name(kek)
    dialect = dialect_named(mechanism) if mechanism is not None else None
    wish = Wish(
        key_type=key_type,
        label=label,
        id=parse_id(key_id) if key_id is not None else None,
        sensitive=sensitive,
        extractable=extractable,
        attributes=parse_attributes(attributes),
        public_key=public_key,
    )
    request = request_of(wish, persist=persist)
    data = read_input(source, MAX_WRAP_BYTES)
    with open_token(settings, kek_name) as token:
        found = kek_name.find(token, UNWRAPPING_KEY)
        arrived = bring_in(found, data, request, dialect, allow_unsafe_kek=allow_unsafe_kek)
    _tell(settings, arrived, source, kek)


def _tell(settings: Settings, arrived: Arrived, source: str, kek: str) -> None:
    from hsmbridge_cli.display import emit_fields, emit_json, warn

    for warning in arrived.warnings:
        warn(warning)
    if settings.json:
        emit_json(
            "unwrap",
            {
                "input": source,
                "kek": kek,
                "mechanism": str(arrived.route.dialect),
                "source": arrived.route.dialect.source,
                "ckm": arrived.route.mechanism.name,
                "dest": "token" if arrived.kept else "dry-run",
                "key": arrived.summary,
                "kcv": arrived.kcv,
                "attributes": arrived.attributes,
                "warnings": list(arrived.warnings),
            },
        )
        return
    summary = arrived.summary
    emit_fields(
        [
            *((name, summary[name]) for name in ("class", "type", "label", "id", "residency", "reason")),
            ("kcv", arrived.kcv),
            ("came by", str(arrived.route)),
            (
                "now",
                "in the token" if arrived.kept else "removed again (dry run): it opens, and would be taken as asked",
            ),
        ]
    )
