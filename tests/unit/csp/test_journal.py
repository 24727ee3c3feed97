"""The journal: private, durable, one winner of each race; whatever is wrong with its file is one error."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hsmbridge_csp.handoff.errors import RefusedError
from hsmbridge_csp.handoff.recovery import Recovery
from hsmbridge_csp.handoff.sender import Sender
from hsmbridge_csp.journal import Entry, Journal, JournalError, KeyEntry, Owner, Phase, Role, journal_path
from hsmbridge_csp.journal import owner as owners

from hsmbridge.errors import HsmbridgeError, PolicyError
from tests.support.handoffs import Peer, Sides, record_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PROCESSES = 16


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "state" / "journal.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    """A journal."""
    with Journal(path) as opened:
        yield opened


def entry(**changes: Any) -> Entry:  # noqa: ANN401 - fields
    """Return an entry of round numbers."""
    fields: dict[str, Any] = {
        "handoff": bytes(16), "role": Role.RECEIVER, "phase": Phase.OFFERED, "peer": bytes(32), "nonce": bytes(32),
        "count": 2, "digest": bytes(32), "proof": b"", "bundle": "", "owner": Owner.current(), "created": 1,
        "statement": b"", "remark": "",
    }  # fmt: skip
    return Entry(**{**fields, **changes})


def keys(*blobs: bytes) -> list[KeyEntry]:
    """Return keys with these blob ids."""
    return [
        KeyEntry(position=number, blob=blob, place="memory", residency="software", evidence="held")
        for number, blob in enumerate(blobs)
    ]


# ---- the file


def test_it_is_private(path: Path, journal: Journal) -> None:
    """Directory 0700; the file and what SQLite puts beside it 0600, whatever the umask."""
    before = os.umask(0)
    try:
        journal.begin(entry())
        other = path.parent.parent / "other" / "journal.sqlite"
        with Journal(other) as second:
            second.begin(entry())
            for directory in (path.parent, other.parent):
                assert stat.S_IMODE(directory.stat().st_mode) == 0o700
                files = list(directory.iterdir())
                assert len(files) == 3, "the file, its write-ahead log and its index"
                assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    finally:
        os.umask(before)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_others_may_not_read_it(path: Path, mode: int) -> None:
    """A journal that somebody else may read or write is refused, with the command that mends it."""
    Journal(path).close()
    path.chmod(mode)
    with pytest.raises(PolicyError, match="not private") as caught:
        Journal(path)
    assert str(path) in str(caught.value.hint)


@pytest.mark.parametrize("kind", ["link", "directory", "pipe"])
def test_it_is_a_file(path: Path, kind: str) -> None:
    """A symbolic link, a directory or a pipe in its place is refused."""
    path.parent.mkdir(mode=0o700)
    if kind == "link":
        (path.parent / "elsewhere").touch(0o600)
        path.symlink_to(path.parent / "elsewhere")
    elif kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(path, 0o600)
    with pytest.raises((JournalError, PolicyError)):
        Journal(path)


def test_it_is_durable(journal: Journal) -> None:
    """Write-ahead log, and a sync with each transaction."""
    with journal.reading() as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database.execute("PRAGMA synchronous").fetchone() == (2,), "FULL"


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """HSMBRIDGE_STATE comes before XDG_STATE_HOME, that before ~/.local/state; each host has a file of its own."""
    name = f"journal-{os.uname().nodename}.sqlite"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("HSMBRIDGE_STATE", raising=False)
    assert journal_path() == tmp_path / ".local" / "state" / "hsmbridge" / name
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert journal_path() == tmp_path / "xdg" / "hsmbridge" / name
    monkeypatch.setenv("HSMBRIDGE_STATE", str(tmp_path / "given"))
    assert journal_path() == tmp_path / "given" / name


@pytest.mark.parametrize("version", [2, 99, -1])
def test_another_version(path: Path, version: int) -> None:
    """A journal of a later program is left alone, and said so."""
    Journal(path).close()
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version={version}")
    database.close()
    before = path.read_bytes()
    with pytest.raises(JournalError, match=f"version {version}") as caught:
        Journal(path)
    assert caught.value.hint
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["noise", "head", "middle", "cut", "tables"])
def test_a_corrupted_file(path: Path, damage: str) -> None:
    """Noise, a broken head, broken pages, half a file, missing tables: JournalError, at the latest when it is used."""
    with Journal(path) as opened:
        for number in range(40):
            opened.begin(entry(handoff=number.to_bytes(16, "big")), keys(number.to_bytes(16, "big")))
    raw = path.read_bytes()
    half = len(raw) // 2
    if damage == "tables":
        with sqlite3.connect(path) as database:
            database.execute("DROP TABLE handoff")
        database.close()
    else:
        path.write_bytes(
            {
                "noise": bytes(range(256)) * 64,
                "head": b"\xff" * 100 + raw[100:],
                "middle": raw[:4096] + b"\xa5" * (len(raw) - 4096),
                "cut": raw[:half],
            }[damage]
        )
    with pytest.raises(JournalError) as caught:
        use_all(path)
    assert str(path) in str(caught.value)
    assert caught.value.hint


def use_all(path: Path) -> None:
    """Open a journal and do everything with it."""
    with Journal(path) as opened:
        opened.entries()
        opened.keys(Role.RECEIVER, bytes(16))
        opened.begin(entry(handoff=b"a new one".ljust(16)), keys(b"a new one".ljust(16)))
        opened.advance(Role.RECEIVER, bytes(16), Phase.OFFERED, Phase.REFUSED)


@pytest.mark.parametrize(
    "change",
    ["phase='nonsense'", "role='nonsense'", "owner='nonsense'", "owner='1/2'", "owner='a/b/c'", "owner=x'ff'"],
)
def test_rows_that_make_no_sense(path: Path, change: str) -> None:
    """A row that no version of ours wrote is JournalError too, and no traceback."""
    with Journal(path) as opened:
        opened.begin(entry())
        with opened.transaction() as database:
            database.execute(f"UPDATE handoff SET {change}")  # noqa: S608 - the test's own words
        with pytest.raises(JournalError):
            opened.entries()


@contextmanager
def full_disk(tmp_path: Path, kilobytes: int) -> Iterator[Path]:
    """Mount a file system that small."""
    place = tmp_path / "small"
    place.mkdir(mode=0o700)
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system that is full")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k,mode=700", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no mount here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk(tmp_path: Path) -> None:
    """When the disk is full: JournalError, and what was written before is whole; with room again it goes on."""
    with full_disk(tmp_path, 400) as place:
        filler = place / "filler"
        with Journal(place / "journal.sqlite") as opened:
            assert opened.begin(entry())
            with filler.open("wb", 0) as file, pytest.raises(OSError, match="No space"):
                fill(lambda: file.write(bytes(4096)))
            with pytest.raises(JournalError, match=r"full|disk"):
                fill(lambda: begin_some(opened))
            known = opened.entries()
            assert known[0] == entry(owner=known[0].owner)
            filler.unlink()
            assert opened.advance(Role.RECEIVER, bytes(16), Phase.OFFERED, Phase.REFUSED, statement=b"tombstone")
        with Journal(place / "journal.sqlite") as opened:
            assert len(opened.entries()) == len(known)
            assert opened.entries()[0].statement == b"tombstone"


def fill(more: Callable[[], object]) -> None:
    """Do something again and again; what it raises ends it."""
    for _ in range(10_000):
        more()


def begin_some(journal: Journal) -> None:
    """Write down a handoff of one key."""
    name = os.urandom(16)
    journal.begin(entry(handoff=name), keys(name))


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """Let no file of this process become longer; the signal that says so is ignored by Python."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_sender_whose_journal_is_full(tmp_path: Path) -> None:
    """A journal that takes no intent: nothing is frozen and nothing leaves; with room again the key is handed over."""
    sides = Sides(tmp_path)
    key = record_key()
    with file_limit(4096):
        ends = sides.hand_over([key])
    assert isinstance(ends.sent, JournalError)
    assert key.seal(b"")
    assert sides.phases() == ([], [])
    assert sides.hand_over([key]).both()
    sides.close()


def test_a_receiver_whose_journal_is_full(tmp_path: Path) -> None:
    """A receiver that cannot write down what it was offered imports nothing, and the sender stays frozen in doubt."""
    sides = Sides(tmp_path)
    with sides.bob.journal.reading() as database:
        database.execute("PRAGMA max_page_count=1")  # which means: no more than there are
    with pytest.raises(JournalError, match="full"):
        fill(lambda: begin_some(sides.bob.journal))
    key = record_key()
    ends = sides.hand_over([key])
    assert isinstance(ends.received, JournalError)
    assert isinstance(ends.sent, HsmbridgeError)
    assert key.frozen
    (sent,) = sides.alice.journal.entries()
    assert sent.phase is Phase.SENT
    assert sides.bob.journal.entry(Role.RECEIVER, sent.handoff) is None
    sides.close()


def test_a_directory_that_may_not_be_written(tmp_path: Path) -> None:
    """A read-only directory: JournalError. A process without root's powers is asked, since root may write anywhere."""
    closed = tmp_path / "closed"
    closed.mkdir()
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from hsmbridge_csp.journal import Journal, JournalError\n"
        "os.chmod(sys.argv[1], 0o500)\n"
        "if os.geteuid() == 0:\n"
        "    os.chown(sys.argv[1], 65534, 65534)\n"
        "    os.setresuid(65534, 65534, 65534)\n"
        "for name in ('journal.sqlite', 'below/journal.sqlite'):\n"
        "    try:\n"
        "        Journal(Path(sys.argv[1], name))\n"
        "    except JournalError as error:\n"
        "        print(error.hint)\n"
    )
    # Root's own temporary directory is closed to others: what is below it is reached through the open directory.
    descriptor = os.open(closed, os.O_RDONLY | os.O_DIRECTORY)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, f"/proc/self/fd/{descriptor}"], pass_fds=[descriptor], capture_output=True,
            text=True, check=True, timeout=60,
        )  # fmt: skip
    finally:
        os.close(descriptor)
        closed.chmod(0o700)
    assert done.stdout.count("nothing is handed over without a journal") == 2, done.stderr
    assert list(closed.iterdir()) == []


# ---- compare and set


def test_a_handoff_begins_once(journal: Journal) -> None:
    """An id that this side has already is not written again; the other side's is another handoff."""
    assert journal.begin(entry(), keys(b"a"))
    assert not journal.begin(entry(nonce=b"other".ljust(32)), keys(b"b"))
    assert journal.begin(entry(role=Role.SENDER, phase=Phase.INTENT), keys(b""))
    assert journal.entry(Role.RECEIVER, bytes(16)) == entry(owner=Owner.current())
    assert [key.blob for key in journal.keys(Role.RECEIVER, bytes(16))] == [b"a"]
    assert journal.entry(Role.RECEIVER, bytes(15)) is None


def test_a_phase_changes_from_the_one_it_is_in(journal: Journal) -> None:
    """Of two who would go on from one phase the first does, and the second is told; nothing of his is written."""
    journal.begin(entry())
    assert not journal.advance(Role.RECEIVER, bytes(16), Phase.CLAIMED, Phase.IMPORTED, statement=b"receipt")
    assert not journal.advance(Role.SENDER, bytes(16), Phase.OFFERED, Phase.REFUSED, statement=b"x")
    assert not journal.advance(Role.RECEIVER, bytes(15), Phase.OFFERED, Phase.REFUSED, statement=b"x")
    assert journal.claim(bytes(16), keys(b"a", b"b"), bytes(32))
    assert not journal.claim(bytes(16), keys(b"c"), bytes(32))
    assert journal.advance(Role.RECEIVER, bytes(16), Phase.CLAIMED, Phase.IMPORTED, statement=b"receipt")
    either = (Phase.OFFERED, Phase.CLAIMED)
    assert not journal.advance(Role.RECEIVER, bytes(16), either, Phase.REFUSED, statement=b"tombstone")
    assert not journal.reopen(bytes(16))
    (found,) = journal.entries()
    assert (found.phase, found.statement) == (Phase.IMPORTED, b"receipt")
    assert [step[1:] for step in journal.steps(Role.RECEIVER, bytes(16))] == [
        ("offered", ""), ("claimed", ""), ("imported", ""),
    ]  # fmt: skip


def test_a_blob_is_claimed_once(journal: Journal) -> None:
    """A handoff with one blob that another has claimed claims none of its own; given up, it can be claimed again."""
    other = b"other".ljust(16)
    journal.begin(entry())
    journal.begin(entry(handoff=other))
    assert journal.claim(bytes(16), keys(b"a", b"b"), bytes(32))
    assert not journal.claim(other, keys(b"c", b"b"), bytes(32))
    found = journal.entry(Role.RECEIVER, other)
    assert found is not None
    assert found.phase is Phase.OFFERED
    assert journal.keys(Role.RECEIVER, other) == []
    assert (journal.knows_blob(b"b"), journal.knows_blob(b"c")) == (True, False)
    assert journal.reopen(bytes(16))
    assert not journal.knows_blob(b"b")
    assert journal.claim(other, keys(b"c", b"b"), bytes(32))


def test_copies_of_a_blob_at_the_sender(journal: Journal) -> None:
    """A blob that this user sent may be received by the same user: only receivers' claims exclude each other."""
    journal.begin(entry(role=Role.SENDER, phase=Phase.INTENT), keys(b"a"))
    journal.begin(entry())
    assert journal.claim(bytes(16), keys(b"a"), bytes(32))


def test_what_is_open(journal: Journal) -> None:
    """Handoffs that came to their end are not among the open ones."""
    for number, phase in enumerate(Phase):
        journal.begin(entry(handoff=bytes([number]).ljust(16), phase=phase))
    assert {found.phase for found in journal.entries(open_only=True)} == {
        Phase.INTENT, Phase.SENT, Phase.COMMITTED, Phase.OFFERED, Phase.CLAIMED, Phase.IMPORTED,
    }  # fmt: skip


# ---- races


def test_sixteen_processes_import_one_bundle(tmp_path: Path) -> None:
    """The same bundle, received by 16 processes at once with one journal: one imports it, 15 are told so."""
    sides = Sides(tmp_path)
    values = [os.urandom(32) for _ in range(3)]
    moving = [record_key(value=value) for value in values]
    ivs = [key.state.iv for key in moving]
    bundle = sides.send_bundle(moving)
    racing = [Peer(sides, "bundle", {"bundle": str(bundle)}) for _ in range(PROCESSES)]
    try:
        assert {peer.hear() for peer in racing} == {"ready"}
        for peer in racing:
            peer.tell("go")
        said = [peer.hear() for peer in racing]
        assert [peer.end() for peer in racing] == [0] * PROCESSES
    finally:
        for peer in racing:
            with peer:
                pass
    won = [answer["won"] for answer in said if "won" in answer]
    assert len(won) == 1, said
    assert [answer["refused"] for answer in said if "refused" in answer] == ["AlreadyImportedError"] * (PROCESSES - 1)
    nonces = [bytes(a ^ b for a, b in zip(iv, (7).to_bytes(12, "big"), strict=True)) for iv in ivs]
    expected = [AESGCM(value).encrypt(nonce, b"next", b"") for value, nonce in zip(values, nonces, strict=True)]
    assert [bytes.fromhex(each) for each in won[0]] == expected, "and goes on where the keys had stopped"
    (found,) = sides.bob.journal.entries()
    assert (found.phase, len(sides.bob.journal.keys(Role.RECEIVER, found.handoff))) == (Phase.DONE, 3)
    assert Sender(sides.alice).settle(sides.pending(moving), found.statement).dispositions
    sides.close()


def test_processes_open_a_new_journal_at_once(path: Path) -> None:
    """Processes that make, open and claim at the same moment: no error, one table, one winner for each claim."""
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from hsmbridge_csp.journal import *\n"
        "sys.stdin.readline()\n"
        "with Journal(Path(sys.argv[1])) as journal:\n"
        "    won = 0\n"
        "    for number in range(20):\n"
        "        handoff = number.to_bytes(16, 'big')\n"
        "        journal.begin(Entry(handoff=handoff, role=Role.RECEIVER, phase=Phase.OFFERED, peer=b'', nonce=b'',\n"
        "            count=1, digest=b'', proof=b'', bundle='', owner=Owner.current(), created=0, statement=b'',\n"
        "            remark=''))\n"
        "        key = KeyEntry(position=0, blob=handoff, place='memory', residency='', evidence='')\n"
        "        won += journal.claim(handoff, [key], b'')\n"
        "print(won)\n"
    )
    racing = [
        subprocess.Popen(
            [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(8)
    ]
    won = [process.communicate("go\n", timeout=60)[0] for process in racing]
    assert [process.returncode for process in racing] == [0] * 8
    assert sum(map(int, won)) == 20
    with Journal(path) as journal:
        assert {found.phase for found in journal.entries()} == {Phase.CLAIMED}


def test_a_process_killed_in_a_transaction(path: Path, journal: Journal) -> None:
    """SIGKILL in the middle of a transaction leaves nothing of it, and holds up nobody."""
    journal.begin(entry())
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from hsmbridge_csp.journal import Journal\n"
        "with Journal(Path(sys.argv[1])) as journal, journal.transaction() as database:\n"
        "    database.execute(\"UPDATE handoff SET phase='refused'\")\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert journal.advance(Role.RECEIVER, bytes(16), Phase.OFFERED, Phase.CLAIMED)


def test_a_rolled_back_journal_is_stated(tmp_path: Path) -> None:
    """What docs/handoff.md admits: with a journal from before, a bundle for a key in memory is imported once more."""
    sides = Sides(tmp_path)
    bundle = sides.send_bundle([record_key()])
    sides.bob.journal.close()
    shutil.copytree(tmp_path / "bob", tmp_path / "kept")
    sides.bob = replace(sides.bob, journal=Journal(sides.journal("bob")))
    assert sides.receive_bundle(bundle).keys
    sides.bob.journal.close()
    shutil.rmtree(tmp_path / "bob")
    shutil.copytree(tmp_path / "kept", tmp_path / "bob")
    sides.bob = replace(sides.bob, journal=Journal(sides.journal("bob")))
    assert sides.receive_bundle(bundle).keys
    sides.close()


def test_a_rolled_back_journal_over_a_channel(tmp_path: Path) -> None:
    """Over a channel there is nothing to import again: its key is gone with it, whatever the journal has forgotten."""
    sides = Sides(tmp_path)
    key = record_key()
    assert isinstance(sides.doubted([key]), HsmbridgeError)
    (found,) = sides.alice.journal.entries()
    with pytest.raises(RefusedError):
        sides.ask(sides.pending([key]))
    sides.bob.journal.close()
    shutil.rmtree(tmp_path / "bob")
    sides.bob = replace(sides.bob, journal=Journal(sides.journal("bob")))
    assert sides.bob.journal.entry(Role.RECEIVER, found.handoff) is None
    received = sides.hand_over([key]).both()[1]
    assert received.handoff != found.handoff
    sides.close()


# ---- who works on it


def sleeper(*, waits: bool = True) -> subprocess.Popen[str]:
    """Start a process that waits until it is told to end, or ends at once."""
    program = "import sys; print('x', flush=True); sys.stdin.read()" if waits else "pass"
    return subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def owner_of(pid: int) -> Owner:
    """Return a running process as an owner."""
    return Owner(pid=pid, start=owners._start_time(pid) or 0, boot=Owner.current().boot)  # noqa: SLF001 - of another process


def test_this_process_is_alive() -> None:
    """The current process is, and reads as the same one from what was written of it."""
    current = Owner.current()
    assert current.alive
    assert Owner.parse(str(current)) == current
    assert current.pid == os.getpid()


def test_dead_zombie_and_reused() -> None:
    """A running process is alive; a zombie, a dead one, one of another boot, a later one of its number are not."""
    process = sleeper()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    owner = owner_of(process.pid)
    assert owner.alive
    assert not replace(owner, start=owner.start - 1).alive, "another process had this number before"
    assert not replace(owner, boot="another").alive
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not owner_still(owner), "a zombie holds no key any more"
    os.kill(process.pid, 0)  # it is still in the table: nobody has waited for it
    process.communicate()
    assert not owner_still(owner)


def owner_still(owner: Owner) -> bool:
    """Ask again."""
    return owner.alive


def test_a_name_with_brackets(tmp_path: Path) -> None:
    """A process whose name has blanks and brackets in it is told apart all the same."""
    odd = tmp_path / "a) Z 0 (b"
    odd.symlink_to("/bin/sleep")
    process = subprocess.Popen([odd, "60"])
    try:
        deadline = time.monotonic() + 20
        stat_line = f"/proc/{process.pid}/stat"
        while ") Z 0 (" not in _read(stat_line) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert owner_of(process.pid).alive
    finally:
        process.kill()
        process.wait()


def _read(name: str) -> str:
    with open(name, encoding="ascii") as file:  # noqa: PTH123 - one of /proc
        return file.read()


@pytest.mark.parametrize("alive", [True, False])
def test_a_living_process_is_left_alone(tmp_path: Path, alive: bool) -> None:  # noqa: FBT001 - both cases
    """What a living process works on, recovery does not touch; once it is dead, it settles it."""
    sides = Sides(tmp_path)
    process = sleeper()
    owner = owner_of(process.pid)
    sides.bob.journal.begin(entry(owner=owner))
    if not alive:
        process.kill()
        process.wait()
    (outcome,) = Recovery(sides.bob).run()
    assert outcome.settled is not alive
    assert (str(process.pid) in outcome.text) is alive
    process.kill()
    process.communicate()
    sides.close()
