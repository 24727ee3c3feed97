"""C_DestroyObject, and the rules under which it may be called at all.

It is called only on an extractable session object, or on an object of *ours*: one that the running operation made,
known by the handle that the token returned for it. Never by a difference of inventories. At most once per object,
after the object has been looked at again; afterwards the handle never reaches the module.

Source: PKCS#11 v3.1 section 5.7.3 (C_DestroyObject); docs/residency.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from hsmbridge._operations import LOG
from hsmbridge.codes import CKA
from hsmbridge.errors import HardwareKeyError, HsmbridgeError, Pkcs11Error, StaleObjectError
from hsmbridge.residency import Classification, classify

if TYPE_CHECKING:
    from types import TracebackType

    from hsmbridge.objects import Identity, Object
    from hsmbridge.token import Token

__all__ = ["Destroyed", "Ours", "destroy_session_key"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Destroyed:
    """Proof of one destroy.

    Attributes:
        identity: what was destroyed.
        classification: the evidence of residency, read right before.
        absent: whether a look from another session found the object gone.
    """

    identity: Identity
    classification: Classification
    absent: bool


def destroy_session_key(key: Object) -> Destroyed:
    """Destroy an extractable session object.

    Args:
        key: the object; dead afterwards, whatever the token answers.

    Raises:
        HardwareKeyError: it lives in hardware, or may do so; nothing was called.
        StaleObjectError: it was destroyed before, or the handle stands for another object now.
        Pkcs11Error: the token refused; the object may still be there.
    """
    expected = key.identity
    classification = classify(key)
    if not classification.is_software:
        raise HardwareKeyError(
            f"{expected} is never destroyed: {classification.reason}",
            hint="keys that live in hardware stay where they are; remove one with the vendor's own tool if you must",
        )
    handle = _destroy(key, expected)
    return Destroyed(identity=expected, classification=classification, absent=_is_absent(key.token, handle, expected))


class Ours:
    """The objects that one operation made and has not handed out yet.

    ``with Ours(token) as ours:`` removes whatever is still in it at the end, on success as on failure;
    :meth:`release` hands an object out. An object that cannot be removed is reported, and so is one that has become
    something else meanwhile.

    Attributes:
        token: where they are.
        debris: what could not be removed, one sentence each.
    """

    def __init__(self, token: Token) -> None:
        self.token = token
        self._made: list[Object] = []
        self.debris: list[str] = []

    def __enter__(self) -> Self:
        return self

    def adopt(self, handle: int, *, look: bool = True) -> Object:
        """Take a handle that the token has just returned for a new object.

        Args:
            handle: the new handle.
            look: ask for its name at once; without it the caller is about to read the object anyway.
        """
        made = self.take(self.token.adopt(handle))
        if look:
            _ = made.identity
        return made

    def take(self, made: Object) -> Object:
        """Take over an object that another operation made for this one."""
        self._made.append(made)
        return made

    def release(self, made: Object) -> Object:
        """Hand an object out: it is no longer removed at the end."""
        self._made = [other for other in self._made if other is not made]
        return made

    def remove(self, made: Object) -> None:
        """Remove one of ours now.

        Raises:
            HardwareKeyError: it is not one of ours.
            Pkcs11Error: the token refused.
        """
        if any(other is made for other in self._made):
            self.release(made)
            try:
                _destroy(made, made.identity)
            except HsmbridgeError as failure:
                self._report(made, failure)
                raise
            return
        raise HardwareKeyError("only an object that this operation made is removed", hint="nothing was destroyed")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for made in reversed(self._made):
            if not made.alive:
                continue
            try:
                _destroy(made, made.identity)
            except HsmbridgeError as failure:
                self.debris.append(self._report(made, failure))
        self._made.clear()
        if self.debris and isinstance(error, HsmbridgeError):
            error.add_note("; ".join(self.debris))

    def _report(self, made: Object, failure: HsmbridgeError) -> str:
        """Log what may be left, unless the destroy itself has done so; the sentence."""
        text = f"{made.name} may be left in token {self.token.label!r}: {failure}"
        if not (isinstance(failure, Pkcs11Error) and failure.function == "C_DestroyObject"):
            LOG.warning("%s", text)
        return text


def _destroy(key: Object, expected: Identity) -> int:
    """Look once more, take the handle away from everybody, and call C_DestroyObject once.

    Returns: the dead handle, to look for in later searches only.
    """
    now = key.read_identity()
    if now != expected:
        key.retire()
        raise StaleObjectError(
            f"the handle of {expected} stands for {now} now; nothing was destroyed",
            hint="another program changed the token meanwhile; look with `hsmbridge key ls`",
        )
    handle = key.retire()
    try:
        with key.token.sessions as session:
            key.token.calls.destroy_object(session, handle)
    except Pkcs11Error as error:
        LOG.warning("%s may be left in token %r: %s", expected, key.token.label, error)
        raise
    return handle


def _is_absent(token: Token, handle: int, identity: Identity) -> bool:
    """Whether a search for the session object's name no longer lists its handle.

    The handle itself is not used again.
    """
    return handle not in token.handles(
        {CKA.CLASS: identity.cls, CKA.ID: identity.id, CKA.LABEL: identity.label, CKA.TOKEN: False}
    )
