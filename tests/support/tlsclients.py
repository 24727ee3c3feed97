"""Clients that are not ours: curl, `openssl s_client`, Python's ssl."""

from __future__ import annotations

import http.client
import socket
import ssl
import subprocess
import threading
from typing import TYPE_CHECKING, Self

from hsmbridge_csp.tls.suites import CipherSuite, TlsVersion

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.support.tlsscenes import Stage

__all__ = ["HOST", "SECONDS", "MemoryClient", "SClient", "Visitor", "curl"]

HOST = "localhost"
SECONDS = 30
_CURL = {TlsVersion.TLS12: ("--tlsv1.2", "--tls-max", "1.2"), TlsVersion.TLS13: ("--tlsv1.3",)}
_SSL = {TlsVersion.TLS12: ssl.TLSVersion.TLSv1_2, TlsVersion.TLS13: ssl.TLSVersion.TLSv1_3}
_S_CLIENT = {TlsVersion.TLS12: "-tls1_2", TlsVersion.TLS13: "-tls1_3"}


def curl(  # noqa: PLR0913 - what a call of curl is made of
    stage: Stage,
    version: TlsVersion,
    *requests: Sequence[str | Path],
    port: int | None = None,
    more: Sequence[str] = (),
    key_log: Path | None = None,
    status: int = 0,
) -> tuple[list[bytes], int]:
    """Run curl; it verifies the certificate.

    Args:
        stage: whom to visit.
        version: the only one that it speaks.
        requests: a path each, and behind it further arguments.
        port: where, if not at the secure process.
        more: arguments for all of it.
        key_log: where it writes its secrets.
        status: the exit code that it must end with.

    Returns: the bodies, and how many connections it made.
    """
    files = []
    command = ["curl"]
    for path, *arguments in requests:
        files.append(stage.file("body"))
        url = f"https://{HOST}:{port or stage.port}{path}"
        one = ["-sS", "--fail", "--cacert", stage.authority, *_CURL[version], *more, *arguments]
        one += ["-o", files[-1], "-w", "%{num_connects}\n", url, "--next"]
        command += map(str, one)
    del command[-1]
    environment = {"PATH": "/usr/bin:/bin", **({"SSLKEYLOGFILE": str(key_log)} if key_log else {})}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == status, done.stderr
    bodies = [file.read_bytes() if file.exists() else b"" for file in files]
    for file in files:
        file.unlink(missing_ok=True)
    return bodies, sum(map(int, done.stdout.split()))


def _context(stage: Stage, version: TlsVersion, key_log: Path | None = None) -> ssl.SSLContext:
    """Return a context that speaks one version and verifies."""
    context = ssl.create_default_context(cafile=str(stage.authority))
    context.minimum_version = context.maximum_version = _SSL[version]
    if key_log:
        context.keylog_filename = str(key_log)
    return context


def _openssl_name(suite: CipherSuite) -> str:
    """Return OpenSSL's name of a suite: in TLS 1.3 IANA's, in TLS 1.2 one of its own."""
    if suite.version is TlsVersion.TLS13:
        return suite.name
    return (
        suite.name.removeprefix("TLS_")
        .replace("_WITH_AES_", "_AES")
        .replace("_WITH", "")
        .replace("_", "-")
        .removesuffix("-SHA256" if "CHACHA20" in suite.name else "")
    )


class Visitor:
    """Python's ssl and http.client on one connection: a second one would be an error.

    Args:
        stage: whom to visit.
        version: the only one that it speaks.
        port: where, if not at the secure process.
        key_log: where secrets go.
    """

    def __init__(
        self, stage: Stage, version: TlsVersion, *, port: int | None = None, key_log: Path | None = None
    ) -> None:
        context = _context(stage, version, key_log)
        self._connection = http.client.HTTPSConnection(HOST, port or stage.port, context=context, timeout=SECONDS)
        self._connection.connect()
        self._connection.auto_open = 0

    def get(self, path: str) -> bytes:
        """Fetch."""
        self._connection.request("GET", path)
        return self._connection.getresponse().read()

    @property
    def suite(self) -> str:
        """The suite that was agreed on, by IANA's name."""
        sock = self._connection.sock
        assert isinstance(sock, ssl.SSLSocket)
        agreed = sock.cipher()
        assert agreed is not None
        return next(suite.name for suite in CipherSuite if _openssl_name(suite) == agreed[0])

    def put(self, data: bytes) -> bytes:
        """Put, and return the answer."""
        self._connection.request("PUT", "/", body=data)
        return self._connection.getresponse().read()

    def end(self) -> None:
        """Say close_notify, and wait for the server's."""
        sock = self._connection.sock
        assert isinstance(sock, ssl.SSLSocket)
        sock.unwrap().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the socket without a word."""
        self._connection.close()


class SClient:
    """`openssl s_client`, into which somebody types.

    Args:
        stage: whom to visit.
        version: the only one that it speaks.
        port: where, if not at the secure process.
        more: arguments.
    """

    def __init__(
        self, stage: Stage, version: TlsVersion, *, port: int | None = None, more: Sequence[str | Path] = ()
    ) -> None:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port or stage.port}", "-servername", HOST]
        command += ["-CAfile", str(stage.authority), "-verify_return_error", _S_CLIENT[version], *map(str, more)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT)
        self._said, self._news = b"", threading.Condition()
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def type(self, text: str) -> None:
        """Type; a single letter and a line's end is a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()

    def wait_for(self, text: bytes) -> None:
        """Wait until it has printed something, and forget all up to there."""
        with self._news:
            assert self._news.wait_for(lambda: text in self._said, SECONDS), self._said
            self._said = self._said.split(text, 1)[1]

    def get(self, path: str, answer: bytes) -> None:
        """Fetch, and wait for the answer."""
        self.type(f"GET {path} HTTP/1.1\nHost: {HOST}\n\n")
        self.wait_for(answer)

    def close(self) -> int:
        """Let it say close_notify and end; returns its exit code."""
        self.type("Q\n")
        status = self._process.wait(SECONDS)
        self._end()
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._end()

    def _end(self) -> None:
        self._listener.join()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        while more := self._process.stdout.read1():  # type: ignore[attr-defined]  # it is a buffered reader
            with self._news:
                self._said += more
                self._news.notify()


class MemoryClient:
    """Python's ssl in memory, and a socket: the test decides which bytes go out, and together with which.

    Args:
        stage: whom to visit.
        version: the only one that it speaks.
    """

    def __init__(self, stage: Stage, version: TlsVersion) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ssl = _context(stage, version).wrap_bio(self._incoming, self._outgoing, server_hostname=HOST)
        self.socket = socket.create_connection(("127.0.0.1", stage.port), SECONDS)

    def handshake(self) -> None:
        """Run the handshake; a last flight of the client stays here until something is sent."""
        while True:
            try:
                self._ssl.do_handshake()
            except ssl.SSLWantReadError:
                self.socket.sendall(self._outgoing.read())
                self._incoming.write(self.socket.recv(1 << 16))
            else:
                return

    def get(self, path: str) -> bytes:
        """Return what a request is on the wire, with whatever was not sent before it."""
        self._ssl.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        return self._outgoing.read()

    def read_until(self, end: bytes) -> bytes:
        """Read until that is at the end, or the server has closed; an alert is ssl.SSLError."""
        found = b""
        while not found.endswith(end):
            try:
                found += self._ssl.read(1 << 16)
            except ssl.SSLWantReadError:
                more = self.socket.recv(1 << 16)
                if not more:
                    return found
                self._incoming.write(more)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
