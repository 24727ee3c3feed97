"""Live connections change process: curl, `openssl s_client` and Python's ssl are served on, and notice nothing."""

from __future__ import annotations

import hashlib
import secrets
import signal
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from hsmbridge_cli.demo.memory import count_in_memory
from hsmbridge_cli.demo.tls.needles import directions, read_key_log
from hsmbridge_cli.demo.tls.relay import Relay
from hsmbridge_cli.demo.tls.web import content
from hsmbridge_csp.tls.suites import CipherSuite, TlsVersion

from tests.cli.conftest import Cli
from tests.support.tlsclients import SECONDS, MemoryClient, SClient, Visitor, curl
from tests.support.tlsscenes import Stage, open_stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

both = pytest.mark.parametrize("version", list(TlsVersion), ids=lambda version: version.name)
MIB = 1 << 20
SIZES = {TlsVersion.TLS12: 16 * MIB, TlsVersion.TLS13: 100 * MIB}


@pytest.fixture(scope="module")
def module_cli(shared_variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """The command on the token under test."""
    return Cli(directory=tmp_path_factory.mktemp("tls"), variables=shared_variables)


@pytest.fixture(scope="module")
def stage(module_cli: Cli) -> Iterator[Stage]:
    """An EC certificate key; the secure process answers one request, and the application process the others."""
    with open_stage(module_cli, "ec:p-256", 1) as opened:
        yield opened


@pytest.fixture(scope="module")
def rsa_stage(module_cli: Cli) -> Iterator[Stage]:
    """An RSA certificate key; connections are handed over right after the handshake."""
    with open_stage(module_cli, "rsa:2048", 0) as opened:
        yield opened


def digest(size: int) -> str:
    """Return the SHA-256 of what /bytes/SIZE is."""
    found = hashlib.sha256()
    for piece in content(size):
        found.update(piece)
    return found.hexdigest()


@both
def test_curl_is_kept_alive(stage: Stage, version: TlsVersion) -> None:
    """One connection of curl is answered by the secure process first, then by the other."""
    bodies, connections = curl(stage, version, ["/"], ["/"], ["/bytes/100000"], ["/"])
    assert bodies[0] == stage.secure_answer
    assert bodies[1] == bodies[3] == stage.answer
    assert bodies[2] == b"".join(content(100_000))
    assert connections == 1
    (secure,), (application,) = stage.secure_report(), stage.application_report()
    assert secure["version"] == application["version"] == version.name
    assert secure["keys"] == ["destroyed", "destroyed"]
    assert secure["refused_afterwards"] is True
    assert application["first"] == secure["sequences"]
    assert application["requests"] == 3
    assert application["ended"] == "close_notify"


@both
def test_with_an_rsa_key(rsa_stage: Stage, version: TlsVersion) -> None:
    """The token signs with RSA too, PKCS#1 v1.5 or PSS as the version and the client want it."""
    schemes = ["RSA-PSS+SHA256"] + (["RSA+SHA256", "RSA+SHA384"] if version is TlsVersion.TLS12 else [])
    for scheme in schemes:
        with SClient(rsa_stage, version, more=["-sigalgs", scheme]) as client:
            client.get("/", rsa_stage.answer)
            assert client.close() == 0
    assert [entry["keys"] for entry in rsa_stage.secure_report()] == [["destroyed", "destroyed"]] * len(schemes)


@both
def test_large_down_and_up(stage: Stage, version: TlsVersion) -> None:
    """What curl downloads and uploads over a handed-over connection has the right checksums."""
    size = SIZES[version]
    given = stage.file("given")
    given.write_bytes(secrets.token_bytes(size))
    bodies, connections = curl(stage, version, ["/"], [f"/bytes/{size}"], ["/", "-T", given], ["/"])
    assert connections == 1
    assert hashlib.sha256(bodies[1]).hexdigest() == digest(size)
    assert bodies[2].decode().strip() == hashlib.sha256(given.read_bytes()).hexdigest()
    assert bodies[3] == stage.answer
    given.unlink()


@both
def test_s_client(stage: Stage, version: TlsVersion) -> None:
    """`openssl s_client` verifies the certificate, is served by both processes, and ends well."""
    with SClient(stage, version) as client:
        client.wait_for(b"Verify return code: 0 (ok)")
        client.get("/", stage.secure_answer)
        client.get("/", stage.answer)
        assert client.close() == 0
    assert stage.application_report()[-1]["ended"] == "close_notify"


@both
def test_fifty_at_once(stage: Stage, version: TlsVersion) -> None:
    """Fifty connections that are open at the same time each go on with their own bytes."""
    count = 50
    all_open = threading.Barrier(count, timeout=SECONDS)

    def visit(number: int) -> bool:
        with Visitor(stage, version) as visitor:
            first = visitor.get("/")
            all_open.wait()
            mine = secrets.token_bytes(20_000 + number)
            right = visitor.put(mine).decode().strip() == hashlib.sha256(mine).hexdigest()
            return right and (first, visitor.get("/")) == (stage.secure_answer, stage.answer)

    with ThreadPoolExecutor(count) as pool:
        assert all(pool.map(visit, range(count)))
    assert [entry["keys"] for entry in stage.secure_report()][-count:] == [["destroyed", "destroyed"]] * count


def test_key_updates(stage: Stage) -> None:
    """s_client renews its key, alone (k) and asking for ours (K), before the handoff and after it."""
    with SClient(stage, TlsVersion.TLS13) as client:
        for answer in (stage.secure_answer, stage.answer, stage.answer):
            for letter in "kK":
                client.type(f"{letter}\n")
                client.wait_for(b"KEYUPDATE")
            client.get("/", answer)
        client.get("/bytes/10", bytes(next(content(10))))
        assert client.close() == 0
    found = stage.application_report()[-1]
    assert found["ended"] == "close_notify"
    assert max(found["last"]) < 8, "new keys begin with record 0"


@both
def test_a_client_that_closes_in_mid_handoff(stage: Stage, version: TlsVersion) -> None:
    """A client that goes while the other process is slow costs that connection alone; its keys are destroyed."""
    stage.secure_report(), stage.application_report()
    stage.scene.application.send_signal(signal.SIGSTOP)
    try:
        with Visitor(stage, version) as visitor:
            assert visitor.get("/") == stage.secure_answer
    finally:
        stage.scene.application.send_signal(signal.SIGCONT)
    with Visitor(stage, version) as visitor:
        assert (visitor.get("/"), visitor.get("/")) == (stage.secure_answer, stage.answer)
        visitor.end()
    assert [entry["keys"] for entry in stage.secure_report()] == [["destroyed", "destroyed"]] * 2
    left, stayed = stage.application_report()
    assert left["ended"] in {"TlsTruncatedError", "TlsConnectionError"}
    assert (stayed["ended"], stayed["requests"]) == ("close_notify", 1)


@both
def test_a_request_behind_the_handshake(rsa_stage: Stage, version: TlsVersion) -> None:
    """Bytes that came with the end of the handshake, and which the library has read, go along and are answered."""
    rsa_stage.application_report()
    with MemoryClient(rsa_stage, version) as client:
        client.handshake()
        request = client.get("/")  # in TLS 1.3 in one segment with the client's Finished
        client.socket.sendall(request)
        assert client.read_until(rsa_stage.answer)
    (found,) = rsa_stage.application_report()
    assert bool(found["unread"]) is (version is TlsVersion.TLS13)


WRONG = {
    "changed": (lambda record: record[:-1] + bytes([record[-1] ^ 1]), "bad record mac"),
    "twice": (lambda record: record + record, "bad record mac"),
    "too long": (lambda record: record[:3] + b"\xff\xff" + record[5:], "record overflow"),
    "unknown type": (lambda record: b"\x63" + record[1:], "unexpected message"),
    "cut off": (lambda record: record[:-3], "decode error"),
}


@both
@pytest.mark.parametrize(("change", "alert"), WRONG.values(), ids=list(WRONG))
def test_a_wrong_record(stage: Stage, version: TlsVersion, change: Callable[[bytes], bytes], alert: str) -> None:
    """A wrong record is answered by the application process with the RFC's alert, as OpenSSL reads it."""
    with MemoryClient(stage, version) as client:
        client.handshake()
        client.socket.sendall(client.get("/"))
        client.read_until(stage.secure_answer)
        client.socket.sendall(client.get("/"))
        client.read_until(stage.answer)
        client.socket.sendall(change(client.get("/")))
        client.socket.shutdown(socket.SHUT_WR)
        with pytest.raises(ssl.SSLError) as told:
            client.read_until(b"never")
    assert alert in str(told.value).lower().replace("_", " ")
    assert stage.application_report()[-1]["ended"] in {"TlsAlertError", "TlsTruncatedError"}


@both
def test_the_secure_process_forgets(module_cli: Cli, version: TlsVersion) -> None:
    """Record keys and traffic secrets are in the secure process while it serves, and are not after the handoff.

    The secrets are those that the client wrote into its key log; the keys are computed from them without our code. What
    is found first shows that the search finds what is there.
    """
    with open_stage(module_cli, "ec:p-256", 2) as stage, Relay(stage.port) as relay:
        log = stage.file("keys")
        with Visitor(stage, version, port=relay.port, key_log=log) as visitor:
            assert visitor.get("/") == stage.secure_answer
            (capture,) = relay.captures
            suite = CipherSuite[visitor.suite]
            sides = directions(suite, read_key_log(log.read_text()), bytes(capture.up), bytes(capture.down))
            needles = {
                f"{number} {name}": getattr(side, name)
                for number, side in enumerate(sides)
                for name in ("key", "secret")
            }
            before = count_in_memory(stage.scene.secure.pid, needles)
            assert visitor.get("/") == stage.secure_answer
            assert visitor.get("/") == stage.answer
            (said,) = stage.secure_report()
            after = count_in_memory(stage.scene.secure.pid, needles)
            there = count_in_memory(stage.scene.application.pid, needles)
    assert said["keys"] == ["destroyed", "destroyed"]
    if before is None or after is None or there is None:
        pytest.skip("the system does not let us look into a process")
    # In TLS 1.2 the master secret has done its work when the keys are there.
    assert all(count for name, count in before.items() if version is TlsVersion.TLS13 or name.endswith("key"))
    assert not any(after.values())
    assert there["0 key"]
