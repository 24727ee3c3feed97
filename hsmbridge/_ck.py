"""PKCS#11's C structures as ctypes, for the calls that :mod:`hsmbridge._calls` makes.

Only Linux on 64 bits is supported: CK_ULONG is eight bytes and structures have natural alignment.

Source: PKCS#11 v3.1 sections 3 and 5; ``pkcs11t.h``.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_char_p, c_ubyte, c_ulong, c_void_p
from typing import ClassVar

__all__ = [
    "FUNCTIONS",
    "CkAttribute",
    "CkEcdh1DeriveParams",
    "CkFunctionList",
    "CkGcmParams",
    "CkHkdfParams",
    "CkInitializeArgs",
    "CkMechanism",
    "CkRsaAesKeyWrapParams",
    "CkRsaPkcsOaepParams",
    "CkSsl3KeyMatOut",
    "CkSsl3RandomData",
    "CkTls12KeyMatParams",
]


class CkAttribute(Structure):
    """CK_ATTRIBUTE: type, pointer to the value, length in bytes."""

    _fields_: ClassVar = [("type", c_ulong), ("pValue", c_void_p), ("ulValueLen", c_ulong)]


class CkMechanism(Structure):
    """CK_MECHANISM: mechanism number and its parameter."""

    _fields_: ClassVar = [("mechanism", c_ulong), ("pParameter", c_void_p), ("ulParameterLen", c_ulong)]


class CkInitializeArgs(Structure):
    """CK_C_INITIALIZE_ARGS, with one pointer more at the end.

    NSS calls the field after ``flags`` LibraryParameters and expects pReserved behind it; other modules stop at ours.
    """

    _fields_: ClassVar = [
        ("CreateMutex", c_void_p),
        ("DestroyMutex", c_void_p),
        ("LockMutex", c_void_p),
        ("UnlockMutex", c_void_p),
        ("flags", c_ulong),
        ("pReserved", c_char_p),
        ("nss_pReserved", c_void_p),
    ]


class CkRsaPkcsOaepParams(Structure):
    """CK_RSA_PKCS_OAEP_PARAMS (PKCS#11 v3.1 section 6.1.8)."""

    _fields_: ClassVar = [
        ("hashAlg", c_ulong),
        ("mgf", c_ulong),
        ("source", c_ulong),
        ("pSourceData", c_void_p),
        ("ulSourceDataLen", c_ulong),
    ]


class CkRsaAesKeyWrapParams(Structure):
    """CK_RSA_AES_KEY_WRAP_PARAMS (PKCS#11 v3.1 section 6.1.20)."""

    _fields_: ClassVar = [("ulAESKeyBits", c_ulong), ("pOAEPParams", POINTER(CkRsaPkcsOaepParams))]


class CkGcmParams(Structure):
    """CK_GCM_PARAMS with ulIvBits, which SoftHSM refuses to do without."""

    _fields_: ClassVar = [
        ("pIv", c_char_p),
        ("ulIvLen", c_ulong),
        ("ulIvBits", c_ulong),
        ("pAAD", c_char_p),
        ("ulAADLen", c_ulong),
        ("ulTagBits", c_ulong),
    ]


class CkEcdh1DeriveParams(Structure):
    """CK_ECDH1_DERIVE_PARAMS (PKCS#11 v3.1 section 6.3.16)."""

    _fields_: ClassVar = [
        ("kdf", c_ulong),
        ("ulSharedDataLen", c_ulong),
        ("pSharedData", c_char_p),
        ("ulPublicDataLen", c_ulong),
        ("pPublicData", c_char_p),
    ]


class CkSsl3RandomData(Structure):
    """CK_SSL3_RANDOM_DATA (PKCS#11 v3.1 section 6.40.2)."""

    _fields_: ClassVar = [
        ("pClientRandom", c_char_p),
        ("ulClientRandomLen", c_ulong),
        ("pServerRandom", c_char_p),
        ("ulServerRandomLen", c_ulong),
    ]


class CkSsl3KeyMatOut(Structure):
    """CK_SSL3_KEY_MAT_OUT: handles of four keys, and where the IVs go (PKCS#11 v3.1 section 6.40.2)."""

    _fields_: ClassVar = [
        ("hClientMacSecret", c_ulong),
        ("hServerMacSecret", c_ulong),
        ("hClientKey", c_ulong),
        ("hServerKey", c_ulong),
        ("pIVClient", c_void_p),
        ("pIVServer", c_void_p),
    ]


class CkTls12KeyMatParams(Structure):
    """CK_TLS12_KEY_MAT_PARAMS (PKCS#11 v3.1 section 6.40.2)."""

    _fields_: ClassVar = [
        ("ulMacSizeInBits", c_ulong),
        ("ulKeySizeInBits", c_ulong),
        ("ulIVSizeInBits", c_ulong),
        ("bIsExport", c_ubyte),
        ("RandomInfo", CkSsl3RandomData),
        ("pReturnedKeyMaterial", POINTER(CkSsl3KeyMatOut)),
        ("prfHashMechanism", c_ulong),
    ]


class CkHkdfParams(Structure):
    """CK_HKDF_PARAMS (PKCS#11 v3.1 section 6.62.2)."""

    _fields_: ClassVar = [
        ("bExtract", c_ubyte),
        ("bExpand", c_ubyte),
        ("prfHashMechanism", c_ulong),
        ("ulSaltType", c_ulong),
        ("pSalt", c_char_p),
        ("ulSaltLen", c_ulong),
        ("hSaltKey", c_ulong),
        ("pInfo", c_char_p),
        ("ulInfoLen", c_ulong),
    ]


FUNCTIONS = (
    "C_Initialize",
    "C_Finalize",
    "C_GetInfo",
    "C_GetFunctionList",
    "C_GetSlotList",
    "C_GetSlotInfo",
    "C_GetTokenInfo",
    "C_GetMechanismList",
    "C_GetMechanismInfo",
    "C_InitToken",
    "C_InitPIN",
    "C_SetPIN",
    "C_OpenSession",
    "C_CloseSession",
    "C_CloseAllSessions",
    "C_GetSessionInfo",
    "C_GetOperationState",
    "C_SetOperationState",
    "C_Login",
    "C_Logout",
    "C_CreateObject",
    "C_CopyObject",
    "C_DestroyObject",
    "C_GetObjectSize",
    "C_GetAttributeValue",
    "C_SetAttributeValue",
    "C_FindObjectsInit",
    "C_FindObjects",
    "C_FindObjectsFinal",
    "C_EncryptInit",
    "C_Encrypt",
    "C_EncryptUpdate",
    "C_EncryptFinal",
    "C_DecryptInit",
    "C_Decrypt",
    "C_DecryptUpdate",
    "C_DecryptFinal",
    "C_DigestInit",
    "C_Digest",
    "C_DigestUpdate",
    "C_DigestKey",
    "C_DigestFinal",
    "C_SignInit",
    "C_Sign",
    "C_SignUpdate",
    "C_SignFinal",
    "C_SignRecoverInit",
    "C_SignRecover",
    "C_VerifyInit",
    "C_Verify",
    "C_VerifyUpdate",
    "C_VerifyFinal",
    "C_VerifyRecoverInit",
    "C_VerifyRecover",
    "C_DigestEncryptUpdate",
    "C_DecryptDigestUpdate",
    "C_SignEncryptUpdate",
    "C_DecryptVerifyUpdate",
    "C_GenerateKey",
    "C_GenerateKeyPair",
    "C_WrapKey",
    "C_UnwrapKey",
    "C_DeriveKey",
    "C_SeedRandom",
    "C_GenerateRandom",
    "C_GetFunctionStatus",
    "C_CancelFunction",
    "C_WaitForSlotEvent",
)
"""The order of CK_FUNCTION_LIST, PKCS#11 v2.40; 3.x lists begin with the same 68 entries."""


class CkFunctionList(Structure):
    """CK_FUNCTION_LIST: a version, then the function pointers in the order of :data:`FUNCTIONS`."""

    _fields_: ClassVar = [("version", c_ubyte * 2), *((name, c_void_p) for name in FUNCTIONS)]


assert ctypes.sizeof(c_ulong) == 8, "hsmbridge supports 64-bit Linux only"  # noqa: S101, PLR2004 - checked at import on purpose
