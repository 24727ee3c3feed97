"""``hsmbridge import``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hsmbridge_cli.lazy import Command
from hsmbridge_cli.options import Settings, token_options

if TYPE_CHECKING:
    from hsmbridge_cli.keyarrivals import Destination, Imported

__all__ = ["import_"]


@click.command(
    cls=Command,
    name="import",
    examples=(
        "hsmbridge import -i payroll.blob --kek label:transport --dry-run",
        "hsmbridge import -i payroll.blob --kek label:transport --persist",
        "hsmbridge import -i session.blob --as private.pem -o file:session.jwk",
    ),
)
@click.option("-i", "--input", "source", required=True, metavar="FILE", help="The blob; - is standard input.")
@click.option("--kek", metavar="KEY", help="The KEK that it is sealed under: an AES or RSA private key of the token.")
@click.option(
    "--as", "private", metavar="PRIVKEY", help="The private key that it is sealed for: a file, or a key of the token."
)
@click.option("--persist", is_flag=True, help="DEST: keep a token key in the token.")
@click.option(
    "-o", "--output", metavar="file:PATH", help="DEST: write a software key: PKCS#8 in PEM, or a JWK of a secret."
)
@click.option("--dry-run", is_flag=True, help="DEST: verify, open, make the key, tell, and keep nothing.")
@click.option("--raw", is_flag=True, help="Write a secret key as bare bytes instead of a JWK.")
@click.option("--allow-unsigned", is_flag=True, help="Take a copy that nobody signed.")
@click.option("--allow-unsafe-kek", is_flag=True, help="Take a KEK that may also decrypt.")
@token_options
@click.pass_obj
def import_(
    settings: Settings,
    *,
    source: str,
    kek: str | None,
    private: str | None,
    persist: bool,
    output: str | None,
    dry_run: bool,
    raw: bool,
    allow_unsigned: bool,
    allow_unsafe_kek: bool,
) -> None:
    """Import a key from a signed blob.

    DEST must be said: --persist, -o file:PATH or --dry-run. The sender's signature is verified before anything is
    unwrapped; senders are pinned with `identity trust`. A key arrives as it was, or not at all: one with a running
    state, which neither a file nor a token object can hold, is refused.
    """
    from hsmbridge_csp.blob import MAX_BLOB, Blob

    from hsmbridge_cli.blobopening import UNSIGNED, verified
    from hsmbridge_cli.display import warn
    from hsmbridge_cli.files import STANDARD_STREAM, read_input
    from hsmbridge_cli.keyarrivals import Destination, arrive, check_clear_part
    from hsmbridge_cli.keynames import parse_key_name
    from hsmbridge_cli.parties import name_or_path, opener_for, token_for

    if [persist, output is not None, dry_run].count(True) != 1:
        raise click.UsageError("say where the key goes: --persist, -o file:PATH or --dry-run")
    if (kek is None) == (private is None):
        raise click.UsageError("say which key opens it: --kek or --as")
    if raw and output is None:
        raise click.UsageError("--raw goes with -o file:PATH")
    if source == STANDARD_STREAM and settings.pin_file == STANDARD_STREAM:
        raise click.UsageError("-i - and --pin-file - both want standard input")
    party = parse_key_name(kek) if kek is not None else name_or_path(private or "")
    if kek is not None and party.path is not None:
        raise click.UsageError("--kek names a key of the token; for a private key in a file there is --as")
    destination = Destination.parse(output, persist=persist, raw=raw)
    blob = Blob.parse(read_input(source, MAX_BLOB))
    sender = verified(blob, allow_unsigned=allow_unsigned)
    check_clear_part(blob.clear, destination)
    if sender["status"] != "valid":
        warn(UNSIGNED)
    with token_for(settings, party, also=blob.clear.by_reference) as token:
        opener = opener_for(party, token, allow_unsafe=allow_unsafe_kek)
        arrived = arrive(blob, opener, token, destination)
    _tell(settings, source, sender, arrived, destination)


def _tell(
    settings: Settings, source: str, sender: dict[str, object], arrived: Imported, destination: Destination
) -> None:
    from hsmbridge_cli.display import emit_fields, emit_json, warn, yes_no

    for warning in arrived.warnings:
        warn(warning)
    if settings.json:
        document = {"input": source, "sender": sender, "dest": destination.kind, "output": destination.path}
        emit_json("import", {**document, **arrived.document})
        return
    signed = f"{sender['name']} ({sender['fingerprint']})" if sender["status"] == "valid" else "nobody"
    shown = arrived.document["key"]
    summary = shown if isinstance(shown, dict) else {}
    state = arrived.document["state"]
    facts = [
        ("signed by", signed),
        ("came by", arrived.document["transfer"]),
        *((name, summary.get(name)) for name in ("class", "type", "bits", "label", "id", "residency", "reason")),
        ("kcv", arrived.document["kcv"]),
        ("state", ", ".join(f"{k} {yes_no(v)}" for k, v in state.items()) if isinstance(state, dict) else None),
        ("now", arrived.now),
    ]
    emit_fields((name, value) for name, value in facts if value is not None)
