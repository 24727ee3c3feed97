"""What is told about an opened blob: who signed it, what it holds, in which state. Secrets are told by their lengths.

Source: docs/blob-format.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsmbridge_csp.cipher_key import initial_state
from hsmbridge_csp.mac_key import Mac, MacState
from hsmbridge_csp.modes import Cipher
from hsmbridge_csp.permissions import DEFAULT, Permission
from hsmbridge_csp.private_key import PRIVATE_ALGORITHMS
from hsmbridge_csp.record import Transfer
from hsmbridge_csp.record_key import Aead, RecordState
from hsmbridge_csp.state import cipher_state_from

from hsmbridge.codes import CKA, CKK, CKO, name_of
from hsmbridge_cli.keyfacts import shown_value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsmbridge_csp.record import KeyRecord

    from hsmbridge.template import Value

__all__ = ["TRANSFERS", "describe_record", "describe_state", "what_is_more_than_the_key"]

TRANSFERS = {Transfer.VALUE: "value", Transfer.WRAPPED: "wrapped", Transfer.REFERENCE: "reference"}
"""How a key travels, as it is told: its bytes, its wrap under the recipient's key, or not at all."""


def describe_record(record: KeyRecord) -> dict[str, object]:
    """Return what the encrypted part says, JSON-ready; no byte of the key and of its registers."""
    told: dict[str, object] = {
        "algorithm": record.algorithm,
        "transfer": TRANSFERS[record.transfer],
        "key_bytes": len(record.key) or None,
        "dialect": record.dialect or None,
        "permissions": _permissions(record),
        "state": describe_state(record),
    }
    captured = record.captured
    if captured is not None:
        told |= {
            "class": name_of(CKO, captured.cls),
            "key_type": name_of(CKK, captured.key_type),
            "on_token": captured.on_token,
            "attributes": _named(captured.settable),
            "provenance": _named(captured.provenance),
        }
    return told


def describe_state(record: KeyRecord) -> dict[str, object] | None:
    """Return the running state, JSON-ready, registers by their lengths; None where there is none.

    Raises:
        BlobError: it does not fit the algorithm.
    """
    fields = record.state
    if not fields:
        return None
    if record.algorithm in list(Cipher):
        state = cipher_state_from(fields, Cipher(record.algorithm))
        return {
            "mode": state.mode.value,
            "padding": state.padding.value,
            "direction": state.direction.value if state.direction is not None else None,
            "iv_bytes": len(state.iv),
            "register_bytes": len(state.register),
            "tail_bytes": len(state.tail),
        }
    if record.algorithm in list(Mac):
        mac = MacState.from_map(fields, Mac(record.algorithm))
        return {"tag_bytes": mac.tag_size, "sequence": mac.sequence}
    if record.algorithm in list(Aead):
        aead = RecordState.from_map(fields)
        return {
            "direction": aead.direction.value,
            "sequence": aead.sequence,
            "used": aead.used,
            "limit": aead.limit,
            "iv_bytes": len(aead.iv),
        }
    if record.algorithm in PRIVATE_ALGORITHMS:
        return {"public_key": next((value.hex() for value in fields.values() if isinstance(value, bytes)), None)}
    return {"fields": len(fields)}


def what_is_more_than_the_key(record: KeyRecord) -> str | None:
    """Say what the key has that a new key of its kind has not, and that no file and no token object can hold.

    Returns: None where there is nothing.

    Raises:
        BlobError: the state does not fit the algorithm.
    """
    if record.permissions != DEFAULT:
        return f"its permissions ({', '.join(_permissions(record)) or 'none'})"
    if not record.state or record.algorithm in PRIVATE_ALGORITHMS:
        return None
    if record.algorithm in list(Cipher):
        cipher = Cipher(record.algorithm)
        state = cipher_state_from(record.state, cipher)
        return None if state == initial_state(cipher) else f"its {state.mode} state"
    if record.algorithm in list(Mac):
        mac = Mac(record.algorithm)
        at_start = MacState.from_map(record.state, mac) == MacState(tag_size=mac.size)
        return None if at_start else "its sequence number and its tag's length"
    return "its running state"


def _permissions(record: KeyRecord) -> list[str]:
    """Name the permission bits; those without a name survive as numbers."""
    names = [bit.name.lower() for bit in Permission if bit.name and record.permissions & bit]
    unknown = record.permissions & ~sum(Permission)
    return [*names, *([hex(unknown)] if unknown else [])]


def _named(attributes: Mapping[int, Value]) -> dict[str, object]:
    return {name_of(CKA, kind).removeprefix("CKA_"): shown_value(kind, value) for kind, value in attributes.items()}
