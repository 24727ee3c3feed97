"""The handoff as one transaction: keys go on elsewhere in exactly their state, or stay here in it; never both."""

from __future__ import annotations

import hashlib
import hmac
import os
import signal
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.decrepit.ciphers import modes as old
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import cmac, hashes
from cryptography.hazmat.primitives import padding as paddings
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher as Judge
from cryptography.hazmat.primitives.ciphers import algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from hsmbridge_csp.channel import Side, connect
from hsmbridge_csp.cipher_key import CipherKey
from hsmbridge_csp.disposition import Outcome
from hsmbridge_csp.errors import BadKeyError, KeyStateError, PermissionDeniedError
from hsmbridge_csp.generation import generate
from hsmbridge_csp.handoff.destination import InProcess
from hsmbridge_csp.handoff.errors import InDoubtError, RefusedError
from hsmbridge_csp.handoff.messages import Message, Offer, Query
from hsmbridge_csp.handoff.receiver import Receiver
from hsmbridge_csp.handoff.recovery import DIED, Recovery
from hsmbridge_csp.handoff.sender import Sender
from hsmbridge_csp.journal import Phase, Role
from hsmbridge_csp.mac_key import Mac, MacKey, MacState
from hsmbridge_csp.modes import BLOCK_SIZE, Cipher, Direction, Mode
from hsmbridge_csp.permissions import DEFAULT, Permission
from hsmbridge_csp.private_key import PrivateKey
from hsmbridge_csp.record_key import Aead, RecordKey, RecordState
from hsmbridge_csp.stream import CipherState

from hsmbridge.errors import HsmbridgeError, UsageError
from tests.support.channels import open_pair, terms
from tests.support.handoffs import Peer, Sides, live, record_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hsmbridge_csp.keys import Key
    from hsmbridge_csp.record import KeyRecord

DATA = bytes(range(101)) * 2
CUT = 85
"""In the middle of a block, whatever the cipher."""


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[Sides]:
    """Alice and Bob."""
    both = Sides(tmp_path)
    yield both
    both.close()


def whole_stream(cipher: Cipher, mode: Mode, key: bytes, iv: bytes) -> bytes:
    """Let ``cryptography`` encrypt all of DATA at once."""
    return Oracle(cipher, mode, key, iv).update(padded(cipher, mode))


def padded(cipher: Cipher, mode: Mode) -> bytes:
    """Return DATA with PKCS #7 padding where the mode needs whole blocks."""
    if mode not in (Mode.ECB, Mode.CBC):
        return DATA
    padder = paddings.PKCS7(8 * BLOCK_SIZE[cipher]).padder()
    return padder.update(DATA) + padder.finalize()


class Oracle:
    """An uninterrupted encryption; CTR of 3DES, which ``cryptography`` has not, is made of its ECB."""

    def __init__(self, cipher: Cipher, mode: Mode, key: bytes, iv: bytes) -> None:
        algorithm = algorithms.AES(key) if cipher is Cipher.AES else TripleDES(key)
        self._iv = iv if mode is Mode.CTR and cipher is Cipher.TDES else None
        chosen: Any
        if mode is Mode.ECB or self._iv is not None:
            chosen = modes.ECB()  # noqa: S305 - the mode under test, or a part of the judge
        elif mode is Mode.CBC:
            chosen = modes.CBC(iv)
        elif mode is Mode.CTR:
            chosen = modes.CTR(iv)
        else:
            chosen = old.OFB(iv) if mode is Mode.OFB else old.CFB8(iv) if mode is Mode.CFB8 else old.CFB(iv)
        self._context = Judge(algorithm, chosen).encryptor()

    def update(self, data: bytes) -> bytes:
        """Encrypt."""
        if self._iv is None:
            return self._context.update(data) + self._context.finalize()
        first, size = int.from_bytes(self._iv, "big"), len(self._iv)
        counters = ((first + n) % (1 << 8 * size) for n in range(len(data) // size + 1))
        stream = self._context.update(b"".join(counter.to_bytes(size, "big") for counter in counters))
        return bytes(a ^ b for a, b in zip(data, stream, strict=False))


class Moving:
    """Keys that run here and go on in another process, and what must come out there.

    Attributes:
        keys: in order; orders: what to do with each at the other end; wanted: what has to come out.
    """

    def __init__(self) -> None:
        self.keys: list[Key] = []
        self.orders: list[tuple[int, str, str]] = []
        self.wanted: list[bytes] = []

    def add(self, key: Key, what: str, data: bytes, wanted: bytes) -> None:
        """Take a key that is in the middle of something."""
        self.orders.append((len(self.keys), what, data.hex()))
        self.keys.append(key)
        self.wanted.append(wanted)

    def stream(self, cipher: Cipher, mode: Mode, direction: Direction) -> None:
        """Take a block cipher key that has done CUT bytes."""
        block = BLOCK_SIZE[cipher]
        value = os.urandom(32 if cipher is Cipher.AES else 24)
        iv = b"" if mode is Mode.ECB else os.urandom(block)
        key = CipherKey(cipher, bytearray(value), CipherState(mode=mode, iv=iv))
        encrypted = whole_stream(cipher, mode, value, iv)
        if direction is Direction.ENCRYPT:
            begun = key.encrypt(DATA[:CUT])
            assert begun == encrypted[: len(begun)]
            self.add(key, "encrypt", DATA[CUT:], encrypted[len(begun) :])
        else:
            begun = key.decrypt(encrypted[:CUT])
            assert begun == DATA[: len(begun)]
            self.add(key, "decrypt", encrypted[CUT:], DATA[len(begun) :])

    def records(self, aead: Aead, direction: Direction) -> None:
        """Take a record key that has done three records."""
        value, iv = os.urandom(32), os.urandom(12)
        state = RecordState(iv=iv, direction=direction, sequence=5, used=5, limit=aead.limit)
        key = RecordKey(aead, bytearray(value), state)
        judge = AESGCM(value) if aead is Aead.AES_GCM else ChaCha20Poly1305(value)

        def sealed(sequence: int) -> bytes:
            nonce = bytes(a ^ b for a, b in zip(iv, sequence.to_bytes(12, "big"), strict=True))
            return judge.encrypt(nonce, b"record %d" % sequence, b"")

        for sequence in (5, 6, 7):
            if direction is Direction.ENCRYPT:
                assert key.seal(b"record %d" % sequence) == sealed(sequence)
            else:
                assert key.open(sealed(sequence)) == b"record %d" % sequence
        if direction is Direction.ENCRYPT:
            self.add(key, "seal", b"record 8", sealed(8))
        else:
            self.add(key, "open", sealed(8), b"record 8")

    def mac(self, mac: Mac) -> None:
        """Take a MAC key with short tags that has done two records."""
        value = os.urandom(32 if mac is Mac.CMAC_AES else 20)
        key = MacKey(mac, bytearray(value), MacState(tag_size=10, sequence=3))
        for _ in range(2):
            key.sign_record(b"record")
        message = (5).to_bytes(8, "big") + b"record"
        if mac is Mac.CMAC_AES:
            judge = cmac.CMAC(algorithms.AES(value))
            judge.update(message)
            tag = judge.finalize()
        else:
            tag = hmac.digest(value, message, mac.value.removeprefix("HMAC-").lower())
        self.add(key, "sign_record", b"record", tag[:10])


def test_all_software_kinds_go_on_in_another_process(sides: Sides) -> None:
    """Keys of each kind, in the middle of their streams and records, go as one, and go on there to the very byte.

    What has to come out is what ``cryptography`` computes without an interruption. Here they are dead.
    """
    moving = Moving()
    for cipher, mode, direction in product(Cipher, Mode, Direction):
        moving.stream(cipher, mode, direction)
    for aead, direction in product(Aead, Direction):
        moving.records(aead, direction)
    for mac in Mac:
        moving.mac(mac)
    private = {name: generate(name, bits) for name, bits in (("RSA", 2048), ("EC", 256), ("Ed25519", 256))}
    publics = [key.public_key for key in private.values() if isinstance(key, PrivateKey)]
    ours = len(moving.keys)
    for signing in private.values():
        moving.add(signing, "sign", DATA, b"")
    socket = sides.directory / "s" / "socket"
    with Peer(sides, "live", {"socket": str(socket)}) as peer:
        assert peer.hear()["pid"] == peer.process.pid != os.getpid()
        with connect(socket, terms(Side.SENDER), wait=20) as channel:
            moved = Sender(sides.alice).send(live(moving.keys), channel)
        assert peer.hear() == {"keys": len(moving.keys)}
        came = []
        for order in moving.orders:
            peer.tell(order)
            came.append(bytes.fromhex(peer.hear()))
        assert peer.end() == 0
    for order, came_out, wanted in zip(moving.orders[:ours], came, moving.wanted, strict=False):
        assert came_out == wanted, (moving.keys[order[0]], order)
    check_signatures(publics, came[ours:])
    assert [found.outcome for found in moved.dispositions] == [Outcome.DESTROYED] * len(moving.keys)
    for key in moving.keys:
        with pytest.raises(BadKeyError):
            key.check_usable()
    assert sides.phases() == (["done"], ["done"])


def check_signatures(publics: list[Any], signatures: list[bytes]) -> None:
    """Verify with ``cryptography`` what the keys signed that had moved."""
    for public, signature in zip(publics, signatures, strict=True):
        if isinstance(public, rsa.RSAPublicKey):
            pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
            public.verify(signature, DATA, pss, hashes.SHA256())
        elif isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(signature, DATA, ec.ECDSA(hashes.SHA256()))
        else:
            assert isinstance(public, ed25519.Ed25519PublicKey)
            public.verify(signature, DATA)


def test_the_source_is_frozen_until_the_receipt(sides: Sides) -> None:
    """While the recipient has the blobs and has promised nothing, the source refuses every use; then it is dead."""
    key = record_key()
    value = key.value
    frozen = []

    class Watching(InProcess):
        """Looks at the source when a key is made."""

        def make(self, record: KeyRecord, blob: bytes) -> None:
            """Use the source, and then make the key."""
            with pytest.raises(KeyStateError):
                key.seal(b"")
            frozen.append(bytes(value))
            super().make(record, blob)

    _, received = sides.hand_over([key], Watching()).both()
    assert frozen
    assert any(frozen[0])
    assert value == bytes(32), "the source's bytes are overwritten at the end"
    assert isinstance(received.keys[0], RecordKey)
    assert (bytes(received.keys[0].value), received.keys[0].state.sequence) == (frozen[0], 7)


def goes_on(key: RecordKey, value: bytes, sequence: int) -> bool:
    """Say whether a key's next record is what ``cryptography`` makes of its bytes and that number."""
    nonce = bytes(a ^ b for a, b in zip(key.state.iv, sequence.to_bytes(12, "big"), strict=True))
    return key.seal(b"next") == AESGCM(value).encrypt(nonce, b"next", b"")


def running_mac() -> Key:
    """Return a MAC key that cannot be carried just now."""
    key = generate("HMAC-SHA256", 256)
    assert isinstance(key, MacKey)
    key.begin().update(b"begun")
    return key


def unexportable() -> Key:
    """Return a key without EXPORT."""
    return CipherKey(Cipher.AES, bytearray(32), permissions=DEFAULT & ~Permission.EXPORT)


def frozen_before() -> Key:
    """Return a key that another export has stopped."""
    key = record_key()
    key.freeze()
    return key


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize(
    ("bad", "expected"),
    [(unexportable, PermissionDeniedError), (running_mac, KeyStateError), (frozen_before, KeyStateError)],
)
def test_one_key_that_cannot_go_keeps_all(sides: Sides, bad: Any, expected: type[Exception], at: int) -> None:  # noqa: ANN401 - a function
    """A key without EXPORT, with a running MAC or frozen already: no byte leaves, and the others go on exactly."""
    values = [os.urandom(32) for _ in range(2)]
    good = [record_key(value=value) for value in values]
    keys: list[Key] = [*good]
    keys.insert(at, bad())
    ends = sides.hand_over(keys)
    assert type(ends.sent) is expected
    assert isinstance(ends.received, HsmbridgeError), "the peer heard of nothing"
    alice, bob = sides.phases()
    assert (set(alice) <= {"thawed"}, bob) == (True, [])
    for key, value in zip(good, values, strict=True):
        assert goes_on(key, value, 7)
    assert keys[at].frozen == (bad is frozen_before)


def test_a_handoff_is_of_different_keys(sides: Sides) -> None:
    """None, or one key twice, is refused before anything is frozen."""
    key = record_key()
    for keys in ([], [key, key]):
        assert isinstance(sides.hand_over(keys).sent, UsageError)
    assert not key.frozen
    assert sides.phases() == ([], [])


class FailingAt(InProcess):
    """Fails at one key.

    Args:
        number: which.
        error: what it raises.
    """

    def __init__(self, number: int, error: BaseException) -> None:
        super().__init__()
        self._left = number
        self._error = error
        self.made: list[Key] = []

    def make(self, record: KeyRecord, blob: bytes) -> None:
        """Make one key, or fail."""
        if self._left == 0:
            raise self._error
        self._left -= 1
        super().make(record, blob)
        self.made.append(self.keys[-1])


@pytest.mark.parametrize("error", [HsmbridgeError("no room", hint="none"), MemoryError(), OSError("broken")])
@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_destination_that_fails_keeps_nothing(sides: Sides, number: int, error: Exception) -> None:
    """Whichever key cannot be made: those made before it are destroyed, the sender gets a tombstone and goes on."""
    values = [os.urandom(32) for _ in range(4)]
    keys = [record_key(value=value) for value in values]
    destination = FailingAt(number, error)
    ends = sides.hand_over(keys, destination)
    assert isinstance(ends.sent, RefusedError)
    assert ends.received is error
    assert len(destination.made) == number
    for made in destination.made:
        with pytest.raises(BadKeyError):
            made.check_usable()
    assert sides.phases() == (["thawed"], ["refused"])
    for key, value in zip(keys, values, strict=True):
        assert goes_on(key, value, 7)
    assert sides.hand_over(keys).both()[1].keys, "and they can be handed over anew"


def test_what_cannot_be_withdrawn_is_not_denied(sides: Sides) -> None:
    """Where something of the import may be left, no tombstone is signed: the sender stays in doubt, frozen."""

    class Stuck(FailingAt):
        """Cannot remove what it made."""

        def withdraw(self) -> None:
            """Fail."""
            raise HsmbridgeError("it does not go", hint="none")

    key, other = record_key(), record_key()
    ends = sides.hand_over([key, other], Stuck(1, HsmbridgeError("no room", hint="none")))
    assert isinstance(ends.sent, InDoubtError)
    assert isinstance(ends.received, InDoubtError)
    assert key.frozen
    assert other.frozen
    assert sides.phases() == (["sent"], ["claimed"])
    assert sides.bob.journal.entries()[0].statement == b""


MOMENTS = [(phase, when) for phase in ("offered", "claimed", "imported", "done") for when in ("before", "after")]


@pytest.mark.parametrize(("phase", "when"), MOMENTS)
def test_a_receiver_that_is_killed(sides: Sides, phase: str, when: str) -> None:
    """SIGKILL before and after each step of the receiver's journal: the sender is in doubt, frozen, and finds out.

    Before it promised, its journal says that nothing arrived: the source goes on, exactly. After it promised, the
    source is destroyed, and the receiver's journal says that the key died with its process.
    """
    value = os.urandom(32)
    key = record_key(value=value)
    socket = sides.directory / "s" / "socket"
    with Peer(sides, "live", {"socket": str(socket), "die": [phase, when]}) as peer:
        peer.hear()
        with connect(socket, terms(Side.SENDER), wait=20) as channel, pytest.raises(InDoubtError) as caught:
            Sender(sides.alice).send(live([key]), channel)
        assert peer.end() == -signal.SIGKILL
    assert key.frozen
    pending = sides.pending([key])
    assert caught.value.handoff == pending.entry.handoff
    promised = (phase, when) in {("imported", "after"), ("done", "before"), ("done", "after")}
    if (phase, when) in {("claimed", "after"), ("imported", "before")}:
        with pytest.raises(InDoubtError):  # something may be left: nobody promises before somebody has looked
            sides.ask(pending)
        assert key.frozen
        assert [outcome.settled for outcome in Recovery(sides.bob).run()] == [True]
    if promised:
        assert sides.ask(pending).dispositions[0].outcome is Outcome.DESTROYED
        with pytest.raises(BadKeyError):
            key.check_usable()
        Recovery(sides.bob).run()
        (entry,) = sides.bob.journal.entries()
        assert entry.phase is Phase.DONE
        assert (entry.remark == DIED) == (
            (when == "after" and phase == "imported") or (phase, when) == ("done", "before")
        )
    else:
        with pytest.raises(RefusedError):
            sides.ask(pending)
        assert goes_on(key, value, 7)
        assert sides.phases() == (["thawed"], ["refused"])
    before = [entry.statement for entry in sides.bob.journal.entries()]
    assert Recovery(sides.bob).run() == []
    assert [entry.statement for entry in sides.bob.journal.entries()] == before


def test_a_late_offer_is_refused_after_the_question(sides: Sides) -> None:
    """That nothing was imported is a promise: what Bob had not heard of when he was asked is refused when it comes."""
    key = record_key()
    assert isinstance(sides.doubted([key]), InDoubtError)
    pending = sides.pending([key])
    with pytest.raises(RefusedError):
        sides.ask(pending)
    assert not key.frozen
    entry = pending.entry
    with open_pair() as (out, into):
        offer = Offer(handoff=entry.handoff, nonce=entry.nonce, count=entry.count, digest=entry.digest)
        out.send(Message.OFFER, offer.encode())
        destination = InProcess()
        with pytest.raises(HsmbridgeError, match="refused here already"):
            Receiver(sides.bob).serve(into, destination)
        assert out.receive().payload == sides.bob.journal.entries()[0].statement
    assert destination.keys == []


def test_others_get_no_answer(sides: Sides) -> None:
    """Who asks about a handoff with another nonce is told nothing, and nothing is refused for it."""
    key = record_key()
    with open_pair() as (out, into):
        sides.over(out, into, [key]).both()
    (entry,) = sides.bob.journal.entries()
    with open_pair() as (out, into):
        out.send(Message.QUERY, Query(handoff=entry.handoff, nonce=bytes(32)).encode())
        assert Receiver(sides.bob).serve(into, InProcess()) is None
        assert out.receive().type == Message.UNDECIDED
    assert sides.bob.journal.entries() == [entry]


def test_the_journal_holds_no_secret(sides: Sides) -> None:
    """Neither journal, with its write-ahead log, has the key's bytes, the fixed IV or a proof's key in it."""
    values = [os.urandom(32) for _ in range(3)]
    keys = [record_key(value=value) for value in values]
    ivs = [key.state.iv for key in keys]
    sides.hand_over(keys).both()
    for directory in ("alice", "bob"):
        raw = b"".join(path.read_bytes() for path in (sides.directory / directory).iterdir())
        assert sides.alice.journal.entries()[0].handoff in raw
        for secret in [*values, *ivs]:
            assert secret not in raw
            assert hashlib.sha256(secret).digest() not in raw
            assert secret.hex().encode() not in raw


def test_every_step_is_in_the_journal(sides: Sides) -> None:
    """Each side's steps stand in its journal in their order, with residency, evidence and what became of each key."""
    sides.hand_over([record_key(), record_key()]).both()
    (alice,), (bob,) = sides.alice.journal.entries(), sides.bob.journal.entries()
    steps = [phase for _, phase, _ in sides.alice.journal.steps(Role.SENDER, alice.handoff)]
    assert steps == ["intent", "sent", "committed", "done"]
    steps = [phase for _, phase, _ in sides.bob.journal.steps(Role.RECEIVER, bob.handoff)]
    assert steps == ["offered", "claimed", "imported", "done"]
    left = sides.alice.journal.keys(Role.SENDER, alice.handoff)
    came = sides.bob.journal.keys(Role.RECEIVER, bob.handoff)
    assert [key.blob for key in left] == [key.blob for key in came]
    assert all(key.blob for key in left)
    for key in left:
        assert (key.place, key.residency, key.disposition.partition(":")[0]) == ("memory", "software", "destroyed")
        assert "held by this process" in key.evidence
    assert (alice.digest, alice.nonce, alice.statement) == (bob.digest, bob.nonce, bob.statement)
