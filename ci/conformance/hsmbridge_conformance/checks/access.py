"""Access: what is closed before the login, and how often a PIN is tried."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hsmbridge.codes import CKA, CKF, CKR, ckr_name
from hsmbridge.errors import HsmbridgeError, Pkcs11Error
from hsmbridge_conformance.catalogue import check
from hsmbridge_conformance.peer import Peer
from hsmbridge_conformance.verdict import Failed, Finding, Level, Subject, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsmbridge.objects import Object
    from hsmbridge.template import Template
    from hsmbridge_conformance.rig import Rig

__all__: list[str] = []


@check("HSB-ACCESS-001", subject=Subject.MODULE, level=Level.MUST, clauses="ST")
def private_before_login(rig: Rig, case: None) -> str:
    """An object with CKA_PRIVATE=true is not there for a process that has not logged in.

    A secret key and a private key are made as token objects with CKA_PRIVATE=true, whichever the module can make. A
    second process that has logged in finds them; one that has not must find nothing under their CKA_IDs.
    """
    del case
    if not rig.target.login or not rig.token.flags & CKF.TOKEN_LOGIN_REQUIRED:
        raise Unsupported("the token asks for no login (CKF_LOGIN_REQUIRED is not set)")
    keys = dict(_private_objects(rig)) or {"ec:p-256": rig.resident()}
    wanted = [{"key_id": key.identity.id.hex(), "cls": key.identity.cls} for key in keys.values()]
    stranger = Peer(replace(rig.target, login=False, pin=None), rig.prefix, rig.directory)
    try:
        seen = [spec for spec, about in zip(keys, wanted, strict=True) if _finds(stranger, about)]
    finally:
        stranger.close()
    remark = f"with {' and '.join(keys)}"
    try:
        there = all(rig.peer.ask("count", **about) for about in wanted)
    except HsmbridgeError as error:  # a TPM without a resource manager has room for few processes
        there = all(key.read_identity().id for key in keys.values())
        remark += f"; no second process could log in beside this one: {error}"
    if not there:
        raise Failed("a private token object is not found by another process that has logged in")
    if seen:
        raise Failed(f"an object with CKA_PRIVATE=true is found without a login: {', '.join(seen)}")
    return remark


def _finds(stranger: Peer, about: dict[str, Any]) -> bool:
    """Whether a process without a login finds an object; one that may not even search does not."""
    try:
        return bool(stranger.ask("count", **about))
    except Pkcs11Error as error:
        if error.ckr != CKR.USER_NOT_LOGGED_IN:
            raise
        return False


def _private_objects(rig: Rig) -> Iterator[tuple[str, Object]]:
    template: Template = {CKA.TOKEN: True, CKA.PRIVATE: True}
    with suppress(Unsupported):
        yield "aes:256", rig.make("aes:256", template)
    for spec in ("ec:p-256", "rsa:2048"):
        with suppress(Unsupported):
            yield spec, rig.make_pair(spec, template)[1]
            return


@check("HSB-ACCESS-002", subject=Subject.TOOLKIT, level=Level.MUST, clauses="HSB", scratch=True)
def wrong_pin_once(rig: Rig, case: None) -> None:
    """A wrong PIN is tried once, and never again by itself.

    A process of its own logs in with a wrong PIN as a program that uses hsmbridge does; C_Login must have been called
    exactly once. Then the right PIN is given, which resets the token's counter. Done on a scratch token only: a token
    that is worth something must not lose a try.
    """
    del case
    pin = rig.target.pin
    if not rig.target.login or not pin:
        raise Unsupported("the run has no PIN for this token")
    wrong = pin[:-1] + ("0" if pin[-1] != "0" else "1")
    stranger = Peer(replace(rig.target, login=False, pin=None), rig.prefix, rig.directory)
    try:
        answer = stranger.ask("log_in_once", pin=wrong)
        right = stranger.ask("log_in_once", pin=pin)
    finally:
        stranger.close()
    if answer["calls"] != 1 or right["calls"] != 1:
        raise Failed(
            f"C_Login was called {answer['calls']} times with a wrong PIN and {right['calls']} with the right one"
        )
    if answer["logged_in"] or not right["logged_in"]:
        raise Failed("the login with a wrong PIN succeeded, or the one with the right PIN did not")
    if answer["ckr"] != CKR.PIN_INCORRECT:
        raise Finding(f"a wrong PIN was refused with {ckr_name(answer['ckr'])}, not with CKR_PIN_INCORRECT")
