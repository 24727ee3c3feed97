"""Software keys at rest on their way through a blob: PKCS#8, JWK and raw bytes, as other people's code reads them."""

from __future__ import annotations

import base64
import json
import secrets
import stat
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from tests.cli.test_export_import import PRIVATE, make_pair, openssl, put_file, with_home

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


@pytest.mark.parametrize("recipient", ["rsa", "p256"])
@pytest.mark.parametrize("kind", PRIVATE)
def test_private_keys_arrive_byte_for_byte(plain: Cli, kind: str, recipient: str) -> None:
    """A PKCS#8 key exported from one file is the same file after the import, with mode 600 and without any token."""
    home = with_home(plain)
    for name in {kind, recipient}:
        make_pair(home, name)
    home("export", f"file:{kind}.pem", "--to", f"{recipient}.pub", "-o", "blob")
    told = home.json("import", "-i", "blob", "--as", f"{recipient}.pem", "-o", "file:arrived.pem")
    assert (told["schema"], told["dest"], told["transfer"]) == ("hsmbridge.import/1", "file", "value")
    assert (told["sender"]["status"], told["sender"]["name"]) == ("valid", "yourself")
    arrived = home.directory / "arrived.pem"
    assert arrived.read_bytes() == (home.directory / f"{kind}.pem").read_bytes()
    assert stat.S_IMODE(arrived.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("key_type", "size", "alg"),
    [("aes", 16, "A128CBC"), ("aes:256", 32, "A256CBC"), ("des3", 24, None), ("hmac-sha256", 20, "HS256"),
     ("hmac-sha512", 64, "HS512"), ("cmac-aes", 16, None)],
)  # fmt: skip
def test_secret_keys_arrive(plain: Cli, key_type: str, size: int, alg: str | None) -> None:
    """Raw bytes arrive as a JWK with the algorithm's registered name, or with --raw as they were; and leave as JWK."""
    home, value = with_home(plain), secrets.token_bytes(size)
    make_pair(home, "p256")
    put_file(home, "raw", value)
    home("export", "file:raw", "--key-type", key_type, "--to", "p256.pub", "-o", "blob")
    home("import", "-i", "blob", "--as", "p256.pem", "-o", "file:arrived.jwk")
    jwk = json.loads((home.directory / "arrived.jwk").read_bytes())
    assert (jwk["kty"], jwk.get("alg")) == ("oct", alg)
    assert base64.urlsafe_b64decode(jwk["k"] + "==") == value
    home("import", "-i", "blob", "--as", "p256.pem", "-o", "file:arrived.raw", "--raw")
    assert (home.directory / "arrived.raw").read_bytes() == value
    more = [] if alg else ["--key-type", key_type]
    again = home.json("export", "file:arrived.jwk", *more, "--to", "p256.pub", "-o", "again")
    assert again["blobs"][0]["algorithm"] == home.json("inspect", "blob")["files"][0]["algorithm"]


@pytest.mark.parametrize("kind", ["rsa", "p256", "ed25519"])
def test_jwk_private_keys_leave(plain: Cli, kind: str) -> None:
    """A private JWK leaves as the key that cryptography has; with a wrong public half it is refused with 3."""
    home = with_home(plain)
    make_pair(home, kind)
    make_pair(home, "p384")
    make_pair(home, "p256")
    key = serialization.load_pem_private_key((home.directory / f"{kind}.pem").read_bytes(), None)
    members = jwk_of(key)
    put_file(home, "key.jwk", json.dumps(members).encode())
    home("export", "file:key.jwk", "--to", "p256.pub", "-o", "blob")
    home("import", "-i", "blob", "--as", "p256.pem", "-o", "file:arrived.pem")
    assert (home.directory / "arrived.pem").read_bytes() == (home.directory / f"{kind}.pem").read_bytes()
    wrong = "n" if kind == "rsa" else "x"
    put_file(home, "key.jwk", json.dumps({**members, wrong: members["d"]}).encode())
    home("export", "file:key.jwk", "--to", "p256.pub", "-o", "refused", status=3)
    assert not (home.directory / "refused").exists()


def jwk_of(key: Any) -> dict[str, str]:  # noqa: ANN401 - three kinds of keys with different numbers
    """Return the JWK of a private key."""

    def number(value: int, size: int = 0) -> str:
        raw = value.to_bytes(size or (value.bit_length() + 7) // 8, "big")
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    if isinstance(key, ed25519.Ed25519PrivateKey):
        halves = {"d": key.private_bytes_raw(), "x": key.public_key().public_bytes_raw()}
        numbers = {name: number(int.from_bytes(raw, "big"), 32) for name, raw in halves.items()}
        return {"kty": "OKP", "crv": "Ed25519", **numbers}
    private = key.private_numbers()
    public = private.public_numbers
    if isinstance(key, ec.EllipticCurvePrivateKey):
        point = {"x": public.x, "y": public.y, "d": private.private_value}
        return {"kty": "EC", "crv": "P-256", **{name: number(value, 32) for name, value in point.items()}}
    return {
        "kty": "RSA",
        **{name: number(value) for name, value in (("n", public.n), ("e", public.e), ("d", private.d))},
    }


def test_key_files_that_are_refused(plain: Cli) -> None:
    """Secret bytes without a type, of a wrong length, or behind a password are refused, and nothing is written."""
    home = with_home(plain)
    make_pair(home, "p256")
    put_file(home, "raw", secrets.token_bytes(17))
    openssl(home, "pkcs8", "-topk8", "-in", "p256.pem", "-out", "locked.pem", "-passout", "pass:x")
    put_file(home, "oct.jwk", json.dumps({"kty": "oct", "k": "AAAA"}).encode())
    before = sorted(home.directory.iterdir())
    for status, arguments in (
        (2, ["file:raw"]),
        (3, ["file:raw", "--key-type", "aes"]),
        (2, ["file:raw", "--key-type", "rot13"]),
        (2, ["file:oct.jwk"]),
        (3, ["file:locked.pem"]),
        (4, ["file:p256.pem", "--by-reference"]),
    ):
        assert home("export", *arguments, "--to", "p256.pub", "-o", "blob", status=status).hint
    assert [path for path in sorted(home.directory.iterdir()) if path.name != "home"] == before
