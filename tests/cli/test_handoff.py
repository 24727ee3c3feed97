"""`handoff`: two processes of the installed command, one key, one holder; openssl and SQLite tell what is so."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pty
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import serialization
from hsmbridge_csp.handoff.statement import Kind, Statement, sign_statement
from hsmbridge_csp.identity import FileIdentity

from tests.cli.conftest import COMMAND, OF_A_TOKEN, ROOT, Cli, Result
from tests.cli.test_export_import import BLOCK, make_pair, openssl, pin, put_file
from tests.cli.test_unwrap import aes_ecb
from tests.support.shim import build_shim, shim_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

COMMANDS = ["send", "receive", "commit", "ls", "show", "recover"]
SECONDS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two users of one machine, each with an identity, pins and a journal of their own; each has pinned the other.

    Attributes:
        alice: sends; bob: receives.
        socket: where they meet.
    """

    alice: Cli
    bob: Cli
    socket: Path

    @property
    def directory(self) -> Path:
        """Where both work."""
        return self.alice.directory

    def send(self, *arguments: str | Path) -> list[str | Path]:
        """Return what Alice says."""
        return ["handoff", "send", *arguments, "--socket", self.socket, "--timeout", str(SECONDS)]

    def receive(self, *arguments: str | Path) -> list[str | Path]:
        """Return what Bob says."""
        return ["handoff", "receive", "--socket", self.socket, "--timeout", str(SECONDS), *arguments]

    def holders(self, secret: bytes) -> list[str]:
        """Return the files in which the key can be used: neither frozen nor still arriving."""
        return sorted(
            path.name
            for path in self.directory.iterdir()
            if path.is_file() and ".frozen-" not in path.name and ".arriving-" not in path.name
            if holds(path, secret)
        )


def holds(path: Path, secret: bytes) -> bool:
    """Tell whether a file has these bytes, bare or in a JWK."""
    data = path.read_bytes()
    return secret in data or base64.urlsafe_b64encode(secret).rstrip(b"=") in data


def with_homes(cli: Cli, name: str) -> Cli:
    """Give the command an identity, pins and a journal of its own."""
    person = at_home(cli, name)
    (cli.directory / name).mkdir()
    person("identity", "new")
    return person


def at_home(cli: Cli, name: str) -> Cli:
    """Let the command use the identity, pins and journal of somebody."""
    base = cli.directory / name
    return cli.having(HSMBRIDGE_HOME=str(base / "home"), HSMBRIDGE_STATE=str(base / "state"))


def acquainted(cli: Cli, other: Cli | None = None) -> Pair:
    """Make two users who have pinned each other."""
    alice, bob = with_homes(cli, "alice"), with_homes(other or cli, "bob")
    pin(bob, alice, "alice")
    pin(alice, bob, "bob")
    return Pair(alice=alice, bob=bob, socket=cli.directory / "meet" / "socket")


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The homes of two users who have pinned each other, made once: tests work on copies."""
    directory = tmp_path_factory.mktemp("homes")
    bare = {name: value for name, value in os.environ.items() if not name.startswith(OF_A_TOKEN)}
    acquainted(Cli(directory=directory, variables=bare))
    return directory


@pytest.fixture
def pair(plain: Cli, homes: Path) -> Pair:
    """Two users without any token."""
    shutil.copytree(homes, plain.directory, dirs_exist_ok=True)
    return Pair(alice=at_home(plain, "alice"), bob=at_home(plain, "bob"), socket=plain.directory / "meet" / "socket")


@contextlib.contextmanager
def started(cli: Cli, *arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command beside the test; end it if the test does not."""
    process = subprocess.Popen(
        [COMMAND, *arguments], cwd=cli.directory, env=dict(cli.variables), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ended(process: subprocess.Popen[bytes], status: int = 0) -> Result:
    """Wait for the end."""
    out, err = process.communicate(timeout=SECONDS)
    text = err.decode()
    assert "Traceback" not in text
    assert process.returncode == status, text
    return Result(status=process.returncode, out=out, err=text)


def until(what: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + SECONDS
    while not what():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


def journal_of(cli: Cli) -> str | None:
    """Return the path of a journal, None where there is none yet."""
    directory = cli.directory / cli.variables["HSMBRIDGE_STATE"]
    return next((str(path) for path in directory.glob("journal-*.sqlite")), None) if directory.is_dir() else None


def phases(cli: Cli) -> list[str]:
    """Read the phases of all handoffs with SQLite's own library."""
    path = journal_of(cli)
    if path is None:
        return []
    with contextlib.closing(sqlite3.connect(path, timeout=SECONDS, isolation_level=None)) as database:
        try:
            return [row[0] for row in database.execute("SELECT phase FROM handoff ORDER BY rowid")]
        except sqlite3.OperationalError:  # made just now, and still empty
            return []


@contextlib.contextmanager
def held(cli: Cli) -> Iterator[None]:
    """Keep everybody from writing into a journal: who wants to waits for half a minute."""
    path = journal_of(cli)
    assert path is not None
    with contextlib.closing(sqlite3.connect(path, timeout=SECONDS, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        yield
        database.execute("ROLLBACK")


def events(path: Path) -> list[dict[str, Any]]:
    """Read the events that were told."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def settle(pair: Pair) -> None:
    """Let both recover, Bob first; then Alice asks him. All must be settled after that."""
    pair.bob("handoff", "recover", status=None)
    answers = pair.directory / "answers"
    with started(pair.bob, *pair.receive("--answer", "--keep", "--events", answers)) as answering:
        until(lambda: answers.exists() and answers.stat().st_size > 0)  # a killed receiver leaves its socket behind
        pair.alice("handoff", "recover", "--socket", pair.socket, "--timeout", str(SECONDS))
        answering.terminate()
        ended(answering, 143)
    assert pair.bob("handoff", "recover").text == "nothing is open\n"
    assert pair.alice("handoff", "recover").text == "nothing is open\n"


def bundle_of(pair: Pair, *names: str) -> None:
    """Let Alice make a bundle of raw AES keys for bob.pem's key."""
    if not (pair.directory / "p256.pem").exists():
        make_pair(pair.alice, "p256")
    files = [f"file:{name}" for name in names]
    pair.alice("handoff", "send", *files, "--key-type", "aes", "--to", "p256.pub", "-o", "bundle")


def refused(cli: Cli, *arguments: str, status: int) -> Result:
    """Run a command that must be refused, print nothing, and carry a hint."""
    done = cli(*arguments, status=status)
    assert done.hint
    assert done.out == b""
    return done


TAKE = ("handoff", "receive", "--as", "p256.pem")


@pytest.mark.parametrize("name", COMMANDS)
def test_help(plain: Cli, name: str) -> None:
    """Each subcommand has help with an example, and the line that the group shows is its first."""
    shown = plain("handoff", name, "--help").text
    assert shown.startswith(f"Usage: hsmbridge handoff {name} ")
    assert f"hsmbridge handoff {name}" in shown.partition("Examples:")[2]
    group = plain("handoff", "--help").text
    line = next(line for line in group.splitlines() if line.startswith(f"  {name} "))
    assert line.split(None, 1)[1] in shown


def test_a_file_key_moves_between_two_processes(pair: Pair) -> None:
    """What openssl read in the source is what it reads at the destination; the source is gone, and nothing is left."""
    make_pair(pair.alice, "p384")
    before = openssl(pair.alice, "pkey", "-in", "p384.pem", "-outform", "DER")
    with started(pair.bob, *pair.receive("-o", "file:there.pem", "--json", "--events", "bob.events")) as receiving:
        sent = pair.alice.json(*pair.send("file:p384.pem", "--events", "alice.events"))
        received = ended(receiving).document
    assert openssl(pair.bob, "pkey", "-in", "there.pem", "-outform", "DER") == before
    assert (pair.directory / "there.pem").stat().st_mode & 0o777 == 0o600
    assert not list(pair.directory.glob("p384.pem*"))
    assert not list(pair.directory.glob("*arriving*"))
    assert not pair.socket.exists()
    assert (sent["schema"], sent["phase"], sent["persisted"], sent["peer"]["name"]) == (
        "hsmbridge.handoff.send/1", "done", True, "bob",
    )  # fmt: skip
    assert [(key["key"], key["residency"], key["disposition"]) for key in sent["keys"]] == [
        ("file:p384.pem", "software", "destroyed")
    ]
    (handoff,) = received["handoffs"]
    assert (handoff["handoff"], handoff["peer"]["name"], handoff["keys"][0]["algorithm"]) == (
        sent["handoff"], "alice", "EC",
    )  # fmt: skip
    assert handoff["keys"][0]["place"] == f"file:{pair.directory / 'there.pem'}"
    told = [(event["event"], event.get("statement")) for event in events(pair.directory / "alice.events")]
    assert told == [
        ("connected", None), ("intent", None), ("frozen", None), ("sent", None), ("committed", "receipt"),
        ("destroyed", None), ("done", None),
    ]  # fmt: skip
    told = [(event["event"], event.get("statement")) for event in events(pair.directory / "bob.events")]
    assert told == [
        ("listening", None), ("connected", None), ("offered", None), ("claimed", None), ("imported", "receipt"),
        ("done", None),
    ]  # fmt: skip


def test_many_keys_go_as_one_into_a_directory(pair: Pair) -> None:
    """Several raw keys arrive as several files with exactly those bytes, and under names of the blobs' own."""
    values = [secrets.token_bytes(32) for _ in range(5)]
    names = [put_file(pair.alice, f"key{number}", value).name for number, value in enumerate(values)]
    (pair.directory / "in").mkdir(mode=0o700)
    with started(pair.bob, *pair.receive("-o", "file:in/", "--raw")) as receiving:
        done = pair.alice(*pair.send(*(f"file:{name}" for name in names), "--key-type", "aes"))
        ended(receiving)
    assert done.text.count("destroyed file:") == 5
    assert sorted(path.read_bytes() for path in (pair.directory / "in").iterdir()) == sorted(values)
    assert not [name for name in names if (pair.directory / name).exists()]


def test_a_receiver_that_keeps_on(pair: Pair) -> None:
    """With --keep, one listener serves several senders, and its end by a signal still tells what it has taken."""
    (pair.directory / "in").mkdir(mode=0o700)
    with started(pair.bob, *pair.receive("-o", "file:in/", "--keep", "--json")) as receiving:
        for number in range(2):
            put_file(pair.alice, f"key{number}", secrets.token_bytes(32))
            pair.alice(*pair.send(f"file:key{number}", "--key-type", "aes"))
        receiving.send_signal(signal.SIGINT)
        told = ended(receiving, 130)
    assert len(told.document["handoffs"]) == 2
    assert "nothing is left" in told.hint


def test_offline(pair: Pair) -> None:
    """Bundle, receipt, commit: the key is frozen until the receipt comes back; a second import is refused with 4."""
    value = secrets.token_bytes(32)
    put_file(pair.alice, "key", value)
    bundle_of(pair, "key")
    assert pair.holders(value) == []
    assert [path.name for path in pair.directory.glob("key*")] == [next(pair.directory.glob("key.frozen-*")).name]
    assert pair.alice("handoff", "recover", status=1).text.count("in doubt") == 1
    shutil.copy(pair.directory / "bundle", pair.directory / "copy")
    told = pair.bob.json(*TAKE, "-i", "bundle", "--receipt", "receipt", "-o", "file:there")
    assert (told["receipt"], told["handoffs"][0]["phase"]) == ("receipt", "done")
    again = refused(pair.bob, *TAKE, "-i", "copy", "--receipt", "second", "-o", "file:again", status=4)
    assert "handoff show" in again.err
    assert not (pair.directory / "second").exists()
    assert not (pair.directory / "again").exists()
    assert next(pair.directory.glob("key.frozen-*"))
    committed = pair.alice.json("handoff", "commit", "receipt")
    assert committed["settled"]
    assert committed["handoffs"][0]["of_keys"][0]["disposition"].startswith("destroyed")
    assert pair.holders(value) == ["there"]
    assert not list(pair.directory.glob("key*"))
    assert pair.alice("handoff", "commit", "receipt").status == 0
    pair.bob("handoff", "show", told["handoffs"][0]["handoff"][:8], "--receipt", "once-more")
    assert (pair.directory / "once-more").read_bytes() == (pair.directory / "receipt").read_bytes()


def test_a_dry_run_claims_nothing(pair: Pair) -> None:
    """A dry run says what is in the bundle, and the bundle is received afterwards all the same."""
    put_file(pair.alice, "key", secrets.token_bytes(32))
    bundle_of(pair, "key")
    tried = pair.bob.json(*TAKE, "-i", "bundle", "--dry-run")
    assert [(key["algorithm"], key["transfer"]) for key in tried["handoffs"][0]["keys"]] == [("AES", "value")]
    assert phases(pair.bob) == []
    pair.bob(*TAKE, "-i", "bundle", "--receipt", "receipt", "-o", "file:there")
    assert "done here already" in pair.bob(*TAKE, "-i", "bundle", "--dry-run").err


def test_a_private_key_for_one_use(pair: Pair) -> None:
    """With --single-use the private key is gone once the receipt is there, and not when nothing was received."""
    put_file(pair.alice, "key", secrets.token_bytes(32))
    bundle_of(pair, "key")
    put_file(pair.bob, "taken", b"")
    arguments = (*TAKE, "-i", "bundle", "--receipt", "receipt", "--single-use", "-o")
    refused(pair.bob, *arguments, "file:taken", status=2)
    assert (pair.directory / "p256.pem").exists()
    told = pair.bob.json(*arguments, "file:there")
    assert told["handoffs"][0]["destroyed"] == "p256.pem"
    assert not (pair.directory / "p256.pem").exists()
    pair.alice("handoff", "commit", "receipt")


@pytest.mark.parametrize(
    "arguments",
    [
        (*TAKE, "-i", "bundle", "--receipt", "receipt"),
        (*TAKE, "-i", "bundle", "--receipt", "receipt", "--persist", "-o", "file:x"),
        (*TAKE, "-i", "bundle", "-o", "file:x"),
        ("handoff", "receive", "-i", "bundle", "--receipt", "receipt", "-o", "file:x"),
        (*TAKE, "-i", "bundle", "--receipt", "receipt", "-o", "file:bundle"),
        (*TAKE, "-i", "bundle", "--receipt", "bundle", "-o", "file:x"),
        (*TAKE, "-i", "bundle", "--dry-run", "--receipt", "receipt"),
        ("handoff", "receive", "--socket", "meet/socket"),
        ("handoff", "receive", "--socket", "meet/socket", "--dry-run"),
        ("handoff", "receive", "--socket", "meet/socket", "--receipt", "receipt", "-o", "file:x"),
        ("handoff", "receive", "--socket", "meet/socket", "--keep", "-o", "file:x"),
        ("handoff", "receive", "-o", "file:x"),
        ("handoff", "receive", "--socket", "meet/socket", "-i", "bundle", "-o", "file:x"),
    ],
    ids=lambda arguments: " ".join(arguments[1:]),
)
def test_nothing_is_consumed_by_a_mistake(pair: Pair, arguments: tuple[str, ...]) -> None:
    """Without DEST, or with one that cannot be, it ends with 2 before anything is read, made or claimed."""
    put_file(pair.alice, "bundle", b"no bundle at all, which nobody gets to see")
    before = sorted(path.name for path in pair.directory.iterdir())
    refused(pair.bob, *arguments, status=2)
    assert sorted(path.name for path in pair.directory.iterdir()) == before
    assert phases(pair.bob) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("file:key", "--key-type", "aes"),
        ("file:key", "--key-type", "aes", "-o", "bundle"),
        ("file:key", "--key-type", "aes", "-o", "bundle", "--socket", "meet/socket", "--to", "p256.pub"),
        ("file:key", "--key-type", "aes", "-o", "p256.pub", "--to", "p256.pub"),
        ("file:key", "file:./key", "--key-type", "aes", "-o", "bundle", "--to", "p256.pub"),
        ("file:absent", "--key-type", "aes", "-o", "bundle", "--to", "p256.pub"),
        ("file:key", "--key-type", "aes", "-o", "bundle", "--to", "p256.pub", "--peer", "mallory"),
    ],
    ids=" ".join,
)
def test_nothing_is_frozen_by_a_mistake(pair: Pair, arguments: tuple[str, ...]) -> None:
    """A request that makes no sense ends with 2, and the key is where and as it was."""
    value = secrets.token_bytes(32)
    put_file(pair.alice, "key", value)
    make_pair(pair.alice, "p256")
    refused(pair.alice, "handoff", "send", *arguments, status=2)
    assert pair.holders(value) == ["key"]
    assert phases(pair.alice) == []


def test_a_key_with_a_second_name_is_not_frozen(pair: Pair) -> None:
    """A hard link would be a second usable holder of a frozen key: exit code 4."""
    put_file(pair.alice, "key", secrets.token_bytes(32))
    os.link(pair.directory / "key", pair.directory / "link")
    make_pair(pair.alice, "p256")
    arguments = ("handoff", "send", "file:key", "--key-type", "aes", "--to", "p256.pub", "-o", "bundle")
    assert "another name" in refused(pair.alice, *arguments, status=4).err
    assert phases(pair.alice) == []


def test_whoever_is_not_pinned_gets_nothing(pair: Pair, plain: Cli) -> None:
    """A bundle of an unknown sender, and a peer other than --peer names, are refused with 4; nothing is claimed."""
    mallory = with_homes(plain, "mallory")
    put_file(mallory, "key", secrets.token_bytes(32))
    pin(mallory, pair.bob, "bob")
    bundle_of(Pair(alice=mallory, bob=pair.bob, socket=pair.socket), "key")
    refused(pair.bob, *TAKE, "-i", "bundle", "--receipt", "receipt", "-o", "file:there", status=4)
    pin(pair.bob, mallory, "mallory")
    arguments = (*TAKE, "-i", "bundle", "--receipt", "receipt", "-o", "file:there")
    refused(pair.bob, *arguments, "--peer", "alice", status=4)
    assert phases(pair.bob) == []
    value = secrets.token_bytes(32)
    put_file(pair.alice, "other", value)
    with started(pair.bob, *pair.receive("-o", "file:there", "--peer", "mallory")) as receiving:
        pair.alice(*pair.send("file:other", "--key-type", "aes"), status=5)
        ended(receiving, 4)
    assert pair.holders(value) == ["other"]
    assert phases(pair.alice) == []


@pytest.mark.parametrize("where", ["header", "blob", "trailer", "end", "cut"])
def test_a_changed_bundle_claims_nothing(pair: Pair, where: str) -> None:
    """A bundle that was changed anywhere ends with 3, and the good one is received after that."""
    put_file(pair.alice, "key", secrets.token_bytes(32))
    bundle_of(pair, "key")
    good = (pair.directory / "bundle").read_bytes()
    at = {"header": 20, "blob": len(good) // 2, "trailer": len(good) - 100, "end": len(good) - 1}
    changed = bytearray(good)
    if where == "cut":
        del changed[-1:]
    else:
        changed[at[where]] ^= 1
    put_file(pair.alice, "changed", bytes(changed))
    refused(pair.bob, *TAKE, "-i", "changed", "--receipt", "receipt", "-o", "file:there", status=3)
    assert phases(pair.bob) == []
    assert not (pair.directory / "there").exists()
    assert not (pair.directory / "receipt").exists()
    pair.bob(*TAKE, "-i", "bundle", "--receipt", "receipt", "-o", "file:there")


def test_forged_receipts_destroy_nothing(pair: Pair, plain: Cli) -> None:
    """A receipt that is changed, of another handoff, or signed by anybody else than the recipient, ends with 3."""
    value = secrets.token_bytes(32)
    put_file(pair.alice, "key", value)
    put_file(pair.alice, "first", secrets.token_bytes(32))
    bundle_of(pair, "first")
    pair.bob(*TAKE, "-i", "bundle", "--receipt", "of-first", "-o", "file:there-first")
    (pair.directory / "bundle").unlink()
    bundle_of(pair, "key")
    (entry,) = [
        one for one in pair.alice.json("handoff", "ls")["handoffs"] if one["bundle"] and one["phase"] == "sent"
    ][1:]
    number = bytes.fromhex(entry["handoff"])
    forged = FileIdentity.generate()
    statement = Statement(
        kind=Kind.RECEIPT, handoff=number, digest=bytes(32), count=1, persisted=True, proof=bytes(32), nonce=bytes(32),
        sender=bytes(32), recipient=forged.fingerprint,
    )  # fmt: skip
    put_file(pair.alice, "forged", sign_statement(statement, forged))
    real = bytearray((pair.directory / "of-first").read_bytes())
    first = bytes.fromhex(pair.alice.json("handoff", "ls")["handoffs"][0]["handoff"])
    put_file(pair.alice, "relabelled", bytes(real).replace(first, number))
    real[-1] ^= 1
    put_file(pair.alice, "flipped", bytes(real))
    put_file(pair.alice, "noise", secrets.token_bytes(300))
    for name in ("forged", "relabelled", "flipped", "noise"):
        refused(pair.alice, "handoff", "commit", name, status=3)
        assert phases(pair.alice) == ["sent", "sent"]
    assert len(list(pair.directory.glob("key.frozen-*"))) == 1
    assert len(list(pair.directory.glob("first.frozen-*"))) == 1
    stranger = with_homes(plain, "stranger")
    refused(stranger, "handoff", "commit", "of-first", status=2)
    pair.bob(*TAKE, "-i", "bundle", "--receipt", "receipt", "-o", "file:there")
    for name in ("of-first", "receipt"):
        pair.alice("handoff", "commit", name)
    assert pair.holders(value) == ["there"]


def test_a_tombstone_over_the_socket_thaws(pair: Pair) -> None:
    """A receiver whose destination is taken meanwhile refuses with 4; the source has its name back and is whole."""
    value = secrets.token_bytes(32)
    put_file(pair.alice, "key", value)
    with started(pair.bob, *pair.receive("-o", "file:there")) as receiving:
        until(pair.socket.exists)
        put_file(pair.bob, "there", b"somebody else's")
        told = pair.alice(*pair.send("file:key", "--key-type", "aes"), status=1)
        ended(receiving, 4)
    assert "never will" in told.err
    assert pair.holders(value) == ["key"]
    assert (pair.directory / "there").read_bytes() == b"somebody else's"
    assert (phases(pair.alice), phases(pair.bob)) == (["thawed"], ["refused"])


def test_a_bundle_is_refused_by_hand(pair: Pair) -> None:
    """`recover --refuse` writes a tombstone on which the source thaws, and the bundle is imported no more."""
    value = secrets.token_bytes(32)
    put_file(pair.alice, "key", value)
    bundle_of(pair, "key")
    pair.bob("handoff", "recover", "--refuse", "bundle", "--receipt", "tombstone")
    refused(pair.bob, *TAKE, "-i", "bundle", "--receipt", "receipt", "-o", "file:there", status=4)
    assert pair.holders(value) == []
    committed = pair.alice.json("handoff", "commit", "tombstone")
    assert (committed["handoffs"][0]["phase"], pair.holders(value)) == ("thawed", ["key"])
    number = committed["handoffs"][0]["handoff"]
    pair.bob("handoff", "recover", "--refuse", number, "--receipt", "again")
    assert (pair.directory / "again").read_bytes() == (pair.directory / "tombstone").read_bytes()


def test_what_was_imported_is_not_refused(pair: Pair) -> None:
    """A receipt and a tombstone for one handoff can never both be had: exit code 4."""
    put_file(pair.alice, "key", secrets.token_bytes(32))
    bundle_of(pair, "key")
    pair.bob(*TAKE, "-i", "bundle", "--receipt", "receipt", "-o", "file:there")
    refused(pair.bob, "handoff", "recover", "--refuse", "bundle", "--receipt", "tombstone", status=4)
    assert not (pair.directory / "tombstone").exists()
    pair.alice("handoff", "commit", "receipt")


def test_a_receiver_that_is_killed_before_it_promised(pair: Pair) -> None:
    """The source stays frozen, in doubt, until the recipient has said that it never imports: then it is the holder."""
    value = secrets.token_bytes(32)
    put_file(pair.alice, "key", value)
    with started(pair.bob, *pair.receive("-o", "file:there")) as receiving:
        until(pair.socket.exists)  # it has opened its journal
        with held(pair.bob), started(pair.alice, *pair.send("file:key", "--key-type", "aes")) as sending:
            until(lambda: phases(pair.alice) == ["sent"])
            receiving.kill()
            told = ended(sending, 1)
    assert "in doubt" in told.err
    assert "recover" in told.hint
    assert pair.holders(value) == []
    assert "in doubt" in pair.alice("handoff", "recover", status=1).text
    settle(pair)
    assert pair.holders(value) == ["key"]
    assert phases(pair.alice) == ["thawed"]


def test_a_sender_that_is_killed_before_it_committed(pair: Pair) -> None:
    """The recipient has the key, the source is frozen; recovering destroys it, once, on the receipt."""
    value = secrets.token_bytes(32)
    put_file(pair.alice, "key", value)
    with started(pair.bob, *pair.receive("-o", "file:there")) as receiving, contextlib.ExitStack() as stack:
        until(pair.socket.exists)
        with held(pair.bob):
            sending = stack.enter_context(started(pair.alice, *pair.send("file:key", "--key-type", "aes")))
            until(lambda: phases(pair.alice) == ["sent"])
            stack.enter_context(held(pair.alice))
        ended(receiving)
        sending.kill()
        sending.wait(SECONDS)
    assert phases(pair.alice) == ["sent"]
    assert pair.holders(value) == ["there"]
    assert len(list(pair.directory.glob("key.frozen-*"))) == 1
    with started(pair.bob, *pair.receive("--answer", "--json")) as answering:
        arguments = ("--socket", pair.socket, "--timeout", str(SECONDS), "--events", "events")
        told = pair.alice.json("handoff", "recover", *arguments)
        assert ended(answering).document["answered"] == 1
    assert told["settled"]
    assert told["handoffs"][0]["of_keys"][0]["disposition"].startswith("destroyed")
    assert [event["event"] for event in events(pair.directory / "events")] == ["committed", "done"]
    assert pair.holders(value) == ["there"]
    assert not list(pair.directory.glob("key*"))
    assert pair.alice("handoff", "recover").text == pair.alice("handoff", "recover").text == "nothing is open\n"


@pytest.mark.parametrize("who", ["sender", "receiver"])
@pytest.mark.parametrize("milliseconds", [0, 3, 8, 25])
def test_killed_at_whatever_moment(pair: Pair, who: str, milliseconds: int) -> None:
    """Whichever end is killed, whenever: there are never two holders, and after `recover` there is exactly one."""
    value = secrets.token_bytes(32)
    put_file(pair.alice, "key", value)
    with started(pair.bob, *pair.receive("-o", "file:there")) as receiving:
        until(pair.socket.exists)
        with started(pair.alice, *pair.send("file:key", "--key-type", "aes")) as sending:
            until(lambda: bool(phases(pair.alice)))
            time.sleep(milliseconds / 1000)
            (sending if who == "sender" else receiving).kill()
            (receiving if who == "sender" else sending).wait(SECONDS)
    assert len(pair.holders(value)) <= 1
    settle(pair)
    assert len(pair.holders(value)) == 1
    assert not list(pair.directory.glob("*.frozen-*"))
    assert not list(pair.directory.glob("*.arriving-*"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_while_nothing_is_begun(pair: Pair, number: int, status: int) -> None:
    """A sender or receiver that only waits ends with 130 or 143; key and socket are as if it had never run."""
    value = secrets.token_bytes(32)
    put_file(pair.alice, "key", value)
    with started(pair.alice, *pair.send("file:key", "--key-type", "aes")) as sending:
        until(lambda: journal_of(pair.alice) is not None)
        time.sleep(0.2)
        sending.send_signal(number)
        told = ended(sending, status)
    assert "nothing is left" in told.hint
    with started(pair.bob, *pair.receive("-o", "file:there")) as receiving:
        until(pair.socket.exists)
        receiving.send_signal(number)
        ended(receiving, status)
    assert not pair.socket.exists()
    assert (pair.holders(value), phases(pair.alice)) == (["key"], [])


def test_a_signal_in_doubt(pair: Pair) -> None:
    """A sender that is stopped while it waits for the receipt says which handoff is left and what to do about it."""
    value = secrets.token_bytes(32)
    put_file(pair.alice, "key", value)
    with started(pair.bob, *pair.receive("-o", "file:there")) as receiving:
        until(pair.socket.exists)
        with held(pair.bob), started(pair.alice, *pair.send("file:key", "--key-type", "aes")) as sending:
            until(lambda: phases(pair.alice) == ["sent"])
            time.sleep(0.2)
            sending.terminate()
            told = ended(sending, 143)
        receiving.wait(SECONDS)
    (entry,) = pair.alice.json("handoff", "ls")["handoffs"]
    assert f"handoff {entry['handoff']} is left as sent" in told.err
    assert "handoff recover" in told.err
    settle(pair)
    assert len(pair.holders(value)) == 1


def test_what_the_journal_shows(pair: Pair) -> None:
    """`ls` and `show` tell role, phase, keys and steps; no secret is in the journal, the events or the output."""
    value = secrets.token_bytes(32)
    put_file(pair.alice, "key", value)
    bundle_of(pair, "key")
    (entry,) = pair.alice.json("handoff", "ls")["handoffs"]
    assert (entry["role"], entry["phase"], entry["keys"], entry["peer"]["name"]) == ("sender", "sent", 1, "bob")
    assert not entry["process"]["alive"]
    number = entry["handoff"]
    assert number in pair.alice("handoff", "ls").text
    shown = pair.alice.json("handoff", "show", number[:10])["sides"][0]
    assert [step["phase"] for step in shown["steps"]] == ["intent", "sent"]
    assert (shown["of_keys"][0]["place"], shown["of_keys"][0]["residency"]) == (
        f"file:{pair.directory / 'key'}", "software",
    )  # fmt: skip
    text = pair.alice("handoff", "show", number).text
    assert "bob" in text
    refused(pair.alice, "handoff", "show", "ffff" if not number.startswith("ffff") else "0000", status=2)
    refused(pair.alice, "handoff", "show", number, "--receipt", "early", status=2)
    told = pair.bob(*TAKE, "-i", "bundle", "--receipt", "receipt", "-o", "file:there", "--events", "events")
    pair.alice("handoff", "commit", "receipt")
    assert pair.alice.json("handoff", "ls")["handoffs"] == []
    assert [one["phase"] for one in pair.alice.json("handoff", "ls", "--all")["handoffs"]] == ["done"]
    for side in (pair.alice, pair.bob):
        for path in (pair.directory / side.variables["HSMBRIDGE_STATE"]).iterdir():
            assert not holds(path, value)
            assert path.stat().st_mode & 0o077 == 0
    assert not holds(pair.directory / "events", value)
    assert value not in told.out


def test_one_user_is_both_ends(plain: Cli) -> None:
    """With one identity and one journal for both ends, a killed sender's handoff settles without asking anybody."""
    me, value = with_homes(plain, "me"), secrets.token_bytes(32)
    pair = Pair(alice=me, bob=me, socket=plain.directory / "meet" / "socket")
    put_file(me, "key", value)
    make_pair(me, "p256")
    me("handoff", "send", "file:key", "--key-type", "aes", "--to", "p256.pub", "-o", "bundle")
    me(*TAKE, "-i", "bundle", "--receipt", "receipt", "-o", "file:there")
    assert "destroyed" in me("handoff", "recover").text
    assert pair.holders(value) == ["there"]
    with started(me, *pair.receive("-o", "file:back")) as receiving:
        me(*pair.send("file:there", "--key-type", "aes"))
        ended(receiving)
    assert pair.holders(value) == ["back"]


def test_a_hardware_key_goes_by_reference(fresh: Cli) -> None:
    """A token key is found and recognised by the receiver, and retained at the source: the token is as it was."""
    pair = acquainted(fresh)
    fresh("key", "generate", "--type", "ec:p-256", "--label", "signer")
    before = fresh.inventory()
    with started(pair.bob, *pair.receive("--persist", "--json")) as receiving:
        sent = pair.alice.json(*pair.send("label:signer"))
        (received,) = ended(receiving).document["handoffs"]
    assert [(key["residency"], key["disposition"]) for key in sent["keys"]] == [("hardware", "retained")]
    assert [(key["place"], key["residency"]) for key in received["keys"]] == [("reference", "hardware")]
    assert fresh.inventory() == before


def test_hardware_and_software_keys_in_one_bundle(fresh: Cli) -> None:
    """A bundle of both arrives with the token named, and is refused without; only the software key is destroyed."""
    pair, value = acquainted(fresh), secrets.token_bytes(32)
    fresh("key", "generate", "--type", "ec:p-256", "--label", "signer")
    before = fresh.inventory()
    put_file(pair.alice, "key", value)
    make_pair(pair.alice, "p256")
    arguments = ("file:key", "label:signer", "--key-type", "aes", "--to", "p256.pub", "-o", "bundle")
    pair.alice("handoff", "send", *arguments)
    label = fresh.variables["PKCS11_TOKEN_LABEL"]
    (fresh.directory / "in").mkdir(mode=0o700)
    told = pair.bob.json(*TAKE, "-i", "bundle", "--receipt", "receipt", "-o", "file:in/", "--token-label", label)
    assert [key["residency"] for key in told["handoffs"][0]["keys"]] == ["software", "hardware"]
    committed = pair.alice.json("handoff", "commit", "receipt")["handoffs"][0]["of_keys"]
    assert [key["disposition"].split(":")[0] for key in committed] == ["destroyed", "retained"]
    assert fresh.inventory() == before


def test_no_identity_no_handoff(plain: Cli) -> None:
    """Nobody becomes somebody by a handoff: without an identity it ends with 2, and says how to make one."""
    nobody = plain.having(HSMBRIDGE_HOME=str(plain.directory / "h"), HSMBRIDGE_STATE=str(plain.directory / "s"))
    put_file(nobody, "key", secrets.token_bytes(32))
    make_pair(nobody, "p256")
    told = refused(
        nobody, "handoff", "send", "file:key", "--key-type", "aes", "--to", "p256.pub", "-o", "bundle", status=2
    )
    assert "identity new" in told.hint
    assert not (plain.directory / "h").exists()


def test_the_arriving_private_key_is_read_by_other_peoples_code(pair: Pair) -> None:
    """An RSA key that came in a bundle is the PKCS#8 that cryptography reads, and equals the source's numbers."""
    make_pair(pair.alice, "rsa")
    source = serialization.load_pem_private_key((pair.directory / "rsa.pem").read_bytes(), None)
    make_pair(pair.alice, "p256")
    pair.alice("handoff", "send", "file:rsa.pem", "--to", "p256.pub", "-o", "bundle")
    pair.bob(*TAKE, "-i", "bundle", "--receipt", "receipt", "-o", "file:there.pem")
    arrived = serialization.load_pem_private_key((pair.directory / "there.pem").read_bytes(), None)
    form = (serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    assert arrived.private_bytes(*form) == source.private_bytes(*form)
    pair.alice("handoff", "commit", "receipt")
    assert not list(pair.directory.glob("rsa.pem*"))


def sent_by_a_program(cli: Cli, what: str, recipient: str) -> bytes:
    """Let a program hand over what the command cannot name; return the key's bytes."""
    program = [sys.executable, "-m", "tests.support.handoff_child"]
    arguments = [what, str(cli.directory / "bundle"), recipient, "bob"]
    done = subprocess.run(
        [*program, *arguments], cwd=ROOT, env=dict(cli.variables), capture_output=True, text=True, check=True
    )
    return bytes.fromhex(done.stdout)


def test_a_session_key_becomes_a_token_object(fresh: Cli) -> None:
    """A key that a program handed over under a KEK is kept in the token, under its own id, and encrypts as before."""
    pair = acquainted(fresh)
    kek = fresh.put_kek(secrets.token_bytes(32))
    value = sent_by_a_program(pair.alice, "session", kek)
    arguments = ("handoff", "receive", "-i", "bundle", "--kek", f"label:{kek}", "--receipt", "receipt", "--persist")
    told = pair.bob.json(*arguments)
    (key,) = told["handoffs"][0]["keys"]
    assert key["place"] == f"token:{fresh.variables['PKCS11_TOKEN_LABEL']}:{b'moved'.hex()}"
    put_file(fresh, "block", BLOCK)
    fresh.tool("--encrypt", "-m", "AES-ECB", "--id", b"moved".hex(), "-i", "block", "-o", "sealed")
    assert (fresh.directory / "sealed").read_bytes() == aes_ecb(value)
    before = fresh.inventory()
    refused(pair.bob, *arguments[:-3], "--receipt", "second", "--persist", status=4)
    assert fresh.inventory() == before
    assert "died-with-process" in pair.alice("handoff", "commit", "receipt").text


def test_a_key_that_has_not_got_its_name(fresh: Cli, tmp_path: Path) -> None:
    """The token fails when the arrived key gets its id: the receipt is written all the same, and `recover` names it."""
    pair = acquainted(fresh)
    kek = fresh.put_kek(secrets.token_bytes(32))
    value = sent_by_a_program(pair.alice, "session", kek)
    module = fresh.variables["PKCS11_MODULE"]
    failing = shim_environment(module, actions="C_SetAttributeValue#1=before:0x30")
    bob = pair.bob.having(PKCS11_MODULE=str(build_shim(tmp_path)), **failing)
    arguments = ("handoff", "receive", "-i", "bundle", "--kek", f"label:{kek}", "--receipt", "receipt", "--persist")
    told = bob(*arguments, status=1)
    assert "C_SetAttributeValue failed" in told.err
    assert "handoff recover" in told.hint
    assert "the receipt is in receipt" in told.err
    committed = pair.alice("handoff", "commit", "receipt").text
    assert "died-with-process" in committed
    pair.bob("handoff", "recover")
    assert phases(pair.bob) == ["done"]
    put_file(fresh, "block", BLOCK)
    fresh.tool("--encrypt", "-m", "AES-ECB", "--id", b"moved".hex(), "-i", "block", "-o", "sealed")
    assert (fresh.directory / "sealed").read_bytes() == aes_ecb(value)


def test_a_running_state_does_not_go_into_a_file(pair: Pair) -> None:
    """A file cannot hold a running state: refused with 4, nothing is promised, and a program can receive the bundle."""
    make_pair(pair.alice, "p256")
    sent_by_a_program(pair.alice, "running", str(pair.directory / "p256.pub"))
    told = refused(pair.bob, *TAKE, "-i", "bundle", "--receipt", "receipt", "-o", "file:there", status=4)
    assert "CBC state" in told.err
    assert "can be received again" in told.err
    assert not (pair.directory / "there").exists()
    assert phases(pair.bob) == ["offered"]
    assert not (pair.directory / "receipt").exists()


def test_a_wrong_key_promises_nothing(pair: Pair) -> None:
    """A bundle that is opened with another key than its own is refused with 4 and can be received after that."""
    put_file(pair.alice, "key", secrets.token_bytes(32))
    bundle_of(pair, "key")
    shutil.move(pair.directory / "p256.pem", pair.directory / "right.pem")
    make_pair(pair.alice, "p256")
    arguments = ("handoff", "receive", "-i", "bundle", "--receipt", "receipt", "-o", "file:there")
    assert "can be received again" in refused(pair.bob, *arguments, "--as", "p256.pem", status=4).err
    assert not (pair.directory / "receipt").exists()
    pair.bob(*arguments, "--as", "right.pem")


def test_keys_sealed_for_a_recipient_over_the_socket(pair: Pair) -> None:
    """With --to and --as, keys that go over a socket are sealed for that key too; without --as they are refused."""
    value = secrets.token_bytes(32)
    put_file(pair.alice, "key", value)
    make_pair(pair.alice, "p256")
    with started(pair.bob, *pair.receive("-o", "file:there")) as receiving:
        pair.alice(*pair.send("file:key", "--key-type", "aes", "--to", "p256.pub"), status=1)
        assert receiving.wait(SECONDS) in {3, 4}
    assert pair.holders(value) == ["key"]
    with started(pair.bob, *pair.receive("-o", "file:there", "--as", "p256.pem")) as receiving:
        pair.alice(*pair.send("file:key", "--key-type", "aes", "--to", "p256.pub"))
        ended(receiving)
    assert pair.holders(value) == ["there"]


def test_events_on_standard_output(pair: Pair) -> None:
    """With --events -, standard output has one JSON object on each line and nothing else; with --json it is refused."""
    put_file(pair.alice, "key", secrets.token_bytes(32))
    make_pair(pair.alice, "p256")
    arguments = (
        "handoff",
        "send",
        "file:key",
        "--key-type",
        "aes",
        "--to",
        "p256.pub",
        "-o",
        "bundle",
        "--events",
        "-",
    )
    refused(pair.alice, *arguments, "--json", status=2)
    done = pair.alice(*arguments)
    assert [json.loads(line)["event"] for line in done.text.splitlines()] == ["intent", "frozen", "sent"]
    assert "wait for the receipt of bob" in done.err


def test_a_person_sees_what_is_waited_for(pair: Pair) -> None:
    """In a terminal, a sender that waits says for what; the line is gone when it ends."""
    put_file(pair.alice, "key", secrets.token_bytes(32))
    leader, follower = pty.openpty()
    try:
        way = ["--socket", str(pair.socket), "--timeout", "1"]
        done = subprocess.run(
            [COMMAND, "handoff", "send", "file:key", "--key-type", "aes", *way], cwd=pair.directory,
            env={**pair.alice.variables, "TERM": "xterm"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=follower, check=False, timeout=SECONDS,
        )  # fmt: skip
        shown = os.read(leader, 1 << 16).decode()
    finally:
        os.close(follower)
        os.close(leader)
    assert done.returncode == 5
    assert "waiting for the receiver to listen" in shown
    assert shown.rpartition("\x1b[2K")[2].startswith("hsmbridge: error: ")
