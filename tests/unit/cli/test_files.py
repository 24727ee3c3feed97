"""Files that commands read and write, and key files: one typed error whatever the bytes, and nothing half done."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hsmbridge_cli.files import OutputFile, read_input
from hsmbridge_cli.softkeys import describe_software_key
from hypothesis import given
from hypothesis import strategies as st

from hsmbridge.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

PKCS8 = ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
JWK = json.dumps({"kty": "EC", "crv": "P-256", "d": "AAAA", "x": "AAAA", "y": "AAAA"}).encode()


def test_a_new_file_is_private_and_whole(tmp_path: Path) -> None:
    """What is written is there, with mode 600, and beside it nothing."""
    target = OutputFile(str(tmp_path / "f"))
    target.write(b"data")
    assert (tmp_path / "f").read_bytes() == b"data"
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_file_that_came_meanwhile_is_kept(tmp_path: Path) -> None:
    """A file that another program made between the check and the write is not replaced."""
    target = OutputFile(str(tmp_path / "f"))
    (tmp_path / "f").write_text("theirs")
    with pytest.raises(UsageError, match="there already"):
        target.write(b"ours")
    assert (tmp_path / "f").read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def fail(*_: object) -> None:
    """Fail as a full disk does."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the data cannot be written through, no file is left and an older one is as it was."""
    (tmp_path / "old").write_text("old")
    monkeypatch.setattr(os, "fsync", fail)
    for name, force in (("new", False), ("old", True)):
        with pytest.raises(UsageError, match="no space left"):
            OutputFile(str(tmp_path / name), force=force).write(b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old").read_text() == "old"


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where hard links are not to be had, the file is renamed into place, and still replaces none."""

    def no_links(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no_links)
    OutputFile(str(tmp_path / "f")).write(b"data")
    assert (tmp_path / "f").read_bytes() == b"data"
    late = OutputFile(str(tmp_path / "g"))
    (tmp_path / "g").write_text("theirs")
    with pytest.raises(UsageError, match="there already"):
        late.write(b"ours")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "g"]


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.write_text("x")])
def test_targets_that_are_refused(tmp_path: Path, make: Callable[[Path], object]) -> None:
    """A directory and a pipe are refused even with force, a file without it."""
    make(tmp_path / "t")
    with pytest.raises(UsageError):
        OutputFile(str(tmp_path / "t"), force=not (tmp_path / "t").is_file())


def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    """With force the file behind a symbolic link is replaced, and the link stays."""
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    OutputFile(str(tmp_path / "link"), force=True).write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_input_is_bounded(tmp_path: Path) -> None:
    """A file larger than the limit is bad input; one that cannot be read, or a bad name, is bad usage."""
    (tmp_path / "f").write_bytes(bytes(11))
    assert read_input(str(tmp_path / "f"), 11) == bytes(11)
    with pytest.raises(InputError):
        read_input(str(tmp_path / "f"), 10)
    for name in (str(tmp_path), str(tmp_path / "none"), "a\0b"):
        with pytest.raises(UsageError):
            read_input(name, 10)


JWKS = [
    ({"kty": "oct", "k": "AAECAw"}, "generic:4"),
    ({"kty": "RSA", "n": "gA", "e": "AQAB", "d": "AQ"}, "rsa:8"),
    ({"kty": "EC", "crv": "P-256", "d": "AQ"}, "ec:p-256"),
    ({"kty": "EC", "crv": "secp256k1", "d": "AQ"}, "ec:secp256k1"),
    ({"kty": "OKP", "crv": "Ed25519", "d": "AQ"}, "ed25519"),
    ({"kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ"}, None),
    ({"kty": "oct", "k": "!"}, None),
    ({"kty": "EC", "d": "AQ"}, None),
    ({"kty": "RSA", "d": "AQ"}, None),
    ({"kty": ["oct"], "k": "AQ"}, None),
]


@pytest.mark.parametrize(("document", "expected"), JWKS)
def test_jwks(tmp_path: Path, document: dict[str, object], expected: str | None) -> None:
    """A secret or private JWK is named as --type takes it; a public or broken one is bad input."""
    (tmp_path / "k").write_text(json.dumps(document))
    if expected is None:
        with pytest.raises(InputError):
            describe_software_key(str(tmp_path / "k"))
    else:
        assert describe_software_key(str(tmp_path / "k")).type == expected


@given(
    st.one_of(
        st.binary(max_size=300),
        st.tuples(st.sampled_from([PKCS8, JWK]), st.integers(0, 400), st.integers(0, 255)).map(
            lambda change: change[0][: change[1]] + bytes([change[2]]) + change[0][change[1] + 1 :]
        ),
        st.text(max_size=60).map(lambda text: b'{"kty": "' + text.encode("utf-8", "surrogatepass") + b'"'),
    ),
    st.sampled_from([None, "aes:256", "aes", "generic", "des3", "rsa", "frob"]),
)
def test_any_key_file_is_described_or_refused(data: bytes, key_type: str | None) -> None:
    """Whatever a key file holds, it is described without its bytes, or refused with one typed error."""
    directory = Path(os.environ.get("TMPDIR", "/tmp"))  # noqa: S108 - the file's name is ours alone
    path = directory / f"hsmbridge-key-{os.getpid()}"
    path.write_bytes(data)
    try:
        found = describe_software_key(str(path), key_type)
    except (InputError, UsageError):
        pass
    else:
        assert found.size == len(data)
    finally:
        path.unlink()
