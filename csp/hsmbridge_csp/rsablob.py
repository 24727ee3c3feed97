"""PUBLICKEYBLOB and PRIVATEKEYBLOB for RSA keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from hsmbridge_csp.blobheader import AlgId, BlobHeader, BlobType
from hsmbridge_csp.errors import NTE, BlobError
from hsmbridge_csp.keyblob import KeyBlob
from hsmbridge_csp.rsapubkey import (
    DAMAGED_HINT,
    PRIVATE_MAGIC,
    PUBLIC_MAGIC,
    check_public,
    describe_public,
    full_bytes,
    half_bytes,
    read_modulus,
    read_rsapubkey,
    write_rsapubkey,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import rsa

    from hsmbridge_csp.bytecursor import ByteCursor

__all__ = ["RsaPrivateBlob", "RsaPublicBlob"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RsaPublicBlob(KeyBlob):
    """PUBLICKEYBLOB of an RSA key.

    Attributes:
        exponent: the public exponent e, at most 32 bits.
        modulus: n, odd, 384 to 16,384 bits.

    Source: RSAPUBKEY structure: magic "RSA1", bitlen u32, pubexp u32, then the modulus, little-endian.
    """

    TYPE: ClassVar[BlobType] = BlobType.PUBLICKEYBLOB
    MAGIC: ClassVar[bytes] = PUBLIC_MAGIC

    algorithm: AlgId = AlgId.RSA_KEYX
    exponent: int
    modulus: int

    @classmethod
    def parse_body(cls, header: BlobHeader, cursor: ByteCursor) -> RsaPublicBlob:
        """Read the body behind *header*."""
        bits, exponent = read_rsapubkey(cls.MAGIC, cursor)
        modulus = read_modulus(bits, cursor)
        return cls(algorithm=header.algorithm, version=header.version, exponent=exponent, modulus=modulus)

    @classmethod
    def from_key(cls, key: rsa.RSAPublicKey, *, algorithm: AlgId = AlgId.RSA_KEYX) -> RsaPublicBlob:
        """Make the blob of *key*; *algorithm* is RSA_KEYX or RSA_SIGN.

        Raises:
            BlobError: the key does not fit into this format (NTE_BAD_KEY or NTE_BAD_LEN).
        """
        numbers = key.public_numbers()
        return cls(algorithm=algorithm, exponent=numbers.e, modulus=numbers.n)

    def to_key(self) -> rsa.RSAPublicKey:
        """Return the key for use with `cryptography`.

        Raises:
            BlobError: `cryptography` refuses the numbers (NTE_BAD_KEY).
        """
        from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415 -- looking at a blob must start fast

        try:
            return rsa.RSAPublicNumbers(self.exponent, self.modulus).public_key()
        except ValueError as error:
            message = f"the public key cannot be used: {error}"
            raise BlobError(message, nte=NTE.BAD_KEY, hint="use an RSA key of at least 2048 bits") from error

    def describe(self) -> dict[str, object]:
        """Return size, exponent and fingerprint of the public key."""
        return describe_public(self.modulus, self.exponent)

    def _body(self) -> bytes:
        return write_rsapubkey(self.MAGIC, self.modulus, self.exponent)

    def _check(self) -> None:
        check_public(self.algorithm, self.modulus, self.exponent)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RsaPrivateBlob(KeyBlob):
    """PRIVATEKEYBLOB of an RSA key.

    Parsing checks each number's size. Whether the numbers belong together is checked where they become a key: `to_key`.

    Attributes:
        exponent: the public exponent e, at most 32 bits.
        modulus: n, odd, 384 to 16,384 bits.
        prime1: p, secret, like all that follow.
        prime2: q.
        exponent1: d mod (p - 1).
        exponent2: d mod (q - 1).
        coefficient: 1/q mod p.
        private_exponent: d.

    Source: "RSA/Schannel Key BLOBs": magic "RSA2", bitlen, pubexp, then n (bitlen bits), p, q, dp, dq, qinv (half of
    that each, rounded up to bytes), d (bitlen bits), little-endian.
    """

    TYPE: ClassVar[BlobType] = BlobType.PRIVATEKEYBLOB
    MAGIC: ClassVar[bytes] = PRIVATE_MAGIC

    algorithm: AlgId = AlgId.RSA_KEYX
    exponent: int
    modulus: int
    prime1: int = field(repr=False)
    prime2: int = field(repr=False)
    exponent1: int = field(repr=False)
    exponent2: int = field(repr=False)
    coefficient: int = field(repr=False)
    private_exponent: int = field(repr=False)

    @classmethod
    def parse_body(cls, header: BlobHeader, cursor: ByteCursor) -> RsaPrivateBlob:
        """Read the body behind *header*."""
        bits, exponent = read_rsapubkey(cls.MAGIC, cursor)
        half = half_bytes(bits)
        return cls(
            algorithm=header.algorithm,
            version=header.version,
            exponent=exponent,
            modulus=read_modulus(bits, cursor),
            prime1=cursor.uint(half, "first prime"),
            prime2=cursor.uint(half, "second prime"),
            exponent1=cursor.uint(half, "first CRT exponent"),
            exponent2=cursor.uint(half, "second CRT exponent"),
            coefficient=cursor.uint(half, "CRT coefficient"),
            private_exponent=cursor.uint(full_bytes(bits), "private exponent"),
        )

    @classmethod
    def from_key(cls, key: rsa.RSAPrivateKey, *, algorithm: AlgId = AlgId.RSA_KEYX) -> RsaPrivateBlob:
        """Make the blob of *key*; *algorithm* is RSA_KEYX or RSA_SIGN.

        Raises:
            BlobError: the key does not fit into this format (NTE_BAD_KEY or NTE_BAD_LEN).
        """
        numbers = key.private_numbers()
        return cls(
            algorithm=algorithm,
            exponent=numbers.public_numbers.e,
            modulus=numbers.public_numbers.n,
            prime1=numbers.p,
            prime2=numbers.q,
            exponent1=numbers.dmp1,
            exponent2=numbers.dmq1,
            coefficient=numbers.iqmp,
            private_exponent=numbers.d,
        )

    def to_key(self) -> rsa.RSAPrivateKey:
        """Return the key for use with `cryptography`, after checking that its numbers belong together.

        Raises:
            BlobError: they do not, or `cryptography` refuses the key (NTE_BAD_KEY).
        """
        from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415 -- looking at a blob must start fast

        if not self._is_consistent():
            message = "the RSA private key's numbers do not belong together"
            raise BlobError(message, nte=NTE.BAD_KEY, hint=DAMAGED_HINT)
        try:
            return rsa.RSAPrivateNumbers(
                p=self.prime1,
                q=self.prime2,
                d=self.private_exponent,
                dmp1=self.exponent1,
                dmq1=self.exponent2,
                iqmp=self.coefficient,
                public_numbers=rsa.RSAPublicNumbers(self.exponent, self.modulus),
            ).private_key()
        except ValueError:
            # The cause is cut off: its text and its frames are about secret numbers.
            message = "the RSA private key cannot be used"
            raise BlobError(message, nte=NTE.BAD_KEY, hint="use an undamaged RSA key of at least 2048 bits") from None

    def describe(self) -> dict[str, object]:
        """Return size, exponent and fingerprint of the public half."""
        return {**describe_public(self.modulus, self.exponent), "protected": False}

    def _is_consistent(self) -> bool:
        """Say whether the CRT numbers fit the modulus and the exponents (RFC 8017 section 3.2)."""
        p, q, d = self.prime1, self.prime2, self.private_exponent
        return (
            min(p, q) > 2  # noqa: PLR2004 -- the only even prime
            and p * q == self.modulus
            and (self.exponent * d) % (p - 1) == 1
            and (self.exponent * d) % (q - 1) == 1
            and self.exponent1 == d % (p - 1)
            and self.exponent2 == d % (q - 1)
            and self.coefficient < p
            and (self.coefficient * q) % p == 1
        )

    def _body(self) -> bytes:
        bits = self.modulus.bit_length()
        halves = (self.prime1, self.prime2, self.exponent1, self.exponent2, self.coefficient)
        return b"".join(
            (
                write_rsapubkey(self.MAGIC, self.modulus, self.exponent),
                *(number.to_bytes(half_bytes(bits), "little") for number in halves),
                self.private_exponent.to_bytes(full_bytes(bits), "little"),
            )
        )

    def _check(self) -> None:
        check_public(self.algorithm, self.modulus, self.exponent)
        bits = self.modulus.bit_length()
        halves = (self.prime1, self.prime2, self.exponent1, self.exponent2, self.coefficient)
        fits = all(0 <= number < 1 << 8 * half_bytes(bits) for number in halves)
        if not fits or not 0 <= self.private_exponent < 1 << 8 * full_bytes(bits):
            message = "the RSA private key's numbers do not fit beside its modulus"
            raise BlobError(
                message, nte=NTE.BAD_KEY, hint="this format takes keys with two primes of equal length only"
            )
