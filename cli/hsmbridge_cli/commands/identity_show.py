"""``hsmbridge identity show``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hsmbridge_cli.lazy import Command
from hsmbridge_cli.options import Settings, token_options

if TYPE_CHECKING:
    from hsmbridge_csp.identity import Identity

__all__ = ["identity_show", "tell_identity"]


@click.command(
    cls=Command,
    name="show",
    examples=(
        "hsmbridge identity show",
        "hsmbridge identity show --public me.pem",
        "hsmbridge identity show --identity label:signer --public signer.pem",
    ),
)
@click.option("--identity", metavar="FILE|KEY", help="Another one: a file, or a P-256 private key of the token.")
@click.option("--public", metavar="FILE", help="Write the public key, for receivers to pin; - is standard output.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@token_options
@click.pass_obj
def identity_show(settings: Settings, identity: str | None, public: str | None, force: bool) -> None:
    """Show the key that signs what you export.

    Its fingerprint is the SHA-256 of its public key (SubjectPublicKeyInfo): tell it to your receivers on another way
    than the key itself.
    """
    from hsmbridge_cli.files import OutputFile
    from hsmbridge_cli.identities import identity_path, load_identity, signer
    from hsmbridge_cli.parties import name_or_path, token_for

    name = None if identity is None else name_or_path(identity)
    target = None if public is None else OutputFile(public, force=force, binary=False)
    if target is not None and target.is_stdout and settings.json:
        raise click.UsageError("--public - and --json both want standard output")
    with token_for(settings, name) as token:
        found: Identity = load_identity(identity_path()) if name is None else signer(name, token)
    if target is not None:
        target.write(_pem(found).encode())
        if target.is_stdout:
            return
    tell_identity(settings, "identity.show", found, str(identity_path()) if name is None else name.text)


def tell_identity(settings: Settings, command: str, found: Identity, where: str) -> None:
    """Print an identity: what names it, and the public key that receivers pin."""
    from hsmbridge_cli.display import emit_fields, emit_json

    facts = {
        "fingerprint": found.fingerprint.hex(),
        "algorithm": "Ed25519" if found.algorithm.name == "EDDSA" else "ES256",
        "identity": where,
        "public_key": _pem(found),
    }
    if settings.json:
        emit_json(command, facts)
        return
    emit_fields((name.replace("_", " "), value.rstrip("\n")) for name, value in facts.items())


def _pem(found: Identity) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return found.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
