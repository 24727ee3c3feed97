"""Basics: what every caller builds on, from C_Initialize to the lists of what a token can do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from json import loads
from typing import TYPE_CHECKING

from hsmbridge.codes import CKA, CKF, CKM, CKR, UNAVAILABLE, ckr_name, name_of
from hsmbridge.errors import HsmbridgeError, Pkcs11Error
from hsmbridge.mechanism import aes_gcm
from hsmbridge_conformance.barecalls import CKF_WRAP, BareCalls, short_gcm
from hsmbridge_conformance.catalogue import check
from hsmbridge_conformance.keymaking import usage
from hsmbridge_conformance.verdict import Failed, Level, Subject, Unsupported
from hsmbridge_conformance.wrapcases import ALL_CASES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hsmbridge.mechanism import Mechanism
    from hsmbridge.objects import Object
    from hsmbridge_conformance.rig import Rig
    from hsmbridge_conformance.wrapcases import WrapCase

__all__: list[str] = []

_SECONDS = 15
"""C_Initialize takes milliseconds; one that takes so long hangs."""


@check("HSB-BASE-001", subject=Subject.MODULE, level=Level.SHOULD, clauses="GP")
def initialize_without_arguments(rig: Rig, case: None) -> None:
    """C_Initialize(NULL) is enough.

    A process of its own loads the module and calls C_Initialize with a null pointer, as the specification allows it to
    a program with one thread. Where the module wants arguments of its own, a program that does not know them cannot
    use it: the run itself got them with ``--module-args``.
    """
    del case
    read, write = os.pipe()
    try:
        process = subprocess.Popen(  # noqa: S603 - our own module, in this interpreter
            [sys.executable, "-P", "-m", "hsmbridge_conformance.bare_process", rig.token.module.path, str(write)],
            pass_fds=(write,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
    finally:
        os.close(write)
    with os.fdopen(read, encoding="utf-8") as pipe:
        try:
            status = process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise Failed(f"a process that calls C_Initialize(NULL) did not come back within {_SECONDS} s") from None
        told = pipe.read()
    if status < 0:
        raise Failed(f"{signal.Signals(-status).name} ended a process that called C_Initialize(NULL)")
    if not told:
        raise HsmbridgeError(f"the process for C_Initialize(NULL) ended with status {status} and said nothing")
    answer = loads(told)
    if answer["ckr"] != CKR.OK:
        null = "(NULL)" if answer["function"] == "C_Initialize" else " after C_Initialize(NULL)"
        raise Failed(f"{answer['function']}{null} answered {ckr_name(answer['ckr'])}")


@check("HSB-BASE-002", subject=Subject.MODULE, level=Level.INFO, clauses="SM HSB")
def hardware_claims(rig: Rig, case: None) -> str:
    """What does the token claim to be made of?

    CKF_HW_SLOT of the slot and CKF_HW of each mechanism are read and told. A simulator can set both, and the
    specification draws no conclusion from them: hsmbridge does not believe them, it looks at what cannot be taken out.
    """
    del case
    bare, slot = BareCalls(rig.token.module.path), rig.token.slot_id
    claims = "is claimed" if bare.slot_flags(slot) & CKF.SLOT_HW else "is not claimed"
    listed = rig.token.mechanisms()
    hardware = sum(bool(bare.mechanism_flags(slot, number) & CKF.MECHANISM_HW) for number in listed)
    return f"CKF_HW_SLOT {claims}, CKF_HW is claimed for {hardware} of {len(listed)} mechanisms: neither is believed"


@check("HSB-BASE-003", subject=Subject.MODULE, level=Level.MUST, clauses="SM")
def mechanism_flags(rig: Rig, case: None) -> None:
    """C_GetMechanismInfo says the same whatever was in the caller's memory.

    Each mechanism is asked about twice, with a CK_MECHANISM_INFO of zeros and with one in which all bits of the flags
    are set. A module that only adds to the flags, or leaves them alone, tells a caller who has not cleared the memory
    of abilities that nobody has: wrapping, for one.
    """
    del case
    bare, slot = BareCalls(rig.token.module.path), rig.token.slot_id
    wrong = [
        name_of(CKM, number)
        for number in sorted(rig.token.mechanisms())
        if bare.mechanism_flags(slot, number) != bare.mechanism_flags(slot, number, before=UNAVAILABLE)
    ]
    if wrong:
        raise Failed(f"the flags are what the caller's memory had before, with {', '.join(wrong)}")


def _flagged(rig: Rig) -> Iterable[str]:
    bare, listed = BareCalls(rig.token.module.path), rig.token.mechanisms()
    numbers = dict.fromkeys(case.listed for case in ALL_CASES if case.listed in listed)
    return [
        name_of(type(number), number)
        for number in numbers
        if bare.mechanism_flags(rig.token.slot_id, number) & CKF_WRAP
    ]


@check("HSB-BASE-004", subject=Subject.MODULE, level=Level.MUST, clauses="SM W", cases=_flagged)
def listed_for_wrapping(rig: Rig, mechanism: str) -> None:
    """A mechanism that is listed for wrapping wraps.

    Each mechanism with CKF_WRAP among those that hsmbridge would use wraps an AES key under a KEK that is made for it,
    with at least one of the parameters that are usual for it. A caller who chooses by the list gets an error in the
    middle of an export otherwise.
    """
    answers: list[str] = []
    for case in ALL_CASES:
        if name_of(type(case.listed), case.listed) != mechanism:
            continue
        answer = _wraps(rig, case)
        if not answer:
            return
        answers.append(f"{case}: {answer}")
    raise Failed(f"CKF_WRAP is set, and the mechanism does not wrap: {'; '.join(answers)}")


def _wraps(rig: Rig, case: WrapCase) -> str:
    """Return why a mechanism does not wrap; nothing if it does.

    Raises:
        Unsupported: there is no KEK, or no key to wrap.
    """
    wrapping, _ = case.make_kek(rig)
    try:
        rig.wrap(case, wrapping, rig.make("aes:128"))
    except Pkcs11Error as error:
        return ckr_name(error.ckr)
    return ""


@check("HSB-BASE-005", subject=Subject.MODULE, level=Level.INFO, clauses="GCM")
def gcm_without_iv_bits(rig: Rig, case: None) -> str:
    """Does CKM_AES_GCM go without ulIvBits?

    Some programs know CK_GCM_PARAMS without that field, as it once was published; in version 3.1 it is there. An AES
    key encrypts with both structures, and where the shorter one is accepted, the ciphertext must be the same. hsmbridge
    always sends the complete one.
    """
    del case
    key, iv = rig.make("aes:128", usage(CKA.ENCRYPT, CKA.DECRYPT)), rig.new_id()[-12:]
    try:
        complete = _encrypt(rig, key, aes_gcm(iv, b""))
    except Pkcs11Error as error:
        raise Unsupported(f"no CKM_AES_GCM: {error}") from None
    try:
        short = _encrypt(rig, key, short_gcm(iv))
    except Pkcs11Error as error:
        return f"no: {error.function} answers {ckr_name(error.ckr)} to a structure without it"
    if short != complete:
        raise Failed("another ciphertext with a structure that has no ulIvBits")
    return "yes"


def _encrypt(rig: Rig, key: Object, mechanism: Mechanism) -> bytes:
    with rig.token.sessions as session:
        return rig.calls.encrypt(session, mechanism, key.handle, b"hsmbridge conformance")
