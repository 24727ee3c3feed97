"""Handoffs in which the key arrives and C_SetAttributeValue fails, through the shim; run by ``run_child``.

Both ends are in this process, with journals in ``HANDOFF_DIR``; the KEK's label is ``HANDOFF_KEK``. The shim counts
from when ``HSMBRIDGE_SHIM_ARMED`` exists, and the parent says which C_SetAttributeValue fails: the first and the third
are those that give an arrived token object its own CKA_ID, the fourth and the fifth those of session objects. What
arrives in the token stays there: the parent removes it.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsmbridge_csp.disposition import Outcome
from hsmbridge_csp.handoff.destination import InProcess, InToken
from hsmbridge_csp.handoff.ends import Moved
from hsmbridge_csp.handoff.errors import UnpublishedError
from hsmbridge_csp.handoff.recovery import Recovery
from hsmbridge_csp.journal import Role
from hsmbridge_csp.recipient_kek import TokenKek
from hsmbridge_csp.token_key import TokenKey

from hsmbridge.codes import CKA, CKK
from hsmbridge.destruction import Ours
from hsmbridge.errors import HsmbridgeError
from hsmbridge.objects import find_key
from hsmbridge.probe import probe
from tests.support.children import close, open_token
from tests.support.handoffs import Sides
from tests.support.tokens import enter, usage

if TYPE_CHECKING:
    from hsmbridge.token import Token

__all__ = ["main"]

TEXT = bytes(range(100))


def main() -> None:
    """Do it four times, and print what happened."""
    logging.disable()
    token = open_token()
    probe(token).findings()
    kek = TokenKek(find_key(token, label=os.environ["HANDOFF_KEK"]))
    _ = kek.fingerprint
    warm(token, kek)
    Path(os.environ["HSMBRIDGE_SHIM_ARMED"]).touch()
    told = {
        "unnamed": [unnamed(token, kek, number) for number in (0, 1)],
        "refused": [refused(token, kek, number) for number in (2, 3)],
    }
    sys.stdout.write(json.dumps(told))
    close(token)


def known_key(token: Token, value: bytes) -> TokenKey:
    """Put an extractable session key of known bytes into the token."""
    ours = Ours(token)
    label = f"moving {secrets.token_hex(4)}"
    made = enter(ours, token, CKK.AES, value, {CKA.LABEL: label, **usage(CKA.ENCRYPT, CKA.DECRYPT)})
    return TokenKey(ours.release(made))


def sides_of(number: int) -> Sides:
    """Return Alice and Bob with new journals."""
    directory = Path(os.environ["HANDOFF_DIR"]) / str(number)
    directory.mkdir()
    return Sides(directory)


def warm(token: Token, kek: TokenKek) -> None:
    """Let a key cross undisturbed, so that everything has been found out that is found out once."""
    sides = sides_of(9)
    moved, received = sides.hand_over(
        [known_key(token, secrets.token_bytes(32))], InProcess(token, kek), token=token, recipient=kek
    ).both()
    for key in received.keys:
        key.dispose()
    assert moved.handoff == received.handoff
    sides.close()


def unnamed(token: Token, kek: TokenKek, number: int) -> dict[str, Any]:
    """Let a key arrive in the token whose naming fails, use it, and recover in this very process."""
    sides, value = sides_of(number), secrets.token_bytes(32)
    key = known_key(token, value)
    final = key.object.identity.id
    ends = sides.hand_over([key], InToken(token, kek), token=token, recipient=kek)
    (before,) = sides.bob.journal.entries()
    (journalled,) = sides.bob.journal.keys(Role.RECEIVER, before.handoff)
    error, stream = ends.received, b""
    if isinstance(error, UnpublishedError):
        (arrived,) = error.received.keys
        assert isinstance(arrived, TokenKey)
        stream = arrived.encrypt(TEXT, final=True)
    outcomes = Recovery(sides.bob, token).run()
    phases = sides.phases()
    sides.close()
    return {
        "value": value.hex(), "id": final.hex(), "blob": journalled.blob.hex(), "raised": type(error).__name__,
        "text": str(error), "hint": getattr(error, "hint", ""), "stream": stream.hex(),
        "destroyed": isinstance(ends.sent, Moved) and ends.sent.dispositions[0].outcome is Outcome.DESTROYED,
        "before": str(before.phase), "owner": before.owner.alive, "remark": before.remark,
        "outcomes": [outcome.text for outcome in outcomes], "phases": phases,
    }  # fmt: skip


def refused(token: Token, kek: TokenKek, number: int) -> dict[str, Any]:
    """Let a key arrive in this process whose naming fails, and see what is left."""
    sides, value = sides_of(number), secrets.token_bytes(32)
    key = known_key(token, value)
    label = key.object.identity.label
    ends = sides.hand_over([key], InProcess(token, kek), token=token, recipient=kek)
    told: dict[str, Any] = {
        "value": value.hex(), "sent": type(ends.sent).__name__, "received": type(ends.received).__name__,
        "left": len(token.handles({CKA.LABEL: label})), "phases": sides.phases(), "stream": "",
    }  # fmt: skip
    try:
        told["stream"] = key.encrypt(TEXT, final=True).hex()
        key.dispose()
    except HsmbridgeError as error:
        told["stream"] = str(error)
    sides.close()
    return told


if __name__ == "__main__":
    main()
