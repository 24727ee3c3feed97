"""The key record: what the encrypted part of a blob says.

A CBOR map with small integer labels (docs/blob-format.md). Attributes of token keys stand under PKCS#11's own numbers.

Source: docs/blob-format.md; RFC 8949.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

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


class Transfer(IntEnum):
    """How the key itself travels."""

    VALUE = 1
    """Its bytes, encrypted as part of the record."""

    WRAPPED = 2
    """Its C_WrapKey output under the recipient's KEK: the bytes never exist outside tokens."""

    REFERENCE = 3
    """Not at all: the record says how to find and recognise it on the same token."""


class Label:
    """Labels of the record's map: plain numbers, because each of the many records in a handoff asks for all of them."""

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


_NAMES = {label: name.lower() for name, label in vars(Label).items() if isinstance(label, int)}
_KINDS: dict[int, type] = {
    Label.ALGORITHM: str, Label.TRANSFER: int, Label.KEY: bytes, Label.DIALECT: str, Label.CLASS: int,
    Label.KEY_TYPE: int, Label.SIZE: int, Label.ON_TOKEN: bool, Label.ATTRIBUTES: dict, Label.PROVENANCE: dict,
    Label.STATE: dict, Label.REFERENCE: dict, Label.PERMISSIONS: int, Label.EC_POINT: bytes,
}  # fmt: skip
_LEFT_OUT_IF_EMPTY = {Label.KEY, Label.DIALECT, Label.STATE, Label.REFERENCE, Label.EC_POINT}
_OF_TOKEN_KEYS = {Label.CLASS, Label.KEY_TYPE, Label.SIZE, Label.ON_TOKEN, Label.ATTRIBUTES, Label.PROVENANCE}
_TRANSFERS = {int(transfer): transfer for transfer in Transfer}


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
        captured = self.captured
        fields: dict[int, Any] = {  # in the order of their labels, which is that of the encoding
            Label.ALGORITHM: self.algorithm,
            Label.TRANSFER: int(self.transfer),
            Label.KEY: self.key,
            Label.DIALECT: self.dialect,
        }
        if captured is not None:
            fields[Label.CLASS] = int(captured.cls)
            fields[Label.KEY_TYPE] = int(captured.key_type)
            fields[Label.SIZE] = captured.size or 0
            fields[Label.ON_TOKEN] = captured.on_token
            fields[Label.ATTRIBUTES] = _pack(captured.settable)
            fields[Label.PROVENANCE] = _pack(captured.provenance)
        fields[Label.STATE] = dict(self.state)
        fields[Label.REFERENCE] = dict(self.reference)
        fields[Label.PERMISSIONS] = self.permissions
        fields[Label.EC_POINT] = self.ec_point
        for label in _LEFT_OUT_IF_EMPTY:
            if not fields[label]:
                del fields[label]
        return cbor.encode(fields)

    @classmethod
    def decode(cls, data: bytes) -> KeyRecord:
        """Parse a record.

        Raises:
            BlobError: not a record; it was authentic, so the sender speaks another version.
        """
        fields = cbor.decode(data)
        if not isinstance(fields, dict):
            raise _bad("it is no map")
        for label, value in fields.items():
            if type(value) is not _KINDS.get(label):  # exactly: Python takes true and false for numbers
                raise _bad(f"field {_NAMES.get(label, '?')} is not known, or of the wrong type")
            if not value and label in _LEFT_OUT_IF_EMPTY:
                raise _bad("a field that is empty is not left out")
        try:
            algorithm, permissions = fields[Label.ALGORITHM], fields[Label.PERMISSIONS]
            transfer = _TRANSFERS[fields[Label.TRANSFER]]
        except KeyError:
            raise _bad("it says no algorithm, no permissions or no transfer that is known") from None
        state, reference = fields.get(Label.STATE, {}), fields.get(Label.REFERENCE, {})
        if bool in map(type, state.values()) or (reference and bool in map(type, reference.values())):
            raise _bad("a number of its state is true or false")  # Python takes these for 1 and 0
        record = cls(
            algorithm=algorithm,
            transfer=transfer,
            permissions=permissions,
            key=fields.get(Label.KEY, b""),
            dialect=fields.get(Label.DIALECT, ""),
            captured=None if fields.keys().isdisjoint(_OF_TOKEN_KEYS) else _capture(fields),
            state=state,
            reference=reference,
            ec_point=fields.get(Label.EC_POINT, b""),
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


def _capture(fields: dict[int, Any]) -> Capture:
    if not fields.keys() >= _OF_TOKEN_KEYS:
        raise _bad("it has some attributes of a token key, not all of them")
    try:
        cls, key_type = CKO(fields[Label.CLASS]), CKK(fields[Label.KEY_TYPE])
    except ValueError:
        raise _bad("its class or key type is unknown") from None
    size = fields[Label.SIZE]
    if not 0 <= size <= _MAX_KEY_BYTES:
        raise _bad("its size is no length")
    return Capture(
        cls=cls,
        key_type=key_type,
        size=size or None,
        on_token=fields[Label.ON_TOKEN],
        settable=_unpack(fields[Label.ATTRIBUTES]),
        provenance=_unpack(fields[Label.PROVENANCE]),
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
