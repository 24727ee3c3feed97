"""Records against OpenSSL: what it seals we open, what we seal it opens, and of bad records both say the same.

Python's ``ssl`` runs OpenSSL at both ends of a connection in memory; our keys come from its key log and take the place
of one end.
"""

from __future__ import annotations

import ssl
import struct
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hsmbridge_csp.clearpart import Purpose
from hsmbridge_csp.errors import KeyStateError
from hsmbridge_csp.identity import FileIdentity
from hsmbridge_csp.provider import Provider
from hsmbridge_csp.recipient_ecdh import EcdhOpener, EcdhSealer
from hsmbridge_csp.tls import AlertDescription, CipherSuite, ContentType, Side, TlsAlertError, TlsKeyPair, TlsRecordKey
from hsmbridge_csp.tls.suites import TlsVersion

from tests.support.tlspeer import Connection, Peers, read_record, tls13_client

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

OF_12 = [suite for suite in CipherSuite if suite.version is TlsVersion.TLS12]
OF_13 = [suite for suite in CipherSuite if suite.version is TlsVersion.TLS13]
GCM_12 = CipherSuite.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
CHACHA_12 = CipherSuite.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
CBC_12 = CipherSuite.TLS_RSA_WITH_AES_128_CBC_SHA
OTHER = {Side.CLIENT: Side.SERVER, Side.SERVER: Side.CLIENT}
TEXT = bytes(range(251)) * 160  # 40,160 bytes: three records, the last one not full
KEY_UPDATE_ASKING_BACK = b"\x18\x00\x00\x01\x01"  # RFC 8446 section 4.6.3
SUITES = [pytest.param(suite, id=suite.name if suite else "TLS 1.3") for suite in (None, *OF_12)]
A_FEW = [pytest.param(suite, id=suite.name if suite else "TLS 1.3") for suite in (None, GCM_12, CHACHA_12, CBC_12)]


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Peers:
    """Certificates and contexts."""
    return Peers(tmp_path_factory.mktemp("tls"))


def read_all(connection: Connection, side: Side, key: TlsRecordKey) -> bytes:
    """Open all that an end has written; handshake messages (TLS 1.3 tickets) are left aside."""
    opened = [key.open(record) for record in connection.take(side)]
    return b"".join(data for kind, data in opened if kind is ContentType.APPLICATION_DATA)


def moved(key: TlsRecordKey) -> TlsRecordKey:
    """Send a key to a provider elsewhere, sealed and signed, and destroy it here."""
    provider, recipient = Provider(identity=FileIdentity.generate()), ec.generate_private_key(ec.SECP256R1())
    blob = provider.export_key(key, EcdhSealer(recipient.public_key()), purpose=Purpose.MOVE)
    with pytest.raises(KeyStateError):
        key.update()  # it is frozen
    provider.destroy_key(key)
    arrived = provider.import_key(blob, EcdhOpener(recipient))
    assert isinstance(arrived, TlsRecordKey)
    return arrived


@pytest.mark.parametrize("side", list(Side))
@pytest.mark.parametrize("suite", SUITES)
def test_records_are_openssls(peers: Peers, suite: CipherSuite | None, side: Side) -> None:
    """In every suite, at either end, OpenSSL's records open and OpenSSL opens ours, of several sizes."""
    connection = peers.connect(suite)
    ours, peer = connection.keys(side), connection.ends[OTHER[side]]
    peer.write(TEXT)
    assert read_all(connection, OTHER[side], ours.read) == TEXT
    for size in (0, 1, 15, 16, 17, 16_384):
        connection.feeds[OTHER[side]].write(ours.write.seal(ContentType.APPLICATION_DATA, TEXT[:size]))
        if size:
            assert peer.read(20_000) == TEXT[:size]


@pytest.mark.parametrize("suite", A_FEW)
def test_a_connection_goes_on_elsewhere(peers: Peers, suite: CipherSuite | None) -> None:
    """After an export, an import and a destroy in mid-connection both directions go on with the next record."""
    connection = peers.connect(suite)
    here, peer = connection.keys(Side.SERVER), connection.ends[Side.CLIENT]
    for number in range(3):
        connection.feeds[Side.CLIENT].write(here.write.seal(ContentType.APPLICATION_DATA, b"here %d" % number))
        peer.write(b"client %d" % number)
    assert read_all(connection, Side.CLIENT, here.read) == b"client 0client 1client 2"
    there = TlsKeyPair(write=moved(here.write), read=moved(here.read))
    connection.feeds[Side.CLIENT].write(there.write.seal(ContentType.APPLICATION_DATA, b"there"))
    assert b"".join(peer.read(100) for _ in range(4)) == b"here 0here 1here 2there"
    peer.write(TEXT)
    assert read_all(connection, Side.CLIENT, there.read) == TEXT


def test_key_update(peers: Peers) -> None:
    """KeyUpdate in both directions, before and after a move: OpenSSL follows ours and we follow OpenSSL's."""
    connection = peers.connect()
    keys, peer = connection.keys(Side.CLIENT), connection.ends[Side.SERVER]
    write, read = keys.write, keys.read
    read_all(connection, Side.SERVER, read)
    for turn in range(3):
        connection.feeds[Side.SERVER].write(write.seal(ContentType.HANDSHAKE, KEY_UPDATE_ASKING_BACK))
        write.update()
        if turn == 1:
            write, read = moved(write), moved(read)
        connection.feeds[Side.SERVER].write(write.seal(ContentType.APPLICATION_DATA, b"up %d" % turn))
        assert peer.read(100) == b"up %d" % turn
        peer.write(b"down %d" % turn)
        update, text = connection.take(Side.SERVER)
        assert read.open(update) == (ContentType.HANDSHAKE, b"\x18\x00\x00\x01\x00")
        read.update()
        assert read.open(text) == (ContentType.APPLICATION_DATA, b"down %d" % turn)
        assert (write.sequence, read.sequence) == (1, 1)


def test_close_notify(peers: Peers) -> None:
    """An alert that we seal ends the connection for OpenSSL, and its own arrives as an alert."""
    connection = peers.connect(GCM_12)
    keys, peer = connection.keys(Side.CLIENT), connection.ends[Side.SERVER]
    connection.feeds[Side.SERVER].write(keys.write.seal(ContentType.ALERT, b"\x01\x00"))
    assert peer.read(1) == b""  # the end, not an error
    peer.unwrap()
    assert [keys.read.open(record) for record in connection.take(Side.SERVER)] == [(ContentType.ALERT, b"\x01\x00")]


@pytest.mark.parametrize("suite", OF_13, ids=lambda suite: suite.name)
def test_every_suite_of_tls13(peers: Peers, suite: CipherSuite) -> None:
    """Against `openssl s_server`, which can be told the suite: a line goes out and comes back reversed, four times."""
    with tls13_client(peers, suite) as (sock, connection):
        keys = connection.keys(Side.CLIENT)
        assert connection.suite is suite
        for number in range(4):
            if number == 2:
                sock.sendall(keys.write.seal(ContentType.HANDSHAKE, KEY_UPDATE_ASKING_BACK))
                keys.write.update()
            sock.sendall(keys.write.seal(ContentType.APPLICATION_DATA, b"line %d\n" % number))
            assert answer(sock, keys.read) == b"%d enil\n" % number


def answer(sock: socket.socket, key: TlsRecordKey) -> bytes:
    """Return the next application data; a KeyUpdate on the way is followed."""
    while True:
        kind, data = key.open(read_record(sock))
        if kind is ContentType.APPLICATION_DATA:
            return data
        assert data == b"\x18\x00\x00\x01\x00"
        key.update()


# What is wrong with a record, and which alert the RFC has for it.
BAD_MAC, OVERFLOW = AlertDescription.BAD_RECORD_MAC, AlertDescription.RECORD_OVERFLOW
UNEXPECTED, VERSION = AlertDescription.UNEXPECTED_MESSAGE, AlertDescription.PROTOCOL_VERSION


def flipped(key: TlsRecordKey) -> bytes:
    """Return a record whose last bit is another."""
    record = key.seal(ContentType.APPLICATION_DATA, b"data")
    return record[:-1] + bytes((record[-1] ^ 1,))


def skipped(key: TlsRecordKey) -> bytes:
    """Return a record before which one is missing."""
    key.seal(ContentType.APPLICATION_DATA, b"lost")
    return key.seal(ContentType.APPLICATION_DATA, b"data")


def header(kind: int, length: int, body: bytes | None = None) -> Callable[[TlsRecordKey], bytes]:
    """Return what makes a record of zeros."""
    return lambda _: struct.pack(">BHH", kind, 0x0303, length) + (bytes(length) if body is None else body)


def inner(content: bytes) -> Callable[[TlsRecordKey], bytes]:
    """Return what makes an authentic TLS 1.3 record of any inner plaintext, by `cryptography` alone."""

    def make(key: TlsRecordKey) -> bytes:
        head = struct.pack(">BHH", 23, 0x0303, len(content) + 16)
        nonce = (int.from_bytes(key.state.iv, "big") ^ key.sequence).to_bytes(12, "big")
        return head + AESGCM(bytes(key.value[:32])).encrypt(nonce, content, head)

    return make


def gcm12(kind: int, content: bytes) -> Callable[[TlsRecordKey], bytes]:
    """Return what makes an authentic TLS 1.2 record with AES-128-GCM of any type and length."""

    def make(key: TlsRecordKey) -> bytes:
        explicit = b"any nonc"
        aad = struct.pack(">QBHH", key.sequence, kind, 0x0303, len(content))
        sealed = AESGCM(bytes(key.value)).encrypt(key.state.iv + explicit, content, aad)
        return struct.pack(">BHH", kind, 0x0303, 8 + len(sealed)) + explicit + sealed

    return make


def of_version_11(key: TlsRecordKey) -> bytes:
    """Return a record with another version in its header."""
    record = key.seal(ContentType.APPLICATION_DATA, b"data")
    return record[:1] + b"\x03\x02" + record[3:]


BAD = [
    *(
        (suite, name, make, alert)
        for suite in (None, GCM_12, CHACHA_12, CBC_12)
        for name, make, alert in (
            ("flipped bit", flipped, BAD_MAC),
            ("wrong sequence", skipped, BAD_MAC),
            ("too long", header(23, 16384 + (2049 if suite else 257)), OVERFLOW),
        )
    ),
    *((suite, "shorter than a tag", header(23, 5), BAD_MAC) for suite in (None, GCM_12, CHACHA_12)),
    *((suite, "nothing but a header", header(23, 0), BAD_MAC) for suite in (None, GCM_12, CHACHA_12)),
    *((suite, "another version", of_version_11, VERSION) for suite in (GCM_12, CHACHA_12, CBC_12)),
    (None, "unknown type", header(99, 40), UNEXPECTED),
    (None, "alert in the clear", header(21, 2), UNEXPECTED),
    (None, "ChangeCipherSpec in the clear", header(20, 1, b"\x01"), UNEXPECTED),
    (None, "nothing but padding", inner(bytes(20)), UNEXPECTED),
    (None, "unknown type inside", inner(b"x\x63"), UNEXPECTED),
    (None, "ChangeCipherSpec inside", inner(b"\x01\x14"), UNEXPECTED),
    (None, "empty handshake", inner(b"\x16"), UNEXPECTED),
    (None, "empty alert", inner(b"\x15"), UNEXPECTED),
    (None, "fragment too long", inner(bytes(16_385) + b"\x17"), OVERFLOW),
    (GCM_12, "fragment too long", gcm12(23, bytes(16_385)), OVERFLOW),
    (GCM_12, "unknown type", gcm12(99, b"xx"), UNEXPECTED),
]


@pytest.mark.parametrize(
    ("suite", "make", "alert"),
    [
        pytest.param(suite, make, alert, id=f"{suite.name if suite else 'TLS 1.3'}: {name}")
        for suite, name, make, alert in BAD
    ],
)
def test_bad_records_are_answered_as_openssl_does(
    peers: Peers, suite: CipherSuite | None, make: Callable[[TlsRecordKey], bytes], alert: AlertDescription
) -> None:
    """OpenSSL and we name the same fatal alert for the same record, and then our key is dead."""
    connection = peers.connect(suite)
    attacker, ours = connection.keys(Side.CLIENT), connection.keys(Side.SERVER)
    read_all(connection, Side.SERVER, attacker.read)
    record = make(attacker.write)
    connection.feeds[Side.SERVER].write(record)
    with pytest.raises(ssl.SSLError):
        connection.ends[Side.SERVER].read(20_000)
    theirs = [attacker.read.open(answered) for answered in connection.take(Side.SERVER)]
    assert theirs == [(ContentType.ALERT, bytes((2, alert)))]
    with pytest.raises(TlsAlertError) as refused:
        ours.read.open(record)
    assert refused.value.alert is alert
    assert ours.read.failure is alert
    with pytest.raises(KeyStateError):
        ours.read.open(attacker.write.seal(ContentType.APPLICATION_DATA, b"a good one"))


def test_padding_and_any_explicit_nonce_are_taken(peers: Peers) -> None:
    """TLS 1.3 padding is stripped, and a TLS 1.2 peer may choose any explicit nonce, for OpenSSL and us."""
    for suite, make in ((None, inner(b"text\x17" + bytes(300))), (GCM_12, gcm12(23, b"text"))):
        connection = peers.connect(suite)
        record = make(connection.keys(Side.CLIENT).write)
        connection.feeds[Side.SERVER].write(record)
        assert connection.ends[Side.SERVER].read(100) == b"text"
        assert connection.keys(Side.SERVER).read.open(record) == (ContentType.APPLICATION_DATA, b"text")


def test_secrets_are_those_of_the_key_log(peers: Peers) -> None:
    """The judge is no straw man: another connection's secrets open nothing."""
    one, other = peers.connect(), peers.connect()
    one.ends[Side.SERVER].write(b"text")
    with pytest.raises(TlsAlertError):
        other.keys(Side.CLIENT).read.open(one.take(Side.SERVER)[-1])
