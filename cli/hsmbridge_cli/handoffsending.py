"""Sending: the keys that are named, and handing them over to a process or into a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from hsmbridge_csp.channel import Side, connect
from hsmbridge_csp.handoff.offline import send_bundle
from hsmbridge_csp.handoff.sender import Sender
from hsmbridge_csp.handoff.source import FileSource, LiveSource, file_digest
from hsmbridge_csp.journal import Role
from hsmbridge_csp.token_key import TokenKey

from hsmbridge.errors import PolicyError, UsageError
from hsmbridge_cli.display import clean, emit_json
from hsmbridge_cli.handoffs import entry_of
from hsmbridge_cli.handoffwatch import WatchedSource
from hsmbridge_cli.keyfiles import load_software_key
from hsmbridge_cli.keynames import UNWRAPPING_KEY
from hsmbridge_cli.parties import the_token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsmbridge_csp.disposition import Disposition
    from hsmbridge_csp.handoff.parties import Party
    from hsmbridge_csp.journal import Entry
    from hsmbridge_csp.recipients import Sealer

    from hsmbridge.token import Token
    from hsmbridge_cli.handoffs import Neighbours
    from hsmbridge_cli.handoffwatch import Watch
    from hsmbridge_cli.keynames import KeyName
    from hsmbridge_cli.options import Settings

__all__ = ["Dispatch"]

Fate = tuple[str, "Disposition | None"]
"""A key's name as it was typed, and what became of it; None as long as it waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """All that sending needs.

    Attributes:
        settings: of the command.
        party: who we are; neighbours: whom we believe in this run.
        watch: is told.
        token: where token keys live, None for files.
        sealer: the recipient's key, None where a channel seals.
    """

    settings: Settings
    party: Party
    neighbours: Neighbours
    watch: Watch
    token: Token | None
    sealer: Sealer | None

    def sources(self, names: Sequence[KeyName], key_type: str | None) -> list[WatchedSource]:
        """Find the keys.

        Raises:
            UsageError: one is named twice, or cannot be read; NotFoundError: one is not there.
            PolicyError: a file has another name, under which its key would not be frozen.
        """
        found: dict[str, WatchedSource] = {}
        for number, name in enumerate(names, 1):
            self.watch.say(f"reading key {number} of {len(names)}…")
            source = _source(name, self.token, key_type)
            if source.place in found:
                raise UsageError(f"{source.place} is named twice", hint="name each key once")
            found[source.place] = WatchedSource(source, self.watch)
        return list(found.values())

    def into_bundle(self, keys: Sequence[str], sources: Sequence[WatchedSource], path: str) -> None:
        """Write a bundle, and leave the keys frozen."""
        if self.sealer is None:
            raise UsageError("nobody is named for whom the bundle is", hint="say --kek or --to")
        sender, peer = Sender(self.party, self.token), self.neighbours.the_one()
        pending = send_bundle(sender, self.party, sources, Path(path), self.sealer, peer, self.token)
        entry = entry_of(self.party.journal, Role.SENDER, pending.entry.handoff)
        self._tell(entry, [(key, None) for key in keys], persisted=None)

    def over_socket(self, keys: Sequence[str], sources: Sequence[WatchedSource], path: str, timeout: float) -> None:
        """Hand over to the process that listens there, or is going to in time."""
        self.watch.say("waiting for the receiver to listen…")
        with connect(Path(path), self.neighbours.terms(self.party, Side.SENDER, timeout), timeout) as channel:
            self.watch.tell("connected", peer=channel.peer.fingerprint.hex(), process=channel.peer.pid)
            moved = Sender(self.party, self.token).send(sources, channel, self.sealer)
        entry = entry_of(self.party.journal, Role.SENDER, moved.handoff)
        self._tell(entry, list(zip(keys, moved.dispositions, strict=True)), persisted=moved.persisted)

    def _tell(self, entry: Entry, fates: Sequence[Fate], *, persisted: bool | None) -> None:
        name = self.neighbours.name_of(entry.peer)
        if self.settings.json:
            document: dict[str, object] = {
                "handoff": entry.handoff.hex(),
                "phase": str(entry.phase),
                "peer": {"fingerprint": entry.peer.hex(), "name": name},
                "bundle": entry.bundle or None,
                "persisted": persisted,
                "keys": [_fate(key, fate) for key, fate in fates],
            }
            emit_json("handoff.send", document)
            return
        to_stderr = self.watch.owns_stdout
        for key, fate in fates:
            line = f"frozen {key}" if fate is None else f"{fate.outcome} {key} ({'; '.join(fate.evidence)})"
            click.echo(clean(line), err=to_stderr)
        what = f"in {entry.bundle} wait for the receipt of {name}" if entry.bundle else f"moved to {name}"
        click.echo(clean(f"handoff {entry.handoff.hex()}: {len(fates)} key(s) {what}"), err=to_stderr)


def _source(name: KeyName, token: Token | None, key_type: str | None) -> FileSource | LiveSource:
    if name.path is None:
        return LiveSource(TokenKey(name.find(the_token(token), UNWRAPPING_KEY)))
    digest = file_digest(Path(name.path)) if Path(name.path).is_file() else None
    key = load_software_key(name.path, key_type)
    if Path(name.path).stat().st_nlink > 1:
        raise PolicyError(
            f"{name.path} has another name in the file system, under which its key would not be frozen",
            hint="remove the other name: `find -samefile` shows it",
        )
    return FileSource(Path(name.path), key, digest)


def _fate(key: str, fate: Disposition | None) -> dict[str, object]:
    return {
        "key": key,
        "residency": None if fate is None else str(fate.residency),
        "disposition": None if fate is None else str(fate.outcome),
        "evidence": [] if fate is None else list(fate.evidence),
    }
