"""Kinds of keys by the algorithm names that records use.

Source: docs/blob-format.md (algorithms and their states).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hsmbridge_csp.cipher_key import CipherKey
from hsmbridge_csp.errors import NTE, BadLengthError, BlobError, KeyStateError
from hsmbridge_csp.mac_key import Mac, MacKey, MacState
from hsmbridge_csp.modes import Cipher
from hsmbridge_csp.private_key import PRIVATE_ALGORITHMS, PrivateKey
from hsmbridge_csp.record_key import Aead, RecordKey, RecordState
from hsmbridge_csp.state import cipher_state_from
from hsmbridge_csp.tls.record_key import TlsRecordKey
from hsmbridge_csp.tls.state import TLS_RECORD, TlsRecordState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsmbridge_csp.keys import SoftwareKey
    from hsmbridge_csp.permissions import Permission
    from hsmbridge_csp.record import KeyRecord
    from hsmbridge_csp.stream import CipherState

__all__ = ["software_key", "token_state"]

_AEADS = {aead.value: aead for aead in Aead}
_CIPHERS = {cipher.value: cipher for cipher in Cipher}
_MACS = {mac.value: mac for mac in Mac}
_HINT = "the sender speaks another version of the format; export the key again with this one"


def software_key(algorithm: str, value: bytearray, state: Mapping[int, Any], permissions: Permission) -> SoftwareKey:
    """Make the software key of a record again, in its state.

    Raises:
        BlobError: an unknown algorithm, or key, state and algorithm do not fit together.
    """
    try:
        if algorithm in _AEADS:
            return RecordKey(_AEADS[algorithm], value, RecordState.from_map(state), permissions)
        if algorithm in _CIPHERS:
            cipher = _CIPHERS[algorithm]
            return CipherKey(cipher, value, cipher_state_from(state, cipher), permissions)
        if algorithm in _MACS:
            mac = _MACS[algorithm]
            return MacKey(mac, value, MacState.from_map(state, mac), permissions)
        if algorithm == TLS_RECORD:
            return TlsRecordKey(value, TlsRecordState.from_map(state), permissions)
        if algorithm in PRIVATE_ALGORITHMS:
            return PrivateKey(value, permissions).check_state(state)
    except (BadLengthError, KeyStateError) as error:
        raise BlobError(f"the key record does not fit together: {error}", nte=NTE.BAD_DATA, hint=_HINT) from None
    raise BlobError(f"software keys of {algorithm!r} are not known here", nte=NTE.BAD_ALGID, hint=_HINT)


def token_state(record: KeyRecord) -> CipherState | None:
    """Return the running state of a token key's record, None where it has none.

    Raises:
        BlobError: it has a state that its algorithm cannot have.
    """
    if not record.state:
        return None
    if record.algorithm not in list(Cipher):
        raise BlobError(f"{record.algorithm} keys have no cipher state", nte=NTE.BAD_DATA, hint=_HINT)
    return cipher_state_from(record.state, Cipher(record.algorithm))
