"""Proof that a private key in the token belongs to a public key: it signs, somebody else's code verifies.

Source: PKCS#11 v3.1 sections 6.1.9 (RSA PKCS #1 v1.5 with SHA-256), 6.3.12 (ECDSA: r and s, each of the curve's size)
and 6.3.16 (EdDSA).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

from hsmbridge.codes import CKM
from hsmbridge.mechanism import Mechanism
from hsmbridge.publickeys import PublicKey, public_key_of, spki_fingerprint

if TYPE_CHECKING:
    from hsmbridge.objects import Object

__all__ = ["check_signature", "sign_digest", "verify_digest"]

_CHALLENGE = 32


def check_signature(key: Object, fingerprint: bytes, *, sign: bool) -> bool:
    """Whether a private key is the one whose public key has *fingerprint*.

    Args:
        key: the private key in the token.
        fingerprint: SHA-256 of the SubjectPublicKeyInfo.
        sign: let it sign a random challenge; without it only the public keys are compared (a key that may not sign).
    """
    public = public_key_of(key)
    if public is None or not hmac.compare_digest(spki_fingerprint(public), fingerprint):
        return False
    if not sign:
        return True
    digest = hashlib.sha256(secrets.token_bytes(_CHALLENGE)).digest()
    return verify_digest(public, digest, sign_digest(key, public, digest))


def sign_digest(key: Object, public: PublicKey, digest: bytes) -> bytes:
    """Let the token sign a SHA-256 digest (Ed25519: the digest as a message).

    Raises:
        Pkcs11Error: the token refuses.
    """
    if isinstance(public, rsa.RSAPublicKey):
        mechanism, data = CKM.RSA_PKCS, _DIGEST_INFO_SHA256 + digest
    elif isinstance(public, ec.EllipticCurvePublicKey):
        mechanism, data = CKM.ECDSA, digest
    else:
        mechanism, data = CKM.EDDSA, digest
    with key.token.sessions as session:
        return key.token.calls.sign(session, Mechanism(mechanism), key.handle, data)


_DIGEST_INFO_SHA256 = bytes.fromhex("3031300d060960864801650304020105000420")
"""DER of DigestInfo for SHA-256 up to the digest (RFC 8017 section 9.2, note 1)."""


def verify_digest(public: PublicKey, digest: bytes, signature: bytes) -> bool:
    """Verify in software what :func:`sign_digest` returned."""
    try:
        if isinstance(public, rsa.RSAPublicKey):
            public.verify(signature, digest, padding.PKCS1v15(), Prehashed(hashes.SHA256()))
        elif isinstance(public, ec.EllipticCurvePublicKey):
            half = len(signature) // 2
            numbers = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
            public.verify(encode_dss_signature(*numbers), digest, ec.ECDSA(Prehashed(hashes.SHA256())))
        elif isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(signature, digest)
        else:
            return False
    except InvalidSignature:
        return False
    return True
