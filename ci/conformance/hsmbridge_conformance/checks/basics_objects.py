"""Basics, continued: new objects beside old ones, two threads, and a digest that goes on elsewhere."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING

from hsmbridge.codes import CKA
from hsmbridge.errors import Pkcs11Error
from hsmbridge_conformance.barecalls import BareCalls
from hsmbridge_conformance.catalogue import check
from hsmbridge_conformance.keymaking import LABEL
from hsmbridge_conformance.verdict import Failed, Level, Subject, Unsupported

if TYPE_CHECKING:
    from hsmbridge.template import Template
    from hsmbridge_conformance.rig import Rig

__all__: list[str] = []

_PRIVATE: Template = {CKA.SIGN: True, CKA.DECRYPT: False, CKA.UNWRAP: False, CKA.DERIVE: False}
_PUBLIC: Template = {CKA.VERIFY: True, CKA.ENCRYPT: False, CKA.WRAP: False, CKA.DERIVE: False}


@check("HSB-BASE-010", subject=Subject.MODULE, level=Level.SHOULD, clauses="GKP")
def usage_named_false(rig: Rig, case: None) -> str:
    """A key pair may be generated with usage flags that are named as false.

    A pair for signatures is generated with the other usage flags left out, then with them named as false, which asks
    for the same. It is a P-256 or an RSA-2048 pair, of session objects where the module makes such. A caller who wants
    to be sure what a key can do names every flag.
    """
    del case
    spec, template = _pair_without_flags(rig)
    try:
        pair = rig.make_pair(spec, {**template, **_PRIVATE}, _PUBLIC)
    except Unsupported as outcome:
        raise Failed(f"flags that are left out are accepted, and named as false they are not: {outcome}") from None
    if template:
        for half in pair:  # as rig.resident() does, and for the same reason
            rig.ours.release(half)
    return spec


def _pair_without_flags(rig: Rig) -> tuple[str, Template]:
    """Generate a pair without naming more than it is for.

    Returns: what it is, and what the template must say besides.

    Raises:
        Unsupported: the module makes no pairs.
    """
    for spec in ("ec:p-256", "rsa:2048"):
        with suppress(Unsupported):
            rig.make_pair(spec, {CKA.SIGN: True}, {CKA.VERIFY: True})
            return spec, {}
    rig.resident()
    return "ec:p-256", {CKA.TOKEN: True, CKA.EXTRACTABLE: False}


@check("HSB-BASE-011", subject=Subject.MODULE, level=Level.MUST, clauses="GK ST")
def taken_id(rig: Rig, case: None) -> str | None:
    """A new key with a CKA_ID that is taken leaves the old key alone.

    Two keys are generated as token objects under one CKA_ID, a new and random one of this run: an AES key, then a
    generic secret with another label. Both must be there afterwards, the first as it was; a module may also refuse the
    second. No other key is touched by this check, but one with a CKA_ID that somebody chose would be.
    """
    del case
    first = rig.make("aes:256", {CKA.TOKEN: True})
    name = first.identity
    try:
        second = rig.make("generic:32", {CKA.TOKEN: True, CKA.ID: name.id, CKA.LABEL: f"{LABEL}, another key"})
    except Unsupported as refusal:
        return f"the second key is refused: {refusal}"
    now = first.read_identity()
    if second is first or now != name:
        first.know(now)  # whatever it is, it is ours
        raise Failed(f"C_GenerateKey answered CKR_OK, and the handle of {name} stands for {now}: the first key is gone")
    if len(rig.token.handles({CKA.ID: name.id})) != 2:  # noqa: PLR2004 - the two
        raise Failed("two keys were generated under one CKA_ID, and a search does not find two")
    return None


_SECONDS = 0.8
"""A module that does not stand it ends within a fraction of this."""


@check("HSB-BASE-012", subject=Subject.MODULE, level=Level.MUST, clauses="GP")
def search_during_destroy(rig: Rig, case: None) -> None:
    """A search in one thread stands a destruction in another.

    In a second process one thread begins and ends searches while another makes session keys and destroys them, each in
    a session of its own, for most of a second. C_Initialize was called with CKF_OS_LOCKING_OK, so the module sees to
    its locks itself. hsmbridge keeps the two calls apart; this check, in a process that may die, does not.
    """
    del case
    rig.make()
    try:
        rig.peer.ask("destroy_while_searching", seconds=_SECONDS)
    except Pkcs11Error as error:
        raise Failed(f"with C_FindObjectsInit in one thread and C_DestroyObject in another: {error}") from None
    except Failed as outcome:
        raise Failed(f"{outcome}, with C_FindObjectsInit in one thread and C_DestroyObject in another") from None


_BEGINNING, _REST = b"hsmbridge ", b"conformance"


@check("HSB-BASE-013", subject=Subject.MODULE, level=Level.SHOULD, clauses="OS")
def state_elsewhere(rig: Rig, case: None) -> None:
    """The state of a digest goes on in another process, or is refused there.

    A SHA-256 digest is begun, its state taken with C_GetOperationState and given to C_SetOperationState in a second
    process, which ends it: the digest must be right. A refusal by C_SetOperationState is as good; a crash or another
    digest is not. hsmbridge does not use these functions and carries the state of a key itself.
    """
    del case
    try:
        with rig.token.sessions as session:
            state = BareCalls(rig.token.module.path).digest_begin(session, _BEGINNING)
    except Pkcs11Error as error:
        raise Unsupported(f"no state of a digest: {error}") from None
    try:
        digest = rig.peer.ask("go_on_with_digest", state=state.hex(), data=_REST.hex())
    except Pkcs11Error as error:
        if error.function == "C_SetOperationState":
            raise Unsupported(f"the state is refused in another process: {error}") from None
        raise Failed(f"the state was accepted in another process, and then {error}") from None
    if digest != hashlib.sha256(_BEGINNING + _REST).hexdigest():
        raise Failed("the digest that went on in another process is wrong")
