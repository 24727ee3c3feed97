"""A recipient that is a P-256 key: ECDH-ES + A256KW.

Source: RFC 9053 sections 5.2 (context information), 6.3.1 (ECDH-ES) and 6.4 (with key wrap); RFC 5869 (HKDF).
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hsmbridge.agreement import derive_shared_secret
from hsmbridge.errors import KekError
from hsmbridge.publickeys import public_key_of, spki_fingerprint
from hsmbridge_csp import cbor
from hsmbridge_csp.content import CONTENT_KEY_SIZE, ContentKey, SoftwareContentKey
from hsmbridge_csp.cose import Algorithm, CoseRecipient, Header
from hsmbridge_csp.errors import NTE, BlobError

if TYPE_CHECKING:
    from hsmbridge.destruction import Ours
    from hsmbridge.objects import Object

__all__ = ["EcdhOpener", "EcdhSealer"]

_PROTECTED = cbor.encode({int(Header.ALG): int(Algorithm.ECDH_ES_A256KW)})
_NOBODY = [None, None, None]
_CONTEXT = cbor.encode([int(Algorithm.A256KW), _NOBODY, _NOBODY, [256, _PROTECTED]])
"""COSE_KDF_Context: A256KW, no party information, 256 bits, the recipient's protected header."""

_EPHEMERAL = -1  # header parameter "ephemeral key" (RFC 9053 table 18)
_KTY, _CRV, _X, _Y = 1, -1, -2, -3
_EC2, _P256 = 2, 1
_COORDINATE = 32


class EcdhSealer:
    """Seals for a P-256 public key.

    Args:
        public: the key.

    Raises:
        KekError: another curve.
    """

    wrapping_key = None
    allow_unsafe = False

    def __init__(self, public: ec.EllipticCurvePublicKey) -> None:
        _check_curve(public)
        self._public = public
        self.fingerprint = spki_fingerprint(public)

    def seal(self, ours: Ours | None) -> tuple[ContentKey, CoseRecipient]:
        """Make a content key and wrap it under a key agreed with a fresh ephemeral key."""
        del ours
        ephemeral = ec.generate_private_key(ec.SECP256R1())
        value = secrets.token_bytes(CONTENT_KEY_SIZE)
        wrapped = keywrap.aes_key_wrap(_kek(ephemeral.exchange(ec.ECDH(), self._public)), value)
        numbers = ephemeral.public_key().public_numbers()
        x, y = (number.to_bytes(_COORDINATE, "big") for number in (numbers.x, numbers.y))
        unprotected: dict[int, Any] = {
            int(Header.KID): self.fingerprint,
            _EPHEMERAL: {_KTY: _EC2, _CRV: _P256, _X: x, _Y: y},
        }
        recipient = CoseRecipient(protected=_PROTECTED, unprotected=unprotected, ciphertext=wrapped)
        return SoftwareContentKey(value), recipient


class EcdhOpener:
    """Opens with a P-256 private key.

    Args:
        private: a token's private key with CKA_DERIVE, or one that this process holds.

    Raises:
        KekError: another kind of key, or no public half beside it.
    """

    unwrapping_key = None
    allow_unsafe = False

    def __init__(self, private: Object | ec.EllipticCurvePrivateKey) -> None:
        public = private.public_key() if isinstance(private, ec.EllipticCurvePrivateKey) else public_key_of(private)
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise KekError("not an EC private key with a public half", hint="name a P-256 private key")
        _check_curve(public)
        self._private = private
        self.fingerprint = spki_fingerprint(public)

    def matches(self, recipient: CoseRecipient) -> bool:
        """Whether the blob names this key."""
        return recipient.kid == self.fingerprint

    def open(self, recipient: CoseRecipient, ours: Ours | None) -> ContentKey:
        """Agree on the wrapping key and unwrap the content key.

        Raises:
            BlobError: not ECDH-ES + A256KW, no point on the curve, or it does not open.
            Pkcs11Error: the token refuses C_DeriveKey, or keeps its result.
        """
        if recipient.protected != _PROTECTED or set(recipient.unprotected) != {Header.KID, _EPHEMERAL}:
            raise BlobError("the recipient is not ECDH-ES + A256KW", nte=NTE.BAD_ALGID, hint="the blob is damaged")
        ephemeral = _ephemeral_key(recipient.unprotected[_EPHEMERAL])
        if isinstance(self._private, ec.EllipticCurvePrivateKey):
            shared = self._private.exchange(ec.ECDH(), ephemeral)
        else:
            assert ours is not None  # noqa: S101 - a token key always comes with a token
            shared = derive_shared_secret(ours, self._private, ephemeral)
        try:
            value = keywrap.aes_key_unwrap(_kek(shared), recipient.ciphertext)
        except (keywrap.InvalidUnwrap, ValueError):
            value = b""
        if len(value) != CONTENT_KEY_SIZE:
            raise BlobError(
                "the content key does not open: the blob is damaged",
                nte=NTE.BAD_DATA,
                hint="have the sender export the key again",
            )
        return SoftwareContentKey(value)


def _kek(shared: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=CONTENT_KEY_SIZE, salt=None, info=_CONTEXT).derive(shared)


def _check_curve(public: ec.EllipticCurvePublicKey) -> None:
    if not isinstance(public.curve, ec.SECP256R1):
        raise KekError(f"a recipient on {public.curve.name} is not supported", hint="use a P-256 key")


def _ephemeral_key(fields: object) -> ec.EllipticCurvePublicKey:
    match fields:
        # Python takes true for 1, CBOR does not.
        case {1: 2, -1: int() as curve, -2: bytes() as x, -3: bytes() as y, **more} if (
            not more and curve == _P256 and curve is not True and len(x) == len(y) == _COORDINATE
        ):
            try:
                return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + x + y)
            except ValueError:
                pass
    raise BlobError("the ephemeral key is no point on P-256", nte=NTE.BAD_PUBLIC_KEY, hint="the blob is damaged")
