"""What all CryptoAPI key blobs have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from hsmbridge_csp.blobheader import BLOB_VERSION, AlgId, BlobHeader, BlobType
from hsmbridge_csp.errors import NTE, BlobError

__all__ = ["KeyBlob", "require_length"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class KeyBlob(ABC):
    """A key blob: a header and a body whose layout the subclass knows.

    The checks run whenever a value is made, by the parser or by hand, so that whatever exists can be written and read.

    Attributes:
        algorithm: the header's aiKeyAlg.
        version: the header's bVersion.
    """

    TYPE: ClassVar[BlobType]

    algorithm: AlgId
    version: int = BLOB_VERSION

    def __post_init__(self) -> None:
        """Check header and body."""
        _ = self.header  # a header checks itself when it is made
        self._check()

    def __repr__(self) -> str:
        """Name the kind and the algorithm; never a field of the body."""
        return f"<{type(self).__name__} {self.algorithm.label}, version {self.version}, body redacted>"

    @property
    def header(self) -> BlobHeader:
        """The blob's BLOBHEADER."""
        return BlobHeader(type=self.TYPE, version=self.version, algorithm=self.algorithm)

    def to_bytes(self) -> bytes:
        """Return the whole blob; for what was parsed, the very bytes that were read."""
        return self.header.to_bytes() + self._body()

    @abstractmethod
    def describe(self) -> dict[str, object]:
        """Return what may be shown of the body: JSON-ready, without a secret."""

    @abstractmethod
    def _body(self) -> bytes:
        """Return what follows the header."""

    @abstractmethod
    def _check(self) -> None:
        """Raise BlobError unless the fields make a valid body."""


def require_length(value: bytes, length: int, what: str) -> None:
    """Insist that *value* has *length* bytes.

    Raises:
        BlobError: it does not (NTE_BAD_LEN).
    """
    if len(value) != length:
        message = f"the {what} has {len(value)} bytes, not {length}"
        raise BlobError(message, nte=NTE.BAD_LEN, hint=f"give a {what} of exactly {length} bytes")
