"""``hsmbridge identity ls``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hsmbridge_cli.lazy import Command
from hsmbridge_cli.options import Settings, token_options

if TYPE_CHECKING:
    from hsmbridge_csp.trust import Pin

__all__ = ["describe_pin", "identity_ls"]


@click.command(cls=Command, name="ls", examples=("hsmbridge identity ls", "hsmbridge identity ls --json"))
@token_options
@click.pass_obj
def identity_ls(settings: Settings) -> None:
    """List whom you believe.

    Senders whose blobs are imported, and recipients whom `export --to` knows by name. Your own identity is believed
    without a pin.
    """
    from hsmbridge_csp.trust import TrustStore

    from hsmbridge_cli.display import emit_json, emit_table
    from hsmbridge_cli.identities import trust_path

    pins = [describe_pin(pin) for pin in TrustStore.load(trust_path()).pins]
    if settings.json:
        emit_json("identity.ls", {"pins": pins})
        return
    emit_table(("ROLE", "NAME", "TYPE", "FINGERPRINT"), [tuple(pin.values()) for pin in pins])


def describe_pin(pin: Pin) -> dict[str, str]:
    """Return a pin JSON-ready."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    key = pin.key
    if isinstance(key, rsa.RSAPublicKey):
        kind = f"rsa:{key.key_size}"
    elif isinstance(key, ec.EllipticCurvePublicKey):
        kind = f"ec:p-{key.curve.key_size}"
    else:
        kind = "ed25519"
    return {"role": str(pin.role), "name": pin.name, "type": kind, "fingerprint": pin.fingerprint.hex()}
