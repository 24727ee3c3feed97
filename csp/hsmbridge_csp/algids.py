"""The ALG_ID that CryptoAPI has for a key of ours.

Source: wincrypt.h, ALG_ID; docs/cryptoapi.md.
"""

from __future__ import annotations

from hsmbridge_csp.blobheader import AlgId

__all__ = ["alg_id_of"]

_BY_SIZE = {128: AlgId.AES_128, 192: AlgId.AES_192, 256: AlgId.AES_256}
_BY_NAME = {
    "3DES": AlgId.TRIPLE_DES,
    "RSA": AlgId.RSA_KEYX,
    "EC": AlgId.ECDSA,
    "HMAC": AlgId.HMAC,
    "TLS-RECORD": AlgId.SCHANNEL_ENC_KEY,
}
_BLOCK_CIPHER_KEYS = ("AES", "CMAC-AES")
"""A CMAC key is a block cipher key that CryptCreateHash(CALG_MAC) would take."""


def alg_id_of(algorithm: str, bits: int) -> AlgId:
    """Return the ALG_ID of a key.

    Args:
        algorithm: by name, as keys have it.
        bits: its size; 0 where it is not known, which for AES is CALG_AES.

    Returns: NONE where CryptoAPI has no number: it knows neither AEADs nor EdDSA.
    """
    if algorithm in _BLOCK_CIPHER_KEYS:
        return _BY_SIZE.get(bits, AlgId.AES)
    if algorithm.startswith("HMAC-"):
        algorithm = "HMAC"
    return _BY_NAME.get(algorithm, AlgId.NONE)
