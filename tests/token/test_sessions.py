"""The pool: how many sessions, who holds which, and what becomes of them after an error and after the end."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from hsmbridge.codes import CKA, CKM
from hsmbridge.destruction import Ours
from hsmbridge.errors import HsmbridgeError, Pkcs11Error
from hsmbridge.mechanism import Mechanism
from hsmbridge.sessions import DEFAULT_SESSIONS
from tests.support.tokens import make, requires_entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsmbridge.module import Module
    from hsmbridge.token import Token
    from tests.token.conftest import TokenEnv

CROWD = 3 * DEFAULT_SESSIONS


class Crowd:
    """Threads that each hold a session until they are let go."""

    def __init__(self, token: Token) -> None:
        self.token = token
        self.held: list[int] = []
        self.most = 0
        self.served = 0
        self._lock = threading.Lock()
        self._go = threading.Event()
        self._threads = [threading.Thread(target=self._hold) for _ in range(CROWD)]

    def _hold(self) -> None:
        with self.token.sessions as session:
            with self._lock:
                self.held.append(session)
                self.most = max(self.most, len(self.held))
                assert len(set(self.held)) == len(self.held)
            self._go.wait(30)
            with self._lock:
                self.held.remove(session)
                self.served += 1

    def gather(self) -> set[int]:
        """Start all threads and return the sessions that are held at the same time."""
        for thread in self._threads:
            thread.start()
        deadline = time.monotonic() + 5
        while len(self.held) < DEFAULT_SESSIONS and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)  # whoever could get one more has it by now
        with self._lock:
            return set(self.held)

    def disperse(self) -> None:
        """Let them go on."""
        self._go.set()
        for thread in self._threads:
            thread.join(30)


def test_no_more_sessions_than_the_limit(token: Token) -> None:
    """Of 24 threads at most 8 hold a session at a time, each its own.

    The others wait and get theirs, and none is lost.
    """
    crowd = Crowd(token)
    held = crowd.gather()
    crowd.disperse()
    assert 1 <= len(held) <= DEFAULT_SESSIONS
    assert crowd.most <= DEFAULT_SESSIONS
    assert crowd.served == CROWD
    again = Crowd(token)
    assert again.gather() == held  # the sessions are kept: objects that they made are alive
    again.disperse()


def test_nested_use_is_one_session(token: Token) -> None:
    """A thread that holds a session gets the same one again.

    No other thread gets it before the outermost use has ended.
    """
    others: list[int] = []

    def look() -> None:
        with token.sessions as session:
            others.append(session)

    with token.sessions as outer:
        with token.sessions as inner, token.sessions as innermost:
            assert outer == inner == innermost
        thread = threading.Thread(target=look)
        thread.start()
        thread.join(30)
        assert others
        assert others[0] != outer


def test_an_exception_gives_the_session_back(token: Token) -> None:
    """More failures than there are sessions do not empty the pool."""
    for _ in range(2 * DEFAULT_SESSIONS):
        with pytest.raises(RuntimeError, match="on purpose"), token.sessions:
            raise RuntimeError("on purpose")
    assert isinstance(token.handles({}), list)


def test_a_failed_call_leaves_no_operation_behind(token: Token) -> None:
    """After calls that fail at their start and in their middle, each session still begins a new operation."""
    requires_entry(token)
    for _ in range(2 * DEFAULT_SESSIONS):
        with Ours(token) as ours, token.sessions as session:
            key = make(ours, token)
            for data in (b"", bytes(16), bytes(15)):  # raw CBC does not take 15 bytes
                cbc = Mechanism(CKM.AES_CBC, bytes(16))
                try:
                    token.calls.encrypt(session, cbc, key.handle, data)
                except Pkcs11Error as refusal:
                    assert refusal.function in ("C_EncryptInit", "C_Encrypt")  # noqa: PT017 - some modules do take it
            with pytest.raises(Pkcs11Error) as refused:
                token.calls.sign(session, Mechanism(CKM.SHA256_RSA_PKCS), key.handle, b"x")
            assert refused.value.function == "C_SignInit"
            assert len(token.calls.encrypt(session, Mechanism(CKM.AES_CBC, bytes(16)), key.handle, bytes(32))) == 32
            assert key.handle in token.handles({CKA.ID: key.identity.id})


def test_a_closed_token_is_refused_and_can_be_opened_again(module: Module, new_token: Callable[[], TokenEnv]) -> None:
    """After close() the sessions and session objects are gone and using the token is an error of ours.

    A new one logs in again.
    """
    made = new_token()
    old = module.token(label=made.label)
    old.login(made.pin)
    ours = Ours(old)
    key = ours.release(make(ours, old))
    old.close()
    for use in (lambda: old.handles({}), key.read_identity):
        with pytest.raises(HsmbridgeError):
            use()
    fresh = module.token(label=made.label)
    assert fresh is not old
    fresh.login(made.pin)
    assert fresh.handles({CKA.ID: key.identity.id} if key.alive and key._identity else {CKA.TOKEN: False}) == []  # noqa: SLF001
    for _ in range(DEFAULT_SESSIONS):
        with pytest.raises(HsmbridgeError):
            old.handles({})
    fresh.close()
