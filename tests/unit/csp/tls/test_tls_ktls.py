"""kTLS: the structure that the kernel takes, against the C header, and against a kernel that has it."""

from __future__ import annotations

import contextlib
import errno
import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hsmbridge_csp.errors import KeyStateError, PermissionDeniedError
from hsmbridge_csp.modes import Direction
from hsmbridge_csp.permissions import DEFAULT, Permission
from hsmbridge_csp.tls import CipherSuite, ContentType, TlsRecordKey, TlsRecordState
from hsmbridge_csp.tls.ktls import SOL_TLS, TCP_ULP, TLS_RX, TLS_TX, offload

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER = Path("/usr/include/linux/tls.h")
SUITES = {
    CipherSuite.TLS_AES_128_GCM_SHA256: ("1_3", "aes_gcm_128", "AES_GCM_128"),
    CipherSuite.TLS_AES_256_GCM_SHA384: ("1_3", "aes_gcm_256", "AES_GCM_256"),
    CipherSuite.TLS_CHACHA20_POLY1305_SHA256: ("1_3", "chacha20_poly1305", "CHACHA20_POLY1305"),
    CipherSuite.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256: ("1_2", "aes_gcm_128", "AES_GCM_128"),
    CipherSuite.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384: ("1_2", "aes_gcm_256", "AES_GCM_256"),
    CipherSuite.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256: ("1_2", "chacha20_poly1305", "CHACHA20_POLY1305"),
}
SEQUENCE = 0x0102
every_suite = pytest.mark.parametrize("suite", list(SUITES), ids=lambda suite: suite.name)


def key_of(suite: CipherSuite, direction: Direction = Direction.ENCRYPT) -> TlsRecordKey:
    """Make a key of bytes 1, 2, 3, … and an IV of bytes 0x41, 0x42, …."""
    form = suite.form
    iv = bytes(range(0x41, 0x41 + form.iv_size))
    state = TlsRecordState(suite=suite, direction=direction, iv=iv, sequence=SEQUENCE)
    return TlsRecordKey(bytearray(range(1, 1 + form.key_size)), state)


def c_program() -> str:
    """Return a program that fills each structure by the names of its members and writes its bytes.

    The nonce that the kernel makes is salt and iv, so the fixed IV is spread over the two; in TLS 1.2 with GCM it has
    only the salt, and iv is the explicit nonce of the next record.
    """
    blocks = []
    for suite, (version, struct, cipher) in SUITES.items():
        split = suite.form.iv_size == 4
        blocks.append(f"""
    {{
        struct tls12_crypto_info_{struct} info = {{.info = {{TLS_{version}_VERSION, TLS_CIPHER_{cipher}}}}};
        unsigned char fixed[12] = {{0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x4b, 0x4c}};
        unsigned char next[8] = {{0, 0, 0, 0, 0, 0, 1, 2}};
        for (size_t i = 0; i < sizeof info.key; i++) info.key[i] = i + 1;
        memcpy(info.salt, fixed, sizeof info.salt);
        memcpy(info.iv, {"next" if split else "fixed + sizeof info.salt"}, sizeof info.iv);
        memcpy(info.rec_seq, next, sizeof info.rec_seq);
        for (size_t i = 0; i < sizeof info; i++) printf("%02x", ((unsigned char *)&info)[i]);
        puts("");
    }}""")
    includes = "\n".join(f"#include <{name}>" for name in ("linux/tls.h", "stdio.h", "string.h"))
    return f'{includes}\nint main(void)\n{{{"".join(blocks)}\n    printf("%d %d\\n", TLS_TX, TLS_RX);\n}}\n'


@pytest.fixture(scope="module")
def from_c(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the program prints, line by line."""
    compiler = shutil.which("cc")
    if compiler is None or not HEADER.exists():
        pytest.skip(f"needs a C compiler and {HEADER}")
    folder = tmp_path_factory.mktemp("ktls")
    (folder / "info.c").write_text(c_program(), "utf-8")
    subprocess.run([compiler, "-Wall", "-Werror", "-o", folder / "info", folder / "info.c"], check=True)
    return subprocess.run([folder / "info"], capture_output=True, text=True, check=True).stdout.splitlines()


@every_suite
def test_the_structure_is_the_headers(suite: CipherSuite, from_c: list[str]) -> None:
    """Byte for byte what a C program writes through <linux/tls.h>."""
    assert key_of(suite).ktls_info().hex() == from_c[list(SUITES).index(suite)]
    assert from_c[-1] == f"{TLS_TX} {TLS_RX}"


@every_suite
def test_the_key_stops(suite: CipherSuite) -> None:
    """Who has the structure has the key: it is frozen here, and goes on only if the kernel did not take it."""
    key = key_of(suite)
    key.ktls_info()
    with pytest.raises(KeyStateError, match="frozen"):
        key.seal(ContentType.APPLICATION_DATA, b"the kernel's nonce")
    with pytest.raises(KeyStateError, match="frozen"):
        key.ktls_info()
    key.thaw()
    key.seal(ContentType.APPLICATION_DATA, b"text")
    key.permissions = DEFAULT & ~Permission.EXPORT
    with pytest.raises(PermissionDeniedError):
        key.ktls_info()


def test_cbc_is_not_the_kernels() -> None:
    """The kernel has AEADs only; the key stays usable."""
    suite = CipherSuite.TLS_RSA_WITH_AES_128_CBC_SHA
    state = TlsRecordState(suite=suite, direction=Direction.ENCRYPT, iv=b"", encrypt_then_mac=True)
    key = TlsRecordKey(bytearray(36), state)
    with pytest.raises(KeyStateError, match="does not do"):
        key.ktls_info()
    key.seal(ContentType.APPLICATION_DATA, b"text")


@pytest.fixture
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP connection to ourselves."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname(), timeout=20)
        other, _ = server.accept()
    with one, other:
        other.settimeout(20)
        yield one, other


def has_ktls(sock: socket.socket) -> bool:
    """Ask the kernel itself."""
    try:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
    except OSError as error:
        return error.errno == errno.EEXIST
    return True


def test_a_kernel_without_ktls_leaves_the_key(connected: tuple[socket.socket, socket.socket]) -> None:
    """Offload says no, and the next record is the one whose turn it was."""
    key = key_of(CipherSuite.TLS_AES_128_GCM_SHA256)
    if offload(connected[0], key):
        pytest.skip("this kernel has kTLS")
    assert not key.frozen
    record = key.seal(ContentType.APPLICATION_DATA, b"text")
    opener = key_of(CipherSuite.TLS_AES_128_GCM_SHA256, Direction.DECRYPT)
    assert opener.open(record) == (ContentType.APPLICATION_DATA, b"text")


def test_offload_wants_a_tcp_connection() -> None:
    """Another socket is an error of the caller's, and the key goes on."""
    key = key_of(CipherSuite.TLS_AES_128_GCM_SHA256)
    one, other = socket.socketpair()
    with one, other, contextlib.suppress(OSError):
        assert not offload(one, key)
    assert not key.frozen


@every_suite
def test_the_kernel_goes_on(connected: tuple[socket.socket, socket.socket], suite: CipherSuite) -> None:
    """After a record of ours the kernel seals the next, which our other key opens; and the other way round."""
    one, other = connected
    writer, reader = key_of(suite), key_of(suite, Direction.DECRYPT)
    one.sendall(writer.seal(ContentType.APPLICATION_DATA, b"from us"))
    if not offload(one, writer):
        assert not has_ktls(one) or suite.form.version > 0x0303, "the kernel has kTLS, and did not take our structure"
        pytest.skip("this kernel has no kTLS, or not this version or cipher")
    one.sendall(b"from the kernel")
    stream = other.makefile("rb")
    for expected in (b"from us", b"from the kernel"):
        header = stream.read(5)
        assert reader.open(header + stream.read(int.from_bytes(header[3:], "big")))[1] == expected
    assert one.getsockopt(SOL_TLS, TLS_TX, 4) == writer_head(suite)
    answer, listening = key_of(suite), key_of(suite, Direction.DECRYPT)
    assert offload(one, listening)
    other.sendall(answer.seal(ContentType.APPLICATION_DATA, b"to the kernel"))
    assert one.recv(100) == b"to the kernel"


def writer_head(suite: CipherSuite) -> bytes:
    """Return version and cipher, with which the structure begins."""
    return key_of(suite).ktls_info()[:4]
