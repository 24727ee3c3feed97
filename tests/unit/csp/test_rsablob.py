"""RSA key blobs, judged by OpenSSL in both directions."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hsmbridge_csp.barewrap import guess_bare_wrap
from hsmbridge_csp.blobheader import AlgId
from hsmbridge_csp.cryptoapi_blobs import describe, parse_blob
from hsmbridge_csp.errors import NTE, BlobError
from hsmbridge_csp.rsablob import RsaPrivateBlob, RsaPublicBlob
from hsmbridge_csp.spki import rsa_spki
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from pathlib import Path


def openssl(*arguments: str | Path, data: bytes = b"") -> bytes:
    """Run openssl and return what it writes to its standard output."""
    command = ["openssl", *(str(a) for a in arguments)]
    return subprocess.run(command, input=data, capture_output=True, check=True, timeout=60).stdout


# 1032 and 1031 bits: a modulus whose half is not a whole number of bytes, and one that does not fill its own bytes.
@pytest.fixture(scope="module", params=[2048, 3072, 1032, 1031])
def pem(request: pytest.FixtureRequest) -> bytes:
    """Return a fresh RSA private key of OpenSSL's, in PEM."""
    return openssl("genrsa", str(request.param))


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    """Return one RSA-2048 key."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _numbers(pem: bytes) -> rsa.RSAPrivateNumbers:
    loaded = serialization.load_pem_private_key(pem, None)
    assert isinstance(loaded, rsa.RSAPrivateKey)
    return loaded.private_numbers()


def test_openssl_private_blob_is_read(pem: bytes) -> None:
    """OpenSSL's MSBLOB of a private key parses to the numbers of that key and is written back byte for byte."""
    data = openssl("rsa", "-outform", "MSBLOB", data=pem)
    blob = parse_blob(data)
    assert isinstance(blob, RsaPrivateBlob)
    numbers = _numbers(pem)
    assert (blob.prime1, blob.prime2, blob.private_exponent) == (numbers.p, numbers.q, numbers.d)
    assert (blob.exponent1, blob.exponent2, blob.coefficient) == (numbers.dmp1, numbers.dmq1, numbers.iqmp)
    assert blob.to_key().private_numbers() == numbers
    assert blob.to_bytes() == data


def test_openssl_public_blob_is_read(pem: bytes) -> None:
    """OpenSSL's MSBLOB of a public key parses to that key and is written back byte for byte."""
    data = openssl("rsa", "-pubout", "-outform", "MSBLOB", data=pem)
    blob = parse_blob(data)
    assert isinstance(blob, RsaPublicBlob)
    assert blob.to_key().public_numbers() == _numbers(pem).public_numbers
    assert blob.to_bytes() == data


def test_openssl_reads_our_private_blob(pem: bytes, tmp_path: Path) -> None:
    """OpenSSL reads the private blob that we write, calls the key sound and gives the same key back."""
    loaded = serialization.load_pem_private_key(pem, None)
    assert isinstance(loaded, rsa.RSAPrivateKey)
    path = tmp_path / "ours.blob"
    path.write_bytes(RsaPrivateBlob.from_key(loaded, algorithm=AlgId.RSA_SIGN).to_bytes())
    assert b"RSA key ok" in openssl("rsa", "-inform", "MSBLOB", "-in", path, "-check", "-noout")
    assert _numbers(openssl("rsa", "-inform", "MSBLOB", "-in", path)) == loaded.private_numbers()


def test_openssl_reads_our_public_blob(pem: bytes, tmp_path: Path) -> None:
    """OpenSSL reads the public blob that we write as the same public key."""
    loaded = serialization.load_pem_private_key(pem, None)
    assert isinstance(loaded, rsa.RSAPrivateKey)
    path = tmp_path / "ours.blob"
    path.write_bytes(RsaPublicBlob.from_key(loaded.public_key()).to_bytes())
    theirs = openssl("rsa", "-pubin", "-inform", "MSBLOB", "-in", path, "-outform", "DER")
    assert theirs == openssl("rsa", "-pubout", "-outform", "DER", data=pem)


def test_fingerprint_is_that_of_openssl(pem: bytes) -> None:
    """The description of both blobs shows the SHA-256 of the SubjectPublicKeyInfo that OpenSSL writes."""
    wanted = hashlib.sha256(openssl("rsa", "-pubout", "-outform", "DER", data=pem)).hexdigest()
    numbers = _numbers(pem)
    for arguments in (("-outform", "MSBLOB"), ("-pubout", "-outform", "MSBLOB")):
        shown = describe(parse_blob(openssl("rsa", *arguments, data=pem)))
        assert shown["spki_sha256"] == wanted
        assert shown["modulus_bits"] == numbers.public_numbers.n.bit_length()
        assert shown["public_exponent"] == 65537


@given(
    st.integers(min_value=2**1023, max_value=2**2100),
    st.integers(min_value=1, max_value=2**31).map(lambda n: 2 * n + 1),
)
def test_spki_is_that_of_cryptography(modulus: int, exponent: int) -> None:
    """The small DER writer gives what `cryptography` gives, sign bits and length forms included."""
    modulus |= 1
    theirs = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    assert rsa_spki(modulus, exponent) == theirs.public_bytes(serialization.Encoding.DER, spki)


def test_dsa_blobs_of_openssl_are_refused_by_name(tmp_path: Path) -> None:
    """OpenSSL's DSA blobs are refused with NTE_BAD_ALGID, and the message says DSS2 or DSS1."""
    sizes = ("-pkeyopt", "dsa_paramgen_bits:1024", "-pkeyopt", "dsa_paramgen_q_bits:160")
    parameters, private = tmp_path / "dsa.params", tmp_path / "dsa.pem"
    openssl("genpkey", "-genparam", "-algorithm", "DSA", *sizes, "-out", parameters)
    openssl("gendsa", "-out", private, parameters)
    for arguments, name in ((("-outform", "MSBLOB"), "DSS2"), (("-pubout", "-outform", "MSBLOB"), "DSS1")):
        with pytest.raises(BlobError, match=name) as caught:
            parse_blob(openssl("dsa", "-in", private, *arguments))
        assert caught.value.nte == NTE.BAD_ALGID


def test_diffie_hellman_is_refused_by_name() -> None:
    """A Diffie-Hellman blob, whose magic is a zero byte and DH1, is refused with NTE_BAD_ALGID."""
    data = bytes.fromhex("0602000002aa0000") + b"\0DH1" + bytes(200)
    with pytest.raises(BlobError, match=r"Diffie-Hellman public key \(DH1\)") as caught:
        parse_blob(data)
    assert caught.value.nte == NTE.BAD_ALGID


def test_pvk_file_of_openssl_is_recognised(pem: bytes) -> None:
    """A PVK file is not a blob, and is told from a wrapped key."""
    data = openssl("rsa", "-outform", "PVK", "-pvk-none", data=pem)
    assert guess_bare_wrap(data)["kind"] == "pvk"
    with pytest.raises(BlobError):
        parse_blob(data)


def test_type_and_magic_must_agree(key: rsa.RSAPrivateKey) -> None:
    """A private key is not taken for a public one because of its header, nor the other way round: NTE_BAD_TYPE."""
    private = RsaPrivateBlob.from_key(key).to_bytes()
    public = RsaPublicBlob.from_key(key.public_key()).to_bytes()
    for data in (b"\x06" + private[1:], b"\x07" + public[1:]):
        with pytest.raises(BlobError, match=r"RSA1.*RSA2|RSA2.*RSA1") as caught:
            parse_blob(data)
        assert caught.value.nte == NTE.BAD_TYPE


@pytest.mark.parametrize(
    ("offset", "replacement", "nte"),
    [
        (4, "01660000", NTE.BAD_ALGID),
        (8, "52534158", NTE.BAD_DATA),
        (12, "ffffffff", NTE.BAD_LEN),
        (12, "7f010000", NTE.BAD_LEN),
        (12, "01400000", NTE.BAD_LEN),
        (12, "ff070000", NTE.BAD_DATA),
        (16, "00000000", NTE.BAD_DATA),
        (16, "01000000", NTE.BAD_DATA),
        (16, "00000100", NTE.BAD_DATA),
        (20, "00", NTE.BAD_DATA),
        (275, "00", NTE.BAD_DATA),
    ],
)
def test_impossible_public_keys_are_refused(key: rsa.RSAPrivateKey, offset: int, replacement: str, nte: NTE) -> None:
    """A foreign ALG_ID, magic, length, exponent or modulus is refused with its own code."""
    data = bytearray(RsaPublicBlob.from_key(key.public_key()).to_bytes())
    new = bytes.fromhex(replacement)
    data[offset : offset + len(new)] = new
    with pytest.raises(BlobError) as caught:
        parse_blob(bytes(data))
    assert caught.value.nte == nte


@pytest.mark.parametrize("field", range(7))
def test_numbers_must_belong_together(key: rsa.RSAPrivateKey, field: int) -> None:
    """One changed bit in n, p, q, dp, dq, qinv or d passes the parser and is refused where it would become a key."""
    offsets = [20, 276, 404, 532, 660, 788, 916]
    data = bytearray(RsaPrivateBlob.from_key(key).to_bytes())
    data[offsets[field] + 3] ^= 0x40
    blob = parse_blob(bytes(data))
    assert isinstance(blob, RsaPrivateBlob)
    with pytest.raises(BlobError, match="do not belong together") as caught:
        blob.to_key()
    assert caught.value.nte == NTE.BAD_KEY


def test_coefficient_must_be_reduced() -> None:
    """A CRT coefficient with p added on top, right modulo p but in no other key file, is refused as a key."""
    # 1031 bits leave room above the primes: they have 516 bits in a field of 520.
    pem = openssl("genrsa", "1031")
    blob = parse_blob(openssl("rsa", "-outform", "MSBLOB", data=pem))
    assert isinstance(blob, RsaPrivateBlob)
    assert blob.to_key()
    with pytest.raises(BlobError, match="do not belong together"):
        dataclasses.replace(blob, coefficient=blob.coefficient + blob.prime1).to_key()


def test_composite_primes_are_refused() -> None:
    """Numbers that satisfy every equation, with a p that is composite, are still refused where they become a key."""
    p, q, exponent = (1 << 1023) + 1155, (1 << 1023) + 1155 + 2 * 3 * 5 * 7 * 11, 65537
    order = (p - 1) * (q - 1)
    private = pow(exponent, -1, order)
    blob = RsaPrivateBlob(
        exponent=exponent,
        modulus=p * q,
        prime1=p,
        prime2=q,
        exponent1=private % (p - 1),
        exponent2=private % (q - 1),
        coefficient=pow(q, -1, p),
        private_exponent=private,
    )
    with pytest.raises(BlobError, match="cannot be used") as caught:
        blob.to_key()
    assert caught.value.nte == NTE.BAD_KEY
    assert caught.value.__cause__ is None


class RefusingNumbers:
    """Public numbers of a `cryptography` that takes fewer keys than the one at hand, as newer ones tend to."""

    def __init__(self, e: int, n: int) -> None:
        self.e, self.n = e, n

    def public_key(self) -> rsa.RSAPublicKey:
        """Refuse, as `cryptography` does."""
        raise ValueError("the modulus is too short")


def test_refused_public_key_is_a_blob_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that `cryptography` refuses is a BlobError with its reason, never a foreign exception."""
    blob = RsaPublicBlob(exponent=3, modulus=(1 << 400) + 1)
    monkeypatch.setattr(rsa, "RSAPublicNumbers", RefusingNumbers)
    with pytest.raises(BlobError, match="cannot be used: the modulus is too short") as caught:
        blob.to_key()
    assert caught.value.nte == NTE.BAD_KEY


def private_blob(modulus: int, prime1: int, private_exponent: int) -> RsaPrivateBlob:
    """Make a private blob whose other numbers are small."""
    return RsaPrivateBlob(
        exponent=65537,
        modulus=modulus,
        prime1=prime1,
        prime2=3,
        exponent1=3,
        exponent2=3,
        coefficient=3,
        private_exponent=private_exponent,
    )


def test_numbers_that_do_not_fit_are_refused() -> None:
    """The format gives each prime half the modulus's bytes; a key with a longer one is refused, not cut."""
    modulus = (1 << 2047) + 1
    assert parse_blob(private_blob(modulus, (1 << 1024) - 1, (1 << 2048) - 1).to_bytes())
    for prime, private in ((1 << 1024, 3), (-1, 3), (3, 1 << 2048), (3, -1)):
        with pytest.raises(BlobError, match="do not fit") as caught:
            private_blob(modulus, prime, private)
        assert caught.value.nte == NTE.BAD_KEY
    with pytest.raises(BlobError, match="outside 384 to 16384"):
        RsaPublicBlob(exponent=65537, modulus=(1 << 16384) + 1)
