"""``hsmbridge handoff send``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hsmbridge_cli.lazy import Command
from hsmbridge_cli.options import Settings, token_options

if TYPE_CHECKING:
    from hsmbridge.publickeys import PublicKey
    from hsmbridge_cli.keynames import KeyName

__all__ = ["handoff_send"]


@click.command(
    cls=Command,
    name="send",
    examples=(
        "hsmbridge handoff send file:payroll.pem --socket /run/user/1000/keys/socket",
        "hsmbridge handoff send file:a.pem file:b.jwk --to partner --peer alice -o keys.bundle",
        "hsmbridge handoff send label:signer --socket /run/user/1000/keys/socket",
    ),
)
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@click.option("--socket", metavar="PATH", help="Hand over to the process that listens there.")
@click.option("-o", "--output", metavar="BUNDLE", help="Write a bundle; its receipt goes to `handoff commit`.")
@click.option("--kek", metavar="KEY", help="Seal under an AES-256 KEK, or an RSA public key, of the token.")
@click.option(
    "--to", "recipient", metavar="PUBKEY", help="Seal for a public key: a file, a pinned recipient, or a token key."
)
@click.option("--key-type", metavar="T", help="Of secret bytes in a file: aes, des3, hmac-sha256, cmac-aes, ...")
@click.option("--identity", metavar="FILE|KEY", help="Who signs; your own identity unless given.")
@click.option("--peer", metavar="NAME|HEX", help="Who is to take the keys: a pinned name or a fingerprint.")
@click.option("--timeout", type=click.FloatRange(min=0), default=60.0, metavar="S", help="Seconds to wait; 60.")
@click.option("--allow-unsafe-kek", is_flag=True, help="Take a KEK that may also decrypt, or is weaker than the key.")
@click.option("--events", metavar="FILE", help="A line of JSON for each event; - is standard output.")
@token_options
@click.pass_obj
def handoff_send(
    settings: Settings,
    *,
    keys: tuple[str, ...],
    socket: str | None,
    output: str | None,
    kek: str | None,
    recipient: str | None,
    key_type: str | None,
    identity: str | None,
    peer: str | None,
    timeout: float,
    allow_unsafe_kek: bool,
    events: str | None,
) -> None:
    """Hand keys over; they are destroyed here afterwards.

    file: keys go by value, keys of a token by reference. Over a socket the keys are sealed for that one connection,
    unless --kek or --to says otherwise; waits until somebody listens. With -o, a bundle is written, and the keys stay
    frozen until `handoff commit` gets its receipt. A frozen file has another name.
    """
    from hsmbridge_cli.handoffs import Neighbours, identity_for, party_for
    from hsmbridge_cli.handoffsending import Dispatch
    from hsmbridge_cli.handoffstopping import stoppable
    from hsmbridge_cli.handoffwatch import watching
    from hsmbridge_cli.keynames import parse_key_name
    from hsmbridge_cli.parties import name_or_path, sealer_for, token_for

    _check(socket, output, kek, recipient)
    names = [parse_key_name(key) for key in keys]
    if key_type is not None and all(name.path is None for name in names):
        raise click.UsageError("--key-type is for file: keys; a token knows its keys' types")
    sealed_for, public = _recipient(kek, recipient)
    identity_name = None if identity is None else name_or_path(identity)
    with (
        stoppable(settings),
        watching(settings, events) as watch,
        token_for(settings, sealed_for, identity_name, *names) as token,
        party_for(identity_for(identity_name, token), watch) as party,
    ):
        dispatch = Dispatch(
            settings=settings,
            party=party,
            neighbours=Neighbours.of(party, peer),
            watch=watch,
            token=token,
            sealer=None if sealed_for is None else sealer_for(sealed_for, token, public, allow_unsafe=allow_unsafe_kek),
        )
        sources = dispatch.sources(names, key_type)
        if output is not None:
            dispatch.into_bundle(keys, sources, output)
        else:
            dispatch.over_socket(keys, sources, socket or "", timeout)


def _check(socket: str | None, output: str | None, kek: str | None, recipient: str | None) -> None:
    from hsmbridge_cli.files import STANDARD_STREAM, OutputFile

    if (socket is None) == (output is None):
        raise click.UsageError("say how the keys go: --socket PATH or -o BUNDLE")
    if kek is not None and recipient is not None:
        raise click.UsageError("say once for whom they are: --kek or --to")
    if output is None:
        return
    if kek is None and recipient is None:
        raise click.UsageError("say for whom the bundle is: --kek or --to")
    if output == STANDARD_STREAM:
        raise click.UsageError("a bundle is a file: the journal keeps its name")
    OutputFile(output)  # looks whether it can be made, before a key is touched


def _recipient(kek: str | None, recipient: str | None) -> tuple[KeyName | None, PublicKey | None]:
    from hsmbridge_csp.identity import config_directory

    from hsmbridge_cli.keynames import parse_key_name
    from hsmbridge_cli.parties import recipient_name

    if recipient is not None:
        return recipient_name(recipient, config_directory())
    name = None if kek is None else parse_key_name(kek)
    if name is not None and name.path is not None:
        raise click.UsageError("--kek names a key of the token; for the file of a public key there is --to")
    return name, None
