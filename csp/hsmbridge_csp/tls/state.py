"""The running state of a TLS record key, as it stands in a key record.

Source: docs/tls.md; RFC 8446 sections 5.3 and 5.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from hsmbridge_csp.errors import NTE, BadLengthError, BlobError, CspError, KeyStateError
from hsmbridge_csp.modes import Direction
from hsmbridge_csp.tls.suites import LAST_SEQUENCE, Bulk, CipherSuite, RecordForm

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TLS_RECORD", "TlsRecordState"]

TLS_RECORD = "TLS-RECORD"
"""The algorithm name of record keys; the suite is part of the state."""

_ENCRYPT_THEN_MAC = "encrypt-then-mac"
_HINT = "the sender speaks another version of the format; export the key again with this one"


class Label(IntEnum):
    """Labels of the state's map."""

    VERSION = 1
    SUITE = 2
    DIRECTION = 3
    IV = 4
    SEQUENCE = 5
    LIMIT = 6
    MAC_ORDER = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsRecordState:
    """All of a record key but its secrets.

    Every key begins with sequence 0, so the sequence is also the number of records that the key has protected.

    Attributes:
        suite: the cipher suite, which has the version.
        direction: whether it seals or opens.
        iv: the fixed IV: 4 bytes of salt for AES-GCM in TLS 1.2, nothing for CBC, otherwise 12 bytes.
        sequence: number of the next record, 64 bits.
        limit: records that the key may protect; None takes the suite's for a sealing key, and for an opening one,
            whose limit is the sender's business, none but the end of the sequence numbers.
        encrypt_then_mac: whether the connection negotiated RFC 7366; CBC suites need it, AEADs do not know it.

    Raises:
        BadLengthError: no such IV.
        KeyStateError: sequence or limit is out of range.
        CspError: NTE_BAD_ALGID, a CBC suite with MAC-then-encrypt.
    """

    suite: CipherSuite
    direction: Direction
    iv: bytes
    sequence: int = 0
    limit: int | None = None
    encrypt_then_mac: bool = False

    def __post_init__(self) -> None:
        form = self.suite.form
        if len(self.iv) != form.iv_size:
            raise BadLengthError(f"{self.suite.name} has no fixed IV of {len(self.iv)} bytes", hint=f"{form.iv_size}")
        if form.bulk is Bulk.AES_CBC and not self.encrypt_then_mac:
            raise CspError(
                f"{self.suite.name} without encrypt-then-MAC is refused: MAC-then-encrypt decrypts and strips padding "
                "before it authenticates, which Python cannot do without a padding oracle in its timing",
                nte=NTE.BAD_ALGID,
                hint="negotiate encrypt_then_mac (RFC 7366), or a suite with AES-GCM or ChaCha20-Poly1305",
            )
        if form.bulk is not Bulk.AES_CBC and self.encrypt_then_mac:
            raise KeyStateError(
                f"{self.suite.name} has no MAC of its own", hint="encrypt_then_mac is for CBC suites only"
            )
        ceiling = form.limit if self.direction is Direction.ENCRYPT else LAST_SEQUENCE
        if self.limit is None:
            object.__setattr__(self, "limit", ceiling)
        if not 0 <= self.sequence <= self.records <= ceiling:
            raise KeyStateError(
                f"{self.suite.name} protects at most {ceiling} records with one key",
                hint="agree on a new key (TLS 1.3: KeyUpdate)",
            )

    @property
    def form(self) -> RecordForm:
        """What the suite's records look like."""
        return self.suite.form

    @property
    def records(self) -> int:
        """The limit, as a number."""
        return LAST_SEQUENCE if self.limit is None else self.limit

    def to_map(self) -> dict[int, Any]:
        """Return the state for a key record."""
        fields: dict[Label, Any] = {
            Label.VERSION: int(self.suite.version),
            Label.SUITE: int(self.suite),
            Label.DIRECTION: self.direction.value,
            Label.IV: self.iv,
            Label.SEQUENCE: self.sequence,
            Label.LIMIT: self.records,
        }
        if self.encrypt_then_mac:
            fields[Label.MAC_ORDER] = _ENCRYPT_THEN_MAC
        return {int(label): value for label, value in fields.items()}

    @classmethod
    def from_map(cls, fields: Mapping[int, Any]) -> TlsRecordState:
        """Read a state.

        Raises:
            BlobError: not one.
        """
        match dict(fields):
            case {
                Label.VERSION: int() as version,
                Label.SUITE: int() as number,
                Label.DIRECTION: "encrypt" | "decrypt" as direction,
                Label.IV: bytes() as iv,
                Label.SEQUENCE: int() as sequence,
                Label.LIMIT: int() as limit,
                **rest,
            } if number in _SUITES and rest in ({}, {int(Label.MAC_ORDER): _ENCRYPT_THEN_MAC}):
                suite = CipherSuite(number)
                if version == suite.version:
                    return cls._checked(
                        suite=suite,
                        direction=Direction(direction),
                        iv=iv,
                        sequence=sequence,
                        limit=limit,
                        encrypt_then_mac=bool(rest),
                    )
        raise BlobError(
            "the TLS record state inside the blob is not usable",
            nte=NTE.BAD_DATA,
            hint=_HINT,
        )

    @classmethod
    def _checked(cls, **fields: Any) -> TlsRecordState:  # noqa: ANN401 - the fields, whose types were just matched
        try:
            return cls(**fields)
        except CspError as error:
            raise BlobError(
                f"the TLS record state inside the blob is not usable: {error}", nte=NTE.BAD_DATA, hint=_HINT
            ) from None


_SUITES = frozenset(map(int, CipherSuite))
