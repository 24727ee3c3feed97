"""The mechanisms by which a token derives TLS keys.

Source: PKCS#11 v3.1 sections 6.40 (TLS 1.2 mechanisms) and 6.62 (HKDF).
"""

from __future__ import annotations

import ctypes

from hsmbridge._ck import CkHkdfParams, CkSsl3KeyMatOut, CkSsl3RandomData, CkTls12KeyMatParams
from hsmbridge.codes import CKM
from hsmbridge.mechanism import Mechanism

__all__ = ["Tls12KeyMaterial", "hkdf_expand"]

_SALT_NULL = 1  # CKF_HKDF_SALT_NULL
_BITS = 8


class Tls12KeyMaterial:
    """CKM_TLS12_KEY_AND_MAC_DERIVE, which leaves up to four keys and two IVs behind.

    Args:
        mac: bytes of a MAC key, 0 for an AEAD.
        key: bytes of a bulk key.
        iv: bytes of a fixed IV, which the token writes in the clear.
        client_random: 32 bytes.
        server_random: 32 bytes.
        prf: the PRF's hash, CKM_SHA256 or CKM_SHA384.

    Attributes:
        mechanism: for C_DeriveKey; the handle that it returns means nothing.
    """

    def __init__(  # noqa: PLR0913 - the fields of the C structure
        self, *, mac: int, key: int, iv: int, client_random: bytes, server_random: bytes, prf: CKM
    ) -> None:
        self._ivs = ctypes.create_string_buffer(max(iv, 1)), ctypes.create_string_buffer(max(iv, 1))
        self._iv_size = iv
        self._out = CkSsl3KeyMatOut(0, 0, 0, 0, *map(ctypes.addressof, self._ivs))
        params = CkTls12KeyMatParams(
            _BITS * mac,
            _BITS * key,
            _BITS * iv,
            0,
            CkSsl3RandomData(client_random, len(client_random), server_random, len(server_random)),
            ctypes.pointer(self._out),
            prf,
        )
        keep = (self._ivs, self._out, client_random, server_random)
        self.mechanism = Mechanism(CKM.TLS12_KEY_AND_MAC_DERIVE, params, keep=keep)

    @property
    def mac_handles(self) -> tuple[int, int]:
        """Handles of the MAC keys, the client's first; 0 where there is none."""
        return self._out.hClientMacSecret, self._out.hServerMacSecret

    @property
    def key_handles(self) -> tuple[int, int]:
        """Handles of the bulk keys, the client's first."""
        return self._out.hClientKey, self._out.hServerKey

    @property
    def ivs(self) -> tuple[bytes, bytes]:
        """The fixed IVs, the client's first."""
        return self._ivs[0].raw[: self._iv_size], self._ivs[1].raw[: self._iv_size]


def hkdf_expand(prf: CKM, info: bytes, *, as_data: bool = False) -> Mechanism:
    """HKDF-Expand: CKM_HKDF_DERIVE makes a key, CKM_HKDF_DATA a data object, whose value may be read.

    Args:
        prf: HKDF's hash.
        info: what the result is bound to; in TLS 1.3 an HkdfLabel.
        as_data: derive data: an IV is no key, and a token that keeps its keys to itself still tells it.
    """
    params = CkHkdfParams(0, 1, prf, _SALT_NULL, None, 0, 0, info, len(info))
    return Mechanism(CKM.HKDF_DATA if as_data else CKM.HKDF_DERIVE, params, keep=info)
