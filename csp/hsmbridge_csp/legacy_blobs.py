"""Keys from and to the two CryptoAPI blobs that hold them in the clear: PLAINTEXTKEYBLOB and KEYSTATEBLOB.

**Nothing protects these blobs: whoever reads one has the key.** They are here to talk with CryptoAPI; between two
processes of this library an OPAQUEKEYBLOB goes.

A PLAINTEXTKEYBLOB is the key and no state. A KEYSTATEBLOB has the IV and the feedback register of a CBC stream; it says
neither in which direction the stream runs nor whether it is padded. Where the register equals the IV, no stream runs;
otherwise the importer has to say the direction, since the same register continues either. What a blob cannot say is
refused at export, but for direction, padding and, in a PLAINTEXTKEYBLOB, KP_IV and KP_MODE, which CryptoAPI's callers
agree on apart from the blob.

Source: PLAINTEXTKEYBLOB; CRYPT_AES_128_KEY_STATE, CRYPT_AES_256_KEY_STATE, CRYPT_3DES_KEY_STATE, wincrypt.h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsmbridge_csp.algids import alg_id_of
from hsmbridge_csp.blobheader import AlgId, BlobHeader, BlobType
from hsmbridge_csp.cipher_key import CipherKey
from hsmbridge_csp.cryptoapi_blobs import parse_blob
from hsmbridge_csp.errors import NTE, BadKeyError, BadLengthError, BlobError, CspError, KeyStateError
from hsmbridge_csp.keys import SoftwareKey
from hsmbridge_csp.keystate import AesKeyState, DesKeyState
from hsmbridge_csp.mac_key import Mac, MacKey, MacState
from hsmbridge_csp.modes import Cipher, Direction, Mode, Padding
from hsmbridge_csp.permissions import Permission
from hsmbridge_csp.sessionkey_blobs import PlaintextKeyBlob
from hsmbridge_csp.stream import CipherState
from hsmbridge_csp.wipe import wipe

if TYPE_CHECKING:
    from hsmbridge_csp.keys import Key
    from hsmbridge_csp.keystate import KeyStateBlob

__all__ = [
    "export_raw",
    "import_raw",
    "key_from_keystate_blob",
    "key_from_plaintext_blob",
    "keystate_blob_of",
    "plaintext_blob_of",
]

_AES = (AlgId.AES_128, AlgId.AES_192, AlgId.AES_256, AlgId.AES)
_HMAC = (AlgId.HMAC, AlgId.RC2)
"""CryptoAPI imports an HMAC key as CALG_RC2, since that may have any length (CRYPT_IPSEC_HMAC_KEY)."""

_CIPHERS = {**dict.fromkeys(_AES, Cipher.AES), AlgId.TRIPLE_DES: Cipher.TDES}
_OPAQUE = "export it as an OPAQUEKEYBLOB, which carries every state"


def import_raw(
    data: bytes, *, direction: Direction | None = None, padding: Padding = Padding.PKCS5, mac: Mac | None = None
) -> SoftwareKey:
    """Make a key of a PLAINTEXTKEYBLOB or a KEYSTATEBLOB, which hold it in the clear.

    Args:
        data: the blob; it stays the caller's to overwrite.
        direction: what the stream in a KEYSTATEBLOB does; only needed where one runs.
        padding: KP_PADDING of the stream in a KEYSTATEBLOB.
        mac: for which MAC the key in a PLAINTEXTKEYBLOB is; None for a cipher key.

    Raises:
        BlobError: not one of the two (NTE_BAD_TYPE), not valid, or of an unsupported algorithm (NTE_BAD_ALGID).
        KeyStateError: a stream runs and nobody says in which direction.
    """
    kind = BlobHeader.parse(data).type
    if kind not in (BlobType.PLAINTEXTKEYBLOB, BlobType.KEYSTATEBLOB):
        opaque = kind == BlobType.OPAQUEKEYBLOB
        raise BlobError(
            "not a blob of a key in the clear",
            nte=NTE.BAD_TYPE,
            hint="import it with import_key" if opaque else "give a PLAINTEXTKEYBLOB or a KEYSTATEBLOB",
        )
    blob = parse_blob(data)
    if isinstance(blob, PlaintextKeyBlob):
        try:
            return key_from_plaintext_blob(blob, mac=mac)
        finally:
            wipe(blob.key)
    if isinstance(blob, (AesKeyState, DesKeyState)):
        try:
            return key_from_keystate_blob(blob, direction=direction, padding=padding)
        finally:
            _wipe_state(blob)
    raise _unsupported(blob.algorithm)


def export_raw(key: Key, blob_type: int) -> bytes:
    """Write a key that lives in software as a PLAINTEXTKEYBLOB or a KEYSTATEBLOB, in the clear.

    Args:
        key: the key; it stays as it is.
        blob_type: which of the two.

    Returns: the blob, which is as secret as the key.

    Raises:
        PermissionDeniedError: CRYPT_EXPORT and CRYPT_READ are not both among its permissions.
        KeyStateError: its state does not fit into the blob, or it lives in a token.
        CspError: NTE_BAD_TYPE, another type; NTE_BAD_KEY or NTE_BAD_ALGID, the blob has no place for this kind of key.
    """
    if blob_type == BlobType.PLAINTEXTKEYBLOB:
        plain = plaintext_blob_of(key)
        try:
            return plain.to_bytes()
        finally:
            wipe(plain.key)
    if blob_type == BlobType.KEYSTATEBLOB:
        state = keystate_blob_of(key)
        try:
            return state.to_bytes()
        finally:
            _wipe_state(state)
    hint = "export_key writes it" if blob_type == BlobType.OPAQUEKEYBLOB else "use PLAINTEXTKEYBLOB or KEYSTATEBLOB"
    raise CspError(f"0x{blob_type:02x} is no blob of a key in the clear", nte=NTE.BAD_TYPE, hint=hint)


def key_from_plaintext_blob(blob: PlaintextKeyBlob, *, mac: Mac | None = None) -> CipherKey | MacKey:
    """Make the key of a parsed blob, in the state of a new key.

    Args:
        blob: the blob; its key is copied.
        mac: for which MAC it is: CALG_HMAC does not say which hash.

    Raises:
        BlobError: NTE_BAD_ALGID, not supported, or no key of that MAC; NTE_BAD_LEN.
    """
    if mac is not None:
        if blob.algorithm not in (_AES if mac is Mac.CMAC_AES else _HMAC):
            raise BlobError(
                f"a key of {blob.algorithm.label} is no {mac} key",
                nte=NTE.BAD_ALGID,
                hint="an HMAC key is marked CALG_HMAC or CALG_RC2, a CMAC key CALG_AES",
            )
        try:
            return MacKey(mac, bytearray(blob.key))
        except BadLengthError as error:
            raise BlobError(str(error), nte=NTE.BAD_LEN, hint="an HMAC key has up to 1,024 bytes") from None
    cipher = _CIPHERS.get(blob.algorithm)
    if cipher is None:
        raise _unsupported(blob.algorithm)
    return CipherKey(cipher, bytearray(blob.key))


def key_from_keystate_blob(
    blob: KeyStateBlob, *, direction: Direction | None = None, padding: Padding = Padding.PKCS5
) -> CipherKey:
    """Make the key of a parsed blob, in the state that the blob has: CBC, stopped between two blocks.

    Args:
        blob: the blob; its key is copied.
        direction: what the stream does; not looked at where none runs.
        padding: KP_PADDING.

    Raises:
        BlobError: NTE_BAD_ALGID, neither AES nor 3DES.
        KeyStateError: a stream runs and *direction* is None.
    """
    cipher = _CIPHERS.get(blob.algorithm)
    if cipher is None or not isinstance(blob, (AesKeyState, DesKeyState)):
        raise _unsupported(blob.algorithm)
    state = CipherState(mode=Mode.CBC, iv=blob.iv, padding=padding)
    if blob.feedback != blob.iv:
        if direction is None:
            raise KeyStateError(
                "a stream runs, and a KEYSTATEBLOB does not say in which direction",
                hint="say whether the key was encrypting or decrypting: direction=",
            )
        state = CipherState(mode=Mode.CBC, iv=blob.iv, padding=padding, direction=direction, register=blob.feedback)
    return CipherKey(cipher, bytearray(blob.key), state)


def plaintext_blob_of(key: Key) -> PlaintextKeyBlob:
    """Put a cipher or MAC key into a blob; see :func:`export_raw` for the errors."""
    software = _exportable(key)
    algorithm = alg_id_of(software.algorithm, software.bits)
    if isinstance(software, CipherKey):
        state = software.cipher_state
        if state is not None and (state.direction is not None or state.mode.bears_nonce):
            raise KeyStateError(
                "a PLAINTEXTKEYBLOB has no place for a running stream, nor for the IV of CTR or OFB", hint=_OPAQUE
            )
    elif isinstance(software, MacKey):
        software.state_map()  # refuses while a MAC runs
        if software.state != MacState(tag_size=Mac(software.algorithm).size):
            raise KeyStateError("a PLAINTEXTKEYBLOB has no place for a record sequence or a tag size", hint=_OPAQUE)
    else:
        raise _no_place(software, BlobType.PLAINTEXTKEYBLOB)
    return PlaintextKeyBlob(algorithm=algorithm, key=bytes(software.value))


def keystate_blob_of(key: Key) -> AesKeyState | DesKeyState:
    """Put an AES-128, AES-256 or 3DES key in CBC into a blob; see :func:`export_raw` for the errors."""
    software = _exportable(key)
    state = software.cipher_state if isinstance(software, CipherKey) else None
    if state is None:
        raise _no_place(software, BlobType.KEYSTATEBLOB)
    algorithm = alg_id_of(software.algorithm, software.bits)
    if algorithm == AlgId.AES_192:
        raise CspError("Microsoft lays out no KEYSTATEBLOB for AES-192", nte=NTE.BAD_ALGID, hint=_OPAQUE)
    if state.mode is not Mode.CBC:
        raise KeyStateError(f"a KEYSTATEBLOB has no place for {state.mode}: it is read as CBC", hint=_OPAQUE)
    if state.tail:
        raise KeyStateError(
            "a KEYSTATEBLOB has no place for a part of a block, nor for the one that padded decryption holds back",
            hint="give whole blocks, and decrypt with KP_PADDING NONE; or " + _OPAQUE,
        )
    value = bytes(software.value)
    feedback = state.iv if state.direction is None else state.register
    if algorithm == AlgId.TRIPLE_DES:
        return DesKeyState(algorithm=algorithm, key=value, iv=state.iv, feedback=feedback)
    return AesKeyState.from_key(value, iv=state.iv, feedback=feedback)


def _exportable(key: Key) -> SoftwareKey:
    key.check_usable(Permission.EXPORT)
    key.check_usable(Permission.READ)
    if not isinstance(key, SoftwareKey):
        raise KeyStateError("the key lives in a token, and its bytes never leave one", hint="use export_key")
    if key.can_only_move:
        raise KeyStateError(
            "an encryptor of this kind can only be moved: a second holder would use one nonce twice",
            hint="export it with export_key for a move",
        )
    return key


def _wipe_state(blob: AesKeyState | DesKeyState) -> None:
    wipe(blob.key, *((blob.encryption, blob.decryption) if isinstance(blob, AesKeyState) else ()))


def _no_place(key: Key, kind: BlobType) -> BadKeyError:
    return BadKeyError(f"a {kind.name} has no place for a key of {key.algorithm}", hint=_OPAQUE)


def _unsupported(algorithm: AlgId) -> BlobError:
    hints = {
        AlgId.HMAC: "say which hash: mac=Mac.HMAC_SHA256, …",
        AlgId.RC2: "RC2 is not supported; for an HMAC key under that name say which hash: mac=Mac.HMAC_SHA256, …",
        AlgId.TRIPLE_DES_112: "write its two keys as three, the first one again at the end, and mark it CALG_3DES",
    }
    return BlobError(
        f"keys of {algorithm.label} are not supported here",
        nte=NTE.BAD_ALGID,
        hint=hints.get(algorithm, "give an AES, 3DES or HMAC key"),
    )
