"""`inspect`: blobs that openssl and the published layouts give, bare wraps, and bytes that are nothing at all."""

from __future__ import annotations

import contextlib
import io
import json
import secrets
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes, keywrap, serialization
from hsmbridge_cli.main import main
from hypothesis import example, given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

CALG_AES_256, CALG_3DES, CALG_RC4, CALG_RSA_KEYX = 0x6610, 0x6603, 0x6801, 0xA400


def header(blob_type: int, algorithm: int) -> bytes:
    """Return a BLOBHEADER."""
    return struct.pack("<BBHI", blob_type, 2, 0, algorithm)


SECRET = secrets.token_bytes(32)
BLOBS = {
    "SIMPLEBLOB": header(0x01, CALG_AES_256) + struct.pack("<I", CALG_RSA_KEYX) + bytes(256),
    "PLAINTEXTKEYBLOB": header(0x08, CALG_AES_256) + struct.pack("<I", 32) + SECRET,
    "OPAQUEKEYBLOB": header(0x09, CALG_AES_256) + SECRET,
    "SYMMETRICWRAPKEYBLOB": header(0x0B, CALG_3DES) + struct.pack("<I", CALG_3DES) + bytes(40),
    "KEYSTATEBLOB": header(0x0C, CALG_RC4) + SECRET[:16] + bytes(range(256)) + bytes(2),
}


@pytest.mark.parametrize("name", BLOBS)
def test_every_blob_type_is_named(plain: Cli, name: str) -> None:
    """Each CryptoAPI blob is recognised by its header and described, and its secret is not shown."""
    (plain.directory / "blob").write_bytes(BLOBS[name])
    told = plain.json("inspect", "blob")
    assert told["schema"] == "hsmbridge.inspect/1"
    assert (told["files"][0]["kind"], told["files"][0]["type"]) == ("blob", name)
    shown = plain("inspect", "blob")
    assert name in shown.text
    for text in (json.dumps(told), shown.text):
        assert SECRET[:8].hex() not in text.lower()


@pytest.mark.parametrize(("more", "kind"), [([], "PRIVATEKEYBLOB"), (["-pubout"], "PUBLICKEYBLOB")])
def test_openssl_blobs(plain: Cli, more: list[str], kind: str) -> None:
    """What `openssl rsa -outform MSBLOB` writes is read, with the fingerprint that cryptography computes."""
    for command in (
        ["genrsa", "-out", "key.pem", "2048"],
        ["rsa", "-in", "key.pem", "-outform", "MSBLOB", "-out", "blob", *more],
    ):
        subprocess.run(["openssl", *command], cwd=plain.directory, check=True, capture_output=True)
    told = plain.json("inspect", "-", stdin=(plain.directory / "blob").read_bytes())["files"][0]
    assert (told["type"], told["file"]) == (kind, "-")
    key = serialization.load_pem_private_key((plain.directory / "key.pem").read_bytes(), None)
    spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(spki)
    assert digest.finalize().hex() in json.dumps(told)


def test_bare_wraps_are_said_to_be_opaque(plain: Cli) -> None:
    """A bare RFC 5649 wrap is opaque: what it may be is told by its length, and nothing is claimed."""
    (plain.directory / "wrap").write_bytes(keywrap.aes_key_wrap_with_padding(bytes(32), bytes(32)))
    told = plain.json("inspect", "wrap")["files"][0]
    assert told["kind"] == "opaque"
    assert "RFC 5649 (AES-KWP)" in {candidate["wrapping"] for candidate in told["candidates"]}
    assert "opaque" in plain("inspect", "wrap").text


def test_several_files(plain: Cli) -> None:
    """Several files are all told; one that is damaged makes the status 3, and the others are told all the same."""
    (plain.directory / "good").write_bytes(BLOBS["PLAINTEXTKEYBLOB"])
    (plain.directory / "bad").write_bytes(BLOBS["PLAINTEXTKEYBLOB"][:-1])
    done = plain("inspect", "good", "bad", "good", "--json", status=3)
    assert [file["kind"] for file in done.document["files"]] == ["blob", "bad", "blob"]
    assert "bad: " in done.err
    assert done.hint


def test_what_is_nothing(plain: Cli) -> None:
    """Bytes that no format gives, an empty file and an oversized one end with 3."""
    for data in (b"\x00" * 13, b"", bytes(2 << 20)):
        plain("inspect", "-", stdin=data, status=3)


def run_inspect(data: bytes) -> tuple[int, dict[str, Any], str]:
    """Run `inspect --json` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x"
        path.write_bytes(data)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(["inspect", str(path), "--json"])
    return status, json.loads(out.getvalue()), err.getvalue()


@given(st.one_of(st.binary(max_size=600), st.sampled_from(sorted(BLOBS)).flatmap(lambda name: mutations(BLOBS[name]))))
@example(b"")
def test_any_bytes(data: bytes) -> None:
    """Whatever the bytes, `inspect` ends with 0 or 3, prints one JSON document, and never fails inside."""
    status, told, err = run_inspect(data)
    assert status in (0, 3)
    assert (told["files"][0]["kind"] == "bad") == (status == 3)
    assert "internal error" not in err


def mutations(blob: bytes) -> st.SearchStrategy[bytes]:
    """Cut a blob, or change one of its bytes."""
    places = st.integers(0, len(blob) - 1)
    cut = places.map(lambda length: blob[:length])
    changed = st.tuples(places, st.integers(0, 255)).map(
        lambda change: blob[: change[0]] + bytes([change[1]]) + blob[change[0] + 1 :]
    )
    return cut | changed
