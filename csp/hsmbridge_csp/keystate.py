"""KEYSTATEBLOB: a key together with the state it stopped in, as Microsoft documents it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from hsmbridge_csp.aes_schedule import AES_BLOCK_BYTES, decryption_schedule, encryption_schedule, schedule_bytes
from hsmbridge_csp.blobheader import AlgId, BlobHeader, BlobType
from hsmbridge_csp.errors import NTE, BlobError
from hsmbridge_csp.keyblob import KeyBlob, require_length

if TYPE_CHECKING:
    from hsmbridge_csp.bytecursor import ByteCursor

__all__ = ["AesKeyState", "DesKeyState", "KeyStateBlob", "Rc4KeyState", "parse_keystate_body"]

DES_BLOCK_BYTES = 8
RC4_KEY_BYTES = 16
RC4_SBOX_BYTES = 256
_BYTE = 1 << 8
_DES_KEY_BYTES = {AlgId.DES: 8, AlgId.TRIPLE_DES: 24}
_AES_KEY_BYTES = {AlgId.AES_128: 16, AlgId.AES_256: 32}
"""CRYPT_DES_KEY_STATE, CRYPT_3DES_KEY_STATE, CRYPT_AES_128_KEY_STATE, CRYPT_AES_256_KEY_STATE, wincrypt.h."""

_OTHER_WAY = "key states are documented for RC4, DES, 3DES, AES-128 and AES-256; send this key as an OPAQUEKEYBLOB"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Rc4KeyState(KeyBlob):
    """KEYSTATEBLOB of an RC4 key.

    Attributes:
        key: 16 bytes, secret; shorter keys are padded by whoever wrote the blob.
        sbox: the current permutation of 0 to 255, secret.
        i: the first index, 0 to 255.
        j: the second index, 0 to 255, secret.

    Source: CRYPT_RC4_KEY_STATE structure, 274 bytes.
    """

    TYPE: ClassVar[BlobType] = BlobType.KEYSTATEBLOB

    algorithm: AlgId = AlgId.RC4
    key: bytes = field(repr=False)
    sbox: bytes = field(repr=False)
    i: int = field(repr=False)
    j: int = field(repr=False)

    @classmethod
    def parse_body(cls, header: BlobHeader, cursor: ByteCursor) -> Rc4KeyState:
        """Read the body behind *header*."""
        return cls(
            algorithm=header.algorithm,
            version=header.version,
            key=cursor.take(RC4_KEY_BYTES, "key"),
            sbox=cursor.take(RC4_SBOX_BYTES, "S-box"),
            i=cursor.uint(1, "index i"),
            j=cursor.uint(1, "index j"),
        )

    def describe(self) -> dict[str, object]:
        """Return what state is carried; not how much keystream was used, which the blob does not say."""
        return {"key_bits": 8 * len(self.key), "state": ["S-box", "indices"], "protected": False}

    def _body(self) -> bytes:
        return self.key + self.sbox + bytes((self.i, self.j))

    def _check(self) -> None:
        if self.algorithm != AlgId.RC4:
            raise _undocumented(self.algorithm)
        require_length(self.key, RC4_KEY_BYTES, "RC4 key")
        require_length(self.sbox, RC4_SBOX_BYTES, "RC4 S-box")
        if len(set(self.sbox)) != RC4_SBOX_BYTES or not (0 <= self.i < _BYTE and 0 <= self.j < _BYTE):
            # RC4 only ever swaps entries, so anything but a permutation is not a state that RC4 can reach.
            message = "the RC4 S-box is not a permutation of 0 to 255, or an index is no byte"
            raise BlobError(message, nte=NTE.BAD_DATA, hint="the blob is damaged; export the key again")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DesKeyState(KeyBlob):
    """KEYSTATEBLOB of a DES or a three-key Triple-DES key.

    Attributes:
        key: 8 or 24 bytes, secret; parity bits are neither checked nor set.
        iv: 8 bytes, where the stream began.
        feedback: 8 bytes, the chaining value that the next block needs.

    Source: CRYPT_DES_KEY_STATE (24 bytes) and CRYPT_3DES_KEY_STATE (40 bytes) structures.
    """

    TYPE: ClassVar[BlobType] = BlobType.KEYSTATEBLOB

    key: bytes = field(repr=False)
    iv: bytes = field(repr=False)
    feedback: bytes = field(repr=False)

    @classmethod
    def parse_body(cls, header: BlobHeader, cursor: ByteCursor) -> DesKeyState:
        """Read the body behind *header*."""
        return cls(
            algorithm=header.algorithm,
            version=header.version,
            key=cursor.take(_key_bytes(_DES_KEY_BYTES, header.algorithm), "key"),
            iv=cursor.take(DES_BLOCK_BYTES, "IV"),
            feedback=cursor.take(DES_BLOCK_BYTES, "feedback register"),
        )

    def describe(self) -> dict[str, object]:
        """Return what state is carried."""
        return {"key_bits": 8 * len(self.key), "state": ["IV", "feedback register"], "protected": False}

    def _body(self) -> bytes:
        return self.key + self.iv + self.feedback

    def _check(self) -> None:
        require_length(self.key, _key_bytes(_DES_KEY_BYTES, self.algorithm), f"{self.algorithm.label} key")
        require_length(self.iv, DES_BLOCK_BYTES, "IV")
        require_length(self.feedback, DES_BLOCK_BYTES, "feedback register")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class AesKeyState(KeyBlob):
    """KEYSTATEBLOB of an AES-128 or AES-256 key.

    Microsoft publishes the size of the two key schedules and not the order of their bytes. The encryption schedule is
    taken to be the expansion of FIPS 197 and must agree with the key: a blob whose parts contradict each other is not
    trusted. The decryption schedule has several usual forms, so any bytes are accepted, kept, and never used.

    Attributes:
        key: 16 or 32 bytes, secret.
        iv: 16 bytes, where the stream began.
        encryption: the encryption key schedule, 176 or 240 bytes, secret.
        decryption: the decryption key schedule, as long, secret.
        feedback: 16 bytes, the chaining value that the next block needs.

    Source: CRYPT_AES_128_KEY_STATE (400 bytes) and CRYPT_AES_256_KEY_STATE (544 bytes) structures.
    """

    TYPE: ClassVar[BlobType] = BlobType.KEYSTATEBLOB

    key: bytes = field(repr=False)
    iv: bytes = field(repr=False)
    encryption: bytes = field(repr=False)
    decryption: bytes = field(repr=False)
    feedback: bytes = field(repr=False)

    @classmethod
    def from_key(cls, key: bytes, *, iv: bytes, feedback: bytes) -> AesKeyState:
        """Make the blob of *key* and compute its schedules (FIPS 197 sections 5.2 and 5.3.5).

        Args:
            key: 16 or 32 bytes.
            iv: 16 bytes.
            feedback: 16 bytes; equal to *iv* where nothing has been processed yet.

        Raises:
            BlobError: a length is wrong, or the key is of 24 bytes, for which no layout exists.
        """
        algorithm = {16: AlgId.AES_128, 24: AlgId.AES_192, 32: AlgId.AES_256}.get(len(key))
        if algorithm is None:
            message = f"an AES key has 16 or 32 bytes in this format, not {len(key)}"
            raise BlobError(message, nte=NTE.BAD_LEN, hint="give an AES-128 or AES-256 key")
        return cls(
            algorithm=algorithm,
            key=key,
            iv=iv,
            encryption=encryption_schedule(key),
            decryption=decryption_schedule(key),
            feedback=feedback,
        )

    @classmethod
    def parse_body(cls, header: BlobHeader, cursor: ByteCursor) -> AesKeyState:
        """Read the body behind *header*."""
        key_bytes = _key_bytes(_AES_KEY_BYTES, header.algorithm)
        return cls(
            algorithm=header.algorithm,
            version=header.version,
            key=cursor.take(key_bytes, "key"),
            iv=cursor.take(AES_BLOCK_BYTES, "IV"),
            encryption=cursor.take(schedule_bytes(key_bytes), "encryption key schedule"),
            decryption=cursor.take(schedule_bytes(key_bytes), "decryption key schedule"),
            feedback=cursor.take(AES_BLOCK_BYTES, "feedback register"),
        )

    def describe(self) -> dict[str, object]:
        """Return what state is carried."""
        state = ["IV", "encryption key schedule", "decryption key schedule", "feedback register"]
        return {"key_bits": 8 * len(self.key), "state": state, "protected": False}

    def _body(self) -> bytes:
        return self.key + self.iv + self.encryption + self.decryption + self.feedback

    def _check(self) -> None:
        key_bytes = _key_bytes(_AES_KEY_BYTES, self.algorithm)
        require_length(self.key, key_bytes, f"{self.algorithm.label} key")
        require_length(self.iv, AES_BLOCK_BYTES, "IV")
        require_length(self.decryption, schedule_bytes(key_bytes), "decryption key schedule")
        require_length(self.feedback, AES_BLOCK_BYTES, "feedback register")
        if self.encryption != encryption_schedule(self.key):
            message = "the encryption key schedule is not that of the key beside it"
            raise BlobError(
                message, nte=NTE.BAD_DATA, hint="the blob is damaged or was tampered with; export the key again"
            )


KeyStateBlob: TypeAlias = Rc4KeyState | DesKeyState | AesKeyState


def parse_keystate_body(header: BlobHeader, cursor: ByteCursor) -> KeyStateBlob:
    """Read the body of a KEYSTATEBLOB, whose layout depends on the algorithm.

    Raises:
        BlobError: no layout is documented for the algorithm (NTE_BAD_ALGID), or the body is not valid.
    """
    if header.algorithm == AlgId.RC4:
        return Rc4KeyState.parse_body(header, cursor)
    if header.algorithm in _DES_KEY_BYTES:
        return DesKeyState.parse_body(header, cursor)
    return AesKeyState.parse_body(header, cursor)


def _key_bytes(table: dict[AlgId, int], algorithm: AlgId) -> int:
    if algorithm not in table:
        raise _undocumented(algorithm)
    return table[algorithm]


def _undocumented(algorithm: AlgId) -> BlobError:
    message = f"no KEYSTATEBLOB layout is documented for {algorithm.label}"
    return BlobError(message, nte=NTE.BAD_ALGID, hint=_OTHER_WAY)
