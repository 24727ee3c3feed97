"""One C_UnwrapKey seen from outside: what it answered, and which bytes arrived.

A refusal is an answer here, not an error: the checks judge it. That the module says CKR_OK and gives a handle that
stands for nothing is no answer at all, and fails the check.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hsmbridge.codes import CKA, CKK, CKR, ckr_name
from hsmbridge.errors import Pkcs11Error
from hsmbridge_conformance.verdict import Failed, Finding, Unsupported
from hsmbridge_conformance.wrapcases import WrapCase, arriving

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from hsmbridge.objects import Object
    from hsmbridge.template import Template
    from hsmbridge_conformance.rig import Rig

__all__ = ["Unwrapping", "arrive", "attempt", "demand_refusal", "is_that_key", "sealed", "unreadable"]

_ASKED: tuple[Template, ...] = (
    {CKA.SENSITIVE: False, CKA.EXTRACTABLE: True},
    {CKA.SENSITIVE: True, CKA.EXTRACTABLE: True},
    {},
)
"""Templates for a key that shall be looked at: readable, or at least extractable, or as the module likes it."""

_TEMPLATE_REFUSED = frozenset(
    {
        CKR.ATTRIBUTE_READ_ONLY,
        CKR.ATTRIBUTE_VALUE_INVALID,
        CKR.ATTRIBUTE_TYPE_INVALID,
        CKR.TEMPLATE_INCONSISTENT,
    }
)


def attempt(rig: Rig, case: WrapCase, kek: Object, wrapped: bytes, template: Template) -> Object | int:
    """C_UnwrapKey to a session object.

    Returns: the new object, or the return value of a refusal.

    Raises:
        Failed: CKR_OK, and a handle that stands for nothing.
    """
    try:
        return rig.unwrap(case, kek, wrapped, template)
    except Pkcs11Error as error:
        if error.function != "C_UnwrapKey":
            raise Failed(f"C_UnwrapKey answered CKR_OK, but its handle stands for nothing: {error}") from None
        return error.ckr


def demand_refusal(answer: Object | int, expected: Collection[int], what: str) -> None:
    """Judge a call that had to be refused.

    Args:
        answer: what :func:`attempt` returned.
        expected: the return values that the specification has; empty where any refusal is right.
        what: the sentence for a module that accepts it.

    Raises:
        Failed: it was accepted; Finding: refused with another return value.
    """
    if not isinstance(answer, int):
        raise Failed(what)
    if expected and answer not in expected:
        names = " or ".join(ckr_name(ckr) for ckr in expected)
        raise Finding(f"refused with {ckr_name(answer)}, the specification has {names}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwrapping:
    """A wrapped key with the KEK that opens it.

    Attributes:
        rig: the worker's means.
        case: the mechanism.
        kek: unwraps.
        wrapped: the bytes.
    """

    rig: Rig
    case: WrapCase
    kek: Object
    wrapped: bytes

    def __call__(self, asked: Template | None = None, wrapped: bytes | None = None) -> Object | int:
        """Unwrap an AES key, or other bytes in its place, with more attributes in the template; see :func:`attempt`."""
        taken = self.wrapped if wrapped is None else wrapped
        return attempt(self.rig, self.case, self.kek, taken, {**arriving(), **(asked or {})})

    def any_of(self, *asked: Template) -> Object:
        """Unwrap with the first of several templates that the module takes.

        Raises:
            Unsupported: it takes none.
        """
        answers: list[str] = []
        for template in asked:
            answer = self(template)
            if not isinstance(answer, int):
                return answer
            answers.append(ckr_name(answer))
        raise Unsupported(f"C_UnwrapKey takes no such template: {', '.join(dict.fromkeys(answers))}")


def arrive(opened: Unwrapping, key_type: CKK, what: str) -> Object:
    """Unwrap what must be accepted, readable or extractable where the module allows it.

    Args:
        opened: what is unwrapped.
        key_type: of the new key.
        what: how to call the wrapped key in a sentence.

    Raises:
        Failed: it was refused; Unsupported: the module cannot do it at all.
    """
    refusal: int = CKR.GENERAL_ERROR
    for asked in _ASKED:
        answer = opened({CKA.KEY_TYPE: key_type, **asked})
        if not isinstance(answer, int):
            return answer
        refusal = answer
        if refusal not in _TEMPLATE_REFUSED:
            break
    if opened.rig.unusable(Pkcs11Error("C_UnwrapKey", refusal)):
        raise Unsupported(f"{opened.case} does not unwrap: {ckr_name(refusal)}")
    raise Failed(f"C_UnwrapKey refused {what}: {ckr_name(refusal)}")


def is_that_key(opened: Unwrapping, arrived: Object, value: bytes) -> bool:
    """Look at the bytes that arrived, or where the module keeps them, wrap them again.

    Args:
        opened: how it arrived, under an AES KEK: a key has only one right wrap.
        arrived: the new key.
        value: the bytes that it must have.

    Raises:
        Unsupported: neither is possible.
    """
    try:
        return bytes(arrived.read_value()) == value
    except Pkcs11Error:
        pass
    try:
        return opened.rig.wrap(opened.case, opened.kek, arrived) == opened.wrapped
    except Pkcs11Error as error:
        raise unreadable(error) from None


def unreadable(error: Pkcs11Error) -> Unsupported:
    """Say that nothing can be said about the bytes of a key."""
    return Unsupported(f"what arrived can neither be read nor wrapped again: {error.function}: {ckr_name(error.ckr)}")


def sealed(rig: Rig, case: WrapCase, spec: str = "aes:256", make: Callable[[], Object] | None = None) -> Unwrapping:
    """Wrap a new session key under a session KEK: a new one, or with RSA the worker's own pair, which is slow to make.

    Args:
        rig: the worker's means.
        case: the mechanism.
        spec: the key's type.
        make: makes the key; None generates it.

    Raises:
        Unsupported: the module does not wrap such a key.
    """
    wrapping, unwrapping = rig.kept("RSA pair", lambda: case.make_kek(rig)) if case.rsa else case.make_kek(rig)
    key = make() if make is not None else rig.make(spec)
    try:
        wrapped = rig.wrap(case, wrapping, key)
    except Pkcs11Error as error:
        raise Unsupported(f"{spec} is not wrapped under {case}: {ckr_name(error.ckr)}") from None
    return Unwrapping(rig=rig, case=case, kek=unwrapping, wrapped=wrapped)
