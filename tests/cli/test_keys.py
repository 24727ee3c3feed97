"""`key`: generation, what is told about a key, and what is never destroyed."""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli


def label() -> str:
    """Return a name that no other test uses."""
    return f"key-{secrets.token_hex(6)}"


def generate(cli: Cli, *arguments: str) -> dict[str, Any]:
    """Generate a key; skip the test where the token generates none of that type."""
    done = cli("key", "generate", *arguments, "--json", status=None)
    if done.status == 1 and ("NOT_SUPPORTED" in done.err or "MECHANISM_INVALID" in done.err):
        pytest.skip(f"the token does not generate it: {done.err}")
    assert done.status == 0, done.err
    return done.document


def openssl(directory: Path, *arguments: str) -> None:
    """Run openssl in a directory."""
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)


@pytest.mark.parametrize("key_type", ["aes:256", "aes:128", "des3", "generic:20", "rsa:2048", "ec:p-256", "ed25519"])
def test_generate_makes_hidden_token_keys(cli: Cli, key_type: str) -> None:
    """A generated key is a token object that pkcs11-tool sees, sensitive and not extractable."""
    name = label()
    made = generate(cli, "--type", key_type, "--label", name)
    assert made["schema"] == "hsmbridge.key.generate/1"
    assert (made["type"], made["residency"]) == (key_type, "hardware")
    assert name in cli.tool("-O").stdout
    shown = cli.json("key", "show", f"label:{name}")
    assert shown["attributes"]["SENSITIVE"] is True
    assert shown["attributes"]["EXTRACTABLE"] is False
    assert "wrap" not in shown["uses"]


def test_generate_takes_id_and_attributes(cli: Cli) -> None:
    """--id, --extractable and -a end up in the object."""
    name, key_id = label(), secrets.token_hex(8)
    generate(cli, "--type", "aes:256", "--label", name, "--id", key_id, "--extractable", "-a", "DECRYPT=false")
    shown = cli.json("key", "show", f"id:{key_id}")
    assert (shown["label"], shown["id"], shown["uses"]) == (name, key_id, ["encrypt"])
    assert shown["attributes"]["EXTRACTABLE"] is True


def test_generate_refuses_a_taken_id(cli: Cli) -> None:
    """A second key with a CKA_ID that is taken is refused with 4: NSS would replace the first."""
    key_id = secrets.token_hex(8)
    generate(cli, "--type", "aes:256", "--label", label(), "--id", key_id)
    before = cli.inventory()
    cli("key", "generate", "--type", "aes:256", "--label", label(), "--id", key_id, status=4)
    assert cli.inventory() == before


def test_generate_kek(cli: Cli) -> None:
    """--kek makes a key that may wrap and unwrap and nothing else; its id is its fingerprint where there is one."""
    name = label()
    made = generate(cli, "--type", "aes:256", "--label", name, "--kek")
    assert made["uses"] == ["wrap", "unwrap"]
    assert made["kek"]["safe"] is True
    assert made["kek"]["strength"] == 256
    if made["kek"]["fingerprint"] is not None:
        assert made["id"] == made["kek"]["fingerprint"]
    assert made["kek"]["warning"] is None or not made["kek"]["unwrap_template_enforced"]


def test_kek_without_unwrap_template_is_told(fresh: Cli) -> None:
    """`key show` says who can read what a KEK wrapped: everybody, unless the token enforces its CKA_UNWRAP_TEMPLATE."""
    generate(fresh, "--type", "aes:256", "--label", "safe", "--kek")
    done = fresh("key", "generate", "--type", "aes:256", "--label", "open", "--kek", "--no-unwrap-template")
    sentence = "whoever may log in can read what this KEK wrapped"
    assert sentence in done.err
    assert sentence in fresh("key", "show", "label:open").text
    assert sentence not in fresh("key", "show", "label:safe").text


def test_check_value_is_that_of_the_key(cli: Cli) -> None:
    """The KCV of a key that may encrypt is the start of an encrypted zero block, as `cryptography` computes it."""
    value = secrets.token_bytes(32)
    name = cli.put_key(value, ENCRYPT=True)
    encryptor = Cipher(algorithms.AES(value), modes.ECB()).encryptor()  # noqa: S305 - a check value is ECB
    expected = encryptor.update(bytes(16))[:3].hex()
    assert cli.json("key", "show", f"label:{name}")["kcv"] == expected
    assert f"kcv         {expected}" in cli("key", "show", f"label:{name}").text


def test_key_ls_agrees_with_the_judge(cli: Cli) -> None:
    """`key ls` lists a key that pkcs11-tool lists, with the residency that keeps it where it is."""
    made = generate(cli, "--type", "aes:256", "--label", label())
    listed = [key for key in cli.json("key", "ls")["keys"] if key["id"] == made["id"]]
    assert [(key["label"], key["residency"], key["reason"]) for key in listed] == [
        (made["label"], "hardware", made["reason"])
    ]
    assert made["id"] in cli("key", "ls").text
    assert made["id"] in cli.tool("-O").stdout


def test_names_find_the_key(cli: Cli) -> None:
    """label:, id: and the URI that `key show` prints lead to the same key; an ambiguous label is refused with 2."""
    name = label()
    made = generate(cli, "--type", "aes:256", "--label", name)
    for way in (f"label:{name}", f"id:{made['id']}", made["uri"]):
        assert cli.json("key", "show", way)["id"] == made["id"]
    generate(cli, "--type", "aes:256", "--label", name)
    assert "id:HEX" in cli("key", "show", f"label:{name}", status=2).hint


def test_a_token_key_is_never_destroyed(cli: Cli) -> None:
    """`key destroy` of a token key ends with 4 even with --yes, and pkcs11-tool still finds it."""
    made = generate(cli, "--type", "aes:256", "--label", label(), "--extractable")
    before = cli.inventory()
    done = cli("key", "destroy", f"id:{made['id']}", "--yes", status=4)
    assert "CKA_TOKEN=true" in done.err
    assert cli.inventory() == before
    assert made["id"] in "".join(before)


KINDS = {
    "RSA PEM": (["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "k"], "rsa:2048"),
    "EC DER": (
        ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-outform", "DER", "-out", "k"],
        "ec:p-256",
    ),
    "Ed25519 PEM": (["genpkey", "-algorithm", "ED25519", "-out", "k"], "ed25519"),
    "encrypted": (["genpkey", "-algorithm", "ED25519", "-aes256", "-pass", "pass:x", "-out", "k"], None),
    "JWK": ({"kty": "oct", "k": base64.urlsafe_b64encode(bytes(range(32))).decode().rstrip("=")}, "generic:32"),
    "raw": (bytes(range(32)), "aes:256"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_file_is_shown_and_destroyed(plain: Cli, kind: str) -> None:
    """A software key at rest is recognised; destroying it overwrites the file's own blocks and removes its name."""
    recipe, key_type = KINDS[kind]
    path = plain.directory / "k"
    if isinstance(recipe, list):
        openssl(plain.directory, *recipe)
    else:
        path.write_bytes(recipe if isinstance(recipe, bytes) else json.dumps(recipe).encode())
    path.chmod(0o600)
    more = ["--key-type", "aes:256"] if kind == "raw" else []
    shown = plain.json("key", "show", "file:k", *more)
    assert (shown["type"], shown["residency"]) == (key_type, "software")
    with path.open("rb") as still_open:
        done = plain.json("key", "destroy", "file:k", "--yes", *more)
        assert done["disposition"] == "destroyed"
        assert still_open.read().strip(b"\0") == b""
    assert list(plain.directory.iterdir()) == []


def test_other_names_of_a_key_file_lose_the_key_too(plain: Cli) -> None:
    """A hard link to a destroyed key file names an overwritten file, and the user is told of it."""
    (plain.directory / "k").write_bytes(bytes(range(32)))
    (plain.directory / "other").hardlink_to(plain.directory / "k")
    done = plain("key", "destroy", "file:k", "--key-type", "aes:256", "--yes")
    assert "1 more name" in done.err
    assert (plain.directory / "other").read_bytes() == b""


def test_a_file_that_is_no_key_survives(plain: Cli) -> None:
    """What is no key, a link, a public key or of another length is refused, and stays as it was."""
    (plain.directory / "letter").write_text("dear Alice")
    (plain.directory / "short").write_bytes(bytes(31))
    (plain.directory / "key").write_bytes(bytes(range(32)))
    (plain.directory / "link").symlink_to("key")
    openssl(plain.directory, "genpkey", "-algorithm", "ED25519", "-out", "private")
    openssl(plain.directory, "pkey", "-in", "private", "-pubout", "-out", "public")
    before = {path.name: path.read_bytes() for path in plain.directory.iterdir()}
    plain("key", "destroy", "file:letter", "--yes", status=3)
    plain("key", "destroy", "file:public", "--yes", status=3)
    plain("key", "destroy", "file:short", "--key-type", "aes:256", "--yes", status=3)
    plain("key", "destroy", "file:link", "--key-type", "aes:256", "--yes", status=2)
    plain("key", "destroy", "file:.", "--yes", status=2)
    assert {path.name: path.read_bytes() for path in plain.directory.iterdir()} == before


def test_destroying_asks(plain: Cli) -> None:
    """Without --yes and without a terminal nothing is destroyed: 2."""
    (plain.directory / "k").write_bytes(bytes(range(32)))
    done = plain("key", "destroy", "file:k", "--key-type", "aes:256", status=2, stdin=b"y\n")
    assert "--yes" in done.hint
    assert (plain.directory / "k").read_bytes() == bytes(range(32))


def test_an_open_key_file_is_told(plain: Cli) -> None:
    """A key file that others may read is shown with a warning."""
    path = plain.directory / "k"
    path.write_bytes(bytes(range(32)))
    path.chmod(0o644)
    assert "open to other users" in plain("key", "show", "file:k", "--key-type", "aes:256").err


def test_a_key_file_that_may_not_be_written(plain: Cli) -> None:
    """A file that cannot be overwritten is left, with 2."""
    if os.geteuid() == 0:
        pytest.skip("root may write everything")
    path = plain.directory / "k"
    path.write_bytes(bytes(range(32)))
    path.chmod(0o400)
    plain("key", "destroy", "file:k", "--key-type", "aes:256", "--yes", status=2)
    assert path.read_bytes() == bytes(range(32))
