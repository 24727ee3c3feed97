"""The key record: what the encrypted part of a blob says.

A CBOR map with small integer labels (docs/blob-format.md). Attributes of token keys stand under PKCS#11's own numbers.

Source: docs/blob-format.md; RFC 8949.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TypeVar

from hsmbridge.capture import Capture
from hsmbridge.codes import CKA, CKK, CKO
from hsmbridge_csp import cbor
from hsmbridge_csp.errors import NTE, BlobError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsmbridge.template import Value

__all__ = ["KeyRecord", "Transfer"]

_HINT = "the blob was not made by this version of hsmbridge; have the sender export the key again"
_MAX_KEY_BYTES = 16_384

T = TypeVar("T")


class Transfer(IntEnum):
    """How the key itself travels."""

    VALUE = 1
    """Its bytes, encrypted as part of the record."""

    WRAPPED = 2
    """Its C_WrapKey output under the recipient's KEK: the bytes never exist outside tokens."""

    REFERENCE = 3
    """Not at all: the record says how to find and recognise it on the same token."""


class Label(IntEnum):
    """Labels of the record's map."""

    ALGORITHM = 1
    TRANSFER = 2
    KEY = 3
    DIALECT = 4
    CLASS = 5
    KEY_TYPE = 6
    SIZE = 7
    ON_TOKEN = 8
    ATTRIBUTES = 9
    PROVENANCE = 10
    STATE = 11
    REFERENCE = 12
    PERMISSIONS = 13
    EC_POINT = 14


_LEFT_OUT_IF_EMPTY = {Label.KEY, Label.DIALECT, Label.STATE, Label.REFERENCE, Label.EC_POINT}
_OF_TOKEN_KEYS = {Label.KEY_TYPE, Label.SIZE, Label.ON_TOKEN, Label.ATTRIBUTES, Label.PROVENANCE}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """What the recipient needs to go on with a key.

    Attributes:
        algorithm: the key's algorithm by name (``AES``, ``3DES``, ``HMAC``, ``RSA``, ``EC``, ``Ed25519``).
        transfer: how the key travels.
        key: its bytes, or its wrap; empty by reference.
        dialect: the wrapping format of a WRAPPED key.
        captured: attributes of a token key, None for a software key.
        state: the running state as a CBOR map (see :mod:`hsmbridge_csp.state`), empty where there is none.
        reference: how to find and recognise the key, by REFERENCE only.
        permissions: KP_PERMISSIONS.
        ec_point: the public point of an EC private key.
    """

    algorithm: str
    transfer: Transfer
    permissions: int
    key: bytes | bytearray = field(default=b"", repr=False)
    dialect: str = ""
    captured: Capture | None = None
    state: Mapping[int, Any] = field(default_factory=dict, repr=False)
    reference: Mapping[int, Any] = field(default_factory=dict, repr=False)
    ec_point: bytes = b""

    def encode(self) -> bytes:
        """Return the deterministic encoding; it holds secrets."""
        fields: dict[int, Any] = {
            Label.ALGORITHM: self.algorithm,
            Label.TRANSFER: int(self.transfer),
            Label.PERMISSIONS: self.permissions,
        }
        optional = {
            Label.KEY: self.key,
            Label.DIALECT: self.dialect,
            Label.STATE: dict(self.state),
            Label.REFERENCE: dict(self.reference),
            Label.EC_POINT: self.ec_point,
        }
        fields.update({label: value for label, value in optional.items() if value})
        if self.captured is not None:
            fields[Label.CLASS] = int(self.captured.cls)
            fields[Label.KEY_TYPE] = int(self.captured.key_type)
            fields[Label.SIZE] = self.captured.size or 0
            fields[Label.ON_TOKEN] = self.captured.on_token
            fields[Label.ATTRIBUTES] = _pack(self.captured.settable)
            fields[Label.PROVENANCE] = _pack(self.captured.provenance)
        return cbor.encode({int(label): value for label, value in fields.items()})

    @classmethod
    def decode(cls, data: bytes) -> KeyRecord:
        """Parse a record.

        Raises:
            BlobError: not a record; it was authentic, so the sender speaks another version.
        """
        fields = cbor.decode(data, secret=True)
        if not isinstance(fields, dict) or not set(fields) <= set(Label):
            raise _bad("it has unknown fields")
        reader = _Reader(fields)
        if any(not fields[label] for label in _LEFT_OUT_IF_EMPTY & set(fields)):
            raise _bad("a field that is empty is not left out")
        maps = (reader.take(label, dict, {}) for label in (Label.STATE, Label.REFERENCE))
        if any(isinstance(value, bool) for map_ in maps for value in map_.values()):
            raise _bad("a number of its state is true or false")  # Python takes these for 1 and 0
        if Label.CLASS not in fields and _OF_TOKEN_KEYS & set(fields):
            raise _bad("it has attributes of a token key without a class")
        try:
            transfer = Transfer(reader.take(Label.TRANSFER, int))
        except ValueError:
            raise _bad("its transfer is unknown") from None
        captured = _capture(reader) if Label.CLASS in fields else None
        record = cls(
            algorithm=reader.take(Label.ALGORITHM, str),
            transfer=transfer,
            permissions=reader.take(Label.PERMISSIONS, int),
            key=reader.take(Label.KEY, bytes, b""),
            dialect=reader.take(Label.DIALECT, str, ""),
            captured=captured,
            state=reader.take(Label.STATE, dict, {}),
            reference=reader.take(Label.REFERENCE, dict, {}),
            ec_point=reader.take(Label.EC_POINT, bytes, b""),
        )
        record._check()
        return record

    def _check(self) -> None:
        has_key, has_reference = bool(self.key), bool(self.reference)
        by_reference = self.transfer is Transfer.REFERENCE
        if has_key == by_reference or has_reference != by_reference or len(self.key) > _MAX_KEY_BYTES:
            raise _bad("its key and its transfer do not agree")
        if (self.transfer is Transfer.WRAPPED) != bool(self.dialect):
            raise _bad("its wrapping format and its transfer do not agree")
        if self.transfer is not Transfer.VALUE and self.captured is None:
            raise _bad("a token key comes without attributes")
        if not 0 <= self.permissions < 1 << 32:
            raise _bad("its permissions are no 32-bit number")


class _Reader:
    def __init__(self, fields: dict[Any, Any]) -> None:
        self._fields = fields

    def take(self, label: Label, kind: type[T], default: T | None = None) -> T:
        value = self._fields.get(label, default)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise _bad(f"field {label.name.lower()} is missing or of the wrong type")
        return value


def _capture(reader: _Reader) -> Capture:
    try:
        cls = CKO(reader.take(Label.CLASS, int))
        key_type = CKK(reader.take(Label.KEY_TYPE, int))
    except ValueError:
        raise _bad("its class or key type is unknown") from None
    size = reader.take(Label.SIZE, int)
    if not 0 <= size <= _MAX_KEY_BYTES:
        raise _bad("its size is no length")
    return Capture(
        cls=cls,
        key_type=key_type,
        size=size or None,
        on_token=reader.take(Label.ON_TOKEN, bool),
        settable=_unpack(reader.take(Label.ATTRIBUTES, dict)),
        provenance=_unpack(reader.take(Label.PROVENANCE, dict)),
    )


def _pack(attributes: Mapping[int, Value]) -> dict[int, Any]:
    return {int(kind): _pack_value(value) for kind, value in attributes.items()}


def _pack_value(value: Value) -> Any:  # noqa: ANN401 - any CBOR value
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return value.encode("utf-8", "surrogateescape")
        return value
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, (bool, int, bytes)):
        return value
    return _pack(value)


def _unpack(attributes: dict[Any, Any]) -> dict[int, Value]:
    unpacked: dict[int, Value] = {}
    for kind, value in attributes.items():
        if not isinstance(kind, int) or isinstance(kind, bool) or not 0 <= kind < 1 << 64:
            raise _bad("an attribute type is no number")
        unpacked[kind] = _unpack_value(value)
        if kind == CKA.LABEL and isinstance(value, bytes):
            unpacked[kind] = _label_that_is_not_utf8(value)
    return unpacked


def _label_that_is_not_utf8(value: bytes) -> str:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("utf-8", "surrogateescape")
    raise _bad("a label that is text stands as bytes")


def _unpack_value(value: object) -> Value:
    if isinstance(value, list):
        if not all(isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 1 << 64 for item in value):
            raise _bad("an attribute's list holds something else than numbers")
        return tuple(value)
    if isinstance(value, dict):
        return _unpack(value)
    if isinstance(value, (bool, str, bytes)) or (isinstance(value, int) and 0 <= value < 1 << 64):
        return value
    raise _bad("an attribute's value is of no known kind")


def _bad(why: str) -> BlobError:
    return BlobError(f"the key record inside the blob is not usable: {why}", nte=NTE.BAD_DATA, hint=_HINT)
