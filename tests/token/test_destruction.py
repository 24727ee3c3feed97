"""C_DestroyObject is called on software-resident keys and objects of ours, once each.

Hardware keys outlive everything.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from hsmbridge.codes import CKA, CKO
from hsmbridge.destruction import Ours, destroy_session_key
from hsmbridge.errors import HardwareKeyError, KekError, StaleObjectError
from hsmbridge.objects import Object
from hsmbridge.template import PackedTemplate
from tests.support.judges import listed
from tests.support.tokens import inventory, make, requires_entry, token_key, usage

if TYPE_CHECKING:
    from hsmbridge.template import Template
    from hsmbridge.token import Token
    from tests.token.conftest import Pkcs11Tool

REUSE_TRIES = 300
LABEL = "once"


def is_listed(pkcs11_tool: Pkcs11Tool, key: Object) -> bool:
    """Whether pkcs11-tool, in a process of its own, sees a token key."""
    kind = "secrkey" if key.identity.cls == CKO.SECRET_KEY else "privkey"
    done = pkcs11_tool("--list-objects", "--type", kind, check=False)
    if done.returncode != 0 and not key.token.handles({CKA.TOKEN: True, CKA.CLASS: CKO.SECRET_KEY}):
        pytest.skip(f"the token has no room for a second process: {done.stderr}")  # a TPM without resource manager
    assert done.returncode == 0, done.stderr
    return listed(done.stdout, key.identity.id) != {}


def session_key(token: Token) -> Object:
    """Generate an extractable session key that nobody else removes."""
    ours = Ours(token)
    return ours.release(make(ours, token, {CKA.LABEL: LABEL}))


def test_a_token_key_is_never_destroyed(token: Token, pkcs11_tool: Pkcs11Tool) -> None:
    """destroy_session_key refuses a token key as often as it is asked to; pkcs11-tool sees it afterwards."""
    key = token_key(token)
    before = inventory(token)
    for _ in range(3):
        with pytest.raises(HardwareKeyError, match=r"is never destroyed: .*CKA_TOKEN=true") as refusal:
            destroy_session_key(key)
        assert refusal.value.hint
    assert key.alive
    assert inventory(token) == before
    assert is_listed(pkcs11_tool, key)


def test_a_session_key_that_cannot_leave_is_never_destroyed(token: Token) -> None:
    """A session key with CKA_EXTRACTABLE=false is refused and still there."""
    requires_entry(token)
    with Ours(token) as ours:
        key = make(ours, token, {CKA.EXTRACTABLE: False})
        with pytest.raises(HardwareKeyError, match="CKA_EXTRACTABLE=false"):
            destroy_session_key(key)
        assert key.handle in token.handles({CKA.ID: key.identity.id})


def test_a_session_key_is_destroyed_once(token: Token) -> None:
    """The first destroy reports evidence and absence, and the object is gone; the second never reaches the token."""
    requires_entry(token)
    before = inventory(token)
    key = session_key(token)
    handle, identity = key.handle, key.identity
    assert inventory(token) - before == {handle}
    proof = destroy_session_key(key)
    assert (proof.identity, proof.absent) == (identity, True)
    assert proof.classification.is_software
    assert inventory(token) == before
    for _ in range(2):
        with pytest.raises(StaleObjectError, match=LABEL):
            destroy_session_key(key)
    assert inventory(token) == before


def test_a_second_holder_of_the_object_finds_it_dead(token: Token) -> None:
    """A process has one object for one handle.

    So a key found by search is dead when the one who made it destroys it.
    """
    requires_entry(token)
    key = session_key(token)
    (found,) = token.find({CKA.ID: key.identity.id})
    assert found is key
    destroy_session_key(key)
    assert not found.alive
    assert token.find({CKA.ID: key.identity.id}) == []


def test_a_reused_handle_is_safe(token: Token, pkcs11_tool: Pkcs11Tool) -> None:
    """A token key that gets a destroyed session key's handle survives whatever is done with the old object.

    openCryptoki does reuse handles.
    """
    requires_entry(token)
    old = session_key(token)
    handle = old.handle
    destroy_session_key(old)
    new = token_key(token)
    reused = new.handle == handle
    for use in (destroy_session_key, lambda dead: dead.set({CKA.LABEL: "changed"}), lambda dead: dead.read_value()):
        with pytest.raises(StaleObjectError):
            use(old)
    with Ours(token) as ours, pytest.raises(HardwareKeyError):
        ours.remove(old)
    assert is_listed(pkcs11_tool, new)
    assert new.identity.label == "kept"
    with pytest.raises(HardwareKeyError):
        destroy_session_key(new)
    assert token.find({CKA.ID: new.identity.id}) == [new]
    if not reused:
        pytest.skip("the token does not reuse handles; all the rest of the test passed")


def test_an_object_that_changed_its_name_is_not_destroyed(token: Token) -> None:
    """If CKA_ID or label has changed right before the destroy, the handle is given up instead."""
    requires_entry(token)
    changes: list[Template] = [{CKA.LABEL: "another"}, {CKA.ID: secrets.token_bytes(16)}]
    for change in changes:
        key = session_key(token)
        handle = key.handle
        assert key.identity.label == LABEL
        with token.sessions as session:  # behind the object's back, as another user of the process would
            token.calls.set_attributes(session, handle, PackedTemplate(change))
        with pytest.raises(StaleObjectError, match="nothing was destroyed"):
            destroy_session_key(key)
        assert not key.alive
        assert handle in token.handles({CKA.CLASS: CKO.SECRET_KEY})
        with Ours(token) as ours:  # under its new name it can be taken again
            ours.adopt(handle)
        assert handle not in token.handles({CKA.CLASS: CKO.SECRET_KEY})


def test_ours_removes_what_was_not_handed_out(token: Token) -> None:
    """An operation that fails half-way leaves nothing.

    Session and token objects that it made are gone, what it released stays.
    """
    requires_entry(token)
    before = inventory(token)
    ours, made = Ours(token), list[Object]()

    def stop_half_way() -> None:
        with ours:
            made.append(ours.release(make(ours, token)))
            made.append(make(ours, token))
            made.append(make(ours, token, {CKA.TOKEN: True, CKA.LABEL: "half made"}))
            raise KekError("half-way")

    with pytest.raises(KekError, match="half-way"):
        stop_half_way()
    assert [key.alive for key in made] == [True, False, False]
    assert inventory(token) - before == {made[0].handle}
    assert ours.debris == []
    destroy_session_key(made[0])


def test_ours_removes_its_own_only(token: Token) -> None:
    """Ours refuses an object that it did not make, and one that it has handed out."""
    requires_entry(token)
    key = session_key(token)
    with Ours(token) as ours:
        released = ours.release(make(ours, token, usage()))
        for foreign in (key, released):
            with pytest.raises(HardwareKeyError, match="only an object that this operation made"):
                ours.remove(foreign)
        mine = make(ours, token)
        ours.remove(mine)
        assert not mine.alive
        with pytest.raises(HardwareKeyError):
            ours.remove(mine)
    for left in (key, released):
        assert left.alive
        destroy_session_key(left)


def test_ours_reports_what_it_cannot_remove(token: Token) -> None:
    """An object that is gone already is reported as debris and in the error's notes."""
    requires_entry(token)
    ours = Ours(token)

    def lose_one() -> None:
        with ours, token.sessions as session:
            key = make(ours, token, {CKA.LABEL: "vanished"})
            token.calls.destroy_object(session, key.handle)
            raise KekError("half-way")

    with pytest.raises(KekError) as failure:
        lose_one()
    assert len(ours.debris) == 1
    assert "'vanished' may be left in token" in ours.debris[0]
    assert failure.value.__notes__ == ours.debris


def test_many_destroys_hit_the_right_objects(token: Token) -> None:
    """Over hundreds of creations and destroys in turn every destroy removes its own object, and the others stay."""
    requires_entry(token)
    before = inventory(token)
    alive: list[Object] = []
    for turn in range(REUSE_TRIES):
        alive.append(session_key(token))
        if turn % 3:
            victim = alive.pop(secrets.randbelow(len(alive)))
            assert destroy_session_key(victim).absent
    assert {key.handle for key in alive} == inventory(token) - before
    assert len({key.identity.id for key in alive}) == len(alive)
    for key in alive:
        destroy_session_key(key)
    assert inventory(token) == before
