"""``hsmbridge export``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hsmbridge_cli.lazy import Command
from hsmbridge_cli.options import Settings, token_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsmbridge_csp.keys import Key
    from hsmbridge_csp.provider import Provider
    from hsmbridge_csp.recipients import Sealer

    from hsmbridge.token import Token
    from hsmbridge_cli.files import OutputFile
    from hsmbridge_cli.keynames import KeyName

__all__ = ["export"]


@click.command(
    cls=Command,
    examples=(
        "hsmbridge export label:payroll --kek label:transport -o payroll.blob",
        "hsmbridge export label:signer --by-reference --to partner.pem -o signer.blob",
        "hsmbridge export file:session.key --key-type aes --to partner -o session.blob",
        "hsmbridge export label:a label:b file:c.pem --kek label:transport -o blobs/",
    ),
)
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@click.option("--kek", metavar="KEY", help="Seal under an AES-256 KEK, or an RSA public key, of the token.")
@click.option(
    "--to",
    "recipient",
    metavar="PUBKEY",
    help="Seal for a public key, RSA-3072 or P-256: a file (PEM or DER), a pinned recipient, or a token key.",
)
@click.option("--by-reference", is_flag=True, help="Leave the key in its token; the blob says how to find it.")
@click.option("--key-type", metavar="T", help="Of secret bytes in a file: aes, des3, hmac-sha256, cmac-aes, ...")
@click.option("--identity", metavar="FILE|KEY", help="Who signs; your own identity unless given.")
@click.option("--allow-unsafe-kek", is_flag=True, help="Take a KEK that may also decrypt, or is weaker than the key.")
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE|DIR",
    help="The blob; a directory, for several; - is standard output.",
)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@token_options
@click.pass_obj
def export(
    settings: Settings,
    *,
    keys: tuple[str, ...],
    kek: str | None,
    recipient: str | None,
    by_reference: bool,
    key_type: str | None,
    identity: str | None,
    allow_unsafe_kek: bool,
    output: str,
    force: bool,
) -> None:
    """Export keys as signed blobs; the keys stay.

    A blob is a copy, sealed for one recipient and signed by your identity, which is made at the first export. A token
    key goes by value if it is extractable, wrapped in the token; or by reference. To a directory, each key's blob is
    named after its label, its id or its file.
    """
    from hsmbridge_csp.identity import config_directory
    from hsmbridge_csp.keys import SoftwareKey
    from hsmbridge_csp.provider import Provider

    from hsmbridge_cli.identities import keep_first_identity, signer
    from hsmbridge_cli.keynames import parse_key_name
    from hsmbridge_cli.parties import name_or_path, recipient_name, sealer_for, token_for

    if (kek is None) == (recipient is None):
        raise click.UsageError("say for whom: --kek or --to")
    names = [parse_key_name(key) for key in keys]
    if key_type is not None and all(name.path is None for name in names):
        raise click.UsageError("--key-type is for file: keys; a token knows its keys' types")
    party, pinned = (
        (parse_key_name(kek), None) if kek is not None else recipient_name(recipient or "", config_directory())
    )
    if kek is not None and party.path is not None:
        raise click.UsageError("--kek names a key of the token; for the file of a public key there is --to")
    identity_name = None if identity is None else name_or_path(identity)
    paths = _outputs(output, names, force=force, to_stdout_too=settings.json)
    with token_for(settings, party, identity_name, *names) as token:
        sealer = sealer_for(party, token, pinned, allow_unsafe=allow_unsafe_kek)
        found = [_find(name, token, key_type) for name in names]
        provider = Provider(token, identity=signer(identity_name, token))
        # All are sealed before one is written: a key that cannot go leaves nothing behind.
        blobs = [provider.export_key(key, sealer, by_reference=by_reference) for key in found]
        for key in found:
            if isinstance(key, SoftwareKey):
                key.dispose()  # the buffer of this process; the file stays
    if identity_name is None and provider.identity is not None:
        keep_first_identity(provider.identity)
    for target, blob in zip(paths, blobs, strict=True):
        target.write(blob)
    _tell(settings, provider, sealer, list(zip([name.text for name in names], paths, blobs, strict=True)))


def _find(name: KeyName, token: Token | None, key_type: str | None) -> Key:
    from hsmbridge_csp.token_key import TokenKey

    from hsmbridge_cli.keyfiles import load_software_key
    from hsmbridge_cli.keynames import UNWRAPPING_KEY
    from hsmbridge_cli.parties import the_token

    if name.path is not None:
        return load_software_key(name.path, key_type)
    return TokenKey(name.find(the_token(token), UNWRAPPING_KEY))


def _outputs(output: str, names: Sequence[KeyName], *, force: bool, to_stdout_too: bool) -> list[OutputFile]:
    """Decide where each blob goes, and check that it can, before a key is touched."""
    from pathlib import Path

    from hsmbridge.errors import UsageError
    from hsmbridge_cli.files import STANDARD_STREAM, OutputFile

    if output != STANDARD_STREAM and Path(output).is_dir():
        files = [str(Path(output) / f"{_file_name(name)}.blob") for name in names]
        twice = next((name for name in files if files.count(name) > 1), None)
        if twice is not None:
            raise UsageError(f"two keys would go to {twice}", hint="export them one by one, each with -o FILE")
    elif len(names) == 1:
        files = [output]
    else:
        raise UsageError(f"{output} is no directory, and {len(names)} keys make as many blobs", hint="give -o DIR")
    targets = [OutputFile(name, force=force) for name in files]
    if targets[0].is_stdout and to_stdout_too:
        raise click.UsageError("-o - and --json both want standard output")
    return targets


def _file_name(name: KeyName) -> str:
    """Return what a key is called, as a file name without anything that a shell or a path would understand."""
    from pathlib import Path

    uri = name.uri
    label = name.label or (uri.object if uri is not None else None)
    key_id = name.id or (uri.id if uri is not None else None)
    text = Path(name.path).name if name.path is not None else label or (key_id or b"").hex()
    safe = "".join(char if char.isalnum() or char in "._-" else "_" for char in text)
    return safe.lstrip(".-") or "key"


def _tell(
    settings: Settings, provider: Provider, sealer: Sealer, exported: Sequence[tuple[str, OutputFile, bytes]]
) -> None:
    from hsmbridge_csp.blob import Blob

    from hsmbridge_cli.display import clean, emit_json

    entries: list[dict[str, object]] = []
    for name, target, data in exported:
        clear = Blob.parse(data).clear
        entries.append(
            {
                "key": name,
                "algorithm": clear.key_type,
                "bits": clear.bits,
                "transfer": "reference" if clear.by_reference else "value",
                "blob_id": clear.blob_id.hex(),
                "output": target.name,
                "bytes": len(data),
            }
        )
        if not settings.json:
            where = "" if target.is_stdout else f", in {target.name}"
            how = f"by {entries[-1]['transfer']} for {sealer.fingerprint.hex()}"
            click.echo(clean(f"exported {name} {how}: {len(data)} bytes{where}"), err=target.is_stdout)
    if settings.json:
        sender = provider.identity.fingerprint.hex() if provider.identity is not None else None
        emit_json("export", {"sender": sender, "recipient": sealer.fingerprint.hex(), "blobs": entries})
