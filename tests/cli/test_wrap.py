"""`wrap`: what comes out opens with other people's code, or does not come out at all."""

from __future__ import annotations

import secrets
import stat
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import keywrap, serialization

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

Probed = dict[str, dict[str, Any]]


def needs(probed: Probed, dialect: str) -> None:
    """Skip the test on a token that has no such mechanism."""
    if not probed[dialect]["works"]:
        pytest.skip(f"no {dialect}: {probed[dialect]['why']}")


@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize("dialect", ["aes-kw", "aes-kwp"])
def test_aes_wrap_opens_with_cryptography(cli: Cli, probed: Probed, dialect: str, size: int) -> None:
    """A key wrapped under a KEK of known bytes opens with cryptography's keywrap to the very same bytes."""
    needs(probed, dialect)
    kek, value = secrets.token_bytes(32), secrets.token_bytes(size)
    key_name, kek_name = cli.put_key(value), cli.put_kek(kek)
    told = cli.json("wrap", f"label:{key_name}", "--kek", f"label:{kek_name}", "--mechanism", dialect, "-o", "out")
    wrapped = (cli.directory / "out").read_bytes()
    open_it = keywrap.aes_key_unwrap if dialect == "aes-kw" else keywrap.aes_key_unwrap_with_padding
    assert open_it(kek, wrapped) == value
    assert (told["schema"], told["mechanism"], told["bytes"]) == ("hsmbridge.wrap/1", dialect, len(wrapped))


def test_a_private_key_opens_with_cryptography(cli: Cli, probed: Probed) -> None:
    """An EC key that the token generated leaves it as PKCS#8 under AES-KWP, the private half of its public key."""
    needs(probed, "aes-kwp")
    kek, name = secrets.token_bytes(32), f"ec-{secrets.token_hex(6)}"
    kek_name = cli.put_kek(kek)
    made = cli("key", "generate", "--type", "ec:p-256", "--label", name, "--extractable", status=None)
    if made.status == 1:
        pytest.skip(made.err)
    cli("wrap", "--key", f"label:{name}", "--kek", f"label:{kek_name}", "--mechanism", "aes-kwp", "-o", "out")
    der = keywrap.aes_key_unwrap_with_padding(kek, (cli.directory / "out").read_bytes())
    private = serialization.load_der_private_key(without_padding(der), None)
    cli.tool("--read-object", "--type", "pubkey", "--label", name, "-o", "public.der")
    public = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert public == (cli.directory / "public.der").read_bytes()


def without_padding(der: bytes) -> bytes:
    """Cut off the zeros that SoftHSM puts behind PKCS#8, which `wrap` warns of; DER carries its own length."""
    if der[1] < 0x80:
        return der[: 2 + der[1]]
    octets = der[1] - 0x80
    return der[: 2 + octets + int.from_bytes(der[2 : 2 + octets], "big")]


@pytest.mark.parametrize("dialect", ["rsa-oaep-sha1", "rsa-oaep-sha256"])
def test_oaep_wrap_opens_with_openssl(cli: Cli, probed: Probed, dialect: str) -> None:
    """A 20-byte secret wrapped under a recipient's RSA-3072 key opens with `openssl pkeyutl`, length and all."""
    needs(probed, dialect)
    value = secrets.token_bytes(20)
    name = cli.put_key(value, "GENERIC_SECRET")
    recipient = put_recipient(cli, 3072)
    cli("wrap", f"label:{name}", "--kek", f"label:{recipient}", "--mechanism", dialect, "-o", "out")
    digest = dialect.rsplit("-", 1)[1]
    opened = subprocess.run(
        ["openssl", "pkeyutl", "-decrypt", "-inkey", "private.pem", "-in", "out", "-pkeyopt", "rsa_padding_mode:oaep",
         "-pkeyopt", f"rsa_oaep_md:{digest}", "-pkeyopt", f"rsa_mgf1_md:{digest}"],
        cwd=cli.directory, capture_output=True, check=True,
    )  # fmt: skip
    assert opened.stdout == value


def put_recipient(cli: Cli, bits: int) -> str:
    """Make an RSA key pair with openssl, and put its public half into the token as a wrapping key."""
    command = ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", f"rsa_keygen_bits:{bits}", "-out", "private.pem"]
    subprocess.run(command, cwd=cli.directory, check=True, capture_output=True)
    shown = subprocess.run(
        ["openssl", "rsa", "-in", "private.pem", "-noout", "-modulus"],
        cwd=cli.directory, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return cli.put_recipient(int(shown.stdout.partition("=")[2], 16))


def test_a_weak_recipient_is_refused(cli: Cli, probed: Probed) -> None:
    """An RSA-2048 recipient is refused with 4 whatever the token would do."""
    if not any(probed[dialect]["works"] for dialect in ("rsa-oaep-sha1", "rsa-oaep-sha256")):
        pytest.skip("no OAEP")
    name, recipient = cli.put_key(secrets.token_bytes(32)), put_recipient(cli, 2048)
    error = refused(cli, "wrap", f"label:{name}", "--kek", f"label:{recipient}", "-o", "out", status=4)
    assert "weaker" in error


def refused(cli: Cli, *arguments: str, status: int) -> str:
    """Run a command that must be refused, leave no file and no object, and carry a hint; return its error."""
    files, objects = sorted(cli.directory.iterdir()), cli.inventory()
    done = cli(*arguments, status=status)
    assert done.hint
    assert done.out == b""
    assert sorted(cli.directory.iterdir()) == files
    assert cli.inventory() == objects
    return done.err


def test_a_kek_that_may_decrypt_is_refused(cli: Cli, probed: Probed) -> None:
    """A KEK that pkcs11-tool made may decrypt too: refused with 4; --allow-unsafe-kek takes it with a warning."""
    needs(probed, "aes-kwp")
    kek, value = secrets.token_bytes(32), secrets.token_bytes(32)
    (cli.directory / "kek").write_bytes(kek)
    name, kek_id = cli.put_key(value), secrets.token_hex(8)
    order = ["--write-object", "kek", "--type", "secrkey", "--key-type", "AES:32", "--usage-wrap", "--id", kek_id]
    if "CKR_ATTRIBUTE_VALUE_INVALID" in cli.tool(*order, check=False).stderr:
        pytest.skip("the token takes no key of known bytes from pkcs11-tool, as FIPS 140 forbids it to")
    command = ["wrap", f"label:{name}", "--kek", f"id:{kek_id}", "-o", "out"]
    assert "--allow-unsafe-kek" in refused(cli, *command, status=4)
    told = cli.json(*command, "--allow-unsafe-kek")
    assert any("may also ENCRYPT, DECRYPT" in warning for warning in told["warnings"])
    assert keywrap.aes_key_unwrap_with_padding(kek, (cli.directory / "out").read_bytes()) == value


def test_a_weaker_kek_is_refused(cli: Cli, probed: Probed) -> None:
    """AES-128 over AES-256 is refused with 4."""
    needs(probed, "aes-kwp")
    name, kek = cli.put_key(secrets.token_bytes(32)), cli.put_kek(secrets.token_bytes(16))
    assert "weaker" in refused(cli, "wrap", f"label:{name}", "--kek", f"label:{kek}", "-o", "out", status=4)


def test_a_key_that_is_not_extractable_stays(cli: Cli, probed: Probed) -> None:
    """A non-extractable key is refused with 4, also by a token that would wrap it."""
    needs(probed, "aes-kwp")
    name, kek = cli.put(secrets.token_bytes(32), EXTRACTABLE=False), cli.put_kek(secrets.token_bytes(32))
    assert "by reference" in refused(cli, "wrap", f"label:{name}", "--kek", f"label:{kek}", "-o", "out", status=4)


def test_a_changed_length_is_refused(cli: Cli, probed: Probed) -> None:
    """Where the mechanism would make 24 bytes of 20, as SoftHSM does, it is refused with 4; elsewhere 20 come back."""
    needs(probed, "aes-kwp")
    kek, value = secrets.token_bytes(32), secrets.token_bytes(20)
    name, kek_name = cli.put_key(value, "GENERIC_SECRET"), cli.put_kek(kek)
    command = ["wrap", f"label:{name}", "--kek", f"label:{kek_name}", "-o", "out"]
    if probed["aes-kwp"]["keeps_length"]:
        cli(*command)
        assert keywrap.aes_key_unwrap_with_padding(kek, (cli.directory / "out").read_bytes()) == value
    else:
        assert "20 bytes" in refused(cli, *command, "--mechanism", "aes-kwp", status=4)
        assert "rsa-oaep" in refused(cli, *command, status=4)


@pytest.mark.parametrize("name", ["aes-cbc", "aes-ecb", "rsa-pkcs"])
def test_other_mechanisms_are_refused(cli: Cli, name: str) -> None:
    """ECB, CBC and PKCS#1 v1.5 are refused with 4, and the hint names what is allowed."""
    done = cli("wrap", "label:a", "--kek", "label:b", "--mechanism", name, "-o", "out", status=4)
    assert "aes-kwp" in done.hint


def test_output_files(cli: Cli, probed: Probed) -> None:
    """The output has mode 600; a file that is there is refused with 2, or replaced with --force; - is stdout."""
    needs(probed, "aes-kwp")
    kek, value = secrets.token_bytes(32), secrets.token_bytes(32)
    command = ["wrap", f"label:{cli.put_key(value)}", "--kek", f"label:{cli.put_kek(kek)}", "-o"]
    cli(*command, "new")
    assert stat.S_IMODE((cli.directory / "new").stat().st_mode) == 0o600
    (cli.directory / "old").write_text("precious")
    cli(*command, "old", status=2)
    assert (cli.directory / "old").read_text() == "precious"
    cli(*command, "old", "--force")
    assert keywrap.aes_key_unwrap_with_padding(kek, (cli.directory / "old").read_bytes()) == value
    assert keywrap.aes_key_unwrap_with_padding(kek, cli(*command, "-").out) == value
    cli(*command, "/dev/null", "--force", status=2)
    assert sorted(path.name for path in cli.directory.iterdir()) == ["new", "old"]
