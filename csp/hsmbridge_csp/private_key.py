"""Private keys in software: RSA, EC and Ed25519, with their public key pinned.

Source: RFC 5958 (PKCS#8); RFC 8017; FIPS 186-5; RFC 8032.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from hsmbridge.publickeys import spki_fingerprint
from hsmbridge_csp.errors import NTE, BlobError, CspError
from hsmbridge_csp.keys import SoftwareKey
from hsmbridge_csp.permissions import DEFAULT, Permission
from hsmbridge_csp.wipe import wipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsmbridge.publickeys import PublicKey

__all__ = ["PRIVATE_ALGORITHMS", "PrivateKey"]

PRIVATE_ALGORITHMS = ("RSA", "EC", "Ed25519")
PrivateKeyObject = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class Label(IntEnum):
    """Labels of a private key's map."""

    PUBLIC_KEY = 1


class PrivateKey(SoftwareKey):
    """A private key whose PKCS#8 encoding this process holds.

    Args:
        value: PKCS#8 DER, unencrypted.
        permissions: KP_PERMISSIONS.

    Raises:
        BlobError: not a private key, or of a kind that is not supported.
    """

    def __init__(self, value: bytearray, permissions: Permission = DEFAULT) -> None:
        key = _load(value)
        name = "RSA" if isinstance(key, rsa.RSAPrivateKey) else "EC"
        super().__init__("Ed25519" if isinstance(key, ed25519.Ed25519PrivateKey) else name, value, permissions)
        self._key: PrivateKeyObject | None = key
        self.bits = 256 if isinstance(key, ed25519.Ed25519PrivateKey) else key.key_size
        self.public_key: PublicKey = key.public_key()
        self.fingerprint = spki_fingerprint(self.public_key)

    @classmethod
    def from_key(cls, key: PrivateKeyObject, permissions: Permission = DEFAULT) -> PrivateKey:
        """Take a key of ``cryptography``."""
        der = key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        value = bytearray(der)
        wipe(der)
        return cls(value, permissions)

    def sign(self, data: bytes) -> bytes:
        """Sign: RSASSA-PSS or ECDSA (DER) with SHA-256, or Ed25519."""
        self.check_usable(Permission.ENCRYPT)  # CryptoAPI knows no permission of its own for signing
        key = self._key
        if isinstance(key, rsa.RSAPrivateKey):
            return key.sign(data, _pss(), hashes.SHA256())
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return key.sign(data, ec.ECDSA(hashes.SHA256()))
        assert key is not None  # noqa: S101 - only a destroyed key has none, and that was refused
        return key.sign(data)

    def verify(self, data: bytes, signature: bytes) -> None:
        """Verify with the pinned public key.

        Raises:
            CspError: NTE_BAD_SIGNATURE.
        """
        public = self.public_key
        try:
            if isinstance(public, rsa.RSAPublicKey):
                public.verify(signature, data, _pss(), hashes.SHA256())
            elif isinstance(public, ec.EllipticCurvePublicKey):
                public.verify(signature, data, ec.ECDSA(hashes.SHA256()))
            else:
                public.verify(signature, data)
        except InvalidSignature:
            raise CspError(
                "the signature does not verify", nte=NTE.BAD_SIGNATURE, hint="the data or the signature were changed"
            ) from None

    def state_map(self) -> dict[int, Any]:
        """Pin the public key."""
        return {int(Label.PUBLIC_KEY): self.fingerprint}

    def check_state(self, fields: Mapping[int, Any]) -> PrivateKey:
        """Compare with the pin of a record.

        Raises:
            BlobError: another key.
        """
        if dict(fields) != self.state_map():
            raise BlobError(
                "the private key does not belong to the public key that the record pins",
                nte=NTE.BAD_DATA,
                hint="have the sender export the key again",
            )
        return self

    def duplicate(self) -> PrivateKey:
        """Copy the key."""
        self._check_duplicable()
        return PrivateKey(bytearray(self.value), self.permissions)

    def _forget(self) -> None:
        self._key = None


def _pss() -> padding.PSS:
    return padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.DIGEST_LENGTH)


def _load(value: bytearray) -> PrivateKeyObject:
    der = bytes(value)
    try:
        key = serialization.load_der_private_key(der, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    finally:
        wipe(der)
    if isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey)):
        return key
    raise BlobError("not a private key in PKCS#8", nte=NTE.BAD_KEY, hint="use RSA, EC or Ed25519 in unencrypted PKCS#8")
