"""Destroy: what C_DestroyObject must do and must not do, and when hsmbridge calls it at all."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from hsmbridge_csp.clearpart import Purpose
from hsmbridge_csp.disposition import Outcome
from hsmbridge_csp.errors import BadKeyError

from hsmbridge.attributes import AttributeQuery
from hsmbridge.codes import CKA, CKR
from hsmbridge.errors import InputError, StaleObjectError
from hsmbridge.objects import Identity
from hsmbridge_conformance.catalogue import check
from hsmbridge_conformance.handing import must_refuse, must_work, provider, recipient
from hsmbridge_conformance.keymaking import usage
from hsmbridge_conformance.verdict import Failed, Finding, Level, Subject, Unsupported
from hsmbridge_conformance.violating import destroy_for_test

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hsmbridge.objects import Object
    from hsmbridge.template import Template
    from hsmbridge_conformance.rig import Rig

__all__: list[str] = []

_CLASS = AttributeQuery((CKA.CLASS,))


def _key(rig: Rig, template: Template) -> Object:
    """Make a secret key, or a private key where the module makes no secret ones.

    It is extractable: what can only ever live in one device is not made to be destroyed there. A TPM without a resource
    manager, for one, loses room for good with each key that goes.
    """
    with suppress(Unsupported):
        return rig.make("aes:256", template)
    return rig.make_pair("ec:p-256", template)[1]


@check("HSB-DESTROY-001", subject=Subject.MODULE, level=Level.MUST, clauses="D")
def gone_for_fresh_process(rig: Rig, case: None) -> None:
    """A destroyed token object is gone for a process that starts afterwards, and its neighbour is not.

    Two keys are made as token objects, with CKA_IDs of their own, and one is destroyed. A process that is started then
    looks for both: what is gone from one process's view only would come back.
    """
    del case
    key, neighbour = (_key(rig, {CKA.TOKEN: True}) for _ in range(2))
    gone, kept = key.identity, neighbour.identity
    rig.ours.remove(key)
    peer = rig.fresh_peer()
    if not peer.ask("count", key_id=kept.id.hex(), cls=kept.cls):
        raise Failed("a token object is not there for a process that starts afterwards")
    if peer.ask("count", key_id=gone.id.hex(), cls=gone.cls):
        raise Failed("C_DestroyObject answered CKR_OK, and a process that was started afterwards finds the object")


@check("HSB-DESTROY-002", subject=Subject.MODULE, level=Level.MUST, clauses="D")
def stale_handle(rig: Rig, case: None) -> None:
    """The handle of a destroyed object is refused, and does not come back for another one.

    A session key is destroyed, and before any other object is made its handle is read from. A finding tells of a
    module that gives the number to the next object: there a program that keeps an old handle uses, or destroys,
    somebody else's key.
    """
    del case
    gone = destroy_for_test(rig, rig.make("aes:256"))

    def read() -> None:
        with rig.token.sessions as session:
            _CLASS.read(rig.calls, session, gone)

    rig.must_refuse("an attribute was read by the handle of a destroyed object", (CKR.OBJECT_HANDLE_INVALID,), read)
    if rig.make("aes:256").handle == gone:
        raise Finding("handles are reused: the next object got the handle of the destroyed one")


@check("HSB-DESTROY-003", subject=Subject.MODULE, level=Level.MUST, clauses="D ST")
def not_destroyable(rig: Rig, case: None) -> None:
    """An object with CKA_DESTROYABLE=false is not destroyed.

    Tried on a session object only, which goes with its session: a token object of this kind could stay for ever.
    """
    del case
    key = rig.make("aes:256", {CKA.DESTROYABLE: False})
    rig.must_refuse(
        "an object with CKA_DESTROYABLE=false was destroyed",
        (CKR.ACTION_PROHIBITED,),
        lambda: destroy_for_test(rig, key),
    )


@check("HSB-DESTROY-004", subject=Subject.MODULE, level=Level.MUST, clauses="D")
def neighbours_untouched(rig: Rig, case: None) -> None:
    """Destroying one object leaves all others as they are.

    A key is destroyed that has neighbours with the same label, type and attributes: session objects and token objects
    that were made before it and after it. Afterwards every other session object is still listed, and the neighbours
    have all their attributes.
    """
    del case
    neighbours = [rig.make("aes:256", {CKA.TOKEN: on_token}) for on_token in (False, True)]
    key = rig.make("aes:256")
    neighbours += [rig.make("aes:256", {CKA.TOKEN: on_token}) for on_token in (False, True)]
    listed = rig.inventory()
    before = [rig.everything(neighbour) for neighbour in neighbours]
    gone = destroy_for_test(rig, key)
    if rig.inventory() != listed - {gone}:
        raise Failed("C_DestroyObject of one session object changed which others there are")
    if [rig.everything(neighbour) for neighbour in neighbours] != before:
        raise Failed("C_DestroyObject of one object changed an attribute of another")


def _residencies(rig: Rig) -> Iterable[str]:
    del rig
    return ("token-object", "not-extractable", "unreadable", "extractable-session-object")


@check("HSB-DESTROY-005", subject=Subject.TOOLKIT, level=Level.MUST, clauses="HSB", cases=_residencies)
def hardware_is_retained(rig: Rig, residency: str) -> None:
    """A key that lives in hardware, or may do so, is released and never destroyed.

    The provider is asked to destroy a token object, a session key that is not extractable, and an object whose
    attributes cannot be read. Each must be reported as retained, and no call of C_DestroyObject may have had its
    handle. As a counter-check an extractable session key, which lives in software, must be destroyed.
    """
    key = _of_residency(rig, residency)
    with must_work("the provider cannot let go of a key"):
        owner = provider(rig)
        held, handle = owner.adopt(key), key.handle
        earlier = len(rig.journal.destroyed)
        outcome = owner.destroy_key(held).outcome
    called = handle in rig.journal.destroyed[earlier:]
    if residency == "extractable-session-object":
        if outcome is not Outcome.DESTROYED or not called:
            raise Failed(f"a key that lives in software was {outcome}")
        return
    if residency == "unreadable":
        rig.token.forget(handle)
    if called or outcome is not Outcome.RETAINED:
        raise Failed(f"C_DestroyObject was {'' if called else 'not '}called, and the key reported as {outcome}")


def _of_residency(rig: Rig, residency: str) -> Object:
    if residency == "token-object":
        return _token_object(rig)
    if residency == "not-extractable":
        return rig.make("aes:256", {CKA.EXTRACTABLE: False})
    if residency == "extractable-session-object":
        return rig.make("aes:256")
    real = _token_object(rig)
    ghost = rig.token.adopt(real.handle + 0x10000)  # answers nothing: the module has never given this handle out
    known = real.identity
    ghost.know(Identity(cls=known.cls, key_type=known.key_type, id=known.id, label=known.label))
    return ghost


def _token_object(rig: Rig) -> Object:
    """Return a token object: one that this check removes, or where all keys stay in the device, one that stays."""
    with suppress(Unsupported):
        return _key(rig, {CKA.TOKEN: True})
    return rig.resident()


def _purposes(rig: Rig) -> Iterable[Purpose]:
    del rig
    return tuple(Purpose)


@check("HSB-DESTROY-006", subject=Subject.TOOLKIT, level=Level.MUST, clauses="HSB", cases=_purposes)
def no_destroy_before_import(rig: Rig, purpose: Purpose) -> None:
    """An export destroys nothing, and neither does an import that fails.

    A session key is exported, for a copy and for a move. A damaged copy of the blob is refused; then a second process
    imports the blob. In all of this no call of C_DestroyObject may have had the source's handle, and the source must
    still be there: a key goes only when its arrival is proven.
    """
    to, sender = recipient(rig), provider(rig)
    source = rig.make("aes:256", usage(CKA.ENCRYPT, CKA.DECRYPT))
    handle, earlier = source.handle, len(rig.journal.destroyed)
    with must_work("the export failed"):
        blob = sender.export_key(sender.adopt(source), to.sealer, purpose=purpose)
    damaged = blob[:-1] + bytes([blob[-1] ^ 1])
    must_refuse("a damaged blob was imported", InputError, lambda: sender.import_key(damaged, to.opener))
    with must_work("the import in a second process failed"):
        rig.peer.ask("drop", number=rig.peer.ask("import_blob", blob=blob.hex(), kek_id=to.kek_id))
    if handle in rig.journal.destroyed[earlier:]:
        raise Failed("C_DestroyObject was called with the source's handle before anybody proved an import")
    if source.read_identity() != source.identity:
        raise Failed("the source is not what it was")


@check("HSB-DESTROY-007", subject=Subject.TOOLKIT, level=Level.MUST, clauses="HSB")
def second_destroy(rig: Rig, case: None) -> None:
    """A second destroy of one key reaches no other.

    A session key is destroyed by the provider, another key is made, which on some modules gets the very same handle,
    and the first one is destroyed again: by the provider's key and by its object. Both must be refused without a call
    of C_DestroyObject, and the other key must still be there.
    """
    del case
    owner = provider(rig)
    key = rig.make("aes:256")
    handle, held, again = key.handle, owner.adopt(key), owner.adopt(key)
    with must_work("the provider cannot destroy a session key"):
        first = owner.destroy_key(held)
    if first.outcome is not Outcome.DESTROYED:
        raise Unsupported(f"the module's session keys count as hardware: {', '.join(first.evidence)}")
    other = rig.make("aes:256")
    calls = len(rig.journal.destroyed)
    for twice in (held, again):
        must_refuse("a key was destroyed twice", (BadKeyError, StaleObjectError), partial(owner.destroy_key, twice))
    if len(rig.journal.destroyed) != calls or rig.journal.destroyed.count(handle) != 1:
        raise Failed("C_DestroyObject was called again for a key that had been destroyed")
    if other.read_identity() != other.identity:
        raise Failed("another key is not what it was")
