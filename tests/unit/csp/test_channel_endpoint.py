"""Where a channel begins: sockets in directories, and real processes at the other end."""

from __future__ import annotations

import json
import os
import select
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hsmbridge_csp.channel import Channel, Frame, Listener, Side, connect
from hsmbridge_csp.channel.errors import (
    ChannelClosedError,
    ChannelError,
    ChannelTimeoutError,
    ChannelUsageError,
    NoListenerError,
    PeerClosedError,
    PeerGoneError,
    SocketBusyError,
    UnsafeSocketError,
    WrongUserError,
)

from tests.support.channels import ALICE, BOB, descriptors, terms

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[3]
NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a socket may lie, in a directory that is not there yet."""
    return tmp_path / "run" / "handoff.sock"


@contextmanager
def child(act: str, path: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the receiver in a process of its own, and end it."""
    identity = tmp_path / "bob.pem"
    identity.write_bytes(BOB.to_pem())
    identity.chmod(0o600)
    command = [
        sys.executable,
        "-m",
        "tests.support.channel_child",
        act,
        str(path),
        str(identity),
        ALICE.fingerprint.hex(),
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Read the next line that a child says."""
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    assert line, process.stderr.read()
    document: dict[str, Any] = json.loads(line)
    return document


def while_it_lasts(channel: Channel) -> None:
    """Receive until that is an error."""
    while True:
        channel.receive()


def test_two_processes(path: Path, tmp_path: Path) -> None:
    """A listener in another process: it is who the kernel says, has our transcript, and gets a pipe to write into."""
    with child("serve", path, tmp_path) as process:
        assert said(process) == {"pid": process.pid}
        with connect(path, terms(Side.SENDER)) as channel:
            assert said(process) == {"pid": process.pid, "peer": os.getpid(), "transcript": channel.transcript.hex()}
            assert (channel.peer.pid, channel.peer.uid) == (process.pid, os.geteuid())
            assert channel.peer.fingerprint == BOB.fingerprint
            reading, writing = os.pipe()
            channel.send(16, b"key", [writing])
            os.close(writing)
            assert channel.receive() == Frame(17, b"yek")
            with pytest.raises(PeerClosedError):
                channel.receive()
        assert os.read(reading, 100) == b"written by the other process"
        os.close(reading)
        assert process.wait(20) == 0
    assert not path.exists()


def test_the_sender_may_listen(path: Path, tmp_path: Path) -> None:
    """Who listens and who sends keys are two things; who connects may be there first."""
    with child("connect", path, tmp_path) as process, Listener(path) as listener:
        with listener.accept(terms(Side.SENDER), 20) as channel:
            assert channel.peer.pid == process.pid
            channel.send(16, b"key")
            assert channel.receive() == Frame(17, b"yek")
        assert process.wait(20) == 0


def test_a_peer_that_is_killed_is_gone(path: Path, tmp_path: Path) -> None:
    """SIGKILL while the peer says nothing: an error at once, not after a timeout, and no orderly end."""
    with child("sleep", path, tmp_path) as process:
        said(process)
        with connect(path, terms(Side.SENDER, timeout=20.0)) as channel:
            said(process)
            killer = threading.Timer(0.2, process.kill)
            killer.start()
            with pytest.raises(PeerGoneError, match="without closing"):
                channel.receive()
            killer.join()
            assert channel.closed


def test_a_peer_that_is_killed_in_a_frame_is_gone(path: Path, tmp_path: Path) -> None:
    """SIGKILL while a large frame is on its way: the part that came is not delivered."""
    with child("flood", path, tmp_path) as process:
        said(process)
        with connect(path, terms(Side.SENDER, timeout=20.0)) as channel:
            said(process)
            assert channel.receive() == Frame(17, bytes(1 << 20))
            # More than the kernel buffers: once a frame has begun to come, the child is stuck in it.
            assert select.select([channel._wire._connection], [], [], 20)[0]  # noqa: SLF001 - to see that it comes
            process.kill()
            process.wait(20)
            with pytest.raises(PeerGoneError, match="in the middle of a frame"):
                while_it_lasts(channel)


def test_a_dead_listeners_socket_is_replaced(path: Path, tmp_path: Path) -> None:
    """A listener that is alive is left alone, and hears nothing of it; the socket of a killed one is replaced."""
    with child("hold", path, tmp_path) as process:
        said(process)
        with pytest.raises(SocketBusyError):
            Listener(path)
        assert path.is_socket()
        process.kill()
        process.wait(20)
    assert path.is_socket()
    with pytest.raises(NoListenerError):
        connect(path, terms(Side.SENDER))
    with Listener(path):
        assert path.is_socket()
    assert not path.exists()


def test_the_probe_of_another_listener_is_not_heard(path: Path) -> None:
    """Others that would like to listen there leave no connection in the queue."""
    with Listener(path) as listener:
        for _ in range(3):
            with pytest.raises(SocketBusyError):
                Listener(path)
        with pytest.raises(ChannelTimeoutError, match="nobody connected"):
            listener.accept(terms(Side.RECEIVER), 0.1)


def test_of_racing_listeners_one_wins(path: Path) -> None:
    """Sixteen threads find the socket of a dead listener: one replaces it, the others are refused."""
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listeners: list[Listener] = []
    refused: list[BaseException] = []
    start = threading.Barrier(16)

    def race() -> None:
        start.wait()
        try:
            listeners.append(Listener(path))
        except SocketBusyError as error:
            refused.append(error)

    threads = [threading.Thread(target=race) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(listeners), len(refused)) == (1, 15)
    listeners[0].close()
    assert not path.exists()


def test_modes(path: Path) -> None:
    """The directory is made with mode 700 and the socket with 600, whatever the umask."""
    before = os.umask(0)
    try:
        with Listener(path):
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o720, 0o704, 0o755, 0o777])
def test_a_directory_that_others_may_enter_is_refused(path: Path, mode: int) -> None:
    """Both ends refuse; nothing is made there, and the directory is not changed."""
    with Listener(path) as listener:
        path.parent.chmod(mode)
        with pytest.raises(UnsafeSocketError):
            connect(path, terms(Side.SENDER))
        listener.close()
    with pytest.raises(UnsafeSocketError):
        Listener(path)
    assert list(path.parent.iterdir()) == []
    assert stat.S_IMODE(path.parent.stat().st_mode) == mode


@needs_root
def test_a_directory_of_somebody_else_is_refused(path: Path) -> None:
    """Mode 700 is not enough: the owner could exchange the socket."""
    path.parent.mkdir(mode=0o700)
    os.chown(path.parent, NOBODY, NOBODY)
    with pytest.raises(UnsafeSocketError):
        Listener(path)
    with pytest.raises(UnsafeSocketError):
        connect(path, terms(Side.SENDER))
    with pytest.raises(NoListenerError):
        connect(path, terms(Side.SENDER, uids=frozenset({NOBODY})))


@needs_root
def test_another_user_who_gets_in_is_refused() -> None:
    """Somebody opens directory and socket to all: the kernel still says who connects."""
    path = Path(tempfile.mkdtemp()) / "handoff.sock"  # pytest's own directories let nobody pass
    program = (
        "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "print(len(s.recv(100)))"
    )
    with Listener(path) as listener:
        path.parent.chmod(0o711)
        path.chmod(0o666)
        with subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE, text=True) as process:
            with pytest.raises(WrongUserError, match="65534"):
                listener.accept(terms(Side.RECEIVER), 20)
            assert process.communicate(timeout=20)[0] == "0\n"
    path.parent.rmdir()


def test_a_link_is_checked_for_what_it_leads_to(path: Path, tmp_path: Path) -> None:
    """A directory behind a symbolic link counts as itself."""
    (tmp_path / "open").mkdir(mode=0o755)
    path.parent.symlink_to(tmp_path / "open")
    with pytest.raises(UnsafeSocketError):
        Listener(path)


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("/nowhere")])
def test_what_is_no_socket_is_left_alone(path: Path, make: Any) -> None:  # noqa: ANN401 - anything that makes a file
    """A file, a directory or a link in its place is neither removed nor followed."""
    path.parent.mkdir(mode=0o700)
    make(path)
    before = path.lstat()
    with pytest.raises(UnsafeSocketError, match="no socket"):
        Listener(path)
    assert path.lstat() == before


def test_only_ones_own_socket_is_removed(path: Path) -> None:
    """Somebody of the same user replaces the socket: closing the first listener leaves the second's."""
    first = Listener(path)
    path.unlink()
    with Listener(path):
        first.close()
        assert path.is_socket()
    assert not path.exists()


def test_nobody_listens(path: Path) -> None:
    """No directory, and no socket, are the same typed error; names that are none are told."""
    for _ in range(2):
        with pytest.raises(NoListenerError):
            connect(path, terms(Side.SENDER))
        path.parent.mkdir(mode=0o700, exist_ok=True)
    with pytest.raises(NoListenerError):
        Listener(path.parent / "no" / "such" / "parent")
    with pytest.raises(ChannelUsageError):
        Listener(Path("/"))
    with pytest.raises(UnsafeSocketError, match="cannot make"):
        Listener(path.parent / ("x" * 120))


def test_a_long_path_is_none(tmp_path: Path) -> None:
    """The limit of 107 bytes for a socket's path is for its name only: deep directories work."""
    directory = tmp_path / ("d" * 100) / ("e" * 100)
    directory.mkdir(parents=True, mode=0o700)
    with Listener(directory / "s") as listener:
        found: list[Channel] = []
        thread = threading.Thread(target=lambda: found.append(connect(directory / "s", terms(Side.SENDER))))
        thread.start()
        with listener.accept(terms(Side.RECEIVER), 5) as channel:
            thread.join()
            assert channel.transcript == found[0].transcript
            found[0].abort()


def test_a_listener_survives_bad_peers(path: Path) -> None:
    """One who says nothing and one who says nonsense are refused; the next one gets the channel."""
    with Listener(path) as listener:
        with socket.socket(socket.AF_UNIX) as silent:
            silent.connect(str(path))
            with pytest.raises(ChannelTimeoutError):
                listener.accept(terms(Side.RECEIVER, handshake_timeout=0.1), 1)
        with socket.socket(socket.AF_UNIX) as loud:
            loud.connect(str(path))
            loud.send(b"\xff" * 100)
            with pytest.raises(ChannelError):
                listener.accept(terms(Side.RECEIVER), 1)
        found: list[Channel] = []
        thread = threading.Thread(target=lambda: found.append(connect(path, terms(Side.SENDER))))
        thread.start()
        with listener.accept(terms(Side.RECEIVER), 5) as channel:
            thread.join()
            found[0].send(16, b"key")
            assert channel.receive().payload == b"key"
            found[0].abort()


def test_a_listener_that_never_accepts_holds_up_nobody(path: Path) -> None:
    """Half-open: the connection is there, but nobody shakes hands."""
    with Listener(path), pytest.raises(ChannelTimeoutError):
        connect(path, terms(Side.SENDER, handshake_timeout=0.2))


def test_a_full_queue_holds_up_nobody(path: Path) -> None:
    """When the kernel takes no more connections, that is a timeout too."""
    waiting = []
    with Listener(path):
        try:
            while True:
                each = socket.socket(socket.AF_UNIX)
                waiting.append(each)
                each.settimeout(0)
                each.connect(str(path))
        except BlockingIOError:
            pass
        with pytest.raises(ChannelTimeoutError, match="accepts nobody"):
            connect(path, terms(Side.SENDER, handshake_timeout=0.1))
        for each in waiting:
            each.close()


def test_a_closed_listener(path: Path) -> None:
    """It accepts nobody, closes once, and leaves no descriptor, whether it came to be or not."""
    before = descriptors()
    listener = Listener(path)
    listener.close()
    listener.close()
    with pytest.raises(ChannelClosedError):
        listener.accept(terms(Side.RECEIVER), 0)
    path.touch()
    with pytest.raises(UnsafeSocketError):
        Listener(path)
    assert descriptors() == before
    assert str(path) in repr(listener)
