"""Handoffs of a token's keys, for the shim or pkcs11-spy to log; run by ``run_child``.

``HANDOFF_ACT`` is ``crossing`` (a token object by reference, and a session key by value into the token) or ``attacks``
(what somebody between the two ends can do). Both ends are in this process, each with its journal in ``HANDOFF_DIR``;
the KEK's label is ``HANDOFF_KEK``. What it makes in the token stays there: the parent removes it.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsmbridge_csp.channel import Side
from hsmbridge_csp.disposition import Outcome
from hsmbridge_csp.handoff.destination import InProcess, InToken
from hsmbridge_csp.handoff.offline import receive_bundle, send_bundle
from hsmbridge_csp.handoff.receiver import Receiver
from hsmbridge_csp.handoff.sender import Sender
from hsmbridge_csp.handoff.statement import sign_statement
from hsmbridge_csp.journal import Role
from hsmbridge_csp.recipient_kek import TokenKek
from hsmbridge_csp.token_key import TokenKey

from hsmbridge.attributes import AttributeQuery
from hsmbridge.capture import SETTABLE
from hsmbridge.codes import CKA, CKK, CKO
from hsmbridge.destruction import Ours
from hsmbridge.errors import HsmbridgeError
from hsmbridge.objects import find_key
from hsmbridge.probe import probe
from tests.support.channels import ALICE, BOB, Between
from tests.support.children import close, open_token
from tests.support.handoffs import Sides, live, relayed, statement_for
from tests.support.tokens import enter, usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsmbridge.objects import Object
    from hsmbridge.template import Template
    from hsmbridge.token import Token

    Tamper = Callable[[Side, int, bytes], list[bytes]]

__all__ = ["attributes_of", "main"]

USE = usage(CKA.ENCRYPT, CKA.DECRYPT)


def main() -> None:
    """Do it, and print what happened."""
    token = open_token()
    probe(token).findings()
    kek = TokenKek(find_key(token, label=os.environ["HANDOFF_KEK"]))
    sides = Sides(Path(os.environ["HANDOFF_DIR"]))
    act: Callable[[Sides, Token, TokenKek], dict[str, Any]] = {"crossing": crossing, "attacks": attacks}[
        os.environ["HANDOFF_ACT"]
    ]
    sys.stdout.write(json.dumps(act(sides, token, kek)))
    sides.close()
    close(token)


def attributes_of(key: Object) -> dict[str, str]:
    """Read everything about a secret key that can be set."""
    kinds = (CKA.KEY_TYPE, *SETTABLE[CKO.SECRET_KEY])
    found = key.read(AttributeQuery(kinds))
    return {CKA(kind).name: str(found[kind]) for kind in kinds if kind in found and kind != CKA.TOKEN}


def known_key(token: Token, value: bytes, template: Template) -> TokenKey:
    """Put a key of known bytes into the token, to stay."""
    ours = Ours(token)
    wanted: Template = {CKA.LABEL: f"moving {secrets.token_hex(4)}", CKA.PRIVATE: True, **USE, **template}
    return TokenKey(ours.release(enter(ours, token, CKK.AES, value, wanted)))


def crossing(sides: Sides, token: Token, kek: TokenKek) -> dict[str, Any]:
    """Let a token object's stream and a session key cross."""
    value, text = secrets.token_bytes(32), bytes(range(100))
    hardware = known_key(token, value, {CKA.TOKEN: True, CKA.EXTRACTABLE: False})
    begun = hardware.encrypt(text[:37])
    moved, received = sides.hand_over([hardware], InProcess(token)).both()
    (arrived,) = received.keys
    assert isinstance(arrived, TokenKey)
    retained = moved.dispositions[0].outcome is Outcome.RETAINED
    stream = begun + arrived.encrypt(text[37:], final=True)
    frozen = _refuses(hardware)

    moving = secrets.token_bytes(32)
    session = known_key(token, moving, {CKA.TOKEN: False})
    begun = session.encrypt(text[:37])
    before, source = attributes_of(session.object), session.object.handle
    destination = InToken(token, kek)
    moved, received = sides.hand_over([session], destination, token=token, recipient=kek).both()
    (arrived,) = received.keys
    assert isinstance(arrived, TokenKey)
    (journalled,) = sides.bob.journal.keys(Role.RECEIVER, received.handoff)
    blob = journalled.blob
    return {
        "hardware": {
            "handle": hardware.object.handle, "id": hardware.object.identity.id.hex(), "retained": retained,
            "stream": stream.hex(), "text": text.hex(), "value": value.hex(), "frozen": frozen,
        },
        "session": {
            "handle": source, "destroyed": moved.dispositions[0].outcome is Outcome.DESTROYED,
            "persisted": moved.persisted, "evidence": moved.dispositions[0].evidence, "before": before,
            "id": arrived.object.identity.id.hex(), "blob": blob.hex(), "value": moving.hex(),
            "stream": (begun + arrived.encrypt(text[37:], final=True)).hex(), "dead": _refuses(session),
        },
    }  # fmt: skip


def _refuses(key: TokenKey) -> bool:
    try:
        key.encrypt(b"more")
    except HsmbridgeError:
        return True
    return False


# ---- somebody in between


def flipped(side: Side, number: int, at: int) -> Tamper:
    """Return what flips a bit in one frame."""

    def tamper(from_side: Side, count: int, frame: bytes) -> list[bytes]:
        if (from_side, count) != (side, number):
            return [frame]
        changed = bytearray(frame)
        changed[at] ^= 1
        return [bytes(changed)]

    return tamper


def replayed(from_side: Side, count: int, frame: bytes) -> list[bytes]:
    """Send the offer twice."""
    return [frame, frame] if (from_side, count) == (Side.SENDER, 0) else [frame]


class Reordered:
    """Sends the blobs before the offer."""

    def __init__(self) -> None:
        self._held: list[bytes] = []

    def __call__(self, side: Side, number: int, frame: bytes) -> list[bytes]:
        """Hold the first back."""
        if side is Side.SENDER and number == 0:
            self._held = [frame]
            return []
        out, self._held = [frame, *self._held], []
        return out


class Foreign:
    """Exchanges the sender's frames, from one on, for those of an earlier channel.

    Args:
        kept: them; first: from which on.
    """

    def __init__(self, kept: list[bytes], first: int) -> None:
        self._kept, self._first = kept, first

    def __call__(self, side: Side, number: int, frame: bytes) -> list[bytes]:
        """Exchange one."""
        exchange = side is Side.SENDER and self._first <= number < len(self._kept)
        return [self._kept[number]] if exchange else [frame]


class Marking:
    """Marks in the shim's journal where the first frame of the handoff comes: by then all has been sealed.

    Args:
        tamper: what happens to frames.
        between: whose receiver gets the sender's frames; with ``reflect`` the sender gets his own.
    """

    def __init__(self, tamper: Tamper, between: Between, *, reflect: bool = False) -> None:
        self._tamper, self._between, self._reflect = tamper, between, reflect
        self.mark: int | None = None
        self.frames: list[bytes] = []

    def __call__(self, side: Side, number: int, frame: bytes) -> list[bytes]:
        """Mark, then tamper."""
        if self.mark is None:
            self.mark = at_end()
        if side is Side.SENDER:
            self.frames.append(frame)
            if self._reflect:
                self._between.put(Side.SENDER, frame)
                return []
        return self._tamper(side, number, frame)


def at_end() -> int:
    """Return how long the shim's journal is."""
    return os.stat(os.environ["HSMBRIDGE_SHIM_JOURNAL"]).st_size  # noqa: PTH116 - one number


def attacks(sides: Sides, token: Token, kek: TokenKek) -> dict[str, Any]:
    """Attack handoffs of a session key under the KEK, and bundles; report which part of the journal is whose."""
    kept: list[bytes] = []
    told = [one(sides, token, kek, "nothing", lambda _side, _number, frame: [frame], frames=kept)]
    here, there = Side.SENDER, Side.RECEIVER
    tampers: dict[str, Tamper] = {
        **{f"flip offer {at}": flipped(here, 0, at) for at in (4, 5, 13, 20, -1)},
        **{f"flip blobs {at}": flipped(here, 1, at) for at in (5, 13, 14, 200, -1)},
        **{f"flip statement {at}": flipped(there, 0, at) for at in (5, 13, 40, -1)},
        "replay": replayed,
        "reorder": Reordered(),
        "foreign offer": Foreign(kept, 0),
        "foreign blobs": Foreign(kept, 1),
        "drop blobs": lambda side, number, frame: [] if (side, number) == (here, 1) else [frame],
        "cut blobs": lambda side, number, frame: [frame[:-9]] if (side, number) == (here, 1) else [frame],
    }
    told += [one(sides, token, kek, name, tamper) for name, tamper in tampers.items()]
    told.append(one(sides, token, kek, "reflect", lambda _side, _number, frame: [frame], reflect=True))
    told += forged_receipts(sides, token, kek)
    told += changed_bundles(sides, token, kek)
    return {"attacks": told}


def one(  # noqa: PLR0913 - who, with what, and what happens
    sides: Sides, token: Token, kek: TokenKek, name: str, tamper: Tamper, *, reflect: bool = False,
    frames: list[bytes] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Hand one session key over while somebody tampers."""
    key = known_key(token, secrets.token_bytes(32), {CKA.TOKEN: False})
    source = key.object.handle
    with Between() as between:
        between.shake(timeout=0.5)
        marking = Marking(tamper, between, reflect=reflect)
        out, into = between.end(Side.SENDER), between.end(Side.RECEIVER)
        with relayed(between, marking):
            ends = sides.over(out, into, [key], InProcess(token, kek), token=token, recipient=kek)
    if frames is not None:
        frames += marking.frames
    return report(name, source, marking.mark, ends.sent, ends.received)


def report(name: str, source: int, mark: int | None, sent: object, received: object) -> dict[str, Any]:
    """Say how it ended, and where in the journal it stands."""
    ends = (type(sent).__name__, type(received).__name__)
    return {"name": name, "source": source, "from": mark, "to": at_end(), "sent": ends[0], "received": ends[1]}


def last_bit_flipped(raw: bytes) -> bytes:
    """Change the last bit, whichever it is."""
    return raw[:-1] + bytes([raw[-1] ^ 1])


def forged_receipts(sides: Sides, token: Token, kek: TokenKek) -> list[dict[str, Any]]:
    """Let a peer that imports nothing answer with receipts that are not right."""
    answers: dict[str, Callable[[Any], bytes]] = {
        "receipt by the sender": lambda entry: sign_statement(statement_for(entry), ALICE),
        "receipt with another proof": lambda entry: sign_statement(statement_for(entry, proof=bytes(32)), BOB),
        "receipt with another nonce": lambda entry: sign_statement(statement_for(entry, nonce=bytes(32)), BOB),
        "receipt of another handoff": lambda entry: sign_statement(statement_for(entry, handoff=bytes(16)), BOB),
        "receipt with a flipped bit": lambda entry: last_bit_flipped(sign_statement(statement_for(entry), BOB)),
        "random bytes": lambda _: secrets.token_bytes(300),
    }
    told = []
    for name, answer in answers.items():
        key = known_key(token, secrets.token_bytes(32), {CKA.TOKEN: False})
        marks: list[int] = []

        def marked(entry: Any, answer: Callable[[Any], bytes] = answer, marks: list[int] = marks) -> bytes:  # noqa: ANN401 - the journal's
            marks.append(at_end())
            return answer(entry)

        error = sides.doubted([key], marked, token=token, recipient=kek)
        told.append(report(name, key.object.handle, marks[0], error, None))
    return told


def changed_bundles(sides: Sides, token: Token, kek: TokenKek) -> list[dict[str, Any]]:
    """Receive a bundle with a bit flipped anywhere, or cut."""
    key = known_key(token, secrets.token_bytes(32), {CKA.TOKEN: False})
    path = sides.directory / "bundle"
    send_bundle(Sender(sides.alice, token), sides.alice, live([key]), path, kek, BOB.fingerprint, token)
    raw = path.read_bytes()
    told = []
    for at in (*range(0, len(raw), 41), len(raw) - 1):
        changed = bytearray(raw)
        changed[at] ^= 4
        path.write_bytes(changed)
        mark, error = at_end(), None
        try:
            receive_bundle(Receiver(sides.bob), sides.bob, path, kek, InProcess(token, kek))
        except HsmbridgeError as refusal:
            error = refusal
        told.append(report(f"bundle, byte {at}", key.object.handle, mark, None, error))
    return told


if __name__ == "__main__":
    main()
