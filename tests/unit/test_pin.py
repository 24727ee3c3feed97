"""Where the PIN comes from, who may see it, and what is refused."""

from __future__ import annotations

import copy
import os
import pickle
import pty
import select
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import hsmbridge
from hsmbridge.errors import HsmbridgeError, InputError, LoginError, PolicyError, UriError, UsageError
from hsmbridge.pin import (
    MAX_PIN_BYTES,
    PIN_PAD,
    PIN_VARIABLE,
    Pin,
    PinFileError,
    PinPad,
    PinPermissionError,
    read_pin_file,
    resolve_pin,
)
from hsmbridge.uri import Pkcs11Uri, parse_uri

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(hsmbridge.__file__).parents[1]
# Prints the PIN that comes in on standard input, then whatever the library left there.
STDIN_PROGRAM = """
import os
from hsmbridge.errors import HsmbridgeError
from hsmbridge.pin import read_pin_file
try:
    print("pin:" + read_pin_file("-").reveal(), flush=True)
except HsmbridgeError as error:
    print(type(error).__name__, flush=True)
if not os.isatty(0):
    print("left:" + os.read(0, 10000).decode())
"""


@pytest.fixture
def pin_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a file with given bytes and mode."""

    def write(content: bytes = b"1234\n", *, mode: int = 0o600, name: str = "pin") -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        path.chmod(mode)
        return path

    return write


def _revealed(pin: Pin | PinPad) -> str:
    assert isinstance(pin, Pin)
    return pin.reveal()


def test_order_of_sources(pin_file: Callable[..., Path]) -> None:
    """PIN file, pin-source, environment, PIN pad, prompt: each is used only when all before it are missing."""
    uri = Pkcs11Uri(pin_source=str(pin_file(b"from uri", name="b")))
    path = pin_file(b"from file", name="a")
    environ = {PIN_VARIABLE: "from environment"}

    def prompt() -> str:
        return "from prompt"

    everything = resolve_pin(pin_file=path, uri=uri, environ=environ, protected_path=True, prompt=prompt)
    assert _revealed(everything) == "from file"
    assert _revealed(resolve_pin(uri=uri, environ=environ, protected_path=True, prompt=prompt)) == "from uri"
    assert _revealed(resolve_pin(environ=environ, protected_path=True, prompt=prompt)) == "from environment"
    assert resolve_pin(environ={}, protected_path=True, prompt=prompt) is PIN_PAD
    assert _revealed(resolve_pin(environ={}, prompt=prompt)) == "from prompt"


def test_no_source_at_all() -> None:
    """Without any source it is a LoginError whose hint lists them; no CKR is made up for it."""
    with pytest.raises(LoginError) as caught:
        resolve_pin(uri=parse_uri("pkcs11:token=a"), environ={"PIN": "1234"})
    assert caught.value.ckr is None
    for source in ("--pin-file", "pin-source", PIN_VARIABLE):
        assert source in str(caught.value.hint)


def test_a_source_that_fails_is_not_skipped(tmp_path: Path) -> None:
    """A named file that is missing is an error, even where the environment has a PIN."""
    with pytest.raises(UsageError):
        resolve_pin(pin_file=tmp_path / "missing", environ={PIN_VARIABLE: "1234"})


def test_empty_variable_counts_as_not_set() -> None:
    """PKCS11_PIN= is how container tools say that there is none."""
    assert resolve_pin(environ={PIN_VARIABLE: ""}, protected_path=True) is PIN_PAD


def test_pin_in_the_uri_is_refused(pin_file: Callable[..., Path]) -> None:
    """A pin-value is refused whatever else is given, without showing it, and the hint says where a PIN belongs."""
    with pytest.raises(UsageError, match="pin-value") as caught:
        resolve_pin(pin_file=pin_file(), uri=parse_uri("pkcs11:?pin-value=s3cret"), environ={})
    assert "s3cret" not in f"{caught.value} {caught.value.hint}"
    assert "--pin-file" in str(caught.value.hint)


@pytest.mark.parametrize("value", ["12\0", "1\n2", "x" * (MAX_PIN_BYTES + 1), "12\udcff"])
def test_bad_pins_from_environment_and_prompt(value: str) -> None:
    """What cannot be a PIN is a LoginError that names the source and not the value."""
    for environ, prompt in (({PIN_VARIABLE: value}, None), ({}, lambda: value)):
        with pytest.raises(LoginError) as caught:
            resolve_pin(environ=environ, prompt=prompt)
        assert value not in str(caught.value)
        assert caught.value.hint


def test_empty_answer_to_the_prompt() -> None:
    """No PIN is typed: a LoginError, not a login with an empty PIN."""
    with pytest.raises(LoginError):
        resolve_pin(environ={}, prompt=str)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"1234", "1234"),
        (b"1234\n", "1234"),
        (b"1234\r\n", "1234"),
        (b" 12 34 ", " 12 34 "),
        ("p\u00efn\n".encode(), "p\u00efn"),
        (b"x" * MAX_PIN_BYTES, "x" * MAX_PIN_BYTES),
        (b"x" * MAX_PIN_BYTES + b"\r\n", "x" * MAX_PIN_BYTES),
    ],
)
def test_pin_file_content(pin_file: Callable[..., Path], content: bytes, expected: str) -> None:
    """One line end is dropped, blanks are part of the PIN, and the limit does not count the line end."""
    assert read_pin_file(pin_file(content)).reveal() == expected


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty"),
        (b"\n", "empty"),
        (b"\r\n", "empty"),
        (b"12\n34\n", "more than one line"),
        (b"s3cret\n\n", "more than one line"),
        (b"12\r34", "more than one line"),
        (b"12\x0034", "NUL"),
        (b"s3cret\xff", "UTF-8"),
        (b"x" * (MAX_PIN_BYTES + 1), "longer"),
        (b"x" * 100_000, "longer"),
    ],
)
def test_malformed_pin_files(pin_file: Callable[..., Path], content: bytes, what: str) -> None:
    """A file that does not hold one PIN is bad input: it says why, names the file, and shows nothing of it."""
    path = pin_file(content)
    with pytest.raises(PinFileError, match=what) as caught:
        read_pin_file(path)
    assert str(path) in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__context__ is None
    assert caught.value.hint
    assert isinstance(caught.value, InputError)


@pytest.mark.parametrize("bit", [0o040, 0o020, 0o010, 0o004, 0o002, 0o001])
def test_files_open_to_others(pin_file: Callable[..., Path], bit: int) -> None:
    """Any permission for group or others is refused by policy, with the command that repairs it."""
    path = pin_file(mode=0o600 | bit)
    with pytest.raises(PinPermissionError) as caught:
        read_pin_file(path)
    assert isinstance(caught.value, PolicyError)
    assert f"chmod 600 {path}" in str(caught.value.hint)


def test_read_only_file(pin_file: Callable[..., Path]) -> None:
    """Mode 400 is as good as 600."""
    assert read_pin_file(pin_file(mode=0o400)).reveal() == "1234"


def test_files_of_another_user(pin_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of another user is refused, since that user can change it; root's are good."""
    path = pin_file()
    if os.geteuid() == 0:
        os.chown(path, 54321, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(PinPermissionError, match="another user"):
        read_pin_file(path)


def test_link_to_an_open_file(pin_file: Callable[..., Path], tmp_path: Path) -> None:
    """A link is followed, and the file behind it is judged, since that is the one that is read."""
    (tmp_path / "good").symlink_to(pin_file(name="closed"))
    (tmp_path / "bad").symlink_to(pin_file(name="open", mode=0o644))
    assert read_pin_file(tmp_path / "good").reveal() == "1234"
    with pytest.raises(PinPermissionError):
        read_pin_file(tmp_path / "bad")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """Missing files, directories, devices, loops and impossible names are usage errors that name the file."""
    (tmp_path / "loop").symlink_to("loop")
    bad: list[str | Path] = [
        tmp_path / "missing",
        tmp_path,
        tmp_path / "loop",
        "",
        "/dev/null",
        "/proc/self/mem",
        "a\0b",
        "\ud800",
    ]
    for path in bad:
        with pytest.raises(UsageError) as caught:
            read_pin_file(path)
        assert repr(str(path)) in str(caught.value)
        assert caught.value.hint


def test_named_pipe(tmp_path: Path) -> None:
    """A named pipe with mode 600 works, as a password manager may use one."""
    path = tmp_path / "pipe"
    os.mkfifo(path, 0o600)
    writer = threading.Thread(target=path.write_bytes, args=(b"1234\n",))
    writer.start()
    try:
        assert read_pin_file(path).reveal() == "1234"
    finally:
        writer.join(timeout=30)


def test_open_named_pipe_is_refused(tmp_path: Path) -> None:
    """A named pipe that others can read is refused as a file would be."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    path.chmod(0o644)
    writer = os.open(path, os.O_RDWR)
    try:
        with pytest.raises(PinPermissionError):
            read_pin_file(path)
    finally:
        os.close(writer)


def test_process_substitution() -> None:
    """``--pin-file <(command)``: the shell hands over /dev/fd/N, which is a pipe of ours."""
    reader, writer = os.pipe()
    try:
        os.write(writer, b"1234\n")
        os.close(writer)
        assert read_pin_file(f"/dev/fd/{reader}").reveal() == "1234"
    finally:
        os.close(reader)


@pytest.mark.parametrize("form", ["{}", "file:{}", "file://{}", "file://localhost{}", "FILE:{}"])
def test_pin_source_forms(pin_file: Callable[..., Path], form: str) -> None:
    """A pin-source is an absolute path or a file: URI (RFC 7512 section 2.4, RFC 8089 section 2)."""
    uri = Pkcs11Uri(pin_source=form.format(pin_file()))
    assert _revealed(resolve_pin(uri=uri, environ={})) == "1234"


def test_escapes_in_a_pin_source(pin_file: Callable[..., Path]) -> None:
    """A file: URI inside the pkcs11: URI has escapes of its own; a plain path has none."""
    path = pin_file(name="a b%20c")
    inner = str(path).replace("%", "%25").replace(" ", "%20")
    assert _revealed(resolve_pin(uri=Pkcs11Uri(pin_source=f"file:{inner}"), environ={})) == "1234"
    assert _revealed(resolve_pin(uri=Pkcs11Uri(pin_source=str(path)), environ={})) == "1234"
    outer = f"pkcs11:?pin-source=file:{inner.replace('%', '%25')}"
    assert _revealed(resolve_pin(uri=parse_uri(outer), environ={})) == "1234"


@pytest.mark.parametrize(
    "source",
    [
        "|/bin/cat /etc/pin",
        "|cat",
        "",
        "-",
        "pin.txt",
        "~/pin",
        "env:PIN",
        "file:",
        "file:pin",
        "file:///",
        "file://server/pin",
        "file:////server/pin",
        "file:/a%2",
        "file:/a%GG",
        "file:/a?b",
        "file:/a#b",
        "https://example.org/pin",
        "builtin-dialog",
    ],
)
def test_pin_sources_that_are_not_served(source: str, tmp_path: Path) -> None:
    """Commands are never run; relative, remote and unknown forms are refused with a hint."""
    uri = Pkcs11Uri(pin_source=source)
    expected = UsageError if source == "file:///" else UriError  # the root directory is a path, though no file
    with pytest.raises(expected) as caught:
        resolve_pin(uri=uri, environ={PIN_VARIABLE: "1234"})
    assert caught.value.hint
    assert not list(tmp_path.iterdir())


def test_pin_source_with_nul_in_its_path() -> None:
    """An escaped NUL does not cut a path short."""
    with pytest.raises(UsageError):
        resolve_pin(uri=Pkcs11Uri(pin_source="file:/dev/null%00x"), environ={})


def _run_with_input(data: bytes) -> str:
    done = subprocess.run(
        [sys.executable, "-c", STDIN_PROGRAM], input=data, stdout=subprocess.PIPE, cwd=ROOT, check=True, timeout=60
    )
    return done.stdout.decode()


def test_first_line_of_standard_input() -> None:
    """``-`` takes the first line of standard input and leaves the rest for whoever reads next."""
    assert _run_with_input(b"1234\r\nthe rest\n") == "pin:1234\nleft:the rest\n\n"


@pytest.mark.parametrize("data", [b"", b"\nafter\n", b"12\x00\n", b"\xff\n", b"x" * 5000])
def test_bad_standard_input(data: bytes) -> None:
    """Empty, endless and malformed lines are bad input, as in a file."""
    assert _run_with_input(data).startswith("PinFileError\n")


def test_closed_standard_input() -> None:
    """Without a standard input there is an error and no traceback."""
    program = "import os; os.close(0)\n" + STDIN_PROGRAM.split("if not", maxsplit=1)[0]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, cwd=ROOT, check=True, timeout=60)
    assert done.stdout == b"UsageError\n"


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _echoes(terminal: int) -> bool:
    return bool(termios.tcgetattr(terminal)[3] & termios.ECHO)


def test_typed_pin_is_not_echoed() -> None:
    """On a terminal the PIN does not appear, and the terminal is afterwards as before."""
    controller, terminal = pty.openpty()
    try:
        before = termios.tcgetattr(terminal)
        assert _echoes(terminal)
        command = [sys.executable, "-c", STDIN_PROGRAM]
        with subprocess.Popen(command, stdin=terminal, stdout=subprocess.PIPE, cwd=ROOT) as process:
            _wait_for(lambda: not _echoes(terminal))
            os.write(controller, b"53cr3t\n")
            output, _ = process.communicate(timeout=30)
        assert output == b"pin:53cr3t\n"
        assert termios.tcgetattr(terminal) == before
        shown = b""
        while select.select([controller], [], [], 0.1)[0]:
            shown += os.read(controller, 1000)
        assert shown.strip() == b""
    finally:
        os.close(controller)
        os.close(terminal)


def test_pin_shows_itself_to_nobody() -> None:
    """A PIN is in no text form of its holder, nor in that of a container."""
    pin = Pin("s3cret", source="a test")
    shown = f"{pin} {pin!r} {[pin]} {pin.__slots__}"
    assert "s3cret" not in shown
    assert "a test" in shown
    assert pin.reveal() == "s3cret"


def test_pin_is_not_copied_out() -> None:
    """A PIN is not pickled, copied, hashed or turned into a dictionary."""
    pin = Pin("1234")
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy, hash, vars):
        with pytest.raises(TypeError):
            attempt(pin)


def test_equality() -> None:
    """PINs are equal by value alone; a PIN never equals its text."""
    assert Pin("1234", source="a") == Pin(b"1234", source="b")
    assert Pin("1234") != Pin("1235")
    assert Pin("1234") != "1234"


def test_wiped_pin() -> None:
    """A wiped PIN cannot be revealed and equals none; wiping twice is harmless."""
    pin = Pin("1234")
    pin.wipe()
    pin.wipe()
    with pytest.raises(UsageError):
        pin.reveal()
    assert pin != Pin("1234")


@pytest.mark.parametrize("value", ["", "1\n", "1\0", b"\xff", "\ud800", "x" * (MAX_PIN_BYTES + 1)])
def test_what_is_no_pin(value: str | bytes) -> None:
    """The holder takes only what can be a PIN, whoever makes it, and does not show the rest."""
    with pytest.raises(UsageError) as caught:
        Pin(value)
    assert caught.value.__context__ is None


@given(st.text(max_size=MAX_PIN_BYTES + 2))
def test_any_text_as_a_pin(text: str) -> None:
    """Any text is either revealed unchanged or refused with a UsageError."""
    try:
        pin = Pin(text)
    except UsageError:
        return
    assert pin.reveal() == text
    assert repr(pin) == repr(Pin("another"))


@given(st.binary(max_size=MAX_PIN_BYTES + 10) | st.text().map(str.encode) | st.binary().map(b"1234\n".__add__))
@example(b"x" * MAX_PIN_BYTES + b"\n\n")
@example(b"x" * (MAX_PIN_BYTES + 1) + b"\r\n")
@example(b"\xc3\r\n")
def test_random_pin_files(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """A file of random bytes is its one line, decoded, or a PinFileError and nothing else."""
    path = tmp_path_factory.getbasetemp() / "random-pin"
    path.write_bytes(content)
    path.chmod(0o600)
    try:
        pin = read_pin_file(path)
    except PinFileError:
        return
    assert content in {pin.reveal().encode() + end for end in (b"", b"\n", b"\r\n")}


@given(st.text() | st.text().map("file:/nowhere/".__add__) | st.text("file:/%2 |~-").map("file:".__add__))
def test_random_pin_sources(source: str) -> None:
    """Any pin-source that names no PIN file is a typed error and nothing else."""
    try:
        uri = Pkcs11Uri(pin_source=source)
    except UriError:
        return
    with pytest.raises(HsmbridgeError):
        resolve_pin(uri=uri, environ={})
