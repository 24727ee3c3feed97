"""Blobs for recipients in software, opened by others: cwt, and openssl with `cryptography`."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import cbor2
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hsmbridge_csp.cipher_key import CipherKey
from hsmbridge_csp.identity import FileIdentity
from hsmbridge_csp.modes import Cipher
from hsmbridge_csp.provider import Provider
from hsmbridge_csp.recipient_ecdh import EcdhSealer
from hsmbridge_csp.recipient_rsa import RsaSealer

from tests.support.cwt import CwtRefusedError, open_with_cwt, requires_cwt

if TYPE_CHECKING:
    from pathlib import Path

VALUE = bytes(range(32))


@pytest.fixture
def provider() -> Provider:
    """A provider without a token that signs."""
    return Provider(identity=FileIdentity.generate())


def new_key() -> CipherKey:
    """Make an AES key whose stream stands inside a block."""
    key = CipherKey(Cipher.AES, bytearray(VALUE))
    key.encrypt(b"stopped inside the second block")
    return key


def test_cwt_opens_a_blob_for_a_curve_key(provider: Provider) -> None:
    """Given the sender's public key and the recipient's private key, cwt verifies and finds key and register."""
    recipient = ec.generate_private_key(ec.SECP256R1())
    key = new_key()
    blob = provider.export_key(key, EcdhSealer(recipient.public_key()))
    assert provider.identity is not None
    assert key.cipher_state is not None
    record = cbor2.loads(open_with_cwt(blob, provider.identity.public_key, recipient))
    assert (record[1], record[3], record[11][5]) == ("AES", VALUE, key.cipher_state.register)


def test_cwt_refuses_what_it_should(provider: Provider) -> None:
    """Another sender, another recipient, another header or a flipped bit: cwt refuses, so its yes says something."""
    requires_cwt()
    recipient, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    blob = provider.export_key(new_key(), EcdhSealer(recipient.public_key()))
    assert provider.identity is not None
    sender = provider.identity.public_key
    with pytest.raises(CwtRefusedError):
        open_with_cwt(blob, FileIdentity.generate().public_key, recipient)
    with pytest.raises(CwtRefusedError):
        open_with_cwt(blob, sender, other)
    with pytest.raises(CwtRefusedError):
        open_with_cwt(blob[:4] + b"\x0e" + blob[5:], sender, recipient)
    with pytest.raises(CwtRefusedError):
        open_with_cwt(blob[:-1] + bytes([blob[-1] ^ 1]), sender, recipient)


def openssl_decrypt(directory: Path, private: rsa.RSAPrivateKey, sealed: bytes) -> bytes:
    """Let `openssl pkeyutl` decrypt RSAES-OAEP with SHA-256."""
    pem = directory / "private.pem"
    pem.touch(0o600)
    pem.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    command = ["openssl", "pkeyutl", "-decrypt", "-inkey", str(pem)]
    for option in ("rsa_padding_mode:oaep", "rsa_oaep_md:sha256", "rsa_mgf1_md:sha256"):
        command += ["-pkeyopt", option]
    return subprocess.run(command, input=sealed, capture_output=True, check=True, timeout=60).stdout


def test_openssl_opens_a_blob_for_an_rsa_key(provider: Provider, tmp_path: Path) -> None:
    """`openssl pkeyutl` opens the recipient, `cryptography` the content; a changed header and it does not."""
    private = rsa.generate_private_key(65537, 3072)
    blob = provider.export_key(new_key(), RsaSealer(private.public_key()))
    sign1 = cbor2.loads(blob[8:])
    protected, unprotected, ciphertext, ((algorithm, _, sealed),) = cbor2.loads(sign1.value[2]).value
    assert cbor2.loads(algorithm) == {1: -41}
    content_key = AESGCM(openssl_decrypt(tmp_path, private, sealed))
    record = cbor2.loads(content_key.decrypt(unprotected[5], ciphertext, cbor2.dumps(["Encrypt", protected, blob[:8]])))
    assert (record[1], record[3]) == ("AES", VALUE)
    with pytest.raises(InvalidTag):
        content_key.decrypt(unprotected[5], ciphertext, cbor2.dumps(["Encrypt", protected, b"\x01" + blob[1:8]]))
