"""``hsmbridge identity trust``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hsmbridge_cli.lazy import Command
from hsmbridge_cli.options import Settings, token_options

if TYPE_CHECKING:
    from hsmbridge_csp.trust import Pin

    from hsmbridge.publickeys import PublicKey

__all__ = ["identity_trust"]


@click.command(
    cls=Command,
    name="trust",
    examples=(
        "hsmbridge identity trust --name alice alice.pem",
        "hsmbridge identity trust --name partner --role recipient partner.pem",
    ),
)
@click.argument("file")
@click.option("--name", required=True, help="What its owner is called here.")
@click.option(
    "--role",
    type=click.Choice(["sender", "recipient"]),
    default="sender",
    show_default=True,
    help="Believe what it signs, or let `export --to NAME` seal for it.",
)
@click.option("--fingerprint", metavar="HEX", help="Pin it only if this is its fingerprint.")
@token_options
@click.pass_obj
def identity_trust(settings: Settings, *, file: str, name: str, role: str, fingerprint: str | None) -> None:
    """Pin a sender's or a recipient's public key.

    FILE is its SubjectPublicKeyInfo in PEM or DER; - is standard input. Compare the fingerprint with what its owner
    told you: nothing else says whose key it is. A name that is pinned already keeps its key.
    """
    from hsmbridge_csp.trust import Role, TrustStore, load_public_key, make_pin

    from hsmbridge_cli.commands.identity_ls import describe_pin
    from hsmbridge_cli.display import emit_fields, emit_json
    from hsmbridge_cli.files import MAX_WRAP_BYTES, read_input
    from hsmbridge_cli.identities import trust_path

    key = load_public_key(read_input(file, MAX_WRAP_BYTES), name=file)
    _check_kind(key, role)
    pin = make_pin(Role(role), name, key)
    _check_fingerprint(pin, fingerprint)
    store = TrustStore.load(trust_path())
    known = _check_known(store.pins, pin)
    if not known:
        store.add(trust_path(), pin)
    told = describe_pin(pin)
    if settings.json:
        emit_json("identity.trust", {**told, "new": not known})
    else:
        emit_fields([*told.items(), ("now", "pinned already" if known else f"pinned, in {trust_path()}")])


def _check_kind(key: PublicKey, role: str) -> None:
    """Refuse a key that cannot play its role."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    from hsmbridge.errors import PolicyError
    from hsmbridge_cli.parties import sealer_of

    if role == "recipient":
        sealer_of(key)
        return
    p256 = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    if not p256 and not isinstance(key, ed25519.Ed25519PublicKey):
        raise PolicyError("a sender signs with Ed25519 or P-256, and this is another kind of key", hint=_ASK)


_ASK = "ask for what `hsmbridge identity show --public FILE` writes"


def _check_fingerprint(pin: Pin, expected: str | None) -> None:
    from hsmbridge.errors import PolicyError

    if expected is not None and expected.replace(":", "").lower() != pin.fingerprint.hex():
        raise PolicyError(
            f"the key's fingerprint is {pin.fingerprint.hex()}, not the one that was said; it is not pinned",
            hint="this is another key than its owner named: ask again",
        )


def _check_known(pins: tuple[Pin, ...], pin: Pin) -> bool:
    """Return whether the pin is there already; refuse a name with two keys, and a key with two names."""
    from hsmbridge.errors import PolicyError

    for other in pins:
        if other.role is not pin.role or (other.name != pin.name and other.fingerprint != pin.fingerprint):
            continue
        if other.name == pin.name and other.fingerprint == pin.fingerprint:
            return True
        raise PolicyError(
            f"{other.name!r} is pinned as {other.role} already, with fingerprint {other.fingerprint.hex()}",
            hint=f"if that is right: `hsmbridge identity forget {other.name} --role {other.role}` first",
        )
    return False
