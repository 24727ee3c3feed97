"""Key parameters: CryptoAPI's KP_* numbers and values over the states that keys have here.

What a key *is* (KP_ALGID, KP_BLOCKLEN, KP_KEYLEN, KP_PERMISSIONS) can be read of every key that was not destroyed. How
its stream stands (KP_IV, KP_MODE, KP_MODE_BITS, KP_PADDING) is for block cipher keys and needs CRYPT_READ. Whatever is
set needs CRYPT_WRITE.

Source: CryptoAPI CryptGetKeyParam and CryptSetKeyParam; wincrypt.h; docs/cryptoapi.md.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ed25519

from hsmbridge.attributes import AttributeQuery
from hsmbridge.codes import CKA
from hsmbridge.publickeys import public_key_of
from hsmbridge_csp.algids import alg_id_of
from hsmbridge_csp.cipher_key import StreamingKey
from hsmbridge_csp.errors import NTE, BadLengthError, CspError, KeyStateError, PermissionDeniedError
from hsmbridge_csp.kp import KP, CryptMode, CryptPadding
from hsmbridge_csp.modes import BLOCK_SIZE, Cipher, Mode, Padding
from hsmbridge_csp.permissions import Permission
from hsmbridge_csp.record_key import RecordKey
from hsmbridge_csp.token_key import TokenKey

if TYPE_CHECKING:
    from hsmbridge_csp.keys import Key
    from hsmbridge_csp.stream import CipherState

__all__ = ["KP", "CryptMode", "CryptPadding", "get_param", "set_param"]

_BYTE_BITS = 8
_TDES_BITS = 192
_SIZE = AttributeQuery((CKA.VALUE_LEN,))


_NUMBERS = {
    Mode.CBC: CryptMode.CBC,
    Mode.ECB: CryptMode.ECB,
    Mode.OFB: CryptMode.OFB,
    Mode.CFB8: CryptMode.CFB,
    Mode.CFB128: CryptMode.CFB,
    Mode.CTR: CryptMode.CTR,
}
_MODES: dict[int, Mode] = {int(number): mode for mode, number in _NUMBERS.items() if number != CryptMode.CFB}
_CFB = (Mode.CFB8, Mode.CFB128)
_PADDINGS: dict[int, Padding] = {CryptPadding.NONE: Padding.NONE, CryptPadding.PKCS5: Padding.PKCS5}
_FIXED = (KP.ALGID, KP.BLOCKLEN, KP.KEYLEN)
_WHY_NOT = {
    KP.SALT: "salt made 40-bit RC2 and RC4 keys longer, which are not supported: use the key without one",
    KP.EFFECTIVE_KEYLEN: "only RC2 keys have one: ask for KP_KEYLEN",
    KP.SCHANNEL_ALG: "master keys are not supported: import the record keys that were derived from one",
    KP.CLIENT_RANDOM: "master keys are not supported: import the record keys that were derived from one",
    KP.SERVER_RANDOM: "master keys are not supported: import the record keys that were derived from one",
}


def get_param(key: Key, kp: int) -> int | bytes:
    """Read a parameter of a key (CryptGetKeyParam), in the middle of a stream too.

    Args:
        key: the key; one that was exported for a move still answers.
        kp: which, of :class:`KP`.

    Returns: bytes for KP_IV (one block; empty in ECB, which has none), otherwise a number: of :class:`CryptMode`,
        :class:`CryptPadding`, ``Permission`` or ``AlgId``; lengths in bits.

    Raises:
        BadKeyError: the key was destroyed.
        PermissionDeniedError: CRYPT_READ is not among its permissions.
        CspError: NTE_BAD_TYPE, this key has no such parameter.
        KeyStateError: the token does not tell the key's length.
    """
    key.check_alive()
    match _known(kp):
        case KP.PERMISSIONS:
            return int(key.permissions)
        case KP.ALGID:
            return alg_id_of(key.algorithm, key.bits or (_token_bits(key) if key.algorithm == Cipher.AES else 0))
        case KP.KEYLEN:
            return _bits(key)
        case KP.BLOCKLEN:
            return _block_bits(key)
        case param:
            return _get_of_stream(key, param)


def set_param(key: Key, kp: int, value: int | bytes) -> None:
    """Set a parameter of a key (CryptSetKeyParam); those of its stream only between two streams.

    Args:
        key: the key.
        kp: which: KP_IV, KP_PADDING, KP_MODE, KP_MODE_BITS or KP_PERMISSIONS.
        value: as :func:`get_param` returns it. Permissions can only be given up.

    Raises:
        BadKeyError: the key was destroyed.
        PermissionDeniedError: CRYPT_WRITE is not among its permissions, or a permission would be added.
        KeyStateError: in the middle of a stream, exported for a move, or an IV or feedback for a mode that has none.
        BadLengthError: an IV that is not one block.
        CspError: NTE_BAD_TYPE, there is no such parameter to set; NTE_BAD_DATA, it has no such value.
    """
    key.check_alive()
    param = _known(kp)
    if param in _FIXED:
        raise CspError(f"KP_{param.name} cannot be set", nte=NTE.BAD_TYPE, hint="make or import another key")
    key.check_usable(Permission.WRITE)
    if param is KP.PERMISSIONS:
        _narrow(key, _number(param, value))
        return
    stream, state = _stream_of(key, param)
    if param is KP.IV:
        state = _with_iv(key, state, value)
    elif param is KP.PADDING:
        state = replace(state, padding=_padding(_number(param, value)))
    elif param is KP.MODE:
        state = _with_mode(key, state, _number(param, value))
    else:
        state = _with_feedback(key, state, _number(param, value))
    stream.set_cipher_state(state)


def _known(kp: int) -> KP:
    if kp not in list(KP):
        raise CspError(f"{kp} is no key parameter", nte=NTE.BAD_TYPE, hint="use one of KP")
    param = KP(kp)
    if param in _WHY_NOT:
        raise CspError(f"KP_{param.name} is not supported", nte=NTE.BAD_TYPE, hint=_WHY_NOT[param])
    return param


def _get_of_stream(key: Key, param: KP) -> int | bytes:
    _, state = _stream_of(key, param)
    if Permission.READ not in key.permissions:
        raise PermissionDeniedError(
            "the key's permissions do not include READ", hint="KP_PERMISSIONS can be read, and say what it may do"
        )
    if param is KP.IV:
        return state.iv
    if param is KP.PADDING:
        return int(CryptPadding[state.padding.name])
    return int(_NUMBERS[state.mode]) if param is KP.MODE else _feedback_bits(key, state.mode)


def _stream_of(key: Key, param: KP) -> tuple[StreamingKey, CipherState]:
    if isinstance(key, StreamingKey) and key.cipher_state is not None:
        return key, key.cipher_state
    raise CspError(
        f"{key.algorithm} keys have no KP_{param.name}", nte=NTE.BAD_TYPE, hint="it belongs to keys of block ciphers"
    )


def _bits(key: Key) -> int:
    bits = key.bits or _token_bits(key)
    if not bits:
        raise KeyStateError("the token does not tell the key's length", hint="see what `hsmbridge key show` finds")
    return bits


def _token_bits(key: Key) -> int:
    if not isinstance(key, TokenKey):
        return 0
    if key.algorithm == Cipher.TDES:
        return _TDES_BITS  # CKK_DES3 has no CKA_VALUE_LEN; as CryptoAPI, with the parity bits
    public = public_key_of(key.object)
    if public is not None:
        return 256 if isinstance(public, ed25519.Ed25519PublicKey) else public.key_size
    return _BYTE_BITS * (key.object.read(_SIZE).number(CKA.VALUE_LEN) or 0)


def _block_bits(key: Key) -> int:
    if key.algorithm in list(Cipher):
        return _BYTE_BITS * BLOCK_SIZE[Cipher(key.algorithm)]
    if isinstance(key, RecordKey):
        return 0  # as CryptoAPI for stream ciphers: any length goes through
    if key.algorithm == "RSA":
        return _bits(key)
    raise CspError(
        f"{key.algorithm} keys encrypt nothing and have no KP_BLOCKLEN", nte=NTE.BAD_TYPE, hint="ask for KP_KEYLEN"
    )


def _feedback_bits(key: Key, mode: Mode) -> int:
    # CryptoAPI's default is 8, and that is what CFB will have once it is chosen.
    return _block_bits(key) if mode in (Mode.CFB128, Mode.OFB) else _BYTE_BITS


def _number(param: KP, value: int | bytes) -> int:
    if not isinstance(value, int) or value < 0:
        raise _no_value(param, "give a number")
    return value


def _narrow(key: Key, value: int) -> None:
    if value & ~int(key.permissions):
        raise PermissionDeniedError(
            f"0x{value & ~int(key.permissions):x} cannot be added to the key's permissions",
            hint="permissions can only be given up; import the key again to have them back",
        )
    key.permissions = Permission(value)


def _with_iv(key: Key, state: CipherState, value: int | bytes) -> CipherState:
    if state.mode is Mode.ECB:
        raise KeyStateError("ECB has no IV", hint="set KP_MODE first")
    if not isinstance(value, bytes):
        raise _no_value(KP.IV, "give bytes")
    if len(value) * _BYTE_BITS != _block_bits(key):
        raise BadLengthError(f"an IV of {len(value)} bytes is not one block", hint=f"give {len(state.iv)} bytes")
    return replace(state, iv=value)


def _padding(value: int) -> Padding:
    if value not in _PADDINGS:
        raise _no_value(KP.PADDING, "use PKCS5 (1), or NONE (0) and pad the data yourself")
    return _PADDINGS[value]


def _with_mode(key: Key, state: CipherState, value: int) -> CipherState:
    if value == CryptMode.CFB:
        mode = state.mode if state.mode in _CFB else Mode.CFB8
    elif value in _MODES:
        mode = _MODES[value]
    else:
        raise _no_value(KP.MODE, "use CBC, ECB, OFB, CFB or CTR")
    if isinstance(key, TokenKey) and not mode.is_blockwise:
        raise _no_value(KP.MODE, "use ECB or CBC with a key in a token")
    if mode is Mode.CTR and key.algorithm == Cipher.TDES:
        raise _no_value(KP.MODE, "use AES for CTR")
    iv = b"" if mode is Mode.ECB else state.iv or bytes(BLOCK_SIZE[Cipher(key.algorithm)])
    return replace(state, mode=mode, iv=iv)


def _with_feedback(key: Key, state: CipherState, value: int) -> CipherState:
    block = _block_bits(key)
    if value == _feedback_bits(key, state.mode):
        return state
    if value not in (_BYTE_BITS, block) or state.mode is Mode.OFB:
        raise _no_value(KP.MODE_BITS, f"CFB feeds back 8 or {block} bits, OFB {block}")
    if state.mode not in _CFB:
        raise KeyStateError(f"{state.mode} feeds nothing back in parts", hint="set KP_MODE to CFB first")
    return replace(state, mode=Mode.CFB8 if value == _BYTE_BITS else Mode.CFB128)


def _no_value(param: KP, hint: str) -> CspError:
    return CspError(f"KP_{param.name} has no such value", nte=NTE.BAD_DATA, hint=hint)
