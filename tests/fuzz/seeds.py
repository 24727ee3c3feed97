"""Good inputs to begin with, the same in each run of one seed."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hsmbridge_csp.blobheader import AlgId
from hsmbridge_csp.cipher_key import CipherKey
from hsmbridge_csp.clearpart import Purpose
from hsmbridge_csp.identity import FileIdentity
from hsmbridge_csp.keystate import AesKeyState, DesKeyState, Rc4KeyState
from hsmbridge_csp.mac_key import Mac, MacKey, MacState
from hsmbridge_csp.modes import Cipher, Direction, Mode
from hsmbridge_csp.private_key import PrivateKey
from hsmbridge_csp.provider import Provider
from hsmbridge_csp.recipient_ecdh import EcdhOpener, EcdhSealer
from hsmbridge_csp.recipient_rsa import RsaOpener, RsaSealer
from hsmbridge_csp.record import KeyRecord, Transfer
from hsmbridge_csp.record_key import Aead, RecordKey, RecordState
from hsmbridge_csp.rsablob import RsaPrivateBlob, RsaPublicBlob
from hsmbridge_csp.sessionkey_blobs import OpaqueKeyBlob, PlaintextKeyBlob, SimpleBlob, SymmetricWrapKeyBlob
from hsmbridge_csp.stream import CipherState
from hsmbridge_csp.trust import Role, TrustStore, make_pin

from hsmbridge.capture import Capture
from hsmbridge.codes import CKA, CKK, CKO

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsmbridge_csp.keys import Key
    from hsmbridge_csp.recipients import Opener

    from hsmbridge.template import Value

__all__ = ["URIS", "World", "cryptoapi_blobs", "records", "world"]

URIS = (
    "pkcs11:",
    "pkcs11:object=my-key;type=private?pin-source=file:/etc/token",
    "pkcs11:token=Software%20token;manufacturer=Snake%20Oil,%20Inc.;model=1.0;id=%69%95%3E%5C;serial=0001",
    "pkcs11:library-version=2.40;slot-id=327;slot-description=Reader%201?module-path=/usr/lib/a.so&pin-value=12%2634",
    "pkcs11:x-vendor=1;token=%e2%82%ac?x-more=a&x-more=b&module-name=softhsm2",
)


def _running_keys() -> list[Key]:
    """Return software keys of each kind, stopped in mid-stream."""
    aes = CipherKey(Cipher.AES, bytearray(range(32)))
    aes.encrypt(b"stopped in a block")
    counter = CipherKey(Cipher.AES, bytearray(range(16)), CipherState(mode=Mode.CTR, iv=bytes(range(16))))
    counter.encrypt(b"stopped in a block")
    triple = CipherKey(Cipher.TDES, bytearray(range(24)), CipherState(mode=Mode.OFB, iv=bytes(8)))
    triple.decrypt(b"twelve bytes")
    opening = RecordState(iv=bytes(range(12)), direction=Direction.DECRYPT, sequence=3, used=3, limit=1 << 24)
    record = RecordKey(Aead.AES_GCM, bytearray(range(32)), replace(opening, limit=1000))
    chacha = RecordKey(Aead.CHACHA20_POLY1305, bytearray(range(32)), replace(opening, direction=Direction.ENCRYPT))
    mac = MacKey(Mac.HMAC_SHA256, bytearray(range(32)), MacState(tag_size=16, sequence=1))
    private = PrivateKey.from_key(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
    return [aes, counter, triple, record, chacha, mac, private]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Who exports to whom.

    Attributes:
        sender: exports, signed.
        stranger: signs, and nobody believes it.
        openers: the recipients' own keys.
        signed: blobs that each of the openers' owners takes, with the opener.
        unsigned: the same without a signature.
        trust: the file by which the receiver believes the sender.
    """

    sender: FileIdentity
    stranger: FileIdentity
    openers: tuple[Opener, ...]
    signed: tuple[tuple[bytes, Opener], ...]
    unsigned: tuple[tuple[bytes, Opener], ...]
    trust: bytes


@functools.cache
def world() -> World:
    """Make identities, recipients and blobs. Their nonces are random: mutations are seeded by place, not by content."""
    sender, stranger = FileIdentity.generate(), FileIdentity.generate()
    curve, modulus = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 3072)
    recipients = (
        (EcdhSealer(curve.public_key()), EcdhOpener(curve)),
        (RsaSealer(modulus.public_key()), RsaOpener(modulus)),
    )
    signed, unsigned = [], []
    for number, key in enumerate(_running_keys()):
        sealer, opener = recipients[number % 2]
        purpose = Purpose.MOVE if key.can_only_move else Purpose.COPY
        signed.append((Provider(identity=sender).export_key(key, sealer, purpose=purpose), opener))
    for number, key in enumerate(_running_keys()):
        if not key.can_only_move:
            sealer, opener = recipients[number % 2]
            unsigned.append((Provider().export_key(key, sealer), opener))
    pins = [
        make_pin(Role.SENDER, "us", sender.public_key),
        make_pin(Role.RECIPIENT, "curve", curve.public_key()),
        make_pin(Role.RECIPIENT, "modulus", modulus.public_key()),
    ]
    trust = b"# whom we believe\n" + b"".join(f"{pin.line}\n".encode() for pin in pins)
    TrustStore.parse(trust, name="seed")
    return World(
        sender=sender,
        stranger=stranger,
        openers=tuple(opener for _, opener in recipients),
        signed=tuple(signed),
        unsigned=tuple(unsigned),
        trust=trust,
    )


@functools.cache
def records() -> tuple[bytes, ...]:
    """Return key records: of software keys, of a wrapped token key, and of one by reference."""
    made = [
        KeyRecord(
            algorithm=key.algorithm,
            transfer=Transfer.VALUE,
            permissions=int(key.permissions),
            key=bytes(key.value),
            state=key.state_map(),
        )
        for key in _running_keys()
        if isinstance(key, (CipherKey, RecordKey, MacKey, PrivateKey))
    ]
    settable: Mapping[int, Value] = {
        CKA.LABEL: "a key", CKA.ID: bytes(16), CKA.ENCRYPT: True, CKA.WRAP: False,
        CKA.ALLOWED_MECHANISMS: (0x1082, 0x1085),
        CKA.UNWRAP_TEMPLATE: {int(CKA.SENSITIVE): True}, CKA.START_DATE: b"20260101",
    }  # fmt: skip
    captured = Capture(
        cls=CKO.SECRET_KEY,
        key_type=CKK.AES,
        size=32,
        on_token=True,
        settable=settable,
        provenance={CKA.LOCAL: True, CKA.KEY_GEN_MECHANISM: 0x1080},
    )
    wrapped = KeyRecord(
        algorithm="AES", transfer=Transfer.WRAPPED, permissions=63, key=bytes(40), dialect="aes-kw", captured=captured,
        state={1: "CBC", 2: bytes(16), 3: "PKCS5"},
    )  # fmt: skip
    referred = KeyRecord(
        algorithm="AES", transfer=Transfer.REFERENCE, permissions=63, captured=captured,
        reference={1: "token", 2: "0001", 5: 4, 6: 0x1F, 7: bytes(16), 8: b"a key", 10: 1, 11: bytes(32),
                   12: bytes(32)},
    )  # fmt: skip
    return tuple(record.encode() for record in (*made, wrapped, referred))


@functools.cache
def cryptoapi_blobs() -> tuple[bytes, ...]:
    """Return one blob of each published layout."""
    number = (1 << 511) | 1
    half = (1 << 255) | 1
    made = (
        SimpleBlob(algorithm=AlgId.AES_256, ciphertext=bytes(256)),
        RsaPublicBlob(exponent=65537, modulus=number),
        RsaPrivateBlob(
            exponent=65537, modulus=number, prime1=half, prime2=half, exponent1=half, exponent2=half, coefficient=half,
            private_exponent=number,
        ),
        PlaintextKeyBlob(algorithm=AlgId.AES_256, key=bytes(range(32))),
        OpaqueKeyBlob(algorithm=AlgId.NONE, body=bytes(50)),
        SymmetricWrapKeyBlob(algorithm=AlgId.TRIPLE_DES, wrapping_algorithm=AlgId.TRIPLE_DES, wrapped_key=bytes(40)),
        Rc4KeyState(key=bytes(range(16)), sbox=bytes(range(255, -1, -1)), i=1, j=200),
        DesKeyState(algorithm=AlgId.TRIPLE_DES, key=bytes(range(24)), iv=bytes(8), feedback=bytes(8)),
        AesKeyState.from_key(bytes(range(32)), iv=bytes(16), feedback=bytes(16)),
    )  # fmt: skip
    return tuple(blob.to_bytes() for blob in made)
