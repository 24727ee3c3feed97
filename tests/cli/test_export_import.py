"""`export` and `import`: what arrives is what left, as other people's code sees it, or nothing arrives."""

from __future__ import annotations

import secrets
import subprocess
from typing import TYPE_CHECKING, Any

import cbor2
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hsmbridge_csp.clearpart import Purpose
from hsmbridge_csp.identity import FileIdentity
from hsmbridge_csp.provider import Provider
from hsmbridge_csp.recipient_ecdh import EcdhSealer
from hsmbridge_csp.trust import load_public_key

from tests.cli.conftest import COMMAND
from tests.cli.test_unwrap import aes_ecb
from tests.cli.test_wrap import needs, refused

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli

Probed = dict[str, dict[str, Any]]
BLOCK = bytes(range(16))
PRIVATE = {
    "rsa": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"],
    "p256": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "p384": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
    "ed25519": ["-algorithm", "ED25519"],
}


def with_home(cli: Cli, name: str = "home") -> Cli:
    """Give the command a configuration directory of its own."""
    return cli.having(HSMBRIDGE_HOME=str(cli.directory / name))


def openssl(cli: Cli, *arguments: str) -> bytes:
    """Run openssl."""
    return subprocess.run(["openssl", *arguments], cwd=cli.directory, check=True, capture_output=True).stdout


def make_pair(cli: Cli, kind: str) -> None:
    """Let openssl make KIND.pem and its public half KIND.pub."""
    openssl(cli, "genpkey", *PRIVATE[kind], "-out", f"{kind}.pem")
    (cli.directory / f"{kind}.pem").chmod(0o600)
    openssl(cli, "pkey", "-in", f"{kind}.pem", "-pubout", "-out", f"{kind}.pub")


def put_file(cli: Cli, name: str, data: bytes) -> Path:
    """Write a private file."""
    path = cli.directory / name
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def pin(receiver: Cli, sender: Cli, name: str) -> None:
    """Let the receiver pin the sender."""
    public = sender("identity", "show", "--public", "-").out
    receiver("identity", "trust", "--name", name, "-", stdin=public)


def test_a_blob_opens_with_other_peoples_code(plain: Cli) -> None:
    """A software key sealed for an RSA key opens with cbor2, openssl and cryptography; its signature verifies there."""
    home, value = with_home(plain), secrets.token_bytes(32)
    make_pair(home, "rsa")
    put_file(home, "raw", value)
    done = home("export", "file:raw", "--key-type", "aes:256", "--to", "rsa.pub", "-o", "blob")
    assert "made your identity" in done.err
    blob = (home.directory / "blob").read_bytes()
    header, sign1 = blob[:8], cbor2.loads(blob[8:])
    protected, unprotected, payload, signature = sign1.value
    identity = serialization.load_pem_public_key(home("identity", "show", "--public", "-").out)
    assert isinstance(identity, ed25519.Ed25519PublicKey)
    identity.verify(signature, cbor2.dumps(["Signature1", protected, header, payload]))
    assert unprotected[4].hex() == home.json("identity", "show")["fingerprint"]
    clear, iv, ciphertext, recipients = cbor2.loads(payload).value
    put_file(home, "wrapped", recipients[0][2])
    content_key = openssl(
        home, "pkeyutl", "-decrypt", "-inkey", "rsa.pem", "-in", "wrapped", "-pkeyopt", "rsa_padding_mode:oaep",
        "-pkeyopt", "rsa_oaep_md:sha256", "-pkeyopt", "rsa_mgf1_md:sha256",
    )  # fmt: skip
    record = cbor2.loads(AESGCM(content_key).decrypt(iv[5], ciphertext, cbor2.dumps(["Encrypt", clear, header])))
    assert (record[1], record[3]) == ("AES", value)


def test_a_token_key_by_value_and_what_stays(fresh: Cli, another: Cli) -> None:
    """An extractable key arrives in a second token under the same KEK, attributes and all; export destroys nothing."""
    source, target, kek = with_home(fresh), with_home(another, "there"), secrets.token_bytes(32)
    value = secrets.token_bytes(32)
    name = source.put_key(value, ENCRYPT=True, DECRYPT=False)
    keks = [f"label:{side.put_kek(kek)}" for side in (source, target)]
    before = source.inventory()
    told = source.json("export", f"label:{name}", "--kek", keks[0], "-o", "blob")
    assert (told["schema"], told["blobs"][0]["transfer"]) == ("hsmbridge.export/1", "value")
    assert source.inventory() == before
    pin(target, source, "alice")
    untouched = target.inventory()
    tried = target.json("import", "-i", "blob", "--kek", keks[1], "--dry-run")
    assert (tried["dest"], tried["sender"]["name"], tried["key"]["label"]) == ("dry-run", "alice", name)
    assert target.inventory() == untouched
    there = target.json("import", "-i", "blob", "--kek", keks[1], "--persist")
    assert (there["dest"], there["transfer"], there["key"]["uses"]) == ("token", "wrapped", ["encrypt"])
    put_file(target, "block", BLOCK)
    target.tool("--encrypt", "-m", "AES-ECB", "--id", there["key"]["id"], "-i", "block", "-o", "sealed")
    assert (target.directory / "sealed").read_bytes() == aes_ecb(value)
    refused(target, "import", "-i", "blob", "--kek", keks[1], "--persist", status=4)
    assert "would be refused" in target("import", "-i", "blob", "--kek", keks[1], "--dry-run").err


def test_by_reference(fresh: Cli) -> None:
    """A key that is not extractable is refused by value with 4, and found again by reference; nothing is made."""
    home = with_home(fresh)
    fresh("key", "generate", "--type", "ec:p-256", "--label", "signer")
    make_pair(home, "rsa")
    home.put_kek(secrets.token_bytes(32), LABEL="kek")
    by_value = ["export", "label:signer", "-o", "refused"]
    assert "--by-reference" in refused(home, *by_value, "--kek", "label:kek", status=4)
    refused(home, *by_value, "--to", "rsa.pub", status=4)
    told = home.json("export", "label:signer", "--by-reference", "--to", "rsa.pub", "-o", "blob")
    assert told["blobs"][0]["transfer"] == "reference"
    before = home.inventory()
    for dest in ("--persist", "--dry-run"):
        found = home.json("import", "-i", "blob", "--as", "rsa.pem", dest)
        assert (found["transfer"], found["key"]["label"]) == ("reference", "signer")
    assert home.inventory() == before
    refused(home, "import", "-i", "blob", "--as", "rsa.pem", "-o", "file:out", status=4)


def test_a_reference_to_a_key_that_is_gone(fresh: Cli, another: Cli) -> None:
    """On another token, the reference of a blob is refused with 2: its key is not there."""
    source, target = with_home(fresh), with_home(another)
    source("key", "generate", "--type", "aes:256", "--label", "stays")
    make_pair(source, "p256")
    source("export", "label:stays", "--by-reference", "--to", "p256.pub", "-o", "blob")
    refused(target, "import", "-i", "blob", "--as", "p256.pem", "--persist", status=2)


def test_several_keys_go_to_a_directory(cli: Cli, probed: Probed) -> None:
    """Several keys make a blob each, named after them; no file is replaced, and one that cannot go stops all."""
    needs(probed, "aes-kw")
    home, kek = with_home(cli), f"label:{cli.put_kek(secrets.token_bytes(32))}"
    put_file(home, "raw.key", secrets.token_bytes(32))
    first, fixed = home.put_key(secrets.token_bytes(32)), home.put(secrets.token_bytes(32), EXTRACTABLE=False)
    blobs = home.directory / "blobs"
    keys = [f"label:{first}", "file:raw.key", "--key-type", "aes", "--kek", kek]
    home("export", *keys, "-o", "blobs", status=2)
    blobs.mkdir()
    home("export", f"label:{fixed}", *keys, "-o", "blobs", status=4)
    assert list(blobs.iterdir()) == []
    told = home.json("export", *keys, "-o", "blobs")
    assert sorted(path.name for path in blobs.iterdir()) == sorted([f"{first}.blob", "raw.key.blob"])
    assert len({entry["blob_id"] for entry in told["blobs"]}) == 2
    before = (blobs / "raw.key.blob").read_bytes()
    home("export", *keys, "-o", "blobs", status=2)
    home("export", "file:raw.key", *keys, "-o", "blobs", "--force", status=2)
    assert (blobs / "raw.key.blob").read_bytes() == before


def test_recipients_by_name(plain: Cli) -> None:
    """--to takes a pinned recipient's name, before a file of that name; a sender's pin is no recipient."""
    home = with_home(plain)
    make_pair(home, "rsa")
    make_pair(home, "p256")
    put_file(home, "raw", secrets.token_bytes(32))
    home("identity", "trust", "--name", "partner", "--role", "recipient", "rsa.pub")
    home("identity", "trust", "--name", "sender", "p256.pub")
    put_file(home, "partner", (home.directory / "p256.pub").read_bytes())
    command = ["export", "file:raw", "--key-type", "aes", "--to"]
    by_name = home.json(*command, "partner", "-o", "a")["recipient"]
    by_file = home.json(*command, "file:partner", "-o", "b")["recipient"]
    pins = {entry["name"]: entry["fingerprint"] for entry in home.json("identity", "ls")["pins"]}
    assert (by_name, by_file) == (pins["partner"], pins["sender"])
    home(*command, "sender", "-o", "c", status=2)


@pytest.mark.parametrize("kind", ["a running state", "a record key", "a move"])
def test_what_a_file_cannot_hold(plain: Cli, kind: str) -> None:
    """A key in mid-stream, a record key and a moved key are refused with 4 and leave no file; a dry run tells why."""
    home = with_home(plain)
    make_pair(home, "p256")
    home("identity", "new")
    provider = Provider(identity=FileIdentity.load(home.directory / "home" / "identity.pem"))
    public = load_public_key((home.directory / "p256.pub").read_bytes(), name="p256.pub")
    assert isinstance(public, ec.EllipticCurvePublicKey)
    key = provider.generate_key("AES-GCM" if kind == "a record key" else "AES", 256)
    purpose = Purpose.COPY
    if kind == "a running state":
        key.encrypt(b"12345")  # type: ignore[attr-defined] # an AES key
    else:
        purpose = Purpose.MOVE
    put_file(home, "blob", provider.export_key(key, EcdhSealer(public), purpose=purpose))
    command = ["import", "-i", "blob", "--as", "p256.pem"]
    before = sorted(home.directory.iterdir())
    done = home(*command, "-o", "file:out", status=4)
    assert "Provider.import_key" in done.hint
    assert sorted(home.directory.iterdir()) == before
    tried = home.json(*command, "--dry-run")
    assert bool(tried["warnings"]) == (kind != "a move")
    if kind == "a running state":
        assert (tried["state"]["tail_bytes"], tried["state"]["direction"]) == (5, "encrypt")


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "label:k", "-o", "f"],
        ["export", "label:k", "--kek", "label:a", "--to", "b", "-o", "f"],
        ["export", "label:k", "--kek", "file:a", "-o", "f"],
        ["export", "label:k", "--key-type", "aes", "--kek", "label:a", "-o", "f"],
        ["export", "file:missing", "--to", "missing", "-o", "f"],
        ["export", "label:k", "--kek", "label:a", "-o", "-", "--json"],
        ["import", "-i", "missing", "--as", "a"],
        ["import", "-i", "missing", "--as", "a", "--persist", "--dry-run"],
        ["import", "-i", "missing", "--persist"],
        ["import", "-i", "missing", "--as", "a", "--kek", "label:b", "--persist"],
        ["import", "-i", "missing", "--as", "a", "--persist", "--raw"],
        ["import", "-i", "missing", "--as", "a", "-o", "label:x"],
        ["import", "-i", "missing", "--as", "a", "-o", "file:/nonexistent/f"],
        ["import", "-i", "-", "--pin-file", "-", "--as", "a", "--persist"],
        ["inspect", "missing", "--as", "a", "--kek", "label:b"],
        ["inspect", "missing", "--allow-unsigned"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_usage_errors(plain: Cli, arguments: list[str]) -> None:
    """What makes no sense ends with 2, one error and one hint; no file is made, and no identity."""
    done = with_home(plain)(*arguments, status=2)
    assert done.err.startswith("hsmbridge: error: ")
    assert done.hint
    assert list(plain.directory.iterdir()) == []


def test_no_destination_reads_nothing(plain: Cli) -> None:
    """Without DEST an import ends with 2 before its input is opened: a pipe keeps its bytes for the next try."""
    home = with_home(plain)
    assert "--dry-run" in home("import", "-i", "/nonexistent", "--as", "x", status=2).err
    script = f"echo precious | (HSMBRIDGE_HOME=h {COMMAND} import -i - --as x; echo $?; cat)"
    done = subprocess.run(["bash", "-c", script], cwd=home.directory, capture_output=True, text=True, check=True)
    assert done.stdout == "2\nprecious\n"


def test_existing_files_are_kept(plain: Cli) -> None:
    """An import never replaces a file, and says so before anything is opened."""
    home = with_home(plain)
    make_pair(home, "p256")
    put_file(home, "raw", secrets.token_bytes(32))
    home("export", "file:raw", "--key-type", "aes", "--to", "p256.pub", "-o", "blob")
    put_file(home, "old", b"precious")
    home("import", "-i", "blob", "--as", "p256.pem", "-o", "file:old", status=2)
    assert (home.directory / "old").read_bytes() == b"precious"
