"""`unwrap`: what other people's code wrapped arrives unchanged, and what is damaged leaves nothing."""

from __future__ import annotations

import secrets
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from tests.cli.test_wrap import needs, refused

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

Probed = dict[str, dict[str, Any]]
BLOCK = bytes(range(16))


def aes_ecb(value: bytes) -> bytes:
    """Encrypt the block with `cryptography`."""
    return Cipher(algorithms.AES(value), modes.ECB()).encryptor().update(BLOCK)  # noqa: S305 - one block


def prove_aes(cli: Cli, key_id: str, value: bytes) -> None:
    """Let pkcs11-tool encrypt a block with the token's key, and compare with what *value* gives in software."""
    (cli.directory / "block").write_bytes(BLOCK)
    cli.tool("--encrypt", "-m", "AES-ECB", "--id", key_id, "-i", "block", "-o", "sealed")
    assert (cli.directory / "sealed").read_bytes() == aes_ecb(value)


@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize("dialect", ["aes-kw", "aes-kwp"])
def test_a_software_wrap_arrives(cli: Cli, probed: Probed, dialect: str, size: int) -> None:
    """A key that `cryptography` wrapped is in the token afterwards: pkcs11-tool encrypts with it as software does."""
    needs(probed, dialect)
    kek, value = secrets.token_bytes(32), secrets.token_bytes(size)
    wrap = keywrap.aes_key_wrap if dialect == "aes-kw" else keywrap.aes_key_wrap_with_padding
    (cli.directory / "in").write_bytes(wrap(kek, value))
    told = cli.json(
        "unwrap", "--kek", f"label:{cli.put_kek(kek)}", "-i", "in", "--mechanism", dialect,
        "--key-type", f"aes:{8 * size}", "--label", "arrived", "--persist",
    )  # fmt: skip
    assert (told["schema"], told["dest"]) == ("hsmbridge.unwrap/1", "token")
    assert told["attributes"]["SENSITIVE"] is True
    assert told["attributes"]["EXTRACTABLE"] is False
    assert told["kcv"] is None or len(told["kcv"]) == 6
    prove_aes(cli, told["key"]["id"], value)


@pytest.mark.parametrize("dialect", ["rsa-oaep-sha1", "rsa-oaep-sha256"])
def test_an_openssl_wrap_arrives(cli: Cli, probed: Probed, dialect: str) -> None:
    """A key that `openssl pkeyutl` sealed for the token's RSA key is in the token afterwards."""
    needs(probed, dialect)
    name, value = f"kek-{secrets.token_hex(6)}", secrets.token_bytes(32)
    cli("key", "generate", "--kek", "--type", "rsa:3072", "--label", name, "--no-unwrap-template")
    cli.tool("--read-object", "--type", "pubkey", "--label", name, "-o", "public.der")
    digest = dialect.rsplit("-", 1)[1]
    subprocess.run(
        ["openssl", "pkeyutl", "-encrypt", "-pubin", "-inkey", "public.der", "-keyform", "DER", "-out", "in",
         "-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", f"rsa_oaep_md:{digest}", "-pkeyopt", f"rsa_mgf1_md:{digest}"],
        cwd=cli.directory, input=value, check=True, capture_output=True,
    )  # fmt: skip
    told = cli.json(
        "unwrap", "--kek", f"label:{name}", "-i", "in", "--mechanism", dialect, "--key-type", "aes", "--persist"
    )
    prove_aes(cli, told["key"]["id"], value)


def test_an_ec_key_arrives(cli: Cli, probed: Probed) -> None:
    """A P-256 key in PKCS#8 under AES-KWP is in the token afterwards: openssl verifies what it signs there."""
    needs(probed, "aes-kwp")
    kek, private = secrets.token_bytes(32), ec.generate_private_key(ec.SECP256R1())
    der = private.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (cli.directory / "in").write_bytes(keywrap.aes_key_wrap_with_padding(kek, der))
    (cli.directory / "public.pem").write_bytes(public)
    told = cli.json(
        "unwrap", "--kek", f"label:{cli.put_kek(kek)}", "-i", "in", "--key-type", "ec:p-256",
        "--public-key", "public.pem", "--persist",
    )  # fmt: skip
    (cli.directory / "digest").write_bytes(bytes(32))
    cli.tool(
        "--sign",
        "-m",
        "ECDSA",
        "--signature-format",
        "openssl",
        "--id",
        told["key"]["id"],
        "-i",
        "digest",
        "-o",
        "signature",
    )
    checked = subprocess.run(
        ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "public.pem", "-in", "digest", "-sigfile", "signature"],
        cwd=cli.directory, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Signature Verified Successfully" in checked.stdout


def test_another_curve_than_said_is_refused(cli: Cli, probed: Probed) -> None:
    """A P-384 key is not taken for P-256: no object is left."""
    needs(probed, "aes-kwp")
    kek, private = secrets.token_bytes(32), ec.generate_private_key(ec.SECP384R1())
    der = private.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (cli.directory / "in").write_bytes(keywrap.aes_key_wrap_with_padding(kek, der))
    kek_name = cli.put_kek(kek)
    before = cli.inventory()
    cli("unwrap", "--kek", f"label:{kek_name}", "-i", "in", "--key-type", "ec:p-256", "--persist", status=1)
    assert cli.inventory() == before


def damaged(cli: Cli) -> tuple[str, bytes]:
    """Return a KEK and what it wrapped in RFC 5649."""
    kek = secrets.token_bytes(32)
    return cli.put_kek(kek), keywrap.aes_key_wrap_with_padding(kek, secrets.token_bytes(32))


@pytest.mark.parametrize(
    "damage",
    ["first bit", "last bit", "one byte less", "half", "empty", "one block", "another KEK's", "random", "oversized"],
)
def test_damage_leaves_nothing(cli: Cli, probed: Probed, damage: str) -> None:
    """A damaged wrap ends with 3, one error and one hint, and no object or file that was not there before."""
    needs(probed, "aes-kwp")
    kek, good = damaged(cli)
    bad = {
        "first bit": bytes([good[0] ^ 0x80]) + good[1:],
        "last bit": good[:-1] + bytes([good[-1] ^ 1]),
        "one byte less": good[:-1],
        "half": good[: len(good) // 2],
        "empty": b"",
        "one block": good[:8],
        "another KEK's": keywrap.aes_key_wrap_with_padding(bytes(32), bytes(32)),
        "random": secrets.token_bytes(40),
        "oversized": bytes(1 << 20),
    }[damage]
    (cli.directory / "in").write_bytes(bad)
    refused(cli, "unwrap", "--kek", f"label:{kek}", "-i", "in", "--key-type", "aes", "--persist", status=3)


def test_another_length_than_said_is_refused(cli: Cli, probed: Probed) -> None:
    """32 bytes are not taken for a DES3 key or an AES-128 key, though some tokens would."""
    needs(probed, "aes-kwp")
    kek, good = damaged(cli)
    (cli.directory / "in").write_bytes(good)
    for key_type in ("des3", "aes:128"):
        refused(cli, "unwrap", "--kek", f"label:{kek}", "-i", "in", "--key-type", key_type, "--persist", status=3)


def test_no_destination_consumes_nothing(cli: Cli, probed: Probed) -> None:
    """Without --persist or --dry-run: 2, before the input is read."""
    del probed
    (cli.directory / "in").write_bytes(b"anything")
    assert "--persist" in refused(cli, "unwrap", "--kek", "label:k", "-i", "in", "--key-type", "aes", status=2)


def test_a_dry_run_leaves_nothing(cli: Cli, probed: Probed) -> None:
    """--dry-run unwraps, reads back and tells, and leaves the token as it was; it ends as --persist would."""
    needs(probed, "aes-kwp")
    kek, good = damaged(cli)
    (cli.directory / "in").write_bytes(good)
    before = cli.inventory()
    command = ["unwrap", "--kek", f"label:{kek}", "-i", "-", "--key-type", "aes:256", "--label", "maybe", "--dry-run"]
    assert "removed again" in cli(*command, stdin=good).text
    told = cli.json(*command, stdin=good)
    assert told["key"]["label"] == "maybe"
    assert told["dest"] == "dry-run"
    assert cli.inventory() == before
    cli(*command, stdin=good[:-1], status=3)


def test_attributes_arrive(cli: Cli, probed: Probed) -> None:
    """--label, --id and -a are read back from the token; --extractable is obeyed, and the key can be wrapped again."""
    needs(probed, "aes-kwp")
    kek, value, key_id = secrets.token_bytes(32), secrets.token_bytes(32), secrets.token_hex(8)
    kek_name = cli.put_kek(kek)
    (cli.directory / "in").write_bytes(keywrap.aes_key_wrap_with_padding(kek, value))
    told = cli.json(
        "unwrap", "--kek", f"label:{kek_name}", "-i", "in", "--key-type", "aes", "--label", "Schlüssel", "--id", key_id,
        "--extractable", "-a", "DECRYPT=false", "-a", "CKA_SIGN=true", "--persist",
    )  # fmt: skip
    assert (told["key"]["label"], told["key"]["id"]) == ("Schlüssel", key_id)
    assert told["key"]["uses"] == ["encrypt", "sign"]
    cli("wrap", f"id:{key_id}", "--kek", f"label:{kek_name}", "-o", "again")
    assert keywrap.aes_key_unwrap_with_padding(kek, (cli.directory / "again").read_bytes()) == value


def test_a_taken_id_is_refused(cli: Cli, probed: Probed) -> None:
    """A CKA_ID that a key of the token has already is refused with 4."""
    needs(probed, "aes-kwp")
    key_id = secrets.token_hex(8)
    kek, good = damaged(cli)
    cli.put_key(secrets.token_bytes(32), ID=f"hex:{key_id}")
    (cli.directory / "in").write_bytes(good)
    refused(
        cli, "unwrap", "--kek", f"label:{kek}", "-i", "in", "--key-type", "aes", "--id", key_id, "--persist", status=4
    )


def test_a_kek_that_may_decrypt_is_refused(cli: Cli, probed: Probed) -> None:
    """Unwrapping under a KEK that may decrypt is refused with 4, and warned of with --allow-unsafe-kek."""
    needs(probed, "aes-kwp")
    kek = secrets.token_bytes(32)
    name = cli.put_kek(kek, DECRYPT=True)
    (cli.directory / "in").write_bytes(keywrap.aes_key_wrap_with_padding(kek, bytes(32)))
    command = ["unwrap", "--kek", f"label:{name}", "-i", "in", "--key-type", "aes", "--dry-run"]
    refused(cli, *command, status=4)
    assert "may also DECRYPT" in cli(*command, "--allow-unsafe-kek").err


def test_an_unwrap_template_binds(fresh: Cli) -> None:
    """A KEK made with --kek refuses with 4 to unwrap a key as extractable, and unwraps it hidden."""
    fresh("key", "generate", "--kek", "--type", "aes:256", "--label", "kek")
    fresh("key", "generate", "--type", "aes:256", "--label", "key", "--extractable")
    fresh("wrap", "label:key", "--kek", "label:kek", "-o", "wrapped")
    command = ["unwrap", "--kek", "label:kek", "-i", "wrapped", "--key-type", "aes"]
    refused(fresh, *command, "--extractable", "--persist", status=4)
    refused(fresh, *command, "--no-sensitive", "--persist", status=4)
    fresh(*command, "--persist")
