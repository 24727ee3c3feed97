"""A pool of sessions to one token.

Closing a session kills the session objects that it made, and logging out kills the private ones of every session. So
sessions are opened when they are needed, kept, and closed together when the token is closed.

Source: PKCS#11 v3.1 section 5.6 (session management).
"""

from __future__ import annotations

import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from hsmbridge._binding import binding_call
from hsmbridge.codes import CKR
from hsmbridge.errors import Pkcs11Error

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from pkcs11 import Session as BindingSession
    from pkcs11 import Token as BindingToken

__all__ = ["DEFAULT_SESSIONS", "SessionPool"]

DEFAULT_SESSIONS = 8
"""Sessions a pool opens at most.

48 threads over 8 sessions ran clean on SoftHSM and NSS; some HSMs allow no more than 16.
"""


class _Borrowed(threading.local):
    """What the current thread holds of the pool."""

    depth = 0
    session = 0


class SessionPool:
    """Sessions that run one operation at a time each.

    ``with pool as session:`` gives a CK_SESSION_HANDLE that no other thread uses in the meantime. Nested in one
    thread it is
    the same session: each method of :class:`hsmbridge._calls.Calls` ends the operation that it begins.

    Args:
        token: the binding's token.
        guard: called before each use; raises where the process may not go on (after a fork).
        size: most sessions to open.
    """

    def __init__(self, token: BindingToken, guard: Callable[[], None], size: int = DEFAULT_SESSIONS) -> None:
        self._token = token
        self._guard = guard
        self._idle: SimpleQueue[int] = SimpleQueue()
        self._all: list[BindingSession] = []
        self._lock = threading.Lock()
        self._room = size
        self._borrowed = _Borrowed()
        self.read_only = False

    def __enter__(self) -> int:
        self._guard()
        held = self._borrowed
        if held.depth == 0:
            try:
                held.session = self._idle.get_nowait()
            except Empty:
                held.session = self._open() if self._room > 0 else self._idle.get()
        held.depth += 1
        return held.session

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        held = self._borrowed
        held.depth -= 1
        if held.depth == 0:
            self._idle.put(held.session)

    def _open(self) -> int:
        with self._lock:
            if self._room <= 0:
                return self._idle.get()
            self._room -= 1
        try:
            opened = self._open_session()
        except Pkcs11Error as error:
            # The token's own limit is lower than ours: live with the sessions that there are.
            if error.ckr == CKR.SESSION_COUNT and self._all:
                self._room = 0
                return self._idle.get()
            with self._lock:
                self._room += 1
            raise
        self._all.append(opened)
        return int(opened.handle)  # type: ignore[attr-defined]  # not in the stub

    def _open_session(self) -> BindingSession:
        if not self.read_only:
            try:
                with binding_call("C_OpenSession"):
                    return self._token.open(rw=True)
            except Pkcs11Error as error:
                if error.ckr != CKR.TOKEN_WRITE_PROTECTED:
                    raise
                self.read_only = True
        with binding_call("C_OpenSession"):
            return self._token.open(rw=False)

    def close(self) -> None:
        """Close all sessions; every session object made through them is gone, the login too."""
        self._guard()
        for session in self._all:
            # Opened without a PIN, so the binding closes them without C_Logout, which would end every session's login.
            with binding_call("C_CloseSession"):
                session.close()
        self._all.clear()
