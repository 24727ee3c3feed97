"""`identity`: who signs and whom we believe; other people's code reads what is written."""

from __future__ import annotations

import hashlib
import secrets
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

    from tests.cli.conftest import Cli

COMMANDS = ["new", "show", "trust", "ls", "forget"]


@pytest.fixture
def home(plain: Cli) -> Cli:
    """The command with a configuration directory of its own, which is not there yet, and no token."""
    return plain.having(HSMBRIDGE_HOME=str(plain.directory / "home"))


def put_public(path: Path, key: PublicKeyTypes, encoding: serialization.Encoding = serialization.Encoding.PEM) -> str:
    """Write a public key; return its fingerprint as openssl and hashlib have it."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    path.write_bytes(key.public_bytes(encoding, form))
    return hashlib.sha256(key.public_bytes(serialization.Encoding.DER, form)).hexdigest()


@pytest.mark.parametrize("name", COMMANDS)
def test_help(plain: Cli, name: str) -> None:
    """Each subcommand has help with an example, and the line that the group shows is its first."""
    shown = plain("identity", name, "--help").text
    assert shown.startswith(f"Usage: hsmbridge identity {name} ")
    assert f"hsmbridge identity {name}" in shown.partition("Examples:")[2]
    assert f"  {name}" in plain("identity", "--help").text


def test_a_new_identity(home: Cli) -> None:
    """`new` writes an Ed25519 key that openssl reads, mode 600 in a directory of mode 700; `show` tells the same."""
    told = home.json("identity", "new")
    path = home.directory / "home" / "identity.pem"
    assert (told["schema"], told["algorithm"], told["identity"]) == ("hsmbridge.identity.new/1", "Ed25519", str(path))
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)
    shown = subprocess.run(["openssl", "pkey", "-in", path, "-pubout"], capture_output=True, text=True, check=True)
    assert shown.stdout == told["public_key"]
    der = subprocess.run(
        ["openssl", "pkey", "-in", path, "-pubout", "-outform", "DER"], capture_output=True, check=True
    ).stdout
    assert hashlib.sha256(der).hexdigest() == told["fingerprint"]
    again = home.json("identity", "show")
    assert {**again, "schema": ""} == {**told, "schema": ""}
    home("identity", "show", "--public", "public.pem")
    assert (
        (home.directory / "public.pem").read_text()
        == told["public_key"]
        == home("identity", "show", "--public", "-").text
    )
    secret = "".join(path.read_text().splitlines()[1:-1])
    assert secret not in home("identity", "show", "-v").text


def test_an_identity_is_never_replaced(home: Cli) -> None:
    """A second `new` ends with 4 and leaves the first as it was."""
    home("identity", "new")
    path = home.directory / "home" / "identity.pem"
    before = path.read_bytes()
    assert "pinned" in home("identity", "new", status=4).hint
    assert path.read_bytes() == before
    home("identity", "new", "-o", "other.pem")
    assert (home.directory / "other.pem").read_bytes() != before
    home("identity", "new", "-o", "other.pem", status=4)


def test_no_identity(home: Cli) -> None:
    """`show` without an identity ends with 2, names the command that makes one, and makes nothing."""
    assert "identity new" in home("identity", "show", status=2).hint
    assert list(home.directory.iterdir()) == []


def test_an_identity_that_others_can_read_is_refused(home: Cli) -> None:
    """A group-readable identity ends with 4 and says chmod; what is no identity ends with 3."""
    home("identity", "new")
    path = home.directory / "home" / "identity.pem"
    path.chmod(0o640)
    assert "chmod 600" in home("identity", "show", status=4).hint
    path.write_bytes(b"nothing")
    path.chmod(0o600)
    home("identity", "show", status=3)


@pytest.mark.parametrize("role", ["sender", "recipient"])
@pytest.mark.parametrize("encoding", [serialization.Encoding.PEM, serialization.Encoding.DER])
def test_trust_ls_forget(home: Cli, role: str, encoding: serialization.Encoding) -> None:
    """A pinned key is listed with its fingerprint, once however often it is pinned, and gone when forgotten."""
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    fingerprint = put_public(home.directory / "key", key, encoding)
    command = ["identity", "trust", "--name", "alice", "--role", role, "--fingerprint", fingerprint, "key"]
    told = home.json(*command)
    assert (told["schema"], told["fingerprint"], told["new"]) == ("hsmbridge.identity.trust/1", fingerprint, True)
    assert home.json(*command)["new"] is False
    pin = {"role": role, "name": "alice", "type": "ec:p-256", "fingerprint": fingerprint}
    assert home.json("identity", "ls")["pins"] == [pin]
    assert fingerprint in home("identity", "ls").text
    other = "recipient" if role == "sender" else "sender"
    home("identity", "forget", "alice", "--role", other, status=2)
    home("identity", "forget", "alice", "--role", role)
    assert home.json("identity", "ls")["pins"] == []
    home("identity", "forget", "alice", "--role", role, status=2)


def test_forgetting_one_keeps_the_others(home: Cli) -> None:
    """Only the named pin goes; the other pins and a comment in the file stay, byte for byte."""
    for name in ("al", "alice", "bob"):
        put_public(home.directory / name, ed25519.Ed25519PrivateKey.generate().public_key())
        home("identity", "trust", "--name", name, name)
    path = home.directory / "home" / "trusted"
    path.write_bytes(b"# by hand\n" + path.read_bytes())
    before = path.read_bytes().splitlines()
    home("identity", "forget", "al")
    assert path.read_bytes().splitlines() == [line for line in before if not line.startswith(b"sender al ")]
    assert [pin["name"] for pin in home.json("identity", "ls")["pins"]] == ["alice", "bob"]


def test_a_name_keeps_its_key(home: Cli) -> None:
    """Another key under a pinned name, and a pinned key under another name, end with 4; the pins stay."""
    for name in ("one", "two"):
        put_public(home.directory / name, ed25519.Ed25519PrivateKey.generate().public_key())
    home("identity", "trust", "--name", "alice", "one")
    before = home.json("identity", "ls")
    assert "forget alice" in home("identity", "trust", "--name", "alice", "two", status=4).hint
    home("identity", "trust", "--name", "bob", "one", status=4)
    assert home.json("identity", "ls") == before


def test_another_fingerprint_is_not_pinned(home: Cli) -> None:
    """--fingerprint with another key's fingerprint ends with 4 and pins nothing."""
    put_public(home.directory / "key", ed25519.Ed25519PrivateKey.generate().public_key())
    home("identity", "trust", "--name", "alice", "--fingerprint", secrets.token_hex(32), "key", status=4)
    assert home.json("identity", "ls")["pins"] == []


WRONG: dict[str, tuple[str, PublicKeyTypes]] = {
    "an RSA sender": ("sender", rsa.generate_private_key(65537, 3072).public_key()),
    "a P-384 sender": ("sender", ec.generate_private_key(ec.SECP384R1()).public_key()),
    "an Ed25519 recipient": ("recipient", ed25519.Ed25519PrivateKey.generate().public_key()),
    "a P-384 recipient": ("recipient", ec.generate_private_key(ec.SECP384R1()).public_key()),
    "an RSA-2048 recipient": ("recipient", rsa.generate_private_key(65537, 2048).public_key()),
}


@pytest.mark.parametrize("case", WRONG)
def test_keys_that_cannot_play_their_role(home: Cli, case: str) -> None:
    """A key that cannot sign blobs, or for which none is sealed, is not pinned: 4."""
    role, key = WRONG[case]
    put_public(home.directory / "key", key)
    assert home("identity", "trust", "--name", "x", "--role", role, "key", status=4).hint
    assert home.json("identity", "ls")["pins"] == []


def test_what_is_no_public_key(home: Cli) -> None:
    """A private key, an X25519 key, and bytes end with 3; a name with a space too; a missing file with 2."""
    home("identity", "new")
    put_public(home.directory / "x25519", x25519.X25519PrivateKey.generate().public_key())
    (home.directory / "bytes").write_bytes(secrets.token_bytes(44))
    for name in ("home/identity.pem", "x25519", "bytes"):
        home("identity", "trust", "--name", "x", name, status=3)
    put_public(home.directory / "key", ed25519.Ed25519PrivateKey.generate().public_key())
    home("identity", "trust", "--name", "a b", "key", status=3)
    home("identity", "trust", "--name", "x", "missing", status=2)
    assert home.json("identity", "ls")["pins"] == []


def test_pins_that_others_can_change_are_refused(home: Cli) -> None:
    """A group-writable file of pins ends with 4; a malformed line ends with 3 and is named."""
    put_public(home.directory / "key", ed25519.Ed25519PrivateKey.generate().public_key())
    home("identity", "trust", "--name", "alice", "key")
    path = home.directory / "home" / "trusted"
    path.chmod(0o660)
    assert "chmod 600" in home("identity", "ls", status=4).hint
    path.chmod(0o600)
    path.write_bytes(path.read_bytes() + b"sender bob\n")
    assert "line 2" in home("identity", "ls", status=3).err


def test_an_identity_in_the_token(fresh: Cli) -> None:
    """A token's P-256 key is an identity: `show` gives the public key that pkcs11-tool reads; AES keys are none."""
    fresh("key", "generate", "--type", "ec:p-256", "--label", "signer")
    fresh.tool("--read-object", "--type", "pubkey", "--label", "signer", "-o", "public.der")
    der = (fresh.directory / "public.der").read_bytes()
    told = fresh.json("identity", "show", "--identity", "label:signer")
    assert (told["algorithm"], told["fingerprint"]) == ("ES256", hashlib.sha256(der).hexdigest())
    fresh("key", "generate", "--type", "ec:p-384", "--label", "larger")
    fresh("identity", "show", "--identity", "label:larger", status=4)
