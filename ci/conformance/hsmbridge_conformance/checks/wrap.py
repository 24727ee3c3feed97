"""Wrap: what C_WrapKey must refuse, and how it must hand its output over."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hsmbridge.codes import CKA, CKR
from hsmbridge.errors import Pkcs11Error
from hsmbridge_conformance.catalogue import check
from hsmbridge_conformance.verdict import Failed, Finding, Level, Subject, Unsupported
from hsmbridge_conformance.violating import destroy_for_test, wrap_into

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hsmbridge_conformance.rig import Rig
    from hsmbridge_conformance.wrapcases import WrapCase

__all__: list[str] = []


def _mechanisms(rig: Rig) -> Iterable[WrapCase]:
    return rig.wrap_cases(unwrap=False)


@check("HSB-WRAP-001", subject=Subject.MODULE, level=Level.MUST, clauses="W SK", cases=_mechanisms)
def unextractable_key(rig: Rig, case: WrapCase) -> None:
    """A key with CKA_EXTRACTABLE=false is not wrapped.

    An AES key that was generated with CKA_EXTRACTABLE=false is offered to C_WrapKey. A module that wraps it hands out
    a key that it has promised to keep.
    """
    wrapping, _ = case.make_kek(rig)
    key = rig.make("aes:256", {CKA.EXTRACTABLE: False})
    rig.must_refuse(
        "a key with CKA_EXTRACTABLE=false was wrapped",
        (CKR.KEY_UNEXTRACTABLE,),
        lambda: rig.wrap(case, wrapping, key),
    )


@check("HSB-WRAP-002", subject=Subject.MODULE, level=Level.MUST, clauses="W", cases=_mechanisms)
def kek_without_wrap(rig: Rig, case: WrapCase) -> None:
    """A KEK with CKA_WRAP=false does not wrap.

    The wrapping key is made with CKA_WRAP=false. A module that wraps under it lets every key be turned into a KEK.
    """
    wrapping, _ = case.make_kek(rig, WRAP=False)
    key = rig.make("aes:256")
    rig.must_refuse(
        "a KEK with CKA_WRAP=false wrapped a key",
        (CKR.KEY_FUNCTION_NOT_PERMITTED,),
        lambda: rig.wrap(case, wrapping, key),
    )


@check("HSB-WRAP-003", subject=Subject.MODULE, level=Level.MUST, clauses="OUT W", cases=_mechanisms)
def output_length(rig: Rig, case: WrapCase) -> None:
    """The size query is enough, the final length is exact, and nothing is written behind the buffer.

    C_WrapKey is asked for its length with a null buffer, then given a buffer of that length with a guarded page behind
    it. Writing past it would end the process; a length that is too small makes the second call fail.
    """
    wrapping, _ = case.make_kek(rig)
    key = rig.make("aes:256")
    asked = wrap_into(rig, case, wrapping, key, None)
    if asked.ckr != CKR.OK:
        raise Finding(f"the size query answered {asked.name}, the specification has CKR_OK")
    given = wrap_into(rig, case, wrapping, key, asked.length)
    if given.ckr == CKR.BUFFER_TOO_SMALL:
        raise Failed(
            f"the size query said {asked.length} bytes, and a buffer of that size was then answered {given.name}"
        )
    if given.ckr != CKR.OK:
        raise Failed(f"C_WrapKey with the length that the size query gave answered {given.name}")
    if given.overrun:
        raise Failed(f"bytes were written behind a buffer of {asked.length} bytes")
    if given.length > asked.length:
        raise Failed(f"C_WrapKey says it wrote {given.length} bytes into a buffer of {asked.length}")
    if given.written > given.length:
        raise Failed(f"C_WrapKey says {given.length} bytes and wrote {given.written}")
    roomy = wrap_into(rig, case, wrapping, key, asked.length + 64)
    if roomy.length != given.length:
        raise Failed(f"the length depends on the buffer: {given.length} bytes, and {roomy.length} in a larger one")


@check("HSB-WRAP-004", subject=Subject.MODULE, level=Level.MUST, clauses="OUT W", cases=_mechanisms)
def short_buffer(rig: Rig, case: WrapCase) -> None:
    """A short buffer gets CKR_BUFFER_TOO_SMALL and the needed length.

    A buffer that is one byte too short must not be written past, and the caller must learn how much is needed.
    """
    wrapping, _ = case.make_kek(rig)
    key = rig.make("aes:256")
    full = wrap_into(rig, case, wrapping, key, 4096)
    if full.ckr != CKR.OK:
        raise Failed(f"C_WrapKey with a buffer of 4096 bytes answered {full.name}")
    short = wrap_into(rig, case, wrapping, key, full.length - 1)
    if short.ckr == CKR.OK:
        raise Failed(f"C_WrapKey needs {full.length} bytes and was content with one less")
    if short.overrun:
        raise Failed("bytes were written behind a buffer that was too short")
    if short.ckr != CKR.BUFFER_TOO_SMALL:
        raise Finding(f"a short buffer was refused with {short.name}, the specification has CKR_BUFFER_TOO_SMALL")
    if short.length < full.length:
        raise Failed(f"a short buffer was told {short.length} bytes, {full.length} are needed")


@check("HSB-WRAP-005", subject=Subject.MODULE, level=Level.MUST, clauses="W", cases=_mechanisms)
def bad_handles(rig: Rig, case: WrapCase) -> None:
    """Handles that stand for nothing are refused, never taken for another key.

    C_WrapKey is called with a handle that was never given out and with one whose object has just been destroyed, as
    the key and as the KEK, before any other object is made.
    """
    wrapping, _ = case.make_kek(rig)
    key = rig.make("aes:256")
    gone = destroy_for_test(rig, rig.make("aes:256"))
    keys = (CKR.KEY_HANDLE_INVALID, CKR.OBJECT_HANDLE_INVALID)
    keks = (CKR.WRAPPING_KEY_HANDLE_INVALID, CKR.KEY_HANDLE_INVALID, CKR.OBJECT_HANDLE_INVALID)
    for what, handle in (("never given out", gone + 0x10000), ("of a destroyed key", gone)):
        for place, expected, pair in (("key", keys, (wrapping.handle, handle)), ("KEK", keks, (handle, key.handle))):
            rig.must_refuse(
                f"a handle {what} was taken as the {place}", expected, partial(_wrap_handles, rig, case, pair)
            )


def _wrap_handles(rig: Rig, case: WrapCase, pair: tuple[int, int]) -> bytes:
    with rig.token.sessions as session:
        return rig.calls.wrap_key(session, case.mechanism, *pair)


@check("HSB-WRAP-006", subject=Subject.MODULE, level=Level.MUST, clauses="W SK", cases=_mechanisms)
def wrap_with_trusted(rig: Rig, case: WrapCase) -> None:
    """A key with CKA_WRAP_WITH_TRUSTED is wrapped under a trusted KEK only.

    The key is made with CKA_WRAP_WITH_TRUSTED=true, the KEK without CKA_TRUSTED, which only the security officer can
    set. Where the module ignores the attribute, it protects nobody from a KEK that an attacker brings along.
    """
    wrapping, _ = case.make_kek(rig)
    key = rig.make("aes:256", {CKA.WRAP_WITH_TRUSTED: True})
    rig.must_refuse(
        "a key with CKA_WRAP_WITH_TRUSTED=true was wrapped under a KEK that is not trusted",
        (CKR.KEY_NOT_WRAPPABLE,),
        lambda: rig.wrap(case, wrapping, key),
    )


@check("HSB-WRAP-007", subject=Subject.MODULE, level=Level.SHOULD, clauses="W", cases=_mechanisms)
def wrap_template(rig: Rig, case: WrapCase) -> None:
    """CKA_WRAP_TEMPLATE, where it is accepted, is enforced.

    The KEK demands that keys be sensitive; a key that is not is offered. A module that accepts the template and
    ignores it claims a protection that it does not give.
    """
    if case.rsa:
        raise Unsupported("done with AES KEKs only: the template belongs to the wrapping key whatever its type")
    wrapping = rig.make_kek({CKA.WRAP_TEMPLATE: {CKA.SENSITIVE: True}})
    key = rig.make("aes:256", {CKA.SENSITIVE: False})
    rig.must_refuse(
        "a key that does not match the KEK's CKA_WRAP_TEMPLATE was wrapped",
        (CKR.KEY_NOT_WRAPPABLE, CKR.KEY_HANDLE_INVALID),
        lambda: rig.wrap(case, wrapping, key),
    )


@check("HSB-WRAP-008", subject=Subject.MODULE, level=Level.INFO, clauses="HSB", cases=_mechanisms)
def weak_kek(rig: Rig, case: WrapCase) -> str:
    """Does the module wrap a strong key under a weak KEK?

    PKCS#11 does not forbid to wrap an AES-256 key under AES-128 or RSA-2048; hsmbridge does. This tells what the
    module alone would do.
    """
    wrapping = case.make_kek(rig)[0] if case.rsa else rig.make_kek(spec="aes:128")
    try:
        rig.wrap(case, wrapping, rig.make("aes:256"))
    except Pkcs11Error as error:
        return f"no: {error}"
    return f"yes: AES-256 under {'RSA-2048' if case.rsa else 'AES-128'}"


@check("HSB-WRAP-009", subject=Subject.MODULE, level=Level.MUST, clauses="HSB", cases=_mechanisms)
def source_unchanged(rig: Rig, case: WrapCase) -> None:
    """The key and the KEK are after a wrap what they were before.

    All attributes of both are read before and after C_WrapKey. An export must be a copy: it may not take anything
    away from its source.
    """
    wrapping, _ = case.make_kek(rig)
    key = rig.make("aes:256")
    before = [rig.everything(one) for one in (wrapping, key)]
    rig.wrap(case, wrapping, key)
    after = [rig.everything(one) for one in (wrapping, key)]
    if before != after:
        raise Failed("C_WrapKey changed an attribute of the key or of the KEK")
