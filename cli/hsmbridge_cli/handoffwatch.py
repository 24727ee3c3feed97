"""Watching a handoff: events for machines, and one line for a person who waits.

An event is told when the journal has it durably, so that nothing is told that did not happen.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import ExitStack, contextmanager
from io import FileIO
from typing import TYPE_CHECKING

from hsmbridge_csp.journal import Journal, Phase, Role

from hsmbridge.errors import UsageError
from hsmbridge_cli.files import STANDARD_STREAM

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import Any

    from hsmbridge_csp.disposition import Disposition
    from hsmbridge_csp.handoff.source import FileSource, LiveSource
    from hsmbridge_csp.journal import Entry, KeyEntry
    from hsmbridge_csp.keys import Key
    from rich.status import Status

    from hsmbridge_cli.options import Settings

__all__ = ["Watch", "WatchedJournal", "WatchedSource", "watching"]

_WAITING = {
    Phase.INTENT: "freezing and sealing {count} key(s)…",
    Phase.SENT: "waiting for the recipient's receipt…",
    Phase.COMMITTED: "the receipt is here: destroying what lives in software…",
    Phase.OFFERED: "receiving {count} key(s)…",
    Phase.CLAIMED: "importing {count} key(s)…",
}


class Watch:
    """Tells machines and people how far it has come.

    Args:
        events: where a line of JSON for each event goes, None for nowhere.
        status: a line on the terminal, None where nobody looks.
    """

    def __init__(self, events: FileIO | None, status: Status | None) -> None:
        self._events = events
        self._status = status
        self._done = 0

    @property
    def owns_stdout(self) -> bool:
        """Whether standard output is for events alone."""
        return self._events is not None and self._events.fileno() == sys.stdout.fileno()

    def tell(self, event: str, **facts: object) -> None:
        """Tell an event; a reader that went away does not hold up a handoff."""
        if self._events is None:
            return
        try:
            # One write for each line: lines of several processes do not mix, and a killed one leaves no half of one.
            self._events.write(json.dumps({"event": event, "at": round(time.time(), 3), **facts}).encode() + b"\n")
        except OSError:
            self._events = None

    def phase(self, phase: Phase, handoff: bytes, role: Role, **facts: object) -> None:
        """Tell that a handoff has come into a phase."""
        self._done = 0
        self.say(_WAITING.get(phase, "").format(count=facts.get("keys", "the")))
        self.tell(str(phase), handoff=handoff.hex(), role=str(role), **facts)

    def key(self, event: str, handoff: bytes, place: str, **facts: object) -> None:
        """Tell what became of one key."""
        self._done += 1
        self.say(f"{event} {self._done} key(s)…")
        self.tell(event, handoff=handoff.hex(), role=str(Role.SENDER), key=place, **facts)

    def say(self, text: str) -> None:
        """Say what is waited for."""
        if self._status is not None and text:
            self._status.update(text)


@contextmanager
def watching(settings: Settings, events: str | None) -> Iterator[Watch]:
    """Open what --events names; a line of progress is shown in a terminal only.

    Raises:
        UsageError: it cannot be opened, or standard output is wanted twice.
    """
    with ExitStack() as stack:
        stream: FileIO | None = None
        if events == STANDARD_STREAM:
            if settings.json:
                raise UsageError("--events - and --json both want standard output", hint="give --events a file")
            stream = FileIO(sys.stdout.fileno(), "w", closefd=False)
        elif events is not None:
            try:
                descriptor = os.open(events, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            except (OSError, ValueError) as error:
                reason = (getattr(error, "strerror", None) or "not a file name").lower()
                raise UsageError(f"{events} cannot be written: {reason}", hint="give --events a file or -") from None
            stream = stack.enter_context(FileIO(descriptor, "w"))
        yield Watch(stream, _status(stack))


def _status(stack: ExitStack) -> Status | None:
    if not sys.stderr.isatty():
        return None
    from rich.console import Console

    return stack.enter_context(Console(stderr=True).status("beginning…"))


class WatchedJournal(Journal):
    """The journal of this user and host, which tells each step once it is durable.

    Args:
        watch: is told.
    """

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def begin(self, entry: Entry, keys: Iterable[KeyEntry] = ()) -> bool:
        """Write a new handoff."""
        begun = super().begin(entry, keys)
        if begun:
            self._watch.phase(entry.phase, entry.handoff, entry.role, keys=entry.count, peer=entry.peer.hex())
        return begun

    def claim(self, handoff: bytes, keys: Sequence[KeyEntry], digest: bytes) -> bool:
        """Claim the blobs of an offered handoff."""
        claimed = super().claim(handoff, keys, digest)
        if claimed:
            self._watch.phase(Phase.CLAIMED, handoff, Role.RECEIVER, keys=len(keys))
        return claimed

    def advance(
        self,
        role: Role,
        handoff: bytes,
        before: Phase | tuple[Phase, ...],
        after: Phase,
        *,
        remark: str = "",
        blobs: Sequence[bytes] = (),
        dispositions: Sequence[str] = (),
        **fields: Any,  # noqa: ANN401 - columns, as in the journal itself
    ) -> bool:
        """Change the phase."""
        changed = super().advance(
            role, handoff, before, after, remark=remark, blobs=blobs, dispositions=dispositions, **fields
        )
        if changed:
            facts: dict[str, object] = {"remark": remark} if remark else {}
            if "statement" in fields:
                facts["statement"] = "receipt" if after in {Phase.COMMITTED, Phase.IMPORTED} else "tombstone"
            self._watch.phase(after, handoff, role, **facts)
        return changed


class WatchedSource:
    """A key at the source, of which is told what becomes of it.

    Args:
        inner: the key.
        watch: is told.
    """

    def __init__(self, inner: FileSource | LiveSource, watch: Watch) -> None:
        self.key: Key = inner.key
        self._inner = inner
        self._watch = watch

    @property
    def place(self) -> str:
        """Where it lives."""
        return self._inner.place

    def freeze(self, handoff: bytes) -> None:
        """Stop the key."""
        self._inner.freeze(handoff)
        self._watch.key("frozen", handoff, self.place)

    def thaw(self, handoff: bytes) -> None:
        """Let it go on."""
        self._inner.thaw(handoff)
        self._watch.key("thawed", handoff, self.place)

    def destroy(self, handoff: bytes) -> Disposition:
        """Destroy or retain it."""
        found = self._inner.destroy(handoff)
        self._watch.key(str(found.outcome), handoff, self.place, evidence=list(found.evidence))
        return found

    def remains(self, handoff: bytes) -> Path | None:
        """Return the file that a fresh process must not find afterwards."""
        return self._inner.remains(handoff)
