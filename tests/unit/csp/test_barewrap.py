"""What is said about bytes without a BLOBHEADER."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hsmbridge_csp.barewrap import guess_bare_wrap
from hypothesis import given
from hypothesis import strategies as st

KEK = bytes(range(32))


def _candidates(data: bytes) -> list[dict[str, object]]:
    guess = guess_bare_wrap(data)
    assert guess["kind"] == "opaque", guess
    found = guess["candidates"]
    assert isinstance(found, list)
    return found


def _allows(data: bytes, wrapping: str, length: int) -> bool:
    """Say whether the guess names *wrapping* and a range that holds a key of *length* bytes."""
    for entry in _candidates(data):
        least, most = entry["min_key_bytes"], entry["max_key_bytes"]
        assert isinstance(least, int)
        assert isinstance(most, int)
        if entry["wrapping"] == wrapping and least <= length <= most:
            return True
    return False


@pytest.mark.parametrize("length", range(16, 72, 8))
def test_kw_output_names_the_key_length(length: int) -> None:
    """For an RFC 3394 wrap made by `cryptography`, the exact length of the key is among the guesses."""
    assert _allows(keywrap.aes_key_wrap(KEK, bytes(length)), "RFC 3394 (AES-KW)", length)


@pytest.mark.parametrize("length", range(1, 72))
def test_kwp_output_names_a_range(length: int) -> None:
    """For an RFC 5649 wrap made by `cryptography`, the key's length lies in the range that is guessed."""
    assert _allows(keywrap.aes_key_wrap_with_padding(KEK, bytes(length)), "RFC 5649 (AES-KWP)", length)


@pytest.mark.parametrize("length", range(8, 72))
def test_padded_kw_output_names_a_range(length: int) -> None:
    """For PKCS#7 padding and then RFC 3394, which one token makes, the key's length lies in the guessed range."""
    pad = 8 - length % 8
    wrapped = keywrap.aes_key_wrap(KEK, bytes(length) + bytes([pad]) * pad)
    assert _allows(wrapped, "PKCS#7 padding, then RFC 3394", length)


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_rsa_sizes_are_named(bits: int) -> None:
    """A ciphertext as long as a usual modulus may be RSA-OAEP; with a KWP wrap behind it, RSA-AES-KWP."""
    modulus = bits // 8
    oaep = [c for c in _candidates(b"\xff" * modulus) if c["wrapping"] == "RSA-OAEP"]
    assert [c["rsa_bits"] for c in oaep] == [bits]
    both = b"\xff" * modulus + keywrap.aes_key_wrap_with_padding(KEK, bytes(121))
    assert _allows(both, "RSA-AES-KWP", 121)


def test_oaep_maximum_is_that_of_rfc8017() -> None:
    """The longest key that RSA-OAEP with SHA-1 takes under RSA-2048 is the guess's upper end: 214 bytes."""
    public = rsa.generate_private_key(65537, 2048).public_key()
    sha1 = hashes.SHA1()  # noqa: S303 -- the judge of the longest message, no security here
    oaep = padding.OAEP(padding.MGF1(sha1), sha1, None)
    assert _allows(public.encrypt(bytes(214), oaep), "RSA-OAEP", 214)
    assert not _allows(b"\xff" * 256, "RSA-OAEP", 215)
    with pytest.raises(ValueError, match=r"."):
        public.encrypt(bytes(215), oaep)


def test_summary_is_honest() -> None:
    """The sentence for people says that a wrapped key cannot be told apart from random bytes, and lists what fits."""
    summary = guess_bare_wrap(b"\xff" * 40)["summary"]
    assert summary == (
        "opaque wrapped key: cannot be told apart from random bytes; its 40 bytes are consistent with: "
        "RFC 3394 (AES-KW) of 32 bytes; RFC 5649 (AES-KWP) of 25 to 32 bytes; "
        "PKCS#7 padding, then RFC 3394 of 24 to 31 bytes"
    )


@pytest.mark.parametrize("length", [0, 7, 8, 17, 257])
def test_impossible_lengths_are_called_so(length: int) -> None:
    """A length that no wrapping gives has no candidates, and the summary says so."""
    data = b"\xff" * length
    assert _candidates(data) == []
    assert "no wrapping that is known here" in str(guess_bare_wrap(data)["summary"])


@pytest.mark.parametrize(
    ("start", "name"), [("d284", "COSE_Sign1"), ("d86084", "COSE_Encrypt "), ("d083", "COSE_Encrypt0")]
)
def test_tagged_cose_is_named(start: str, name: str) -> None:
    """A COSE tag around an array of the right size is said to lack our header, not called a wrapped key."""
    guess = guess_bare_wrap(bytes.fromhex(start) + bytes(38))
    assert guess["kind"] == "cose"
    assert name in str(guess["summary"])
    assert "OPAQUEKEYBLOB header" in str(guess["summary"])


@pytest.mark.parametrize(
    ("data", "kind"),
    [(b"-----BEGIN PRIVATE KEY-----\n", "pem"), (bytes.fromhex("1ef1b5b0") + bytes(20), "pvk"), (b"00ff" * 10, "text")],
)
def test_other_containers_are_named(data: bytes, kind: str) -> None:
    """PEM, PVK and plain text are recognised, with the step that leads on."""
    assert guess_bare_wrap(data)["kind"] == kind


@given(st.binary(max_size=600))
def test_any_bytes_get_a_json_answer(data: bytes) -> None:
    """Whatever the bytes are, there is an answer, it is JSON-ready, and it gives the length."""
    guess = guess_bare_wrap(data)
    assert json.loads(json.dumps(guess)) == guess
    assert guess["bytes"] == len(data)
