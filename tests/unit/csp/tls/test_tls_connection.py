"""An established connection with OpenSSL as the client: what it reads and writes, how it ends and changes hands."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

import pytest
from hsmbridge_csp.disposition import Outcome
from hsmbridge_csp.errors import BadKeyError, BlobError, KeyStateError
from hsmbridge_csp.handoff.destination import InProcess
from hsmbridge_csp.handoff.errors import RefusedError
from hsmbridge_csp.handoff.parties import Party
from hsmbridge_csp.handoff.receiver import Receiver
from hsmbridge_csp.handoff.sender import Sender
from hsmbridge_csp.handoff.source import LiveSource
from hsmbridge_csp.journal import Journal
from hsmbridge_csp.provider import Provider
from hsmbridge_csp.tls import AlertDescription, CipherSuite, ContentType, Side, TlsAlertError
from hsmbridge_csp.tls.connection import TlsConnection
from hsmbridge_csp.tls.errors import (
    TlsClosedError,
    TlsConnectionError,
    TlsPeerAlertError,
    TlsTimeoutError,
    TlsTruncatedError,
)
from hsmbridge_csp.tls.messages import KeyUpdate, key_update_message
from hsmbridge_csp.tls.moving import hand_over, take_over
from hsmbridge_csp.tls.suites import MAX_PLAINTEXT
from hsmbridge_csp.trust import Role, TrustStore, make_pin

from tests.support.channels import ALICE, BOB, open_pair
from tests.support.tlspeer import Peers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hsmbridge_csp.channel import Channel

SUITES = [
    None,
    CipherSuite.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
]
every_suite = pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name if suite else "TLS 1.3")
SECONDS = 20


class Client:
    """OpenSSL in memory at the far end of a socket, and our keys in its place, with which it can also misbehave."""

    def __init__(self, peers: Peers, suite: CipherSuite | None) -> None:
        made = peers.connect(suite)
        self.ssl = made.ends[Side.CLIENT]
        self._feed, self._wire = made.feeds[Side.CLIENT], made.wires[Side.CLIENT]
        self._wire.read()
        self.socket, far = socket.socketpair()
        self.socket.settimeout(SECONDS)
        far.settimeout(SECONDS)
        mine = made.keys(Side.SERVER)
        if suite is None:  # the server of the handshake has sent tickets, which the client has not read
            tickets = made.take(Side.SERVER)
            self._feed.write(b"".join(tickets))
            for _ in tickets:
                mine.write.seal(ContentType.APPLICATION_DATA, b"")
        self.keys = made.keys(Side.CLIENT)
        self.connection = TlsConnection(far, mine.write, mine.read)

    def seal(self, data: bytes) -> bytes:
        """Let OpenSSL seal; returns the records."""
        self.ssl.write(data)
        return self._wire.read()

    def send(self, data: bytes) -> None:
        """Let OpenSSL write."""
        self.socket.sendall(self.seal(data))

    def read(self, size: int = 65536) -> bytes:
        """Let OpenSSL read: application data, nothing at close_notify; an alert is ssl.SSLError."""
        while True:
            try:
                return self.ssl.read(size)
            except ssl.SSLWantReadError:
                more = self.socket.recv(65536)
                if not more:
                    raise
                self._feed.write(more)
            except ssl.SSLZeroReturnError:
                return b""

    def close(self) -> None:
        """Let OpenSSL say close_notify."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.ssl.unwrap()
        self.socket.sendall(self._wire.read())


class MakeClient(Protocol):
    """Makes clients that are cleaned up."""

    def __call__(self, suite: CipherSuite | None = None) -> Client:
        """Make one."""


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Peers:
    """Contexts and certificates."""
    return Peers(tmp_path_factory.mktemp("peers"))


@pytest.fixture
def client(peers: Peers) -> Iterator[MakeClient]:
    """Clients."""
    made = []

    def make(suite: CipherSuite | None = None) -> Client:
        made.append(Client(peers, suite))
        return made[-1]

    yield make
    for each in made:
        each.socket.close()
        each.connection.abandon()


@every_suite
def test_both_directions(client: MakeClient, suite: CipherSuite | None) -> None:
    """What OpenSSL writes is read, what is written OpenSSL reads, and close_notify ends each direction."""
    peer = client(suite)
    big = bytes(range(256)) * 1500
    with ThreadPoolExecutor(1) as pool:
        for data in (b"a", b"", b"hello", big):
            future = pool.submit(peer.send, data) if data else None
            received = b""
            while len(received) < len(data):
                received += peer.connection.recv()
            assert received == data
            if future:
                future.result()
            future2 = pool.submit(peer.connection.sendall, data)
            received = b""
            while len(received) < len(data):
                received += peer.read()
            assert received == data
            future2.result()
    peer.close()
    assert peer.connection.recv() == b""
    assert peer.connection.recv() == b""
    peer.connection.sendall(b"last")
    peer.connection.close()
    assert peer.read() == b"last"


@every_suite
def test_reading_piecemeal(client: MakeClient, suite: CipherSuite | None) -> None:
    """Bytes that come one by one, and are asked for one by one, are those that were sent."""
    peer = client(suite)
    records = peer.seal(b"piecemeal") + peer.seal(b" and more\n")

    def trickle() -> None:
        for byte in records:
            peer.socket.sendall(bytes([byte]))

    thread = threading.Thread(target=trickle)
    thread.start()
    assert peer.connection.makefile().readline() == b"piecemeal and more\n"
    thread.join()
    peer.send(b"xyz")
    assert [peer.connection.recv(1) for _ in range(3)] == [b"x", b"y", b"z"]


def record(kind: int, length: int, version: int = 0x0303) -> bytes:
    """Return a header."""
    return bytes([kind]) + version.to_bytes(2, "big") + length.to_bytes(2, "big")


BAD: dict[str, tuple[Callable[[Client], bytes], str, str]] = {
    "changed": (lambda peer: flipped(peer.seal(b"hello")), "BAD_RECORD_MAC", "bad record mac"),
    "left out": (lambda peer: (peer.seal(b"one"), peer.seal(b"two"))[1], "BAD_RECORD_MAC", "bad record mac"),
    "twice": (lambda peer: twice(peer.seal(b"one")), "BAD_RECORD_MAC", "bad record mac"),
    "too long": (lambda _: record(23, 1 << 15), "RECORD_OVERFLOW", "record overflow"),
    "unknown type": (lambda _: record(99, 20) + bytes(20), "UNEXPECTED_MESSAGE", "unexpected message"),
    "alert too short": (
        lambda peer: peer.keys.write.seal(ContentType.ALERT, b"\x02"),
        "DECODE_ERROR",
        "decode error",
    ),
    "silence": (
        lambda peer: b"".join(peer.keys.write.seal(ContentType.APPLICATION_DATA, b"") for _ in range(40)),
        "UNEXPECTED_MESSAGE",
        "unexpected message",
    ),
}
BAD_13: dict[str, tuple[Callable[[Client], bytes], str, str]] = {
    "change cipher spec": (lambda _: record(20, 1) + b"\x01", "UNEXPECTED_MESSAGE", "unexpected message"),
    "another handshake message": (
        lambda peer: peer.keys.write.seal(ContentType.HANDSHAKE, bytes([1, 0, 0, 1, 0])),
        "UNEXPECTED_MESSAGE",
        "unexpected message",
    ),
    "a KeyUpdate that asks for 2": (
        lambda peer: peer.keys.write.seal(ContentType.HANDSHAKE, bytes([24, 0, 0, 1, 2])),
        "ILLEGAL_PARAMETER",
        "illegal parameter",
    ),
    "a long KeyUpdate": (
        lambda peer: peer.keys.write.seal(ContentType.HANDSHAKE, bytes([24, 0, 0, 2, 0, 0])),
        "DECODE_ERROR",
        "decode error",
    ),
    "something behind a KeyUpdate": (
        lambda peer: peer.keys.write.seal(ContentType.HANDSHAKE, bytes([24, 0, 0, 1, 0, 24])),
        "UNEXPECTED_MESSAGE",
        "unexpected message",
    ),
    "data within a KeyUpdate": (
        lambda peer: (
            peer.keys.write.seal(ContentType.HANDSHAKE, bytes([24, 0]))
            + peer.keys.write.seal(ContentType.APPLICATION_DATA, b"x")
        ),
        "UNEXPECTED_MESSAGE",
        "unexpected message",
    ),
}
BAD_12: dict[str, tuple[Callable[[Client], bytes], str, str]] = {
    "another version": (lambda _: record(23, 40, 0x0301) + bytes(40), "PROTOCOL_VERSION", "protocol version"),
}
CASES = [
    pytest.param(suite, *case, id=f"{suite.name if suite else 'TLS 1.3'}-{name}")
    for suite, cases in ((SUITES[0], {**BAD, **BAD_13}), (SUITES[1], {**BAD, **BAD_12}))
    for name, case in cases.items()
]


def flipped(records: bytes) -> bytes:
    """Change the last byte."""
    return records[:-1] + bytes([records[-1] ^ 1])


def twice(records: bytes) -> bytes:
    """Say it twice."""
    return records + records


@pytest.mark.parametrize(("suite", "bad", "alert", "words"), CASES)
def test_bad_input(
    client: MakeClient, suite: CipherSuite | None, bad: Callable[[Client], bytes], alert: str, words: str
) -> None:
    """Each is answered with the alert that the RFC names, as OpenSSL reads it; keys and socket are gone afterwards."""
    peer = client(suite)
    peer.socket.sendall(bad(peer))
    with pytest.raises(TlsAlertError) as refused:
        read_all(peer.connection)
    assert refused.value.alert is AlertDescription[alert]
    with pytest.raises(ssl.SSLError) as told:
        peer.read()
    assert words in str(told.value).lower().replace("_", " ")
    check_gone(peer.connection)


def read_all(connection: TlsConnection) -> None:
    """Read to the end."""
    while connection.recv():
        pass


def write_on(connection: TlsConnection, sent: list[int]) -> None:
    """Write records until that fails, and count them."""
    while len(sent) < 1000:
        connection.sendall(bytes(MAX_PLAINTEXT))
        sent.append(MAX_PLAINTEXT)


def check_gone(connection: TlsConnection) -> None:
    """The connection cannot be used in this process, by any way."""
    assert connection.closed
    for attempt in (connection.recv, lambda: connection.sendall(b"x"), connection.update_key):
        with pytest.raises(TlsClosedError):
            attempt()
    assert connection.socket.fileno() == -1
    for key in (connection.sending, connection.receiving):
        with pytest.raises(BadKeyError):
            key.check_usable()
    connection.close()


def test_renegotiation(client: MakeClient) -> None:
    """A ClientHello in TLS 1.2 ends the connection with no_renegotiation."""
    peer = client(SUITES[1])
    peer.socket.sendall(peer.keys.write.seal(ContentType.HANDSHAKE, bytes([1, 0, 0, 0])))
    with pytest.raises(TlsAlertError) as refused:
        peer.connection.recv()
    assert refused.value.alert is AlertDescription.NO_RENEGOTIATION
    assert peer.keys.read.open(peer.socket.recv(1000)) == (ContentType.ALERT, bytes([1, 100]))
    check_gone(peer.connection)


@every_suite
@pytest.mark.parametrize("within", [True, False])
def test_truncation(client: MakeClient, suite: CipherSuite | None, within: bool) -> None:  # noqa: FBT001 - a parameter
    """A stream that ends without close_notify is an error, and one that ends within a record is told so."""
    peer = client(suite)
    peer.socket.sendall(peer.seal(b"hello") + (peer.seal(b"hello")[:7] if within else b""))
    peer.socket.shutdown(socket.SHUT_WR)
    assert peer.connection.recv() == b"hello"
    with pytest.raises(TlsTruncatedError):
        peer.connection.recv()
    if within:
        with pytest.raises(ssl.SSLError, match=r"(?i)decode.error"):
            peer.read()
    check_gone(peer.connection)


@every_suite
def test_the_peers_alert(client: MakeClient, suite: CipherSuite | None) -> None:
    """A fatal alert of the peer is an error with its number, also one that nobody has heard of."""
    for number in (20, 200):
        peer = client(suite)
        peer.socket.sendall(peer.keys.write.seal(ContentType.ALERT, bytes([2, number])))
        with pytest.raises(TlsPeerAlertError) as ended:
            peer.connection.recv()
        assert ended.value.description == number
        check_gone(peer.connection)


def test_a_broken_connection(client: MakeClient) -> None:
    """A peer that is gone is one error, to who writes and to who reads."""
    peer = client()
    peer.send(b"x")
    peer.socket.close()
    with pytest.raises(TlsConnectionError):
        write_on(peer.connection, [])


@pytest.mark.parametrize("request_one", [True, False])
def test_key_update(client: MakeClient, request_one: bool) -> None:  # noqa: FBT001 - a parameter
    """The peer's KeyUpdate changes its key, one that asks for another is answered, and both directions go on."""
    peer = client()
    request = KeyUpdate.REQUESTED if request_one else KeyUpdate.NOT_REQUESTED
    halves = key_update_message(request)
    peer.socket.sendall(
        peer.keys.write.seal(ContentType.HANDSHAKE, halves[:3])
        + peer.keys.write.seal(ContentType.HANDSHAKE, halves[3:])
    )
    peer.keys.write.update()
    peer.socket.sendall(peer.keys.write.seal(ContentType.APPLICATION_DATA, b"after"))
    assert peer.connection.recv() == b"after"
    assert peer.connection.receiving.sequence == 1
    assert peer.connection.sending.sequence == (0 if request_one else peer.connection.sending.sequence)
    peer.connection.sendall(b"answer")
    assert peer.read() == b"answer"  # OpenSSL follows our KeyUpdate


def test_our_key_update(client: MakeClient) -> None:
    """Our KeyUpdate is followed by OpenSSL, which changes its own key when asked to."""
    peer = client()
    before = peer.connection.receiving.state.iv
    peer.connection.update_key(request=True)
    peer.connection.sendall(b"new key")
    assert peer.read() == b"new key"
    peer.send(b"new key, too")
    assert peer.connection.recv() == b"new key, too"
    assert peer.connection.receiving.state.iv != before


def test_no_key_update_in_tls12(client: MakeClient) -> None:
    """TLS 1.2 has no KeyUpdate, and nothing is sent."""
    peer = client(SUITES[1])
    with pytest.raises(KeyStateError):
        peer.connection.update_key()
    peer.connection.sendall(b"goes on")
    assert peer.read() == b"goes on"


def test_timeout(client: MakeClient) -> None:
    """A peer that says nothing or takes nothing is an error after which the connection goes on, record for record."""
    peer = client()
    peer.connection.settimeout(0.05)
    with pytest.raises(TlsTimeoutError):
        peer.connection.recv()
    sealed = peer.seal(b"late")
    peer.socket.sendall(sealed[:9])
    with pytest.raises(TlsTimeoutError):
        peer.connection.recv()
    peer.socket.sendall(sealed[9:])
    assert peer.connection.recv() == b"late"
    sent: list[int] = []
    with pytest.raises(TlsTimeoutError):
        write_on(peer.connection, sent)
    with pytest.raises(KeyStateError, match="a write"), peer.connection.at_rest():
        pass
    peer.connection.settimeout(SECONDS)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(peer.connection.sendall, b"end")
        received = b""
        while not received.endswith(b"end"):
            received += peer.read()
        future.result()
    assert received == bytes((len(sent) + 1) * MAX_PLAINTEXT) + b"end"


@pytest.fixture
def parties(tmp_path: Path) -> tuple[Party, Party]:
    """Alice sends, Bob receives."""

    def party(me: str) -> Party:
        mine, other = (ALICE, BOB) if me == "alice" else (BOB, ALICE)
        trust = TrustStore((make_pin(Role.SENDER, "other", other.public_key),))
        return Party(identity=mine, journal=Journal(tmp_path / me / "journal.sqlite"), trust=trust)

    return party("alice"), party("bob")


@pytest.fixture
def channels() -> Iterator[tuple[Channel, Channel]]:
    """A channel's two ends."""
    with open_pair() as both:
        yield both


@every_suite
def test_it_changes_hands(
    client: MakeClient, suite: CipherSuite | None, parties: tuple[Party, Party], channels: tuple[Channel, Channel]
) -> None:
    """Unread plaintext, half a record on the way, sequence numbers: all go along; OpenSSL notices nothing, twice."""
    peer = client(suite)
    connection = peer.connection
    for turn in (b"first", b"second"):
        sealed = peer.seal(b"read, and not read") + peer.seal(turn)
        peer.socket.sendall(sealed[:-4])
        assert connection.recv(6) == b"read, "
        sequences = connection.sending.sequence, connection.receiving.sequence
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(take_over, Receiver(parties[1]), channels[1])
            moved = hand_over(Sender(parties[0]), connection, channels[0])
            taken = future.result()
        assert [each.outcome for each in moved.dispositions] == [Outcome.DESTROYED, Outcome.DESTROYED]
        check_gone(connection)
        assert (taken.sending.sequence, taken.receiving.sequence) == sequences
        peer.socket.sendall(sealed[-4:])
        assert taken.recv() == b"and not read"
        assert taken.recv() == turn
        taken.sendall(turn)
        assert peer.read() == turn
        connection = taken
    peer.close()
    assert connection.recv() == b""
    connection.close()


def test_the_end_of_the_peer_changes_hands(
    client: MakeClient, parties: tuple[Party, Party], channels: tuple[Channel, Channel]
) -> None:
    """A connection whose client has closed its side is still one after the handoff, and can be written."""
    peer = client()
    peer.close()
    assert peer.connection.recv() == b""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(take_over, Receiver(parties[1]), channels[1])
        hand_over(Sender(parties[0]), peer.connection, channels[0])
        with future.result() as taken:
            assert taken.recv() == b""
            taken.sendall(b"bye")


def test_not_while_something_is_pending(
    client: MakeClient, parties: tuple[Party, Party], channels: tuple[Channel, Channel]
) -> None:
    """NTE_BAD_KEY_STATE while a handshake message or a read is pending; afterwards the connection goes on here."""
    peer = client()
    peer.socket.sendall(peer.keys.write.seal(ContentType.HANDSHAKE, key_update_message(KeyUpdate.REQUESTED)[:2]))
    peer.connection.settimeout(0.2)
    with pytest.raises(TlsTimeoutError):
        peer.connection.recv()
    with pytest.raises(KeyStateError, match="a handshake message"):
        hand_over(Sender(parties[0]), peer.connection, channels[0])
    peer.socket.sendall(peer.keys.write.seal(ContentType.HANDSHAKE, key_update_message(KeyUpdate.REQUESTED)[2:]))
    with pytest.raises(TlsTimeoutError):
        peer.connection.recv()
    peer.connection.settimeout(SECONDS)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(peer.connection.recv)
        while not peer.connection.reading.locked():
            pass
        with pytest.raises(KeyStateError, match="a read"):
            hand_over(Sender(parties[0]), peer.connection, channels[0])
        peer.keys.write.update()
        peer.socket.sendall(peer.keys.write.seal(ContentType.APPLICATION_DATA, b"goes on"))
        assert reading.result() == b"goes on"
    assert parties[0].journal.entries() == []


def test_a_refused_connection_goes_on(
    client: MakeClient, parties: tuple[Party, Party], channels: tuple[Channel, Channel]
) -> None:
    """A recipient that does not take it sends a tombstone; the connection goes on where it was."""
    peer = client()

    class Unwilling(InProcess):
        def make(self, record: object, blob: bytes) -> None:  # noqa: ARG002 - it takes nothing
            raise KeyStateError("not today", hint="")

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(Receiver(parties[1]).serve, channels[1], Unwilling())
        with pytest.raises(RefusedError):
            hand_over(Sender(parties[0]), peer.connection, channels[0])
        with pytest.raises(KeyStateError):
            future.result()
    peer.send(b"still there?")
    assert peer.connection.recv() == b"still there?"
    peer.connection.sendall(b"still here")
    assert peer.read() == b"still here"


def test_another_handoff_is_no_connection(parties: tuple[Party, Party], channels: tuple[Channel, Channel]) -> None:
    """Keys that are not a connection's are refused with one error, and are destroyed."""
    key = Provider(identity=ALICE).generate_key("AES-GCM", 256)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(take_over, Receiver(parties[1]), channels[1])
        Sender(parties[0]).send([LiveSource(key)], channels[0])
        with pytest.raises(BlobError):
            future.result()


def test_two_keys_of_one_connection(client: MakeClient) -> None:
    """Keys in the wrong order, or of two suites, make no connection."""
    one, other = client(SUITES[1]).connection, client(SUITES[2]).connection
    near, far = socket.socketpair()
    with near, far:
        for keys in ((one.receiving, one.sending), (one.sending, other.receiving)):
            with pytest.raises(BadKeyError):
                TlsConnection(near, *keys)
