"""OpenSSL at both ends of a connection in memory, and the secrets that it agreed on: a judge of records.

Python's ``ssl`` runs the handshake. Its key log gives the secrets, the hellos give the randoms and the suite.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import ssl
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hsmbridge_csp.tls import CipherSuite, Randoms, Side, TlsKeyPair, derive_tls12_keys, derive_tls13_keys
from hsmbridge_csp.tls.suites import Bulk, TlsVersion

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Connection", "Peers", "keys_of", "read_key_log", "read_record", "split_records", "tls13_client"]

_HOST = "peer.example"


def split_records(wire: bytes) -> list[bytes]:
    """Cut a stream into records by their headers; it must hold whole ones."""
    records = []
    while wire:
        end = 5 + int.from_bytes(wire[3:5], "big")
        assert len(wire) >= end, "a record is not whole"
        records.append(wire[:end])
        wire = wire[end:]
    return records


def read_key_log(path: Path) -> dict[str, bytes]:
    """Return the secrets of the one connection that a key log is about, by their labels."""
    lines = (line.split() for line in path.read_text("ascii").splitlines() if not line.startswith("#"))
    return {label: bytes.fromhex(secret) for label, _, secret in lines}


def keys_of(
    suite: CipherSuite, secrets: dict[str, bytes], randoms: Randoms, side: Side, sequences: tuple[int, int]
) -> TlsKeyPair:
    """Make our keys of what the judge says that it agreed on."""
    if suite.version is TlsVersion.TLS13:
        client, server = (secrets[f"{who}_TRAFFIC_SECRET_0"] for who in ("CLIENT", "SERVER"))
        keys = derive_tls13_keys(suite, client, server, side, sequences=sequences)
    else:
        keys = derive_tls12_keys(
            suite,
            secrets["CLIENT_RANDOM"],
            randoms,
            side,
            encrypt_then_mac=suite.form.bulk is Bulk.AES_CBC,  # what OpenSSL agrees on unless told otherwise
            sequences=sequences,
        )
    assert isinstance(keys, TlsKeyPair)
    return keys


@dataclass
class Connection:
    """A connection after its handshake.

    Attributes:
        ends: the two objects of ``ssl`` by side; what they write is in ``wires``.
        feeds: what they read.
        wires: what they have written and nobody has taken yet.
        suite: what they agreed on.
        secrets: the key log.
        randoms: of the hellos.
    """

    ends: dict[Side, ssl.SSLObject]
    feeds: dict[Side, ssl.MemoryBIO]
    wires: dict[Side, ssl.MemoryBIO]
    suite: CipherSuite
    secrets: dict[str, bytes] = field(repr=False)
    randoms: Randoms

    def keys(self, side: Side) -> TlsKeyPair:
        """Return our keys in place of one end, as they stand right after the handshake.

        In TLS 1.2 each end has protected its Finished message; in TLS 1.3 the application keys are new, and the
        server's tickets are the first records under its own.
        """
        sequences = (0, 0) if self.suite.version is TlsVersion.TLS13 else (1, 1)
        return keys_of(self.suite, self.secrets, self.randoms, side, sequences)

    def take(self, side: Side) -> list[bytes]:
        """Return the records that one end has written since the last time."""
        return split_records(self.wires[side].read())


class Peers:
    """Contexts of a client and a server with an RSA and an EC certificate.

    Args:
        folder: private, for certificates and key logs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self.chains = [self._certificate(name) for name in ("rsa", "ec")]
        self.dh = str(folder / "dh.pem")
        command = ["openssl", "genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", "group:ffdhe2048"]
        command += ["-out", self.dh]
        subprocess.run(command, check=True, capture_output=True)

    def connect(self, suite: CipherSuite | None = None) -> Connection:
        """Run a handshake: TLS 1.2 with one suite, or TLS 1.3 with the one that OpenSSL prefers."""
        version = ssl.TLSVersion.TLSv1_3 if suite is None else ssl.TLSVersion.TLSv1_2
        client, log = self._client(version)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.minimum_version = server.maximum_version = version
        for chain in self.chains:
            server.load_cert_chain(chain)
        server.load_dh_params(self.dh)
        for context in (client, server):
            if suite is not None:
                context.set_ciphers("ALL:@SECLEVEL=0")
                known = {cipher["id"] & 0xFFFF: cipher["name"] for cipher in context.get_ciphers()}
                context.set_ciphers(f"{known[suite]}:@SECLEVEL=0")
        bios = {side: (ssl.MemoryBIO(), ssl.MemoryBIO()) for side in Side}
        ends = {
            Side.CLIENT: client.wrap_bio(*bios[Side.CLIENT], server_hostname=_HOST),
            Side.SERVER: server.wrap_bio(*bios[Side.SERVER], server_side=True),
        }
        seen = dict.fromkeys(Side, b"")
        waiting = dict.fromkeys(Side, True)
        while any(waiting.values()):
            for side, other in ((Side.CLIENT, Side.SERVER), (Side.SERVER, Side.CLIENT)):
                try:
                    ends[side].do_handshake()
                    waiting[side] = False
                except ssl.SSLWantReadError:
                    pass
                if waiting[other] or waiting[side]:
                    wire = bios[side][1].read()
                    seen[side] += wire
                    bios[other][0].write(wire)
        hello = {side: split_records(seen[side])[0][5:] for side in Side}
        chosen = _suite_of(hello[Side.SERVER])
        return Connection(
            ends=ends,
            feeds={side: bio[0] for side, bio in bios.items()},
            wires={side: bio[1] for side, bio in bios.items()},
            suite=chosen,
            secrets=read_key_log(log),
            randoms=Randoms(client=hello[Side.CLIENT][6:38], server=hello[Side.SERVER][6:38]),
        )

    def handshake(self, sock: socket.socket) -> Connection:
        """Run a client's TLS 1.3 handshake on a socket, through memory, so that nothing is read ahead."""
        context, log = self._client(ssl.TLSVersion.TLSv1_3)
        feed, wire = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(feed, wire, server_hostname=_HOST)
        received = sent = b""
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                client.do_handshake()
                sock.sendall(wire.read())
                break
            written = wire.read()
            sent += written
            sock.sendall(written)
            record = read_record(sock)
            received += record
            feed.write(record)
        return Connection(
            ends={Side.CLIENT: client},
            feeds={Side.CLIENT: feed},
            wires={Side.CLIENT: wire},
            suite=_suite_of(split_records(received)[0][5:]),
            secrets=read_key_log(log),
            randoms=Randoms(client=sent[11:43], server=received[11:43]),
        )

    def _client(self, version: ssl.TLSVersion) -> tuple[ssl.SSLContext, Path]:
        self._count += 1
        log = self._folder / f"keys-{self._count}.log"
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        client.keylog_filename = str(log)
        client.minimum_version = client.maximum_version = version
        return client, log

    def _certificate(self, kind: str) -> Path:
        key = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, _HOST)])
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .sign(key, hashes.SHA256())
        )
        path = self._folder / f"{kind}.pem"
        pem = serialization.Encoding.PEM
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        path.write_bytes(private + certificate.public_bytes(pem))
        return path


@contextlib.contextmanager
def tls13_client(peers: Peers, suite: CipherSuite) -> Iterator[tuple[socket.socket, Connection]]:
    """Connect to an `openssl s_server` that speaks TLS 1.3 with one suite and answers each line reversed.

    Yields: the socket after the handshake, nothing of what follows being read, and the connection's secrets.
    """
    command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-naccept", "1", "-rev", "-num_tickets", "0"]
    command += ["-cert", str(peers.chains[1]), "-key", str(peers.chains[1]), "-tls1_3", "-ciphersuites", suite.name]
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    server = subprocess.Popen(command, stdout=pipe, stderr=null, stdin=null)
    assert server.stdout is not None
    try:
        port = next(int(line.rsplit(b":", 1)[1]) for line in server.stdout if line.startswith(b"ACCEPT"))
        with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
            yield sock, peers.handshake(sock)
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def _suite_of(hello: bytes) -> CipherSuite:
    """Read the suite in a ServerHello: behind type, length, version, random and session id."""
    start = 4 + 2 + 32
    start += 1 + hello[start]
    return CipherSuite(int.from_bytes(hello[start : start + 2], "big"))


def read_record(sock: socket.socket) -> bytes:
    """Read one record, and not a byte more."""
    record = b""
    while len(record) < 5 + (int.from_bytes(record[3:5], "big") if len(record) >= 5 else 0):
        more = sock.recv((5 if len(record) < 5 else 5 + int.from_bytes(record[3:5], "big")) - len(record))
        assert more, "the peer closed the connection"
        record += more
    return record
