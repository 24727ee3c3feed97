"""Where keys arrive: in this process, in a token, or in files; all of them or none.

A key that shall outlive the process first gets a name derived from its blob's id. So a recipient that died can be
found out about: what has such a name was made by that import and nothing else, and is finished or removed.

Source: docs/handoff.md.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING

from hsmbridge.codes import CKA, CKO
from hsmbridge.destruction import Ours
from hsmbridge.errors import ExistsError
from hsmbridge.generation import generate_key
from hsmbridge.keyspec import parse_keyspec
from hsmbridge_csp.errors import KeyStateError
from hsmbridge_csp.handoff.durable import do_all
from hsmbridge_csp.handoff.errors import HandoffError
from hsmbridge_csp.keys import SoftwareKey
from hsmbridge_csp.record import Transfer
from hsmbridge_csp.token_key import TokenKey
from hsmbridge_csp.transfer import key_from

if TYPE_CHECKING:
    from hsmbridge.objects import Object
    from hsmbridge.template import Template, Value
    from hsmbridge.token import Token
    from hsmbridge_csp.keys import Key
    from hsmbridge_csp.recipients import Opener
    from hsmbridge_csp.record import KeyRecord

__all__ = ["Destination", "InProcess", "InToken", "arriving_id", "finish_in_token", "remove_from_token"]

TOKEN = "token:"  # noqa: S105 - where a key lives
_ID_SIZE = 16
_TRIAL = parse_keyspec("aes:256")


class Destination(ABC):
    """Takes the keys of one handoff.

    Attributes:
        persistent: whether they outlive this process.
        token: where token keys arrive or are found; None where there is none.
        opener: the recipient's key, for keys that came under a KEK.
    """

    persistent = False

    def __init__(self, token: Token | None = None, opener: Opener | None = None) -> None:
        self.token = token
        self.opener = opener
        self.keys: list[Key] = []
        self._made: list[Object] = []
        self._tried: list[bytes] = []

    @abstractmethod
    def place(self, record: KeyRecord, blob: bytes) -> str:
        """Say for the journal where the key of this record is going to live."""

    @abstractmethod
    def make(self, record: KeyRecord, blob: bytes) -> None:
        """Make one key and keep it under its arriving name.

        Raises:
            HsmbridgeError: it cannot be made; nothing of it is left.
        """

    def publish(self) -> None:  # noqa: B027 - a key in this process has no name to be given
        """Give all keys their names, or as many as can be; they are the recipient's now. May be done twice."""

    def withdraw(self) -> None:
        """Remove all keys again: objects by the handles that the token returned for them.

        A call that failed can have made an object all the same. Among the session objects, which are this process's
        alone, it is found by its arriving name and removed; a token object is left to recovery.

        Raises:
            HsmbridgeError: something is left, or may be.
        """
        for key in self.keys:
            if isinstance(key, SoftwareKey):
                key.dispose()
        self.keys.clear()
        while self._made:
            _remove(self._made.pop())
        if self.token is None:
            return
        for arriving in self._tried:
            for left in _arrived(self.token, arriving, on_token=False):
                _remove(left)
            if _arrived(self.token, arriving, on_token=True):
                raise HandoffError("a key is left under its arriving name", hint="run `hsmbridge handoff recover`")

    def _take(self, record: KeyRecord, *, persist: bool) -> Key:
        key = key_from(record, self.token, self.opener, persist=persist)
        self.keys.append(key)
        return key

    def _unwrap(self, record: KeyRecord, blob: bytes, name: Value, *, persist: bool) -> Object | None:
        """Make a key that came under a KEK, first under the CKA_ID *name*."""
        if record.captured is None:
            raise KeyStateError("no token key", hint="keep it in a file, or in the receiving process")
        self._tried.append(arriving_id(blob))
        settable = {**record.captured.settable, CKA.ID: name}
        key = self._take(replace(record, captured=replace(record.captured, settable=settable)), persist=persist)
        if not isinstance(key, TokenKey):
            return None
        self._made.append(key.object)
        return key.object


class InProcess(Destination):
    """Keys that live in this process: software keys, session objects, and references to token objects."""

    def place(self, record: KeyRecord, blob: bytes) -> str:  # noqa: ARG002 - the same for all
        """``memory``, or ``reference`` for a key that stayed in its token."""
        return "reference" if record.transfer is Transfer.REFERENCE else "memory"

    def make(self, record: KeyRecord, blob: bytes) -> None:
        """Make one key. A session object arrives under a name of its own too, and gets the one that it came with."""
        if record.transfer is not Transfer.WRAPPED or record.captured is None:
            self._take(record, persist=False)
            return
        arriving = arriving_id(blob)
        carried = record.captured.settable.get(CKA.ID, arriving)
        name = carried if _is_fixed(record) else arriving
        made = self._unwrap(record, blob, name, persist=False)
        if made is not None and name != carried:
            made.set({CKA.ID: carried})


class InToken(Destination):
    """Keys that become token objects. Only a key that came wrapped under a KEK can.

    Args:
        token: logged in.
        opener: the KEK.
    """

    persistent = True

    def __init__(self, token: Token, opener: Opener) -> None:
        super().__init__(token, opener)
        self._names: list[tuple[Object, bytes]] = []

    def place(self, record: KeyRecord, blob: bytes) -> str:
        """``token:LABEL:`` and the CKA_ID that the key shall have."""
        if record.transfer is Transfer.REFERENCE:
            return "reference"
        if record.transfer is not Transfer.WRAPPED or record.captured is None or self.token is None:
            raise KeyStateError(
                "a software key does not become a token object", hint="keep it in a file, or in the receiving process"
            )
        return f"{TOKEN}{self.token.label}:{_carried_id(record, blob).hex()}"

    def make(self, record: KeyRecord, blob: bytes) -> None:
        """Unwrap one key as a token object under its arriving CKA_ID."""
        if record.transfer is Transfer.REFERENCE:
            self._take(record, persist=False)
            return
        if record.captured is None or self.token is None:
            raise KeyStateError("no token key", hint="keep it in a file, or in the receiving process")
        final, arriving = _carried_id(record, blob), arriving_id(blob)
        # In this order: a key that gets its own name meanwhile is found under one of the two.
        names = tuple(dict.fromkeys((arriving, final)))
        wanted: Template = {CKA.CLASS: record.captured.cls, CKA.TOKEN: True}
        for taken in names:
            if self.token.handles({**wanted, CKA.ID: taken}):
                raise ExistsError(
                    f"token {self.token.label!r} has a key with id {taken.hex()}",
                    hint="it may be this very key, from an earlier import: see `hsmbridge handoff ls`",
                )
        # A key that may not be modified gets its own name at once; the journal alone knows it then.
        name = final if _is_fixed(record) else arriving
        made = self._unwrap(record, blob, name, persist=True)
        if made is not None and name != final:
            self._names.append((made, final))
        # Another process, with another journal, may have done the same since we looked: who sees the other gives way.
        if sum(len(self.token.handles({**wanted, CKA.ID: taken})) for taken in names) > 1:
            raise ExistsError(
                f"another process imported the same key into token {self.token.label!r}",
                hint="this import gave way; if no key is there in the end, receive the bundle again",
            )

    def publish(self) -> None:
        """Set each key's own CKA_ID; one that fails keeps no other from its name."""
        do_all(lambda named: named[0].set({CKA.ID: named[1]}), self._names)


def arriving_id(blob: bytes) -> bytes:
    """Return the CKA_ID, 16 bytes, under which a blob's key arrives: nobody else's key has it."""
    return hashlib.sha256(b"hsmbridge arriving/1" + blob).digest()[:_ID_SIZE]


def finish_in_token(token: Token, arriving: bytes, final: bytes) -> None:
    """Give an arrived key its own CKA_ID; does nothing where it has it already."""
    if arriving != final:
        for key in _arrived(token, arriving, on_token=True):
            key.set({CKA.ID: final})


def remove_from_token(token: Token, arriving: bytes) -> None:
    """Remove what arrived under this CKA_ID; that is known to be ours by that name alone.

    Raises:
        HsmbridgeError: the token does not let go of it.
    """
    for key in _arrived(token, arriving, on_token=True):
        _remove(key)


def _arrived(token: Token, arriving: bytes, *, on_token: bool) -> list[Object]:
    """Find what has an arriving name; each object is asked for it once more, lest a search answer wrongly.

    Raises:
        Pkcs11Error: the token does not answer, or the login is gone.
    """
    found = [
        key
        for cls in (CKO.SECRET_KEY, CKO.PRIVATE_KEY)
        for key in token.find({CKA.CLASS: cls, CKA.TOKEN: on_token, CKA.ID: arriving})
        if key.read_identity().id == arriving
    ]
    # After a logout a search leaves private objects out, and says nothing of it; making one is refused then.
    with Ours(token) as ours:
        ours.remove(ours.take(generate_key(token, _TRIAL, {})))
    return found


def _remove(made: Object) -> None:
    with Ours(made.token) as ours:
        ours.remove(ours.take(made))


def _is_fixed(record: KeyRecord) -> bool:
    return record.captured is not None and record.captured.settable.get(CKA.MODIFIABLE) is False


def _carried_id(record: KeyRecord, blob: bytes) -> bytes:
    """Return the CKA_ID that a key has in the end; one that came without gets one of its blob's, for later replays."""
    carried = record.captured.settable.get(CKA.ID) if record.captured is not None else None
    own = hashlib.sha256(b"hsmbridge arrived/1" + blob).digest()[:_ID_SIZE]
    return carried if isinstance(carried, bytes) and carried else own
