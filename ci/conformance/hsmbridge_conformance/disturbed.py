"""What is done while calls fail: an export, an import, a destroy, a handoff; and how each is judged afterwards.

Each operation starts from a fresh key of this run, may end with a typed error or, where hsmbridge rightly goes on, in
success, and is then looked at with calls that nothing disturbs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING

from hsmbridge_csp.disposition import Outcome

from hsmbridge.codes import CKA, CKK, CKM
from hsmbridge.dialects import Dialect
from hsmbridge.errors import HsmbridgeError, Pkcs11Error
from hsmbridge.mechanism import Mechanism
from hsmbridge_conformance.handing import provider, recipient
from hsmbridge_conformance.importing import opener_of
from hsmbridge_conformance.keymaking import usage
from hsmbridge_conformance.uses import SECRETS
from hsmbridge_conformance.verdict import Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsmbridge_csp.keys import Key
    from hsmbridge_csp.recipients import Opener, Sealer

    from hsmbridge.objects import Object
    from hsmbridge_conformance.faults import FaultPlan
    from hsmbridge_conformance.rig import Rig

__all__ = ["Destroy", "Export", "Import", "ImportPersisted", "Operation", "answer_of"]

_QUESTION = b"which key is it?"
_USE = usage(CKA.ENCRYPT, CKA.DECRYPT)


def answer_of(key: Object) -> bytes:
    """Return what a key makes of a block: two objects are the same key if they make the same of it."""
    token = key.token
    try:
        with token.sessions as session:
            return token.calls.encrypt(session, Mechanism(CKM.AES_ECB), key.handle, _QUESTION)
    except Pkcs11Error as error:
        return str(error.ckr).encode()


class Operation(ABC):
    """One operation on one fresh key of this run.

    Args:
        rig: the worker's means.

    Attributes:
        source: the key, a session object that software may hold.
        secret: its bytes, where they are known; for no text to hold them.
        errors: what was raised besides, where more than one thread is at work.
        may_destroy: handles that were there before and that the operation may destroy.
    """

    settles = False
    """Whether what is left behind is its own recovery's to remove."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.to = recipient(rig)
        self.provider = provider(rig)
        self.may_destroy: frozenset[int] = frozenset()
        self.errors: list[BaseException] = []
        self.source, self.secret = self._make()
        self.handle = self.source.handle
        self.key_id = self.source.identity.id
        self.answer = self._ask(self.source)

    def prepare(self) -> None:  # noqa: B027 - only some need it
        """Do what comes before the calls that are to fail."""

    def numbers(self, names: list[str]) -> list[int]:
        """Return which of the calls of an undisturbed run are to be tried: all of them, or a sample."""
        return list(range(1, len(names) + 1))

    @abstractmethod
    def run(self) -> None:
        """Do it.

        Raises:
            HsmbridgeError: it failed.
        """

    def judge(self, plan: FaultPlan, error: BaseException | None) -> Iterator[str]:
        """Yield what is wrong, in one sentence each."""
        yield from self.source_is_there()
        del plan, error

    def left_behind(self, objects: list[Object]) -> Iterator[str]:
        """Yield a sentence for what is left behind and could be known to be the operation's own."""
        del objects
        yield from ()

    @property
    def results(self) -> list[Object]:
        """Objects that are there because it succeeded."""
        return []

    def again(self) -> None:
        """Do it once more, or bring it to its end, with nothing in the way.

        Raises:
            HsmbridgeError: it did not recover.
        """
        self.run()

    # ---- the recipient, of whom nothing is known yet

    def sealer(self) -> Sealer:
        """Return the recipient's KEK as a sender sees it for the first time."""
        return self.provider.kek(self.to.kek) if self.to.wraps is Dialect.AES_KW else self.to.sealer

    def opener(self) -> Opener:
        """Return the recipient's KEK as a receiver sees it for the first time."""
        return opener_of(self.provider, self.to.kek)

    # ---- what is there

    def source_is_there(self) -> Iterator[str]:
        """Yield a sentence where the source cannot be used any more."""
        if self._ask(self.source) != self.answer:
            yield "the source cannot be used any more"

    def in_token(self) -> list[Object]:
        """Return token objects that have the key's name."""
        return self.rig.token.find({CKA.TOKEN: True, CKA.ID: self.key_id})

    def _make(self) -> tuple[Object, bytes]:
        value = SECRETS["aes:256"].random()
        with suppress(Unsupported):
            return self.rig.enter(CKK.AES, value, _USE), value
        return self.rig.make("aes:256", _USE), b""

    def _ask(self, key: Object) -> bytes:
        return answer_of(key)


class Export(Operation):
    """A copy under a KEK, by value. The KEK is looked at anew, as a program does that has just begun."""

    def run(self) -> None:
        """Export."""
        self.blob = self.provider.export_key(self.provider.adopt(self.source), self.sealer())

    def judge(self, plan: FaultPlan, error: BaseException | None) -> Iterator[str]:
        """The source is there in any case; a blob that was returned can be imported."""
        yield from super().judge(plan, error)
        if error is None:
            try:
                arrived = self.provider.import_key(self.blob, self.opener())
            except HsmbridgeError as failure:
                yield f"a blob was returned that cannot be imported: {failure}"
                return
            self.rig.ours.remove(self.rig.ours.take(arrived.object))  # type: ignore[attr-defined]  # a token key


class Import(Operation):
    """A copy that was exported under a KEK."""

    persist = False

    def prepare(self) -> None:
        """Export it."""
        self.blob = self.provider.export_key(self.provider.adopt(self.source), self.to.sealer)
        self._keys: list[Key] = []

    def run(self) -> None:
        """Import."""
        self._keys.append(self.provider.import_key(self.blob, self.opener(), persist=self.persist))

    @property
    def results(self) -> list[Object]:
        """The imported key."""
        return [key.object for key in self._keys if hasattr(key, "object")]

    def judge(self, plan: FaultPlan, error: BaseException | None) -> Iterator[str]:
        """The source is there in any case; what was imported is the same key."""
        yield from super().judge(plan, error)
        if error is None and any(self._ask(made) != self.answer for made in self.results):
            yield "the imported key is another one"

    def again(self) -> None:
        """Import once more, if it failed."""
        if not self._keys:
            self.run()


class ImportPersisted(Import):
    """The same into a token object."""

    persist = True


class Destroy(Operation):
    """The destroy of a session key that lives in software."""

    def prepare(self) -> None:
        """The source itself may go."""
        self.may_destroy = frozenset({self.handle})

    def run(self) -> None:
        """Destroy."""
        self.outcome = self.provider.destroy_key(self.provider.adopt(self.source)).outcome

    def judge(self, plan: FaultPlan, error: BaseException | None) -> Iterator[str]:
        """What is said to be destroyed is gone; what was not destroyed can still be used."""
        there = self._left()
        if error is None and self.outcome is Outcome.DESTROYED and there:
            yield "a key is said to be destroyed and is still there"
        if not there and self.handle not in plan.foreign:
            yield "the key is gone, and nobody destroyed it"
        if there and self._ask(there[0]) != self.answer:
            yield "the key that was not destroyed cannot be used any more"

    def again(self) -> None:
        """Destroy what is left, by its name."""
        for key in self._left():
            done = self.provider.destroy_key(self.provider.adopt(key))
            if done.outcome is not Outcome.DESTROYED:
                raise HsmbridgeError(f"the key is {done.outcome}: {'; '.join(done.evidence)}")
        if self._left():
            raise HsmbridgeError("the key is still there")

    def _left(self) -> list[Object]:
        return self.rig.token.find({CKA.TOKEN: False, CKA.ID: self.key_id})
