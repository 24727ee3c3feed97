"""Blobs that cross between tokens: same state on the other side, or a refusal that says what is missing."""

from __future__ import annotations

import os
import secrets
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import COMMAND, ROOT
from tests.cli.test_export_import import BLOCK, make_pair, pin, put_file, with_home
from tests.cli.test_unwrap import aes_ecb
from tests.cli.test_wrap import refused

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

WAYS = [("fresh", "another"), ("fresh", "softokn"), ("softokn", "fresh")]


@pytest.fixture(params=WAYS, ids=["SoftHSM to SoftHSM", "SoftHSM to NSS", "NSS to SoftHSM"])
def crossing(request: pytest.FixtureRequest) -> tuple[Cli, Cli]:
    """Two tokens, each with a configuration directory of its own; the second believes the first."""
    here, there = (request.getfixturevalue(name) for name in request.param)
    source, target = with_home(here, "here"), with_home(there, "there")
    source("identity", "new")
    pin(target, source, "alice")
    return source, target


def test_an_aes_key_crosses(crossing: tuple[Cli, Cli]) -> None:
    """An AES key under a KEK that both tokens have encrypts there as cryptography does with its bytes."""
    source, target = crossing
    kek, value = secrets.token_bytes(32), secrets.token_bytes(32)
    name = source.put_key(value, ENCRYPT=True)
    here, there = source.put_kek(kek), target.put_kek(kek)
    source("export", f"label:{name}", "--kek", f"label:{here}", "-o", "blob")
    told = target.json("import", "-i", "blob", "--kek", f"label:{there}", "--persist")
    assert (told["sender"]["name"], told["key"]["label"], told["key"]["uses"]) == ("alice", name, ["encrypt"])
    assert (told["attributes"]["EXTRACTABLE"], told["attributes"]["SENSITIVE"]) == (True, True)
    put_file(target, "block", BLOCK)
    target.tool("--encrypt", "-m", "AES-ECB", "--id", told["key"]["id"], "-i", "block", "-o", "sealed")
    assert (target.directory / "sealed").read_bytes() == aes_ecb(value)


def test_an_ec_key_crosses(crossing: tuple[Cli, Cli]) -> None:
    """A P-256 key that one token generated signs in the other: openssl verifies with the first token's public key."""
    source, target = crossing
    kek, name = secrets.token_bytes(32), f"signer-{secrets.token_hex(4)}"
    source("key", "generate", "--type", "ec:p-256", "--label", name, "--extractable")
    here, there = source.put_kek(kek), target.put_kek(kek)
    source("export", f"label:{name}", "--kek", f"label:{here}", "-o", "blob")
    told = target.json("import", "-i", "blob", "--kek", f"label:{there}", "--persist")
    source.tool("--read-object", "--type", "pubkey", "--label", name, "-o", "public.der")
    put_file(target, "digest", bytes(32))
    target.tool(
        "--sign", "-m", "ECDSA", "--signature-format", "openssl", "--id", told["key"]["id"], "-i", "digest", "-o", "sig"
    )
    checked = subprocess.run(
        ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "public.der", "-keyform", "DER", "-in", "digest",
         "-sigfile", "sig"],
        cwd=target.directory, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Signature Verified Successfully" in checked.stdout


def test_a_software_key_crosses(crossing: tuple[Cli, Cli]) -> None:
    """A software key sealed under a KEK in one token is opened with the same KEK in the other."""
    source, target = crossing
    kek = secrets.token_bytes(32)
    make_pair(source, "ed25519")
    here, there = source.put_kek(kek), target.put_kek(kek)
    source("export", "file:ed25519.pem", "--kek", f"label:{here}", "-o", "blob")
    before = target.inventory()
    target("import", "-i", "blob", "--kek", f"label:{there}", "-o", "file:arrived.pem")
    assert (target.directory / "arrived.pem").read_bytes() == (target.directory / "ed25519.pem").read_bytes()
    assert target.inventory() == before


def test_another_kek_is_refused(crossing: tuple[Cli, Cli]) -> None:
    """A KEK of other bytes with the label of the right one is refused with 4: a label is never enough."""
    source, target = crossing
    label = f"kek-{secrets.token_hex(4)}"
    source.put_kek(secrets.token_bytes(32), LABEL=label)
    target.put_kek(secrets.token_bytes(32), LABEL=label)
    name = source.put_key(secrets.token_bytes(32))
    source("export", f"label:{name}", "--kek", f"label:{label}", "-o", "blob")
    for dest in ("--persist", "--dry-run"):
        refused(target, "import", "-i", "blob", "--kek", f"label:{label}", dest, status=4)


def test_a_missing_mechanism_is_named(plain: Cli) -> None:
    """Without AES key wrap, as in openCryptoki, an export ends with 4 and names the mechanism; no file is left."""
    if os.geteuid() != 0:
        pytest.skip("openCryptoki's throw-away token needs root")
    with_token = ROOT / "ci" / "with-token"
    if subprocess.run([with_token, "opencryptoki", "--check"], capture_output=True, check=False).returncode:
        pytest.skip("openCryptoki is not installed")
    put_file(plain, "raw", secrets.token_bytes(32))
    script = (
        f"{COMMAND} key generate --kek --type aes:256 --label kek >/dev/null 2>&1 &&"
        f" {COMMAND} key generate --type aes:256 --label key --extractable >/dev/null &&"
        f" for key in file:raw label:key; do {COMMAND} export $key $([[ $key == file:* ]] && echo --key-type aes)"
        " --kek label:kek -o blob; echo $?; done"
    )
    home = with_home(plain)
    done = subprocess.run(
        [with_token, "opencryptoki", "--", "bash", "-c", script],
        cwd=home.directory, env=dict(home.variables), capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.split() == ["4", "4"]
    assert "CKM_AES_KEY_WRAP: not listed" in done.stderr
    assert "CKM_AES_KEY_WRAP_KWP: not listed" in done.stderr
    assert not (home.directory / "blob").exists()
