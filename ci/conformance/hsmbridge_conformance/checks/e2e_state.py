"""End to end, continued: other software, the life of session objects, and streams that go on in another process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsmbridge_csp.clearpart import Purpose

from hsmbridge.codes import CKA, CKK
from hsmbridge.errors import Pkcs11Error
from hsmbridge_conformance.catalogue import check
from hsmbridge_conformance.handing import must_work, provider, recipient
from hsmbridge_conformance.otherside import SoftwareKek
from hsmbridge_conformance.streams import STREAMS, Stream
from hsmbridge_conformance.uses import SECRETS
from hsmbridge_conformance.verdict import Failed, Level, Subject, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hsmbridge_conformance.rig import Rig
    from hsmbridge_conformance.wrapcases import WrapCase

__all__: list[str] = []


def _mechanisms(rig: Rig) -> Iterable[WrapCase]:
    return rig.wrap_cases()


@check("HSB-E2E-004", subject=Subject.MODULE, level=Level.INFO, clauses="W KW", cases=_mechanisms)
def across_vendors(rig: Rig, case: WrapCase) -> str:
    """Does other software open what the module wraps, and as what?

    An AES-256 key of known bytes is wrapped under a KEK that is known as well, and opened with ``cryptography`` in
    every format that the mechanism could mean. What no format opens can be moved within this vendor's products only.
    """
    value = SECRETS["aes:256"].random()
    key = rig.enter(CKK.AES, value)
    far = SoftwareKek(is_rsa=case.rsa)
    try:
        wrapped = rig.wrap(case, far.wrapping_object(rig), key)
    except Pkcs11Error as error:
        raise Unsupported(f"does not wrap under a KEK that came from outside: {error}") from None
    name = far.opens_as(wrapped, value)
    if name is None:
        raise Failed(f"{len(wrapped)} bytes that open in none of the known formats")
    return f"opens as {name}"


@check("HSB-E2E-005", subject=Subject.MODULE, level=Level.MUST, clauses="ST")
def session_object_lifetime(rig: Rig, case: None) -> None:
    """A session object is seen by its own process only, and is gone when its session or its process has ended.

    A second process makes a key as a session object: this process must not see it. The second process then closes all
    its sessions, opens new ones and looks for the key; it makes another and ends, and a third process looks. A copy
    that outlives its session would be one that nobody knows of.
    """
    del case
    key_id = rig.peer.ask("make", spec="aes:256")
    if rig.peer.ask("count", key_id=key_id) != 1:
        raise Failed("a session object cannot be found by the process that made it")
    if rig.token.handles({CKA.ID: bytes.fromhex(key_id)}):
        raise Failed("a session object of one process is seen by another")
    rig.peer.ask("reopen")
    if rig.peer.ask("count", key_id=key_id):
        raise Failed("a session object is still there after all sessions of its process were closed")
    key_id = rig.peer.ask("make", spec="aes:256")
    if rig.fresh_peer().ask("count", key_id=key_id):
        raise Failed("a session object is still there after its process has ended")


def _streams(rig: Rig) -> Iterable[Stream]:
    del rig
    return STREAMS


@check("HSB-E2E-008", subject=Subject.TOOLKIT, level=Level.MUST, clauses="HSB", cases=_streams)
def state_continues(rig: Rig, stream: Stream) -> None:
    """A running key goes on in another process exactly where it stopped.

    A key is used for the first part of a stream, exported under a KEK in the token, imported by a second process and
    used there for the rest: in the middle of a block for ciphers, with the next sequence number for records and MACs.
    Other software computes the whole stream from the key's bytes, without a break.
    """
    to, sender = recipient(rig), provider(rig)
    value = stream.random()
    with must_work("the stream did not begin"):
        key = stream.key(rig, value)
        output = stream.begin(key)
    purpose = Purpose.MOVE if key.can_only_move else Purpose.COPY
    with must_work("the export failed"):
        blob = sender.export_key(key, to.sealer, purpose=purpose)
    with must_work("the import in a second process failed"):
        number = rig.peer.ask("import_blob", blob=blob.hex(), kek_id=to.kek_id)
    with must_work("the imported key did not go on"):
        for piece in stream.rest:
            output += bytes.fromhex(rig.peer.ask("go_on", number=number, use=stream.verb, data=piece.hex()))
        rig.peer.ask("drop", number=number)
        sender.destroy_key(key)
    if output != stream.software(value):
        raise Failed("what the key computes after the import is not what it would have computed without it")
