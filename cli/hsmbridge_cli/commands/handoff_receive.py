"""``hsmbridge handoff receive``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hsmbridge_cli.lazy import Command
from hsmbridge_cli.options import Settings, token_options

if TYPE_CHECKING:
    from hsmbridge_cli.keynames import KeyName

__all__ = ["handoff_receive"]


@click.command(
    cls=Command,
    name="receive",
    examples=(
        "hsmbridge handoff receive --socket /run/user/1000/keys/socket -o file:payroll.pem",
        "hsmbridge handoff receive -i keys.bundle --as private.pem --receipt keys.receipt -o file:keys/",
        "hsmbridge handoff receive -i keys.bundle --as private.pem --dry-run",
    ),
)
@click.option("--socket", metavar="PATH", help="Listen there; its directory is made, or must be yours with mode 700.")
@click.option("-i", "--input", "bundle", metavar="BUNDLE", help="Read a bundle.")
@click.option("--receipt", metavar="FILE", help="Where the receipt of a bundle goes: the sender wants it back.")
@click.option("--persist", is_flag=True, help="DEST: keys of the token; what stayed in it is found and recognised.")
@click.option(
    "-o", "--output", metavar="file:PATH|DIR/", help="DEST: files, PKCS#8 in PEM or JWK; one, or a directory."
)
@click.option("--dry-run", is_flag=True, help="DEST: verify and open a bundle, tell, and claim nothing.")
@click.option("--answer", is_flag=True, help="DEST: take no keys, only tell what became of earlier handoffs.")
@click.option(
    "--kek", metavar="KEY", help="The KEK that they are sealed under: an AES or RSA private key of the token."
)
@click.option(
    "--as", "private", metavar="PRIVKEY", help="The private key that they are sealed for: a file or a token key."
)
@click.option("--single-use", is_flag=True, help="Destroy the file of --as once the receipt is written.")
@click.option("--raw", is_flag=True, help="Write secret keys as bare bytes instead of JWKs.")
@click.option("--keep", is_flag=True, help="Go on listening, until interrupted.")
@click.option("--identity", metavar="FILE|KEY", help="Who signs the receipt; your own identity unless given.")
@click.option("--peer", metavar="NAME|HEX", help="Who may hand keys over: a pinned name or a fingerprint.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="S", help="Seconds to wait for a sender; for ever.")
@click.option("--allow-unsafe-kek", is_flag=True, help="Take a KEK that may also decrypt.")
@click.option("--events", metavar="FILE", help="A line of JSON for each event; - is standard output.")
@token_options
@click.pass_obj
def handoff_receive(
    settings: Settings,
    *,
    socket: str | None,
    bundle: str | None,
    receipt: str | None,
    persist: bool,
    output: str | None,
    dry_run: bool,
    answer: bool,
    kek: str | None,
    private: str | None,
    single_use: bool,
    raw: bool,
    keep: bool,
    identity: str | None,
    peer: str | None,
    timeout: float | None,
    allow_unsafe_kek: bool,
    events: str | None,
) -> None:
    """Take keys over, and sign the receipt.

    DEST must be said: --persist, -o file:PATH, -o file:DIR/; --dry-run for a bundle, --answer for a socket. All keys
    arrive, each as it was, or none does; nothing that is there is replaced. A move is imported once: a second time it
    is refused.
    """
    from hsmbridge_cli.files import STANDARD_STREAM, OutputFile
    from hsmbridge_cli.handoffplaces import Place
    from hsmbridge_cli.handoffreceiving import Reception, receive_from_bundle, receive_from_socket
    from hsmbridge_cli.handoffs import Neighbours, identity_for, party_for
    from hsmbridge_cli.handoffstopping import stoppable
    from hsmbridge_cli.handoffwatch import watching
    from hsmbridge_cli.parties import name_or_path, opener_for, token_for

    if (socket is None) == (bundle is None):
        raise click.UsageError("say where the keys come from: --socket PATH or -i BUNDLE")
    if [persist, output is not None, dry_run, answer].count(True) != 1:
        raise click.UsageError("say where the keys go: --persist, -o file:PATH, --dry-run or --answer")
    if raw and output is None:
        raise click.UsageError("--raw goes with -o file:PATH")
    of_bundles = {"--receipt": receipt is not None, "--dry-run": dry_run, "--single-use": single_use}
    of_sockets = {"--keep": keep, "--answer": answer, "--timeout": timeout is not None}
    _refuse("-i BUNDLE", of_bundles if bundle is None else {})
    _refuse("--socket", of_sockets if socket is None else {})
    if receipt == STANDARD_STREAM and (settings.json or events == STANDARD_STREAM):
        raise click.UsageError("--receipt - wants standard output for itself")
    opening = _opening_key(kek, private)
    if bundle is not None:
        _check_bundle(opening, receipt, dry_run=dry_run, single_use=single_use)
    place = Place.parse(output, persist=persist, dry_run=dry_run, raw=raw)
    if keep and place.kind == "file" and not place.many:
        raise click.UsageError("--keep takes more than one handoff: give it -o file:DIR/")
    receipt_file = None if receipt is None else OutputFile(receipt)
    identity_name = None if identity is None else name_or_path(identity)
    # Files take keys that stayed in a token too, if it is named here.
    token_too = persist or any(each is not None for each in (settings.module, settings.token_label, settings.uri))
    with (
        stoppable(settings),
        watching(settings, events) as watch,
        token_for(settings, opening, identity_name, also=token_too and not answer) as token,
        party_for(identity_for(identity_name, token), watch) as party,
    ):
        reception = Reception(
            settings=settings,
            party=party,
            neighbours=Neighbours.of(party, peer),
            watch=watch,
            place=place,
            token=token,
            opener=None if opening is None else opener_for(opening, token, allow_unsafe=allow_unsafe_kek),
        )
        if bundle is not None:
            used_up = opening.path if single_use and opening is not None else None
            receive_from_bundle(reception, bundle, receipt_file, used_up)
        else:
            receive_from_socket(reception, socket or "", keep=keep, timeout=timeout)


def _refuse(way: str, options: dict[str, bool]) -> None:
    """Refuse options that go with another way of receiving."""
    wrong = next((option for option, given in options.items() if given), None)
    if wrong is not None:
        raise click.UsageError(f"{wrong} goes with {way}")


def _check_bundle(opening: KeyName | None, receipt: str | None, *, dry_run: bool, single_use: bool) -> None:
    if opening is None:
        raise click.UsageError("say which key opens the bundle: --kek or --as")
    if (receipt is None) != dry_run:
        raise click.UsageError("say where the receipt goes: --receipt FILE; a dry run makes none")
    if single_use and opening.path is None:
        raise click.UsageError("--single-use goes with --as FILE")


def _opening_key(kek: str | None, private: str | None) -> KeyName | None:
    from hsmbridge_cli.keynames import parse_key_name
    from hsmbridge_cli.parties import name_or_path

    if kek is not None and private is not None:
        raise click.UsageError("say once which key opens them: --kek or --as")
    if kek is None:
        return None if private is None else name_or_path(private)
    name = parse_key_name(kek)
    if name.path is not None:
        raise click.UsageError("--kek names a key of the token; for a private key in a file there is --as")
    return name
