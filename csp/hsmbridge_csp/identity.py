"""Who signs a blob: an Ed25519 key in a file, or an EC key in a token.

An identity names a sender. It wraps nothing and opens nothing; its public half is what receivers pin (see
:mod:`hsmbridge_csp.trust`).

Source: RFC 8032 (Ed25519); RFC 8410 (its PKCS#8); RFC 9053 sections 2.1 and 2.2 (ES256, EdDSA); docs/identity.md.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from hsmbridge.codes import CKM
from hsmbridge.errors import InputError, PolicyError
from hsmbridge.mechanism import Mechanism
from hsmbridge.publickeys import public_key_of, spki_fingerprint
from hsmbridge_csp.cose import Algorithm
from hsmbridge_csp.errors import NTE, BlobError, KeyStateError

if TYPE_CHECKING:
    from hsmbridge.objects import Object

__all__ = ["FileIdentity", "Identity", "TokenIdentity", "VerifyingKey", "config_directory", "verify"]

VerifyingKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey
"""Ed25519, or P-256 for ES256."""

IDENTITY_FILE = "identity.pem"
_MAX_FILE = 16_384


class Identity(Protocol):
    """What signs."""

    algorithm: Algorithm
    public_key: VerifyingKey

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the public key's SubjectPublicKeyInfo, 32 bytes."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Sign; ES256 signatures are r and s, 32 bytes each."""
        ...


class FileIdentity:
    """An Ed25519 key in a PKCS#8 PEM file that only its owner can read.

    Args:
        key: the private key.
    """

    algorithm = Algorithm.EDDSA

    def __init__(self, key: ed25519.Ed25519PrivateKey) -> None:
        self._key = key
        self.public_key: VerifyingKey = key.public_key()
        self.fingerprint = spki_fingerprint(key.public_key())

    @classmethod
    def generate(cls) -> FileIdentity:
        """Make a new identity in memory."""
        return cls(ed25519.Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> FileIdentity:
        """Read an identity.

        Raises:
            PolicyError: others may read or write the file.
            InputError: not an Ed25519 private key in PKCS#8 PEM.
            FileNotFoundError: there is none.
        """
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as source:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
                raise PolicyError(f"identity {path} is not private", hint=f"chmod 600 {path}")
            pem = source.read(_MAX_FILE + 1)
        return cls.from_pem(pem, name=str(path))

    @classmethod
    def from_pem(cls, pem: bytes, *, name: str) -> FileIdentity:
        """Read an identity from the bytes of its file.

        Raises:
            InputError: not an Ed25519 private key in PKCS#8 PEM.
        """
        try:
            key = serialization.load_pem_private_key(pem, password=None) if len(pem) <= _MAX_FILE else None
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise InputError(
                f"{name} is not an Ed25519 private key (PKCS#8 PEM)", hint="make one with `hsmbridge identity new`"
            )
        return cls(key)

    def to_pem(self) -> bytes:
        """Return the private key as PKCS#8 PEM."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, message: bytes) -> bytes:
        """Sign with Ed25519."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"<FileIdentity {self.fingerprint.hex()}>"


class TokenIdentity:
    """A P-256 private key in a token, with CKA_SIGN.

    Args:
        key: the private key; its public half must be in the token, under the same CKA_ID.

    Raises:
        KeyStateError: not such a key.
    """

    algorithm = Algorithm.ES256

    def __init__(self, key: Object) -> None:
        public = public_key_of(key)
        if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
            raise KeyStateError(
                f"{key.identity} cannot be an identity",
                hint="use a P-256 private key that has its public half beside it",
            )
        self._key = key
        self.public_key: VerifyingKey = public
        self.fingerprint = spki_fingerprint(public)

    def sign(self, message: bytes) -> bytes:
        """Let the token sign the SHA-256 of the message (CKM_ECDSA)."""
        token = self._key.token
        with token.sessions as session:
            return token.calls.sign(session, Mechanism(CKM.ECDSA), self._key.handle, hashlib.sha256(message).digest())

    def __repr__(self) -> str:
        return f"<TokenIdentity {self.fingerprint.hex()}>"


def verify(key: VerifyingKey, algorithm: object, message: bytes, signature: bytes) -> None:
    """Verify a signature; the algorithm must be the one that belongs to the key.

    Raises:
        BlobError: NTE_BAD_SIGNATURE.
    """
    try:
        if isinstance(key, ed25519.Ed25519PublicKey) and algorithm == Algorithm.EDDSA:
            key.verify(signature, message)
            return
        if (
            isinstance(key, ec.EllipticCurvePublicKey)
            and algorithm == Algorithm.ES256
            and len(signature) == _ES256_SIZE
        ):
            half = _ES256_SIZE // 2
            numbers = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
            key.verify(encode_dss_signature(*numbers), message, ec.ECDSA(hashes.SHA256()))
            return
    except InvalidSignature:
        pass
    raise BlobError(
        "the sender's signature does not verify: the blob was changed",
        nte=NTE.BAD_SIGNATURE,
        hint="nothing was unwrapped or imported; have the sender export the key again",
    )


_ES256_SIZE = 64


def config_directory() -> Path:
    """Return where identities and pins lie: ``$HSMBRIDGE_HOME``, else in the XDG configuration directory."""
    home = os.environ.get("HSMBRIDGE_HOME")
    if home:
        return Path(home)
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "hsmbridge"
