"""The second process where a module may crash: two threads that get in each other's way, a state from elsewhere."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from hsmbridge.codes import CKA
from hsmbridge.errors import HsmbridgeError
from hsmbridge.template import PackedTemplate
from hsmbridge_conformance.barecalls import BareCalls
from hsmbridge_conformance.keymaking import LABEL, KeyMaker

if TYPE_CHECKING:
    from hsmbridge.token import Token

__all__ = ["destroy_while_searching", "go_on_with_digest"]

_BATCH = 50
"""Keys that are there when the destroying begins, again and again."""


def destroy_while_searching(token: Token, prefix: bytes, seconds: float) -> int:
    """Begin searches in one thread while another destroys session keys.

    Args:
        token: logged in.
        prefix: first bytes of every CKA_ID of this run.
        seconds: how long.

    Returns: how many keys were destroyed meanwhile.

    Raises:
        HsmbridgeError: what one of the two threads was answered; Unsupported: no session keys.
    """
    bare, maker = BareCalls(token.module.path), KeyMaker(token, prefix)
    with maker.ours:
        maker.make()
    end, failures = time.monotonic() + seconds, list[HsmbridgeError]()
    wanted = PackedTemplate({CKA.TOKEN: False, CKA.LABEL: f"not {LABEL}"})

    def search() -> None:
        try:
            with token.sessions as session:
                while time.monotonic() < end:
                    bare.search(session, wanted)
        except HsmbridgeError as error:
            failures.append(error)

    searching = threading.Thread(target=search)
    searching.start()
    destroyed = 0
    try:
        while time.monotonic() < end:
            with maker.ours:
                for key in [maker.make() for _ in range(_BATCH)]:
                    maker.ours.remove(key)
                    destroyed += 1
    finally:
        searching.join()
    if failures:
        raise failures[0]
    return destroyed


def go_on_with_digest(token: Token, state: bytes, data: bytes) -> bytes:
    """End a SHA-256 digest that another process began.

    Raises:
        Pkcs11Error: the module refuses the state, or what follows.
    """
    with token.sessions as session:
        return BareCalls(token.module.path).digest_end(session, state, data)
