"""What a check works with: the token, keys made for the occasion, and a second process.

Everything a check makes bears the run's own CKA_ID prefix and is removed when the check ends; the token layer's rules
about destroying hold here as well. Only :mod:`hsmbridge_conformance.violating` goes past them, on session objects of
the suite's own.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar, cast

from hsmbridge.attributes import AttributeQuery
from hsmbridge.codes import CKA, CKR, ckr_name
from hsmbridge.destruction import Ours
from hsmbridge.errors import Pkcs11Error
from hsmbridge.template import PackedTemplate
from hsmbridge_conformance.keymaking import KeyMaker
from hsmbridge_conformance.peer import Peer
from hsmbridge_conformance.verdict import Failed, Finding
from hsmbridge_conformance.wrapcases import WrapCase, wrap_cases

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from hsmbridge.attributes import Attributes
    from hsmbridge.objects import Object
    from hsmbridge.template import Template, Value
    from hsmbridge.token import Token
    from hsmbridge_conformance.journal import CallJournal
    from hsmbridge_conformance.target import Target

__all__ = ["Rig"]

T = TypeVar("T")

_SECRET = (
    CKA.VALUE, CKA.PRIVATE_EXPONENT, CKA.PRIME_1, CKA.PRIME_2, CKA.EXPONENT_1, CKA.EXPONENT_2, CKA.COEFFICIENT,
)  # fmt: skip
_EVERYTHING = AttributeQuery([kind for kind in CKA if kind not in _SECRET and kind != CKA.NSS_DB])

_UNUSABLE = frozenset(
    {CKR.FUNCTION_NOT_SUPPORTED, CKR.MECHANISM_INVALID, CKR.MECHANISM_PARAM_INVALID, CKR.ARGUMENTS_BAD}
)
"""Answers that say "I cannot do that" rather than "I will not"."""


class Rig(KeyMaker):
    """One worker's means.

    Args:
        token: logged in.
        target: how a second process finds the same token.
        journal: the evidence.
        prefix: first bytes of every CKA_ID of this run.
        directory: private, for files of the run.

    Attributes:
        deadly: mechanisms that the module does not survive, or hangs in, with a sentence about it; never tried again.
    """

    def __init__(self, token: Token, target: Target, journal: CallJournal, prefix: bytes, directory: Path) -> None:
        super().__init__(token, prefix)
        self.target = target
        self.journal = journal
        self.directory = directory
        self._peer: Peer | None = None
        self._wrap_cases: dict[bool, list[WrapCase]] = {}
        self.deadly: dict[str, str] = {}
        self._keeping = Ours(token)
        self._kept: dict[str, object] = {}

    # ---- the run

    @contextmanager
    def case(self) -> Iterator[None]:
        """Whatever one check makes is removed at its end."""
        with Ours(self.token) as self.ours:
            try:
                yield
            finally:
                self.journal.conclude()  # what is removed now is no evidence
        if self.ours.debris:
            raise Failed("an object of the suite could not be removed: " + "; ".join(self.ours.debris))

    def kept(self, name: str, make: Callable[[], T]) -> T:
        """Make something once for all checks of this worker; its objects are removed when the worker ends.

        Args:
            name: what it is asked for by.
            make: makes it; a failure is not kept.
        """
        if name not in self._kept:
            outer, self.ours = self.ours, self._keeping
            try:
                self._kept[name] = make()
            finally:
                self.ours = outer
        return cast("T", self._kept[name])

    def resident(self) -> Object:
        """Return a private key that was made in the token and cannot leave it, the same for all checks of this worker.

        It is left to the run's cleaning, which another process does: a TPM without a resource manager loses room for
        good with each key that is destroyed by the process which made it.

        Raises:
            Unsupported: the module makes no key pairs as token objects.
        """

        def make() -> Object:
            stays: Template = {CKA.TOKEN: True, CKA.EXTRACTABLE: False}
            pair = self.make_pair("ec:p-256", stays)
            for half in pair:
                self.ours.release(half)
            return pair[1]

        return self.kept("resident", make)

    @property
    def peer(self) -> Peer:
        """A second process that is logged in to the same token, started at its first use."""
        if self._peer is None or not self._peer.alive:
            self._peer = Peer(self.target, self.prefix, self.directory)
        return self._peer

    def fresh_peer(self) -> Peer:
        """End the second process and start another."""
        if self._peer is not None:
            self._peer.close()
            self._peer = None
        return self.peer

    def close(self) -> None:
        """Remove what was kept, and end the second process. What does not go is left to the run's own cleaning."""
        with self._keeping:
            self._kept.clear()
        if self._peer is not None:
            self._peer.close()

    # ---- attributes

    def everything(self, key: Object) -> Attributes:
        """Return every attribute of a key that is not its value."""
        return key.read(_EVERYTHING)

    def attribute(self, key: Object, kind: CKA) -> Value | None:
        """Return one attribute; None where the module does not give it."""
        return key.read(AttributeQuery((kind,))).get(kind)

    # ---- mechanisms

    def wrap_cases(self, *, unwrap: bool = True) -> list[WrapCase]:
        """Return the wrapping mechanisms that do something when tried, whatever the module's flags say.

        Args:
            unwrap: both ways; else those that wrap, whether they unwrap or not.
        """
        if unwrap not in self._wrap_cases:
            self._wrap_cases[unwrap] = wrap_cases(self, unwrap=unwrap)
        return self._wrap_cases[unwrap]

    def wrap(self, case: WrapCase, kek: Object, key: Object) -> bytes:
        """C_WrapKey as it is, without hsmbridge's own rules."""
        with self.token.sessions as session:
            return self.calls.wrap_key(session, case.mechanism, kek.handle, key.handle)

    def unwrap(self, case: WrapCase, kek: Object, wrapped: bytes, template: Template) -> Object:
        """C_UnwrapKey as it is; *template* is completed with the run's name, as a session object."""
        packed = PackedTemplate(self.named(template))
        with self.token.sessions as session:
            return self.adopt(self.calls.unwrap_key(session, case.mechanism, kek.handle, wrapped, packed))

    # ---- judging

    def must_refuse(self, what: str, expected: Collection[int], call: Callable[[], object]) -> None:
        """Make a call that the module has to refuse.

        Args:
            what: the sentence for a module that does not: ``a key with CKA_EXTRACTABLE=false was wrapped``.
            expected: the return values that the specification has for it.
            call: makes the call.

        Raises:
            Failed: it was not refused; Finding: it was, with another return value.
        """
        try:
            call()
        except Pkcs11Error as error:
            if error.ckr not in expected:
                names = " or ".join(ckr_name(ckr) for ckr in expected)
                raise Finding(
                    f"{error.function} refused with {ckr_name(error.ckr)}, the specification has {names}"
                ) from None
        else:
            raise Failed(what)

    def inventory(self) -> frozenset[int]:
        """Return the handles of all session objects of this process: token objects may be another program's affair."""
        return frozenset(self.token.handles({CKA.TOKEN: False}))

    def unusable(self, error: Pkcs11Error) -> bool:
        """Whether an answer means that the module cannot do a thing, not that it will not."""
        return error.ckr in _UNUSABLE
