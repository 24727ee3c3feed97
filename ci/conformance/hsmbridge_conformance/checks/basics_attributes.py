"""Basics, continued: attributes read with buffers of any size, alone and together, and templates of any length."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsmbridge.codes import CKA, CKK, CKM, CKO, CKR, ckr_name, name_of
from hsmbridge.errors import Pkcs11Error
from hsmbridge.mechanism import Mechanism
from hsmbridge.values import TEMPLATES
from hsmbridge_conformance.barereading import LongTemplate, foreign_pointers, read_into, read_together
from hsmbridge_conformance.catalogue import check
from hsmbridge_conformance.keymaking import usage
from hsmbridge_conformance.verdict import Failed, Finding, Level, Subject, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hsmbridge.objects import Object
    from hsmbridge_conformance.rig import Rig

__all__: list[str] = []


def _any_key(rig: Rig, *, on_token: bool = False) -> Object:
    """Return a secret key, or the private key that stays in the token where the module makes no secret ones."""
    try:
        return rig.make("aes:256", {CKA.TOKEN: on_token})
    except Unsupported:
        return rig.resident()


_SHORT = {CKA.CLASS: 1, CKA.ID: 15, CKA.LABEL: 0}
"""Attributes whose values are longer, and buffers for them."""


@check("HSB-BASE-006", subject=Subject.MODULE, level=Level.MUST, clauses="G")
def short_attribute_buffer(rig: Rig, case: None) -> None:
    """C_GetAttributeValue writes nothing into a buffer that is too small.

    CKA_CLASS, CKA_ID and CKA_LABEL of a key are read into guarded buffers with a length that does not do: one byte, one
    byte too few, none. The answer must be CKR_BUFFER_TOO_SMALL, the length CK_UNAVAILABLE_INFORMATION, and no byte
    behind the buffer may be touched: a label that somebody else has made longer would overwrite the caller's memory.
    """
    del case
    key, findings = _any_key(rig), list[str]()
    for kind, size in _SHORT.items():
        read = read_into(rig, key, kind, size)
        told = f"{name_of(CKA, kind)} into {size} bytes: {read.name}"
        if read.overrun:
            raise Failed(f"bytes were written behind the buffer, {told}")
        if read.ckr == CKR.OK or read.written:
            raise Failed(f"a buffer that is too small was filled, {told}")
        if read.ckr != CKR.BUFFER_TOO_SMALL or read.length is not None:
            findings.append(f"{told}, length {'unavailable' if read.length is None else read.length}")
    if findings:
        raise Finding(
            f"{'; '.join(findings)}; the specification has CKR_BUFFER_TOO_SMALL and CK_UNAVAILABLE_INFORMATION"
        )


def _nested(rig: Rig) -> Iterable[str]:
    del rig
    return ("CKA_WRAP_TEMPLATE", "CKA_UNWRAP_TEMPLATE")


@check("HSB-BASE-007", subject=Subject.MODULE, level=Level.MUST, clauses="G", cases=_nested)
def nested_template(rig: Rig, name: str) -> None:
    """A nested template is read into the caller's buffers.

    A KEK is made with the attribute, which is then read as the specification has it: how many attributes there are,
    then how long each is, then their values into buffers of the caller. No pointer but the caller's own may come back.
    A module that hands out those of whoever made the key, which is another process by and by, has every reader follow
    a pointer into nowhere. The check compares pointers and follows none.
    """
    kind = CKA[name.removeprefix("CKA_")]
    kek = rig.make_kek({kind: {CKA.EXTRACTABLE: True}})
    foreign = foreign_pointers(rig, kek, kind)
    if foreign is None:
        raise Unsupported(f"the module takes {name} and does not show it")
    if foreign:
        raise Failed(f"C_GetAttributeValue left a pointer in {name} that the caller had not given")


_SECRET = (
    CKA.VALUE, CKA.PRIVATE_EXPONENT, CKA.PRIME_1, CKA.PRIME_2, CKA.EXPONENT_1, CKA.EXPONENT_2, CKA.COEFFICIENT,
    CKA.NSS_DB,
)  # fmt: skip
_FLAT = tuple(kind for kind in CKA if kind not in _SECRET and kind not in TEMPLATES)


@check("HSB-BASE-008", subject=Subject.MODULE, level=Level.MUST, clauses="G")
def alone_and_together(rig: Rig, case: None) -> None:
    """An attribute reads the same alone and among others.

    Each attribute of a token object is read with a call of its own, then all that were readable with one call. The
    values must be equal: what a key is may not depend on how one asks.
    """
    del case
    key = _any_key(rig, on_token=True)
    alone = {kind: read_together(rig, key, (kind,))[kind] for kind in _FLAT}
    readable = [kind for kind, value in alone.items() if value is not None]
    together = read_together(rig, key, readable)
    differ = [
        f"{name_of(CKA, kind)} is {_hex(alone[kind])} alone and {_hex(together[kind])} among others"
        for kind in readable
        if alone[kind] != together[kind]
    ]
    if differ:
        raise Failed("; ".join(differ))


def _hex(value: bytes | None) -> str:
    return "not readable" if value is None else value.hex() or "empty"


_LENGTHS = (12, 16, 20, 24, 28, 29, 32, 40, 64)


@check("HSB-BASE-009", subject=Subject.MODULE, level=Level.SHOULD, clauses="T")
def long_template(rig: Rig, case: None) -> None:
    """A template may be long.

    An AES key is generated with templates of 12 to 64 entries. So many different attributes there are not: the last
    one, a label, stands there again and again with the same value, which the module must also accept in a short
    template for this to be judged. The specification has no upper limit; hsmbridge keeps to 28 entries.
    """
    del case
    answers = {count: _generate(rig, count) for count in _LENGTHS}
    shortest = answers[_LENGTHS[0]]
    if shortest != CKR.OK:
        raise Unsupported(f"no template in which an attribute stands again: {ckr_name(shortest)}")
    refused = [count for count in _LENGTHS if answers[count] != CKR.OK]
    if refused:
        longest = max(count for count in _LENGTHS if count < refused[0])
        raise Failed(f"{longest} attributes are accepted, {refused[0]} are refused: {ckr_name(answers[refused[0]])}")


def _generate(rig: Rig, count: int) -> int:
    """Generate a session key with a template of *count* entries; return the CK_RV.

    Raises:
        Unsupported: the module generates no keys at all.
    """
    wanted = rig.named({CKA.CLASS: CKO.SECRET_KEY, CKA.KEY_TYPE: CKK.AES, CKA.VALUE_LEN: 16, CKA.SENSITIVE: True})
    label = wanted.pop(CKA.LABEL)
    packed = LongTemplate({**wanted, CKA.EXTRACTABLE: True, **usage(CKA.ENCRYPT), CKA.LABEL: label}, count)
    try:
        with rig.token.sessions as session:
            rig.adopt(rig.calls.generate_key(session, Mechanism(CKM.AES_KEY_GEN), packed))
    except Pkcs11Error as error:
        if rig.unusable(error):
            raise Unsupported(f"no such keys: {error}") from None
        return error.ckr
    return CKR.OK
