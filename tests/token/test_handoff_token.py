"""Handoffs of keys that are in a token: what is called on it, and what is in it afterwards, whatever happens."""

from __future__ import annotations

import secrets
import signal
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hsmbridge_csp.disposition import Outcome
from hsmbridge_csp.handoff.destination import InProcess, InToken, arriving_id
from hsmbridge_csp.handoff.errors import RefusedError
from hsmbridge_csp.handoff.offline import receive_bundle, send_bundle
from hsmbridge_csp.handoff.receiver import Receiver
from hsmbridge_csp.handoff.recovery import Recovery
from hsmbridge_csp.handoff.sender import Sender
from hsmbridge_csp.journal import Journal, Phase, Role
from hsmbridge_csp.recipient_kek import TokenKek
from hsmbridge_csp.token_key import TokenKey

from hsmbridge.codes import CKA, CKK, CKO
from hsmbridge.destruction import Ours
from hsmbridge.dialects import Dialect
from hsmbridge.errors import ExistsError, HsmbridgeError, Pkcs11Error
from hsmbridge.generation import generate_kek, generate_key
from hsmbridge.keyspec import parse_keyspec
from hsmbridge.publickeys import public_key_of
from tests.support.channels import BOB
from tests.support.children import run_child
from tests.support.handoff_token_child import attributes_of
from tests.support.handoffs import Peer, Sides, live
from tests.support.shim import build_shim, calls, completed, read_journal, shim_environment, through
from tests.support.spylog import judge, parse
from tests.support.tokens import enter, inventory, requires, requires_entry, token_pair, usage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hsmbridge_csp.record import KeyRecord

    from hsmbridge.objects import Object
    from hsmbridge.template import Template, Value
    from hsmbridge.token import Token
    from tests.support.shim import Entry
    from tests.token.conftest import Pkcs11Tool, Spy, TokenEnv

PROCESSES = 16
USE = usage(CKA.ENCRYPT, CKA.DECRYPT)
TEXT = bytes(range(100))


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shim, compiled."""
    return build_shim(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[Sides]:
    """Alice and Bob."""
    both = Sides(tmp_path)
    yield both
    both.close()


@pytest.fixture
def kek(token: Token) -> Iterator[TokenKek]:
    """A KEK in the token, removed in the end; the token has RFC 3394 and takes keys of known bytes."""
    requires(token, Dialect.AES_KW)
    requires_entry(token)
    inventory(token)
    label = f"kek {secrets.token_hex(4)}"
    with Ours(token) as ours:
        yield TokenKek(
            ours.take(generate_kek(token, parse_keyspec("aes:256"), label=label, unwrap_template=False))
        )  # fmt: skip


def session_key(ours: Ours, token: Token, value: bytes, template: Template | None = None) -> TokenKey:
    """Put an extractable session key of known bytes into the token."""
    wanted: dict[int, Value] = {CKA.LABEL: "moving", **USE, **(template or {})}
    return TokenKey(enter(ours, token, CKK.AES, value, wanted))


def cbc(value: bytes, text: bytes = TEXT) -> bytes:
    """Let ``cryptography`` encrypt without an interruption, by CryptoAPI's defaults."""
    padder = padding.PKCS7(128).padder()
    context = Cipher(algorithms.AES(value), modes.CBC(bytes(16))).encryptor()
    return context.update(padder.update(text) + padder.finalize()) + context.finalize()


def in_token(token: Token, key_id: bytes) -> list[Object]:
    """Return the secret keys among the token objects that have a CKA_ID."""
    return token.find({CKA.CLASS: CKO.SECRET_KEY, CKA.TOKEN: True, CKA.ID: key_id})


def remove(token: Token, *ids: bytes) -> None:
    """Remove what a test left in the token, by its random names."""
    with Ours(token) as ours:
        for key_id in ids:
            for left in in_token(token, key_id):
                ours.take(left)


def variables(token_env: TokenEnv) -> dict[str, str]:
    """Return the environment by which a child finds the token."""
    found = {"PKCS11_MODULE": token_env.module, "PKCS11_TOKEN_LABEL": token_env.label, "PKCS11_PIN": token_env.pin}
    return found | ({"PKCS11_MODULE_ARGS": token_env.module_args} if token_env.module_args is not None else {})


# ---- what is called


def check_crossing(told: dict[str, Any], token: Token) -> None:
    """Look at what has crossed, in this process; the judge of the bytes is ``cryptography``."""
    hardware, session = told["hardware"], told["session"]
    assert hardware["retained"]
    assert hardware["frozen"]
    assert bytes.fromhex(hardware["stream"]) == cbc(bytes.fromhex(hardware["value"]))
    assert len(in_token(token, bytes.fromhex(hardware["id"]))) == 1, "it is still there"
    assert session["destroyed"]
    assert session["persisted"]
    assert session["dead"]
    assert "absent afterwards" in session["evidence"]
    assert bytes.fromhex(session["stream"]) == cbc(bytes.fromhex(session["value"]))
    assert in_token(token, arriving_id(bytes.fromhex(session["blob"]))) == [], "the arriving name is gone"
    (arrived,) = in_token(token, bytes.fromhex(session["id"]))
    assert attributes_of(arrived) == session["before"], "every attribute, its CKA_ID and label too"
    assert TokenKey(arrived).encrypt(TEXT, final=True) == cbc(bytes.fromhex(session["value"]))


@pytest.mark.parametrize("evidence", ["shim", "spy"])
def test_what_is_called(  # noqa: PLR0913, PLR0917 - fixtures
    token: Token, token_env: TokenEnv, kek: TokenKek, shim: Path, tmp_path: Path, evidence: str,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    """By reference the object is retained, by value a session key is destroyed once: by the log of every C_ call."""
    log = tmp_path / "calls"
    environment = {"HANDOFF_ACT": "crossing", "HANDOFF_DIR": str(tmp_path), "HANDOFF_KEK": kek.kek.identity.label}
    if evidence == "spy":
        spy: Spy = request.getfixturevalue("spy_env")
        environment |= {"PKCS11_MODULE": spy.module, **spy.environment(log)}
        told = run_child("handoff_token_child", token_env, environment)
    else:
        environment |= shim_environment(token_env.module, journal=log)
        told = run_child("handoff_token_child", through(shim, token_env), environment)
    hardware, session = told["hardware"], told["session"]
    try:
        check_crossing(told, token)
    finally:
        remove(token, bytes.fromhex(hardware["id"]), bytes.fromhex(session["id"]))
    if evidence == "spy":
        assert judge(parse(log.read_text("utf-8", "replace"))).violations == []
        return
    entries = read_journal(log)
    assert completed(entries)
    destroyed = [entry.facts["object"] for entry in calls(entries) if entry.function == "C_DestroyObject"]
    assert destroyed, "the journal has the calls of which it is evidence"
    made = [entry.facts["new"] for entry in entries if entry.event == "return" and "new" in entry.facts]
    assert hardware["handle"] in made
    assert hardware["handle"] not in destroyed
    assert destroyed.count(session["handle"]) == made.count(session["handle"]) == 1


HONEST = {"nothing"}
IMPORTED_ONLY = "flip statement"


def test_attacks_reach_neither_unwrap_nor_destroy(
    token_env: TokenEnv, kek: TokenKek, shim: Path, tmp_path: Path
) -> None:
    """Tampered, replayed, re-ordered, reflected and foreign frames, forged receipts, changed bundles.

    From the first frame on, when all is sealed, no C_UnwrapKey and no C_DestroyObject follows; where the receiver
    imported and only his receipt was spoilt, none on the source. What nobody touched shows both.
    """
    log = tmp_path / "calls"
    environment = {"HANDOFF_ACT": "attacks", "HANDOFF_DIR": str(tmp_path), "HANDOFF_KEK": kek.kek.identity.label}
    environment |= shim_environment(token_env.module, journal=log)
    told = run_child("handoff_token_child", through(shim, token_env), environment)["attacks"]
    raw = log.read_bytes()
    assert len(told) > 40
    for attack in told:
        part = tmp_path / "part"
        part.write_bytes(raw[attack["from"] : attack["to"]])
        found = calls(read_journal(part))
        unwraps = [entry for entry in found if entry.function == "C_UnwrapKey"]
        destroyed = destroyed_in(found)
        if attack["name"] in HONEST:
            assert (attack["sent"], attack["received"]) == ("Moved", "Received")
            assert unwraps
            assert destroyed.count(attack["source"]) == 1
            continue
        assert attack["sent"] != "Moved", attack
        assert attack["source"] not in destroyed, attack
        if attack["name"].startswith(IMPORTED_ONLY):
            assert attack["received"] == "Received", attack
            assert unwraps
        else:
            assert attack["received"] != "Received", attack
            assert (unwraps, destroyed) == ([], []), attack


def destroyed_in(found: list[Entry]) -> list[int]:
    """Return the handles that C_DestroyObject was called on."""
    return [entry.facts["object"] for entry in found if entry.function == "C_DestroyObject"]


# ---- by reference, on every token


@pytest.fixture
def resident(token: Token) -> Iterator[Object]:
    """A token object of a kind that the token can make and use: an AES key, removed later, else the tests' one pair."""
    inventory(token)
    label = f"resident {secrets.token_hex(4)}"
    try:
        found = generate_key(token, parse_keyspec("aes:256"), {**USE, CKA.TOKEN: True, CKA.LABEL: label})
    except Pkcs11Error:  # listed but not there, as on tpm2-pkcs11, whose TPM keeps the room of a pair that is destroyed
        yield token_pair(token)
        return
    with Ours(token) as ours:
        yield found
        for made in token.find({CKA.TOKEN: True, CKA.LABEL: label}):
            ours.take(made)


def test_any_token_object_stays(token: Token, resident: Object, sides: Sides) -> None:
    """On each token: a token object goes by reference, is used where it went, frozen where it was, and still there."""
    before = inventory(token)
    key = TokenKey(resident)
    moved, received = sides.hand_over([key], InProcess(token)).both()
    assert moved.dispositions[0].outcome is Outcome.RETAINED
    assert not moved.persisted
    assert inventory(token) == before
    (arrived,) = received.keys
    assert isinstance(arrived, TokenKey)
    if resident.identity.cls == CKO.SECRET_KEY:
        sealed = arrived.encrypt(TEXT, final=True)
        assert TokenKey(resident).decrypt(sealed, final=True) == TEXT
    else:
        public = public_key_of(resident)
        assert isinstance(public, RSAPublicKey)
        public.verify(arrived.sign(TEXT), TEXT, PKCS1v15(), hashes.SHA256())
    (left,) = sides.alice.journal.keys(Role.SENDER, received.handoff)
    assert (left.residency, left.disposition.partition(":")[0]) == ("hardware", "retained")
    for refuse in (key.encrypt, key.sign):
        with pytest.raises(HsmbridgeError):
            refuse(TEXT)


def test_a_tombstone_thaws_a_token_object(token: Token, resident: Object, sides: Sides) -> None:
    """A receiver without the token refuses, and the sender's object goes on."""
    before = inventory(token)
    key = TokenKey(resident)
    ends = sides.hand_over([key], InProcess())
    assert isinstance(ends.sent, RefusedError)
    assert isinstance(ends.received, HsmbridgeError)
    assert sides.phases() == (["thawed"], ["refused"])
    assert inventory(token) == before
    key.check_usable()


def test_one_that_cannot_go_keeps_all(token: Token, kek: TokenKek, sides: Sides) -> None:
    """A session key that may not leave its token keeps a good one here too: both go on, nothing is destroyed."""
    with Ours(token) as ours:
        value = secrets.token_bytes(32)
        good = session_key(ours, token, value)
        bad = session_key(ours, token, value, {CKA.EXTRACTABLE: False})
        before = inventory(token)
        ends = sides.hand_over([good, bad], InProcess(token, kek), token=token, recipient=kek)
        assert isinstance(ends.sent, HsmbridgeError)
        assert inventory(token) == before
        for key in (good, bad):
            assert key.encrypt(TEXT, final=True) == cbc(value)
        assert sides.phases()[1] == []


# ---- killed between making and naming


def bundle_for(sides: Sides, token: Token, kek: TokenKek, value: bytes) -> tuple[Path, bytes]:
    """Send a session key in a bundle.

    Returns: its path, and the key's CKA_ID.
    """
    ours = Ours(token)
    key = session_key(ours, token, value)
    path = sides.directory / "bundle"
    send_bundle(Sender(sides.alice, token), sides.alice, live([key]), path, kek, BOB.fingerprint, token)
    return path, ours.release(key.object).identity.id


def source_of(sides: Sides, token: Token, key_id: bytes) -> list[Object]:
    """Return the session key that waits for the receipt."""
    assert sides.alice.journal.entries()
    return token.find({CKA.CLASS: CKO.SECRET_KEY, CKA.TOKEN: False, CKA.ID: key_id})


@pytest.mark.parametrize(
    ("phase", "when"),
    [("claimed", "after"), ("imported", "before"), ("imported", "after"), ("done", "before"), ("done", "after")],
)
def test_a_receiver_that_is_killed(  # noqa: PLR0913, PLR0917 - fixtures and the moment
    token: Token, token_env: TokenEnv, kek: TokenKek, sides: Sides, phase: str, when: str
) -> None:  # fmt: skip
    """SIGKILL around the making of a token object: recovery removes what arrived and was not promised.

    What was promised gets its name. Whatever the moment: one usable copy in the end, and the bundle imports no more.
    """
    value = secrets.token_bytes(32)
    path, key_id = bundle_for(sides, token, kek, value)
    facts = {"bundle": str(path), "kek": kek.kek.identity.label, "die": [phase, when]}
    with Peer(sides, "token", facts, variables(token_env)) as peer:
        assert peer.hear() == "ready"
        peer.tell("go")
        assert peer.end() == -signal.SIGKILL
    (entry,) = sides.bob.journal.entries()
    (journalled,) = sides.bob.journal.keys(Role.RECEIVER, entry.handoff)
    arriving = arriving_id(journalled.blob)
    made = (phase, when) != ("claimed", "after")
    named = phase == "done"
    assert (len(in_token(token, arriving)), len(in_token(token, key_id))) == (made and not named, named)
    try:
        Recovery(sides.bob, None).run()
        if phase != "done" and made:
            assert in_token(token, arriving), "without the token nothing is settled"
        Recovery(sides.bob, token).run()
        promised = (phase, when) not in {("claimed", "after"), ("imported", "before")}
        assert in_token(token, arriving) == []
        assert len(in_token(token, key_id)) == promised
        assert Recovery(sides.bob, token).run() == [] or not promised
        if not promised:
            received = receive_bundle(Receiver(sides.bob), sides.bob, path, kek, InToken(token, kek))
            assert len(received.keys) == 1
        (arrived,) = in_token(token, key_id)
        assert TokenKey(arrived).encrypt(TEXT, final=True) == cbc(value)
        with pytest.raises(HsmbridgeError):
            receive_bundle(Receiver(sides.bob), sides.bob, path, kek, InToken(token, kek))
        assert len(in_token(token, key_id)) == 1
        (entry,) = sides.bob.journal.entries()
        assert entry.phase is Phase.DONE
    finally:
        remove(token, arriving, key_id)
        with Ours(token) as ours:
            for left in source_of(sides, token, key_id):
                ours.take(left)


# ---- a naming that fails

NAMING_FAILS = " ".join(
    f"C_SetAttributeValue#{nth}={when}:0x30" for nth, when in ((1, "before"), (3, "after"), (4, "before"), (5, "after"))
)


def test_a_naming_that_fails(
    token: Token, token_env: TokenEnv, kek: TokenKek, shim: Path, tmp_path: Path
) -> None:  # fmt: skip
    """C_SetAttributeValue fails, with and without effect, when the arrived key gets its own CKA_ID.

    A token object's receipt was durable by then: the sender has it and destroys, the receiver is told by an error of
    its own that carries the usable key, and `recover`, in the same living process, gives the name. A session object's
    was not: nothing is left of it, both sides are told, and the source goes on.
    """
    environment = {"HANDOFF_DIR": str(tmp_path), "HANDOFF_KEK": kek.kek.identity.label}
    environment |= shim_environment(token_env.module, actions=NAMING_FAILS, armed=tmp_path / "armed")
    told = run_child("handoff_naming_child", through(shim, token_env), environment)
    try:
        for one in told["unnamed"]:
            assert one["raised"] == "UnpublishedError", one["text"]
            assert "C_SetAttributeValue failed" in one["text"]
            assert "hsmbridge handoff recover" in one["hint"]
            assert one["destroyed"]
            assert bytes.fromhex(one["stream"]) == cbc(bytes.fromhex(one["value"]))
            assert (one["before"], one["owner"], "Pkcs11Error" in one["remark"]) == ("imported", False, True)
            assert (one["outcomes"], one["phases"]) == (["imported and in place"], [["done"], ["done"]])
            assert in_token(token, arriving_id(bytes.fromhex(one["blob"]))) == []
            (arrived,) = in_token(token, bytes.fromhex(one["id"]))
            assert TokenKey(arrived).encrypt(TEXT, final=True) == cbc(bytes.fromhex(one["value"]))
        for one in told["refused"]:
            assert (one["sent"], one["received"]) == ("RefusedError", "Pkcs11Error"), one
            assert one["phases"] == [["thawed"], ["refused"]]
            assert one["left"] == 1, "the source and nothing else"
            assert bytes.fromhex(one["stream"]) == cbc(bytes.fromhex(one["value"]))
    finally:
        remove(token, *(bytes.fromhex(one["id"]) for one in told["unnamed"]))


# ---- two holders


def test_a_deleted_journal(token: Token, kek: TokenKek, sides: Sides, tmp_path: Path) -> None:
    """With a journal that has forgotten, the token has not: the second import is refused.

    And nothing is promised to the sender that is not so: no tombstone for a key that is there.
    """
    path, key_id = bundle_for(sides, token, kek, secrets.token_bytes(32))
    try:
        received = receive_bundle(Receiver(sides.bob), sides.bob, path, kek, InToken(token, kek))
        other = forgetful(sides, tmp_path / "forgotten.sqlite")
        with pytest.raises(ExistsError):
            receive_bundle(Receiver(other), other, path, kek, InToken(token, kek))
        assert len(in_token(token, key_id)) == 1
        (entry,) = other.journal.entries()
        assert entry.statement == b""
        assert received.statement
        other.journal.close()
    finally:
        clean(sides, token, key_id)


def forgetful(sides: Sides, path: Path) -> Any:  # noqa: ANN401 - a party
    """Return Bob with a new journal."""
    return replace(sides.bob, journal=Journal(path))


def clean(sides: Sides, token: Token, key_id: bytes) -> None:
    """Remove the source and what arrived."""
    remove(token, key_id)
    with Ours(token) as ours:
        for left in source_of(sides, token, key_id):
            ours.take(left)


def test_an_import_between_search_and_unwrap(
    token: Token, kek: TokenKek, sides: Sides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another host's import that begins and ends between our search of the token and our C_UnwrapKey: one copy."""
    # On one host the kernel lets one in at a time; two hosts meet in the token only.
    monkeypatch.setattr("hsmbridge_csp.handoff.offline.importing_alone", lambda *_: nullcontext())
    path, key_id = bundle_for(sides, token, kek, secrets.token_bytes(32))
    other = forgetful(sides, tmp_path / "other.sqlite")

    class Late(InToken):
        """Is overtaken by another import."""

        def _unwrap(self, record: KeyRecord, blob: bytes, name: Value, *, persist: bool) -> Object | None:
            receive_bundle(Receiver(other), other, path, kek, InToken(token, kek))
            return super()._unwrap(record, blob, name, persist=persist)

    try:
        with pytest.raises(ExistsError):
            receive_bundle(Receiver(sides.bob), sides.bob, path, kek, Late(token, kek))
        assert len(in_token(token, key_id)) == 1
        assert [entry.phase for entry in other.journal.entries()] == [Phase.DONE]
        assert [entry.statement for entry in sides.bob.journal.entries()] == [b""]
    finally:
        clean(sides, token, key_id)
        other.journal.close()


def test_one_importer_at_a_time(token: Token, kek: TokenKek, sides: Sides, tmp_path: Path) -> None:
    """While one imports a bundle, another with a journal of his own is refused before he makes anything."""
    path, key_id = bundle_for(sides, token, kek, secrets.token_bytes(32))
    other = forgetful(sides, tmp_path / "other.sqlite")

    class Slow(InToken):
        """Is met by another import in its middle."""

        def _unwrap(self, record: KeyRecord, blob: bytes, name: Value, *, persist: bool) -> Object | None:
            with pytest.raises(ExistsError, match="another process is importing"):
                receive_bundle(Receiver(other), other, path, kek, InToken(token, kek))
            return super()._unwrap(record, blob, name, persist=persist)

    try:
        assert receive_bundle(Receiver(sides.bob), sides.bob, path, kek, Slow(token, kek)).keys
        assert len(in_token(token, key_id)) == 1
        assert [entry.statement for entry in other.journal.entries()] == [b""]
    finally:
        clean(sides, token, key_id)
        other.journal.close()


def keeps_twins(token: Token) -> bool:
    """Whether two token objects of one type may have the same CKA_ID; NSS takes the second for the first."""
    name, value = secrets.token_bytes(16), secrets.token_bytes(32)
    with Ours(token) as ours:
        made = [enter(ours, token, CKK.AES, value, {CKA.TOKEN: True, CKA.ID: name}) for _ in range(2)]
        twins = len(in_token(token, name)) == len(made)
        if not twins:
            ours.release(made[1])
        return twins


def test_sixteen_processes_with_journals_of_their_own(
    token: Token, token_env: TokenEnv, kek: TokenKek, sides: Sides
) -> None:
    """One bundle, 16 processes, 16 journals, one token: never two copies, and no promise that is not so.

    There may be none, where several gave way to each other: then the bundle can be received again. In a token that has
    one object under a CKA_ID, and takes a second unwrap for the same one, several may make it, and it is one.
    """
    twins = keeps_twins(token)
    value = secrets.token_bytes(32)
    path, key_id = bundle_for(sides, token, kek, value)
    racing = [
        Peer(
            sides, "token",
            {"bundle": str(path), "kek": kek.kek.identity.label, "journal": str(sides.directory / f"{number}.sqlite")},
            variables(token_env),
        )
        for number in range(PROCESSES)
    ]  # fmt: skip
    try:
        assert {peer.hear() for peer in racing} == {"ready"}
        for peer in racing:
            peer.tell("go")
        said = [peer.hear() for peer in racing]
        copies = in_token(token, key_id)
        won = [answer for answer in said if "won" in answer]
        assert len(copies) <= 1, said
        assert bool(copies) == bool(won), said
        assert len(won) <= 1 or not twins, "more than one may only have taken part in making one object"
        refusals = [answer["refused"] for answer in said if "refused" in answer]
        assert set(refusals) <= {"ExistsError", "InDoubtError"}, said
        assert "refused" not in {phase for answer in said for phase in answer.get("phases", [])}, said
        if not copies:
            fresh = forgetful(sides, sides.directory / "fresh.sqlite")
            assert receive_bundle(Receiver(fresh), fresh, path, kek, InToken(token, kek)).keys
            fresh.journal.close()
        (copy,) = in_token(token, key_id)
        assert TokenKey(copy).encrypt(TEXT, final=True) == cbc(value)
    finally:
        for peer in racing:
            with peer:
                pass
        clean(sides, token, key_id)


def test_the_name_is_seen_by_others(token: Token, kek: TokenKek, sides: Sides, pkcs11_tool: Pkcs11Tool) -> None:
    """Another program sees the key under the CKA_ID that it came with, and none under an arriving name."""
    path, key_id = bundle_for(sides, token, kek, secrets.token_bytes(32))
    try:
        received = receive_bundle(Receiver(sides.bob), sides.bob, path, kek, InToken(token, kek))
        (journalled,) = sides.bob.journal.keys(Role.RECEIVER, received.handoff)
        listed = pkcs11_tool("--list-objects", "--type", "secrkey").stdout
        assert key_id.hex() in listed
        assert arriving_id(journalled.blob).hex() not in listed
        assert journalled.place == f"token:{token.label}:{key_id.hex()}"
    finally:
        clean(sides, token, key_id)
