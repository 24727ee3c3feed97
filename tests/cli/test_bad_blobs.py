"""Blobs that must not be imported: exit code 3 or 4, nothing unwrapped, no object and no file left."""

from __future__ import annotations

import hashlib
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cbor2
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hsmbridge_csp.clearpart import Purpose
from hsmbridge_csp.provider import Provider
from hsmbridge_csp.recipient_ecdh import EcdhSealer
from hsmbridge_csp.trust import load_public_key

from tests.cli.test_export_import import make_pair, pin, put_file, with_home
from tests.cli.test_tokens import SPIES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Cli

KID, SENDER = 4, -65544
UNWRAPPING = (": C_UnwrapKey", ": C_Decrypt", ": C_DeriveKey")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A blob taken apart, and the keys of two senders: the one that signed it, and another that is believed too."""

    header: bytes
    protected: bytes
    kid: bytes
    payload: bytes
    signature: bytes
    sender: ed25519.Ed25519PrivateKey
    other: ed25519.Ed25519PrivateKey

    def encode(self, **changed: Any) -> bytes:  # noqa: ANN401 - any of the parts
        """Put it together with some parts changed; the signature stays as it was."""
        now = {name: changed.get(name, getattr(self, name)) for name in self.__slots__}
        body = [now["protected"], {KID: now["kid"]}, now["payload"], now["signature"]]
        return bytes(now["header"]) + cbor2.dumps(cbor2.CBORTag(18, body), canonical=True)

    def sign(self, key: ed25519.Ed25519PrivateKey, **changed: Any) -> bytes:  # noqa: ANN401 - any of the parts
        """Put it together with some parts changed, signed anew."""
        header, payload = (changed.get(name, getattr(self, name)) for name in ("header", "payload"))
        signature = key.sign(cbor2.dumps(["Signature1", self.protected, header, payload]))
        return self.encode(**changed, signature=signature)

    def by(self, key: ed25519.Ed25519PrivateKey) -> bytes:
        """Put it together as another sender would who cannot open it: named and signed by *key*."""
        kid = fingerprint(key)
        return self.sign(key, kid=kid, payload=self.inside(change_clear_part(SENDER, kid)))

    def inside(self, change: Callable[[list[Any]], None]) -> bytes:
        """Change the COSE_Encrypt."""
        items = list(cbor2.loads(self.payload).value)
        change(items)
        return cbor2.dumps(cbor2.CBORTag(96, items), canonical=True)


def flip(data: bytes, place: int = -1) -> bytes:
    """Change one bit."""
    changed = bytearray(data)
    changed[place] ^= 1
    return bytes(changed)


def damage_recipient(items: list[Any]) -> None:
    """Change the wrapped content key."""
    items[3] = [[items[3][0][0], items[3][0][1], flip(items[3][0][2])]]


def change_algorithm(items: list[Any]) -> None:
    """Call the recipient's algorithm ECDH-ES + A256KW."""
    items[3] = [[items[3][0][0], {**items[3][0][1], 1: -31}, items[3][0][2]]]


def damage_content(items: list[Any]) -> None:
    """Change the encrypted record."""
    items[2] = flip(items[2])


def change_clear_part(label: int, value: object) -> Callable[[list[Any]], None]:
    """Return what changes one field of the clear part."""

    def change(items: list[Any]) -> None:
        items[0] = cbor2.dumps({**cbor2.loads(items[0]), label: value})

    return change


def reorder(items: list[Any]) -> None:
    """Turn the order of the clear part's fields around."""
    items[0] = cbor2.dumps(dict(reversed(cbor2.loads(items[0]).items())))


CASES: dict[str, tuple[int, Callable[[Parts], bytes]]] = {
    "unsigned": (4, lambda parts: parts.header + parts.inside(change_clear_part(SENDER, b""))),
    "signature taken off": (3, lambda parts: parts.header + parts.payload),
    "signed by nobody known": (4, lambda parts: parts.by(ed25519.Ed25519PrivateKey.generate())),
    "signed by nobody known, of that name": (3, lambda parts: parts.sign(ed25519.Ed25519PrivateKey.generate())),
    "signed anew by another believed sender": (3, lambda parts: parts.by(parts.other)),
    "signed by another believed sender": (3, lambda parts: parts.sign(parts.other, kid=fingerprint(parts.other))),
    "signed by another in the sender's name": (3, lambda parts: parts.sign(parts.other)),
    "signature changed": (3, lambda parts: parts.encode(signature=flip(parts.signature))),
    "signature empty": (3, lambda parts: parts.encode(signature=b"")),
    "header's algorithm changed": (3, lambda parts: parts.sign(parts.sender, header=flip(parts.header, 4))),
    "header's type changed": (3, lambda parts: parts.sign(parts.sender, header=flip(parts.header, 0))),
    "content changed": (3, lambda parts: parts.encode(payload=parts.inside(damage_content))),
    "content changed and signed": (3, lambda parts: parts.sign(parts.sender, payload=parts.inside(damage_content))),
    "content key changed and signed": (
        3,
        lambda parts: parts.sign(parts.sender, payload=parts.inside(damage_recipient)),
    ),
    "recipient's algorithm changed": (
        3,
        lambda parts: parts.sign(parts.sender, payload=parts.inside(change_algorithm)),
    ),
    "purpose changed": (3, lambda parts: parts.encode(payload=parts.inside(change_clear_part(-65543, "move")))),
    "version unknown": (
        3,
        lambda parts: parts.sign(parts.sender, payload=parts.inside(change_clear_part(-65537, 2))),
    ),
    "crit unknown": (3, lambda parts: parts.sign(parts.sender, payload=parts.inside(change_clear_part(2, [-65600])))),
    "order of a map": (3, lambda parts: parts.sign(parts.sender, payload=parts.inside(reorder))),
    "bytes behind the end": (3, lambda parts: parts.encode() + b"\0"),
    "last byte missing": (3, lambda parts: parts.encode()[:-1]),
    "deep": (3, lambda parts: parts.header + b"\xd2\x84" + b"\x81" * 100_000),
    "too long": (3, lambda parts: parts.encode() + bytes(1 << 20)),
    "empty": (3, lambda _: b""),
}
OPENED = {
    "content changed and signed",
    "content key changed and signed",
    "recipient's algorithm changed",
    "signed anew by another believed sender",
}
"""These are signed by a believed sender: only the KEK can tell that they are wrong."""


def fingerprint(key: ed25519.Ed25519PrivateKey) -> bytes:
    """Return a sender's name."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_key().public_bytes(serialization.Encoding.DER, form)).digest()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, shared_variables: dict[str, str]) -> tuple[Cli, str, Parts]:
    """A good blob of a token key, the KEK that opens it, and its parts."""
    from tests.cli.conftest import Cli  # noqa: PLC0415 - at run time here, for types elsewhere

    home = with_home(Cli(directory=tmp_path_factory.mktemp("bad"), variables=shared_variables))
    key, kek = home.put_key(secrets.token_bytes(32)), home.put_kek(secrets.token_bytes(32))
    if home("export", f"label:{key}", "--kek", f"label:{kek}", "-o", "good", status=None).status:
        pytest.skip("the token has no AES key wrap")
    pin(home, home.having(HSMBRIDGE_HOME=make_identity(home)), "other")
    blob = (home.directory / "good").read_bytes()
    protected, unprotected, payload, signature = cbor2.loads(blob[8:]).value
    parts = Parts(
        header=blob[:8],
        protected=protected,
        kid=unprotected[KID],
        payload=payload,
        signature=signature,
        sender=private(home, "home"),
        other=private(home, "other"),
    )
    assert parts.encode() == parts.sign(parts.sender) == blob
    return home, kek, parts


def make_identity(home: Cli) -> str:
    """Make another sender, and return its configuration directory."""
    directory = str(home.directory / "other")
    home.having(HSMBRIDGE_HOME=directory)("identity", "new")
    return directory


def private(home: Cli, name: str) -> ed25519.Ed25519PrivateKey:
    """Read a sender's key."""
    key = serialization.load_pem_private_key((home.directory / name / "identity.pem").read_bytes(), None)
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    return key


@pytest.mark.parametrize("case", CASES)
def test_bad_blobs_leave_nothing(exported: tuple[Cli, str, Parts], case: str) -> None:
    """A bad blob is refused by import and inspect; before a verified sender nothing is unwrapped, as pkcs11-spy saw."""
    home, kek, parts = exported
    status, change = CASES[case]
    put_file(home, "bad", change(parts))
    files, objects = sorted(home.directory.iterdir()), home.inventory()
    spy = next((path for path in SPIES if os.path.exists(path)), None)  # noqa: PTH110 - a string is what is needed
    if spy is None:
        pytest.skip("pkcs11-spy.so is not installed (Debian package opensc)")
    log = home.directory / "home" / f"{secrets.token_hex(8)}.log"
    judged = home.variables.get("PKCS11_JUDGE_MODULE", "")
    spied = home.without("PKCS11_MODULE_ARGS").having(PKCS11SPY=judged, PKCS11SPY_OUTPUT=str(log))
    for dest in (["--persist"], ["-o", "file:out"]):
        done = spied("import", "-i", "bad", "--kek", f"label:{kek}", *dest, "--module", spy, status=status)
        assert done.hint
        assert done.out == b""
    inspected = spied("inspect", "bad", "--kek", f"label:{kek}", "--module", spy, status=status)
    assert "content" not in inspected.text
    assert sorted(home.directory.iterdir()) == files
    assert home.inventory() == objects
    calls = log.read_text(errors="replace") if log.exists() else ""
    if case not in OPENED:
        assert not [name for name in UNWRAPPING if name in calls]


def test_an_unsigned_copy_can_be_allowed(plain: Cli) -> None:
    """--allow-unsigned takes a copy that nobody signed, warns, and records it; without it, 4. A move is never taken."""
    home = with_home(plain)
    make_pair(home, "p256")
    public = load_public_key((home.directory / "p256.pub").read_bytes(), name="p256.pub")
    assert isinstance(public, ec.EllipticCurvePublicKey)
    provider = Provider()
    key = provider.generate_key("AES", 256)
    put_file(home, "copy", provider.export_key(key, EcdhSealer(public)))
    put_file(home, "move", provider.export_key(key, EcdhSealer(public), purpose=Purpose.MOVE))
    command = ["--as", "p256.pem", "--dry-run"]
    assert "--allow-unsigned" in home("import", "-i", "copy", *command, status=4).hint
    done = home("import", "-i", "copy", *command, "--allow-unsigned", "--json")
    assert "not signed" in done.err
    assert done.document["sender"] == {"status": "unsigned", "fingerprint": None, "name": None}
    home("inspect", "copy", "--as", "p256.pem", status=4)
    told = home.json("inspect", "copy", "--as", "p256.pem", "--allow-unsigned")
    assert told["files"][0]["signature"]["status"] == "unsigned"
    home("import", "-i", "move", *command, "--allow-unsigned", status=4)
    assert sorted(path.name for path in home.directory.iterdir()) == ["copy", "move", "p256.pem", "p256.pub"]


def test_a_forgotten_sender(plain: Cli) -> None:
    """A blob of a pinned sender is taken, and refused with 4 once the sender is forgotten; its clear part is told."""
    sender, receiver = with_home(plain), with_home(plain, "there")
    make_pair(sender, "p256")
    put_file(sender, "raw", secrets.token_bytes(32))
    sender("export", "file:raw", "--key-type", "aes", "--to", "p256.pub", "-o", "blob")
    command = ["import", "-i", "blob", "--as", "p256.pem", "--dry-run"]
    assert "identity trust" in receiver(*command, status=4).hint
    pin(receiver, sender, "alice")
    assert "alice" in receiver(*command).text
    receiver("identity", "forget", "alice")
    receiver(*command, status=4)
    told = receiver.json("inspect", "blob", "--as", "p256.pem", status=4)["files"][0]
    assert (told["kind"], told["algorithm"], "content" in told) == ("blob", "AES", False)


def test_inspect_opens_and_shows_no_secret(plain: Cli) -> None:
    """`inspect --as` tells signature, algorithm, state and permissions; the key's bytes are in no form of output."""
    home, value = with_home(plain), secrets.token_bytes(32)
    make_pair(home, "p256")
    put_file(home, "raw", value)
    home("export", "file:raw", "--key-type", "aes", "--to", "p256.pub", "-o", "blob")
    done = home("inspect", "blob", "--as", "p256.pem", "--json")
    told = done.document["files"][0]
    assert told["signature"]["status"] == "valid"
    assert told["recipients"][0]["algorithm"] == "ECDH-ES+A256KW"
    assert (told["content"]["algorithm"], told["content"]["key_bytes"]) == ("AES", 32)
    assert told["content"]["state"]["mode"] == "CBC"
    assert "encrypt" in told["content"]["permissions"]
    for shown in (
        done,
        home("inspect", "blob", "--as", "p256.pem"),
        home("-vv", "inspect", "blob", "--as", "p256.pem"),
    ):
        assert value.hex() not in shown.text.lower() + shown.err.lower()
        assert str(list(value[:8]))[1:-1] not in shown.text
    assert "content" not in home("inspect", "blob").text


def test_an_unsafe_kek(cli: Cli) -> None:
    """A KEK that may decrypt seals and opens only with --allow-unsafe-kek, and is warned of both times."""
    home = with_home(cli)
    kek = f"label:{home.put_kek(secrets.token_bytes(32), DECRYPT=True)}"
    put_file(home, "raw", secrets.token_bytes(32))
    command = ["export", "file:raw", "--key-type", "aes", "--kek", kek, "-o", "blob"]
    home(*command, status=4)
    done = home(*command, "--allow-unsafe-kek", status=None)
    if done.status:
        pytest.skip("the token has no AES key wrap")
    assert "may also DECRYPT" in done.err
    opening = ["import", "-i", "blob", "--kek", kek, "--dry-run"]
    home(*opening, status=4)
    assert "may also DECRYPT" in home(*opening, "--allow-unsafe-kek").err
