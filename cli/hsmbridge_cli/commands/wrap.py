"""``hsmbridge wrap``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hsmbridge_cli.lazy import Command
from hsmbridge_cli.options import Settings, complete_dialect, token_options

if TYPE_CHECKING:
    from hsmbridge.wrapping import Wrapped
    from hsmbridge_cli.files import OutputFile

__all__ = ["wrap"]


@click.command(
    cls=Command,
    examples=(
        "hsmbridge wrap label:payroll --kek label:transport -o payroll.wrapped",
        "hsmbridge wrap --key id:0a1b --kek label:transport --mechanism aes-kwp -o - | base64",
        "hsmbridge wrap label:payroll --kek 'pkcs11:object=partner;type=public' --mechanism rsa-oaep-sha256 -o p.bin",
    ),
)
@click.argument("key", required=False)
@click.option("--key", "key_option", metavar="KEY", help="The key, instead of the argument.")
@click.option("--kek", required=True, metavar="KEY", help="An AES key or an RSA public key of the same token.")
@click.option(
    "--mechanism",
    metavar="M",
    shell_complete=complete_dialect,
    help="aes-kwp, aes-kw, rsa-oaep-sha256, ...: see `token show --probe`.",
)
@click.option("--allow-unsafe-kek", is_flag=True, help="Take a KEK that may also decrypt, or is weaker than the key.")
@click.option("-o", "--output", required=True, metavar="FILE", help="Where the wrapped key goes; - is standard output.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@token_options
@click.pass_obj
def wrap(
    settings: Settings,
    *,
    key: str | None,
    key_option: str | None,
    kek: str,
    mechanism: str | None,
    allow_unsafe_kek: bool,
    output: str,
    force: bool,
) -> None:
    """Wrap a key of the token under a KEK.

    Writes the bare output of C_WrapKey, as other tools expect it. It does not say under which KEK and in which format
    it was made: keep that with it. The key must be extractable, and stays in the token.
    """
    from hsmbridge.dialects import dialect_named
    from hsmbridge.wrapping import wrap as wrap_key
    from hsmbridge_cli.files import OutputFile
    from hsmbridge_cli.keynames import UNWRAPPING_KEY, WRAPPING_KEY, parse_key_name
    from hsmbridge_cli.opening import open_token

    if (key is None) == (key_option is None):
        raise click.UsageError("name one key, as KEY or with --key")
    key_name, kek_name = parse_key_name(key or key_option or ""), parse_key_name(kek)
    dialect = dialect_named(mechanism) if mechanism is not None else None
    target = OutputFile(output, force=force)
    if target.is_stdout and settings.json:
        raise click.UsageError("-o - and --json both want standard output")
    with open_token(settings, key_name, kek_name) as token:
        found = key_name.find(token, UNWRAPPING_KEY)
        wrapped = wrap_key(found, kek_name.find(token, WRAPPING_KEY), dialect, allow_unsafe_kek=allow_unsafe_kek)
    target.write(wrapped.data)
    _tell(settings, wrapped, key_name.text, kek_name.text, target)


def _tell(settings: Settings, wrapped: Wrapped, key: str, kek: str, target: OutputFile) -> None:
    from hsmbridge_cli.display import clean, emit_json, warn

    for warning in wrapped.warnings:
        warn(warning)
    if settings.json:
        emit_json(
            "wrap",
            {
                "key": key,
                "kek": kek,
                "mechanism": str(wrapped.route.dialect),
                "source": wrapped.route.dialect.source,
                "ckm": wrapped.route.mechanism.name,
                "output": target.name,
                "bytes": len(wrapped.data),
                "warnings": list(wrapped.warnings),
            },
        )
        return
    sentence = f"wrapped {key} under {kek}: {len(wrapped.data)} bytes of {wrapped.route}"
    click.echo(clean(sentence if target.is_stdout else f"{sentence}, in {target.name}"), err=target.is_stdout)
