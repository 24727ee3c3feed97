"""Mechanisms with their parameters, ready to be handed to the module any number of times.

Source: PKCS#11 v3.1 section 6 (mechanisms).
"""

from __future__ import annotations

import ctypes
from functools import lru_cache

from hsmbridge._ck import CkGcmParams, CkMechanism, CkRsaAesKeyWrapParams, CkRsaPkcsOaepParams
from hsmbridge.codes import CKM, name_of

__all__ = ["Mechanism", "aes_gcm", "oaep", "rsa_aes_key_wrap"]

_MGF1 = {CKM.SHA_1: 1, CKM.SHA256: 2, CKM.SHA384: 3, CKM.SHA512: 4}
"""CKG_MGF1_* by the hash it uses (PKCS#11 v3.1 section 6.1.7)."""

_DATA_SPECIFIED = 1  # CKZ_DATA_SPECIFIED
_GCM_TAG_BITS = 128


class Mechanism:
    """A CK_MECHANISM that owns the memory of its parameter.

    Args:
        number: the CKM_ number.
        parameter: raw bytes (an IV, say), a structure, or None.
    """

    __slots__ = ("_kept", "_struct", "number", "pointer")

    def __init__(self, number: int, parameter: ctypes.Structure | bytes | None = None, *, keep: object = None) -> None:
        self.number = int(number)
        raw = ctypes.create_string_buffer(parameter, len(parameter)) if isinstance(parameter, bytes) else parameter
        self._struct = CkMechanism(
            self.number, None if raw is None else ctypes.addressof(raw), 0 if raw is None else ctypes.sizeof(raw)
        )
        self._kept = (raw, keep)
        self.pointer = ctypes.addressof(self._struct)

    @property
    def name(self) -> str:
        """The specification's name, or the number where it has none."""
        return name_of(CKM, self.number)

    def __repr__(self) -> str:
        return f"Mechanism({self.name})"


def _oaep_params(hash_mechanism: CKM) -> CkRsaPkcsOaepParams:
    return CkRsaPkcsOaepParams(hash_mechanism, _MGF1[hash_mechanism], _DATA_SPECIFIED, None, 0)


@lru_cache(maxsize=8)
def oaep(hash_mechanism: CKM) -> Mechanism:
    """CKM_RSA_PKCS_OAEP with MGF1 over the same hash and an empty label (RFC 8017 section 7.1)."""
    return Mechanism(CKM.RSA_PKCS_OAEP, _oaep_params(hash_mechanism))


@lru_cache(maxsize=8)
def rsa_aes_key_wrap(hash_mechanism: CKM) -> Mechanism:
    """CKM_RSA_AES_KEY_WRAP with a fresh AES-256 key for each call."""
    params = _oaep_params(hash_mechanism)
    return Mechanism(CKM.RSA_AES_KEY_WRAP, CkRsaAesKeyWrapParams(256, ctypes.pointer(params)), keep=params)


def aes_gcm(iv: bytes, aad: bytes) -> Mechanism:
    """CKM_AES_GCM with a 16-byte tag behind the ciphertext."""
    return Mechanism(CKM.AES_GCM, CkGcmParams(iv, len(iv), len(iv) * 8, aad, len(aad), _GCM_TAG_BITS), keep=(iv, aad))
