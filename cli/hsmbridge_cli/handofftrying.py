"""A dry run of receiving a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from hsmbridge_csp.handoff.arriving import open_sealed
from hsmbridge_csp.handoff.bundle import read_blobs
from hsmbridge_csp.journal import Phase, Role
from hsmbridge_csp.wipe import wipe

from hsmbridge.errors import UsageError
from hsmbridge_cli.display import clean, emit_json, warn
from hsmbridge_cli.recordfacts import TRANSFERS, what_is_more_than_the_key

if TYPE_CHECKING:
    from pathlib import Path

    from hsmbridge_csp.handoff.bundle import BundleHeader

    from hsmbridge_cli.handoffreceiving import Reception

__all__ = ["try_bundle"]


def try_bundle(here: Reception, path: Path, header: BundleHeader, digest: bytes) -> None:
    """Open a verified bundle and tell what is in it; nothing is claimed, made or promised.

    Args:
        here: who, and with which key.
        path: of the bundle.
        header: verified.
        digest: the running hash over its blobs.

    Raises:
        BlobError: a blob is not authentic; KekError: it is for another key.
    """
    if here.opener is None:
        raise UsageError("nothing opens the bundle", hint="say --kek or --as")
    known = here.party.journal.entry(Role.RECEIVER, header.handoff)
    obstacles = [] if known is None or known.phase is Phase.OFFERED else [f"it is {known.phase} here already"]
    if header.peer != here.party.identity.fingerprint:
        obstacles.append(f"it wants its receipt from {here.neighbours.name_of(header.peer)}")
    keys: list[dict[str, object]] = []
    for blob, record in open_sealed(here.party, header.sender, here.opener, here.token, read_blobs(path, header.count)):
        more = what_is_more_than_the_key(record)
        if more is not None:
            obstacles.append(f"a key comes with {more}")
        keys.append(
            {"blob_id": blob.hex(), "algorithm": record.algorithm, "transfer": TRANSFERS[record.transfer], "more": more}
        )
        wipe(record.key)
    for obstacle in obstacles:
        warn(f"it would be refused: {obstacle}")
    name = here.neighbours.name_of(header.sender)
    if here.settings.json:
        handoff = {
            "handoff": header.handoff.hex(),
            "phase": None,
            "peer": {"fingerprint": header.sender.hex(), "name": name},
            "bundle": str(path),
            "digest": digest.hex(),
            "keys": keys,
        }
        emit_json("handoff.receive", {"handoffs": [handoff], "answered": 0, "receipt": None, "warnings": obstacles})
        return
    for key in keys:
        click.echo(clean(f"{key['algorithm']} by {key['transfer']}, blob {key['blob_id']}"))
    click.echo(clean(f"handoff {header.handoff.hex()}: {len(keys)} key(s) from {name}; nothing was claimed (dry run)"))
