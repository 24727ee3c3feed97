"""Unwrap, continued: damaged wrapped keys, and the words in which they are refused."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from hsmbridge.codes import CKA, CKR, ckr_name
from hsmbridge_conformance.catalogue import check
from hsmbridge_conformance.checks._trial import Trial, conflicts
from hsmbridge_conformance.checks._unwrapping import attempt, demand_refusal, sealed
from hsmbridge_conformance.verdict import Failed, Finding, Level, Subject, Unsupported
from hsmbridge_conformance.wrapcases import arriving

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hsmbridge.objects import Object
    from hsmbridge_conformance.rig import Rig
    from hsmbridge_conformance.wrapcases import WrapCase

__all__: list[str] = []

_RSA_STEP = 13
"""Every how manieth bit is flipped under RSA, where each try costs a private operation: it meets all bits of a byte."""

_RSA_CUTS = (0, 1, 64, 128, 248, 255)

_RSA_TRIES = 64
"""Every OAEP ciphertext is another number; more than a third of them are small enough for any modulus of that size."""

_NAMED = 4
"""Accepted mistakes that are named; of more only the number is told."""


def _flips(case: WrapCase, wrapped: bytes) -> Iterable[tuple[str, bytes]]:
    whole = int.from_bytes(wrapped, "big")
    bits = 8 * len(wrapped)
    for bit in range(0, bits, _RSA_STEP if case.rsa else 1):
        yield f"bit {bit}", (whole ^ 1 << (bits - 1 - bit)).to_bytes(len(wrapped), "big")


def _cuts(case: WrapCase, wrapped: bytes) -> Iterable[tuple[str, bytes]]:
    for size in _RSA_CUTS if case.rsa else range(len(wrapped)):
        yield f"the first {size} bytes", wrapped[:size]
    yield "all but the first byte", wrapped[1:]
    yield "all but the first 8 bytes", wrapped[8:]


def _extensions(_: WrapCase, wrapped: bytes) -> Iterable[tuple[str, bytes]]:
    for size in (1, 8, 16):
        yield f"{size} zeros more", wrapped + bytes(size)
        yield f"{size} random bytes more", wrapped + secrets.token_bytes(size)
        yield f"{size} zeros before", bytes(size) + wrapped
    yield "twice", wrapped + wrapped


_DAMAGE = {"flips": _flips, "truncations": _cuts, "extensions": _extensions}


def _damages(rig: Rig) -> Iterable[Trial]:
    return [Trial(case=case, what=what) for case in rig.wrap_cases() if case.integrity for what in _DAMAGE]


@check("HSB-UNWRAP-002", subject=Subject.MODULE, level=Level.MUST, clauses="KW ERR U", cases=_damages)
def damage(rig: Rig, trial: Trial) -> str:
    """A damaged wrapped key is refused.

    An AES-128 key is wrapped. ``flips``: with every bit flipped in turn (under RSA, every 13th); ``truncations``: with
    every number of bytes missing (under RSA, several); ``extensions``: with bytes added. All of that must be refused
    under a mechanism that has an integrity check; AES-CBC has none and is left out.
    """
    opened = sealed(rig, trial.case, "aes:128")
    accepted: list[str] = []
    count = 0
    for name, wrapped in _DAMAGE[trial.what](trial.case, opened.wrapped):
        count += 1
        if not isinstance(opened(wrapped=wrapped), int):
            accepted.append(name)
    if accepted:
        more = f" and {len(accepted) - _NAMED} more" if len(accepted) > _NAMED else ""
        raise Failed(f"accepted {len(accepted)} of {count}: {', '.join(accepted[:_NAMED])}{more}")
    return f"{count} refused"


# ---- the exact return value

_LENGTH = (CKR.WRAPPED_KEY_LEN_RANGE, CKR.WRAPPED_KEY_INVALID)
_TYPE = (CKR.WRAPPED_KEY_LEN_RANGE, CKR.WRAPPED_KEY_INVALID, CKR.TEMPLATE_INCONSISTENT)


def _refusals(rig: Rig) -> Iterable[Trial]:
    words = {True: ("damaged", "wrong-kek", "truncated", "type"), False: ("truncated", "type")}
    return [Trial(case=case, what=word) for case in rig.wrap_cases() for word in words[case.integrity]]


@check("HSB-UNWRAP-008", subject=Subject.MODULE, level=Level.SHOULD, clauses="ERR U", cases=_refusals)
def exact_return_value(rig: Rig, trial: Trial) -> None:
    """A wrapped key is refused with the return value that says why.

    ``damaged`` and ``wrong-kek``: CKR_WRAPPED_KEY_INVALID; ``truncated``, by one byte: CKR_WRAPPED_KEY_LEN_RANGE, or
    CKR_WRAPPED_KEY_INVALID; ``type``, the conflicts of HSB-UNWRAP-004: one of these, or CKR_TEMPLATE_INCONSISTENT. A
    general error cannot be told from a broken device, and a caller may try it again for ever.
    """
    if trial.what == "type":
        _exact_type(rig, Trial(case=trial.case, what="des3"))
        return
    opened = sealed(rig, trial.case)
    wrapped, kek = opened.wrapped, opened.kek
    expected: tuple[CKR, ...] = (CKR.WRAPPED_KEY_INVALID,)
    if trial.what == "truncated":
        wrapped, expected = wrapped[:-1], _LENGTH
    elif trial.what == "wrong-kek":
        kek, wrapped = _under_another(rig, trial.case)
    else:
        middle = len(wrapped) // 2
        wrapped = wrapped[:middle] + bytes([wrapped[middle] ^ 1]) + wrapped[middle + 1 :]
    demand_refusal(attempt(rig, trial.case, kek, wrapped, arriving()), expected, "it was not refused at all")


def _under_another(rig: Rig, case: WrapCase) -> tuple[Object, bytes]:
    """Return another KEK and a wrapped key that is not already too large a number for it, which is another mistake."""
    public, kek = case.make_kek(rig)
    wrapped = sealed(rig, case).wrapped
    modulus = rig.attribute(public, CKA.MODULUS) if case.rsa else None
    for _ in range(_RSA_TRIES):
        if not isinstance(modulus, bytes) or wrapped[: len(modulus)] < modulus.lstrip(b"\0"):
            break
        wrapped = sealed(rig, case).wrapped
    return kek, wrapped


def _exact_type(rig: Rig, trial: Trial) -> None:
    wrong: list[str] = []
    for description, opened, template in conflicts(rig, trial):
        answer = attempt(rig, trial.case, opened.kek, opened.wrapped, template)
        if not isinstance(answer, int):
            raise Unsupported(f"{description}: accepted, so there is no refusal to look at; see HSB-UNWRAP-004")
        if answer not in _TYPE:
            wrong.append(f"{description}: {ckr_name(answer)}")
    if wrong:
        names = " or ".join(ckr_name(ckr) for ckr in _TYPE)
        raise Finding(f"{'; '.join(wrong)}; the specification has {names}")
