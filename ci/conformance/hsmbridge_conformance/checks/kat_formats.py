"""Known answers, continued: which format a mechanism number stands for, and wrapped keys that nobody may accept."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import keywrap, serialization

from hsmbridge.codes import CKA, CKK, CKM, CKR, ckr_name
from hsmbridge.errors import Pkcs11Error
from hsmbridge_conformance.catalogue import check
from hsmbridge_conformance.checks._formats import INVALID, NIST_INVALID, RFC_3394, RFC_5649, Format, name_format
from hsmbridge_conformance.checks._trial import Trial, listed, trials
from hsmbridge_conformance.checks._unwrapping import Unwrapping, arrive, attempt, is_that_key
from hsmbridge_conformance.verdict import Failed, Level, Subject, Unsupported
from hsmbridge_conformance.wrapcases import WrapCase, arriving

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hsmbridge.objects import Object
    from hsmbridge_conformance.rig import Rig

__all__: list[str] = []

_FIXED = {CKM.AES_KEY_WRAP: RFC_3394, CKM.AES_KEY_WRAP_KWP: RFC_5649}
"""What the specification says that a number means; of 0x210A several versions said several things."""

_EVEN, _ODD = (16, 32), (7, 20)
_CANNOT = (CKR.FUNCTION_NOT_SUPPORTED, CKR.MECHANISM_INVALID)


def _padded(rig: Rig) -> Iterable[Trial]:
    both = listed(rig, CKM.AES_KEY_WRAP_PAD, CKM.AES_KEY_WRAP_KWP)
    return trials(both, "generic", "ec:p-256")


@check("HSB-KAT-003", subject=Subject.MODULE, level=Level.MUST, clauses="KW W U", cases=_padded)
def dialect(rig: Rig, trial: Trial) -> str:
    """CKM_AES_KEY_WRAP_PAD and CKM_AES_KEY_WRAP_KWP speak a known format and keep lengths.

    Keys of known bytes, of 16 and 32 and of 7 and 20 bytes, and an EC private key are wrapped, and the result is
    compared with every format that modules are known to use; 0x210B must be RFC 5649, for 0x210A the remark tells what
    it is. What another implementation wrapped in that format must be unwrapped to the same key. A module that fills
    the key up with zeros before it wraps changes it silently, and fails.
    """
    if trial.what != "generic":
        return _private_key(rig, trial)
    seen: list[str] = []
    faults: list[str] = []
    for size in (*_EVEN, *_ODD):
        found, fault = _one_size(rig, trial.case, size)
        if found not in seen:
            seen.append(found)
        faults += [fault] if fault else []
    wanted = _FIXED.get(trial.case.listed)
    if wanted is not None and wanted.name not in seen:
        faults.append(f"the specification has {wanted.name}")
    formats = f"{trial.case} is {'; '.join(seen)}"
    if faults:
        raise Failed(f"{formats}: {'; '.join(faults)}")
    return formats


def _one_size(rig: Rig, case: WrapCase, size: int) -> tuple[str, str]:
    """Wrap and unwrap one key.

    Returns: the format, and what is wrong with it or nothing.
    """
    kek_bytes, value = secrets.token_bytes(32), secrets.token_bytes(size)
    kek = rig.enter_kek(kek_bytes)
    try:
        wrapped = rig.wrap(case, kek, rig.enter(CKK.GENERIC_SECRET, value))
    except Pkcs11Error as error:
        if size in _EVEN:
            raise _refused(rig, case, size, error) from None
        return f"refuses {size} bytes ({ckr_name(error.ckr)})", ""
    found = name_format(kek_bytes, value, wrapped)
    if found is None:
        return "no known format", f"{size} bytes are wrapped to {len(wrapped)} bytes"
    if found.silent:
        return found.name, f"a key of {size} bytes is wrapped as {size + -size % 8}"
    opened = Unwrapping(rig=rig, case=case, kek=kek, wrapped=wrapped)
    arrived = arrive(opened, CKK.GENERIC_SECRET, f"{size} bytes in the format {found.name}")
    same = is_that_key(opened, arrived, value)
    return found.name, "" if same else f"{size} bytes are unwrapped to another key"


def _refused(rig: Rig, case: WrapCase, size: int, error: Pkcs11Error) -> Unsupported | Failed:
    if rig.unusable(error):
        return Unsupported(f"{case} is listed and does not work: {ckr_name(error.ckr)}")
    return Failed(f"{case} refused a key of {size} bytes: {ckr_name(error.ckr)}")


def _private_key(rig: Rig, trial: Trial) -> str:
    """Wrap a private key and look at the PrivateKeyInfo inside: DER that knows its own length."""
    kek_bytes = secrets.token_bytes(32)
    kek = rig.enter_kek(kek_bytes)
    _, private = rig.make_pair(trial.what, {CKA.SIGN: True}, {CKA.VERIFY: True})
    try:
        wrapped = rig.wrap(trial.case, kek, private)
    except Pkcs11Error as error:
        raise Unsupported(f"{trial.case} wraps no {trial.what} private key: {ckr_name(error.ckr)}") from None
    inside = _open(kek_bytes, wrapped)
    try:
        end = 2 + inside[1] if inside[1] < 0x80 else 2 + (inside[1] & 0x7F) + int.from_bytes(  # noqa: PLR2004 - X.690 8.1.3
            inside[2 : 2 + (inside[1] & 0x7F)], "big"
        )  # fmt: skip
        serialization.load_der_private_key(inside[:end], None)
    except (ValueError, IndexError, TypeError, UnsupportedAlgorithm):
        raise Failed(f"what {trial.case} wraps for {trial.what} is no PrivateKeyInfo") from None
    tail = inside[end:]
    if tail and tail != bytes([len(tail)]) * len(tail):
        raise Failed(f"{trial.case} adds {len(tail)} bytes ({tail.hex()}) to a PrivateKeyInfo of {end}")
    return f"a PrivateKeyInfo of {end} bytes" + (f", padded to {len(inside)}" if tail else "")


def _open(kek: bytes, wrapped: bytes) -> bytes:
    for unwrap in (keywrap.aes_key_unwrap_with_padding, keywrap.aes_key_unwrap):
        try:
            return unwrap(kek, wrapped)
        except (keywrap.InvalidUnwrap, ValueError):
            continue
    raise Failed("the wrapped private key is neither RFC 5649 nor RFC 3394")


# ---- what must be refused


def _wrong(rig: Rig) -> Iterable[Trial]:
    found = listed(rig, CKM.AES_KEY_WRAP, CKM.AES_KEY_WRAP_PAD, CKM.AES_KEY_WRAP_KWP)
    kinds = list(dict.fromkeys(kind for mistakes in INVALID.values() for kind in mistakes))
    return [
        trial
        for trial in trials(found, *kinds, "nist")
        if trial.case.listed not in _FIXED
        or trial.what == "nist"
        or trial.what in INVALID[_FIXED[CKM(trial.case.listed)].name]
    ]


@check("HSB-KAT-004", subject=Subject.MODULE, level=Level.MUST, clauses="U KW", cases=_wrong)
def invalid_wraps(rig: Rig, trial: Trial) -> str | None:
    """Wrapped keys that are not valid are refused, and no object is left.

    Under a KEK of known bytes, wrapped keys are made with a wrong integrity check value, length field, padding or
    size, in the other format, or taken from NIST's test vectors. Each is valid but for that one mistake, so that a
    module which leaves the comparison out accepts it. After each refusal there must be no new object.
    """
    kek_bytes = secrets.token_bytes(32)
    kek = rig.enter_kek(kek_bytes)
    spoken = _FIXED.get(trial.case.listed) or _find_format(rig, trial.case, kek, kek_bytes)
    if trial.what == "nist":
        if spoken.name not in NIST_INVALID:
            raise Unsupported(f"NIST has no test vectors for {spoken.name}")
        kek_bytes, wrapped = NIST_INVALID[spoken.name]
        kek, mistakes = rig.enter_kek(kek_bytes), {"NIST": wrapped}
    elif trial.what not in INVALID[spoken.name]:
        raise Unsupported(f"{spoken.name} has no such mistake")
    else:
        mistakes = INVALID[spoken.name][trial.what](kek_bytes)
    before = rig.inventory()
    accepted: list[str] = []
    left: list[str] = []
    answers: set[str] = set()
    for name, wrapped in mistakes.items():
        answer = attempt(rig, trial.case, kek, wrapped, arriving(CKK.GENERIC_SECRET))
        now = rig.inventory()
        if not isinstance(answer, int):
            accepted.append(name)
        elif answer in _CANNOT:
            raise Unsupported(f"{trial.case} does not unwrap: {ckr_name(answer)}")
        else:
            answers.add(ckr_name(answer))
            left += [name] if now - before else []
        before = now
    if accepted:
        raise Failed(f"accepted: {'; '.join(accepted)}")
    if left:
        raise Failed(f"refused, but an object is left: {'; '.join(left)}")
    return f"{len(mistakes)} refused with {', '.join(sorted(answers))}"


def _find_format(rig: Rig, case: WrapCase, kek: Object, kek_bytes: bytes) -> Format:
    """Tell what 0x210A is, by a key of a length that needs no padding."""
    value = secrets.token_bytes(32)
    try:
        wrapped = rig.wrap(case, kek, rig.enter(CKK.GENERIC_SECRET, value))
    except Pkcs11Error as error:
        raise Unsupported(f"{case} does not wrap: {ckr_name(error.ckr)}") from None
    found = name_format(kek_bytes, value, wrapped)
    if found is None or found.name not in INVALID:
        raise Unsupported(f"{case} speaks {found.name if found else 'no known format'}: see HSB-KAT-003")
    return found
