"""The worked example of docs/blob-format.md: made by our classes from its inputs, and opened by others' code."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap, aes_key_wrap
from hsmbridge_csp import recipient_ecdh
from hsmbridge_csp.blob import Blob, header_for
from hsmbridge_csp.cipher_key import CipherKey
from hsmbridge_csp.clearpart import ClearPart, Purpose
from hsmbridge_csp.content import SoftwareContentKey
from hsmbridge_csp.cose import CoseEncrypt, CoseRecipient
from hsmbridge_csp.identity import FileIdentity
from hsmbridge_csp.modes import Cipher as CipherName
from hsmbridge_csp.record import KeyRecord, Transfer
from hsmbridge_csp.sealing import sign_blob, verify_blob

PAGE = (Path(__file__).parents[3] / "docs" / "blob-format.md").read_text("utf-8")
INPUTS = {
    name: bytes.fromhex(value) for name, value in re.findall(r"^\| ([^|]+) \| `([0-9a-f]+)` \|$", PAGE, re.MULTILINE)
}
KEK, CONTENT_KEY, IV = INPUTS["KEK"], INPUTS["content key"], INPUTS["IV of AES-GCM"]
KEY, TEXT = INPUTS["exported key"], b"stopped in mid-stream"
SENDER = Ed25519PrivateKey.from_private_bytes(INPUTS["sender's Ed25519 private key"])
CREATED = 1_767_225_600  # 2026-01-01T00:00:00Z


def listing(name: str) -> bytes:
    """Return the bytes of a listing of the page, without its comments."""
    found = re.search(rf"^```text {name}$(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return bytes.fromhex("".join(line.partition("#")[0] for line in found[1].splitlines()))


BLOB, RECORD = listing("blob"), listing("record")


def test_our_classes_make_it() -> None:
    """From the page's inputs our classes make the record and the blob of the page, byte for byte."""
    identity = FileIdentity(SENDER)
    kid = hashlib.sha256(aes_key_wrap(KEK, b"hsmbridge KEK id")).digest()[:16]
    key = CipherKey(CipherName.AES, bytearray(KEY))
    key.encrypt(TEXT)
    record = KeyRecord(
        algorithm="AES", transfer=Transfer.VALUE, permissions=int(key.permissions), key=KEY, state=key.state_map()
    )
    assert record.encode() == RECORD
    clear = ClearPart(
        blob_id=INPUTS["blob id"],
        created=CREATED,
        key_type="AES",
        bits=256,
        by_reference=False,
        purpose=Purpose.COPY,
        sender=identity.fingerprint,
        recipient=kid,
    )
    recipient = CoseRecipient(protected=b"", unprotected={1: -5, 4: kid}, ciphertext=aes_key_wrap(KEK, CONTENT_KEY))
    empty = CoseEncrypt(protected=clear.encode(), iv=IV, ciphertext=b"", recipients=(recipient,))
    ciphertext = SoftwareContentKey(CONTENT_KEY).seal(IV, RECORD, empty.aad(header_for(clear)))
    encrypted = replace(empty, ciphertext=ciphertext)
    unsigned = Blob(header=header_for(clear), clear=clear, encrypted=encrypted, signed=None)
    assert sign_blob(unsigned, identity).encode() == BLOB


def test_our_classes_take_it() -> None:
    """The blob of the page is read, and its signature verified."""
    blob = Blob.parse(BLOB)
    verify_blob(blob, {FileIdentity(SENDER).fingerprint: FileIdentity(SENDER).public_key}.__getitem__)
    assert (blob.clear.created, blob.clear.key_type, blob.clear.bits) == (CREATED, "AES", 256)


def taken_apart(blob: bytes) -> tuple[list[Any], list[Any]]:
    """Return the items of COSE_Sign1 and COSE_Encrypt."""
    sign1 = cbor2.loads(blob[8:])
    encrypt = cbor2.loads(sign1.value[2])
    assert (sign1.tag, encrypt.tag) == (18, 96)
    return list(sign1.value), list(encrypt.value)


def opened(blob: bytes) -> tuple[dict[int, Any], dict[int, Any]]:
    """Verify and open a blob with cbor2 and `cryptography` alone, as RFC 9052 says.

    Returns: the clear part and the record.
    """
    header = blob[:8]
    (protected, unprotected, payload, signature), encrypt = taken_apart(blob)
    assert cbor2.loads(protected) == {1: -8}
    spki = SENDER.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert unprotected == {4: hashlib.sha256(spki).digest()}
    SENDER.public_key().verify(signature, cbor2.dumps(["Signature1", protected, header, payload]))
    clear_bytes, unprotected, ciphertext, ((no_header, names, wrapped),) = encrypt
    assert no_header == b""
    assert names == {1: -5, 4: hashlib.sha256(aes_key_wrap(KEK, b"hsmbridge KEK id")).digest()[:16]}
    aad = cbor2.dumps(["Encrypt", clear_bytes, header])
    plaintext = AESGCM(aes_key_unwrap(KEK, wrapped)).decrypt(unprotected[5], ciphertext, aad)
    return cbor2.loads(clear_bytes), cbor2.loads(plaintext)


def test_others_open_it() -> None:
    """Ed25519 over Sig_structure, RFC 3394, AES-GCM with Enc_structure: what comes out is what the page says."""
    clear, record = opened(BLOB)
    own = list(range(-65537, -65546, -1))
    assert clear[2] == own
    assert [clear[label] for label in own[:7]] == [1, INPUTS["blob id"], CREATED, "AES", 256, False, "copy"]
    assert record == cbor2.loads(RECORD)
    assert (record[1], record[2], record[3], record[13]) == ("AES", 1, KEY, 0x3F)


def test_the_stream_goes_on_from_the_example() -> None:
    """`cryptography`, with register and tail of the record, finishes the stream as if it had never been stopped."""
    _, record = opened(BLOB)
    state, rest = record[11], b" and finished elsewhere"
    whole = Cipher(algorithms.AES(KEY), modes.CBC(state[2])).encryptor()
    expected = whole.update((TEXT + rest).ljust(48, b"\4"))
    assert len(TEXT + rest) == 44
    second = Cipher(algorithms.AES(record[3]), modes.CBC(state[5])).encryptor()
    assert state[5] + second.update((state[6] + rest).ljust(32, b"\4")) == expected


@pytest.mark.parametrize("place", [*range(8), 20, 60, 100, 200, 300, 340, 400, 460, 500, 534])
def test_others_notice_a_change(place: int) -> None:
    """The same code of others refuses the example with a bit flipped: the tests above do look."""
    with pytest.raises((InvalidSignature, InvalidTag, AssertionError, ValueError, cbor2.CBORDecodeError)):
        opened(BLOB[:place] + bytes([BLOB[place] ^ 1]) + BLOB[place + 1 :])


def test_the_key_derivation_context_is_the_documented_one() -> None:
    """The bytes that the page gives for the context information of ECDH-ES are those that go into HKDF."""
    found = re.search(r"^8424[0-9a-f ]+$", PAGE, re.MULTILINE)
    assert found is not None
    nobody = [None, None, None]
    documented = bytes.fromhex(found[0])
    assert documented == cbor2.dumps([-5, nobody, nobody, [256, bytes.fromhex("a101381e")]])
    assert documented == recipient_ecdh._CONTEXT  # noqa: SLF001 - it has no other use
