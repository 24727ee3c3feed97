"""From a connection's secrets to its two record keys, in the token or in software.

These are the steps of CryptoAPI's "Deriving Bulk Encryption and MAC Keys"; docs/tls.md has which call is which.

Source: RFC 5246 section 6.3; RFC 8446 section 7.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from hsmbridge.errors import MechanismError, Pkcs11Error
from hsmbridge_csp.errors import NTE, CspError
from hsmbridge_csp.modes import Direction
from hsmbridge_csp.tls.prf import KeyBlock
from hsmbridge_csp.tls.record_key import TlsRecordKey
from hsmbridge_csp.tls.state import TlsRecordState
from hsmbridge_csp.tls.suites import TlsVersion
from hsmbridge_csp.tls.token_derive import Derived, TokenTlsKeys, tls12_in_token, tls13_in_token
from hsmbridge_csp.token_key import TokenKey
from hsmbridge_csp.wipe import wipe

if TYPE_CHECKING:
    from typing import TypeAlias

    from hsmbridge_csp.tls.prf import Randoms
    from hsmbridge_csp.tls.suites import CipherSuite, RecordForm

__all__ = ["KeyOrBytes", "Side", "TlsKeyPair", "derive_tls12_keys", "derive_tls13_keys"]

KeyOrBytes: TypeAlias = "bytes | bytearray | TokenKey"
"""A secret that this process holds, or a secret key in a token with CKA_DERIVE."""


class Side(StrEnum):
    """Which end of the connection this is."""

    CLIENT = "client"
    SERVER = "server"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsKeyPair:
    """Both directions of a connection.

    Attributes:
        write: seals what this end sends; read: opens what it receives.
    """

    write: TlsRecordKey
    read: TlsRecordKey


def derive_tls12_keys(  # noqa: PLR0913 - what the key block depends on
    suite: CipherSuite,
    master: KeyOrBytes,
    randoms: Randoms,
    side: Side,
    *,
    encrypt_then_mac: bool = False,
    sequences: tuple[int, int] = (0, 0),
) -> TlsKeyPair | TokenTlsKeys:
    """Derive a TLS 1.2 connection's keys from its master secret.

    Args:
        suite: of TLS 1.2.
        master: 48 bytes; in a token, it derives there if the token can, and otherwise in software if it can be read.
        randoms: of the two hellos.
        side: which end this is.
        encrypt_then_mac: whether RFC 7366 was negotiated.
        sequences: numbers of the next record to write and to read: (1, 1) after a handshake's Finished messages.

    Returns: record keys, or the keys as they stay in the token, where it lets nobody read them.

    Raises:
        CspError: NTE_BAD_ALGID, not a suite of TLS 1.2, or MAC-then-encrypt; BadLengthError: no master secret.
        MechanismError: the token cannot derive, nor can the master secret be read.
        Pkcs11Error: the token refuses.
    """
    form = _form(suite, TlsVersion.TLS12)
    if isinstance(master, TokenKey):
        master.check_usable()
        try:
            derived = tls12_in_token(form, master.object, randoms)
        except MechanismError:
            derived = _in_software(form, _held(master), randoms)
        if isinstance(derived, TokenTlsKeys):
            return derived
    else:
        derived = _in_software(form, bytearray(master), randoms)
    return _pair(suite, derived, side, sequences, encrypt_then_mac=encrypt_then_mac)


def derive_tls13_keys(
    suite: CipherSuite,
    client_secret: KeyOrBytes,
    server_secret: KeyOrBytes,
    side: Side,
    *,
    sequences: tuple[int, int] = (0, 0),
) -> TlsKeyPair | TokenTlsKeys:
    """Derive a TLS 1.3 connection's keys from its application traffic secrets.

    Args:
        suite: of TLS 1.3.
        client_secret: client_application_traffic_secret_N, as long as the suite's hash.
        server_secret: the server's; both in one token, or neither.
        side: which end this is.
        sequences: numbers of the next record to write and to read.

    Returns: record keys, with the secrets for a KeyUpdate if this process may hold them; or the keys as they stay in
        the token, where it lets nobody read them.

    Raises:
        CspError: NTE_BAD_ALGID, not a suite of TLS 1.3; NTE_BAD_KEY, one secret is in a token and the other is not.
        BadLengthError: a secret is not as long as the suite's hash.
        MechanismError: the token cannot derive, nor can the secrets be read.
        Pkcs11Error: the token refuses.
    """
    form = _form(suite, TlsVersion.TLS13)
    if isinstance(client_secret, TokenKey) and isinstance(server_secret, TokenKey):
        client_secret.check_usable()
        server_secret.check_usable()
        try:
            derived = tls13_in_token(form, (client_secret.object, server_secret.object))
        except MechanismError:
            secrets = _held(client_secret), _held(server_secret)
        else:
            if isinstance(derived, Derived):
                return _pair(suite, derived, side, sequences)
            return derived
    elif isinstance(client_secret, TokenKey) or isinstance(server_secret, TokenKey):
        raise CspError("one traffic secret is in a token, the other is not", nte=NTE.BAD_KEY, hint="keep them together")
    else:
        secrets = bytearray(client_secret), bytearray(server_secret)
    make = TlsRecordKey.from_traffic_secret
    write, read = _order(side)
    return TlsKeyPair(
        write=make(suite, Direction.ENCRYPT, secrets[write], sequence=sequences[0]),
        read=make(suite, Direction.DECRYPT, secrets[read], sequence=sequences[1]),
    )


def _form(suite: CipherSuite, version: TlsVersion) -> RecordForm:
    if suite.version is not version:
        raise CspError(
            f"{suite.name} is not a suite of {version.name}", nte=NTE.BAD_ALGID, hint="each version has its own suites"
        )
    return suite.form


def _order(side: Side) -> tuple[int, int]:
    """Where in a pair, the client's part first, this end finds what it writes with, and what it reads with."""
    return (0, 1) if side is Side.CLIENT else (1, 0)


def _in_software(form: RecordForm, master: bytearray, randoms: Randoms) -> Derived:
    """Expand a master secret, and overwrite it."""
    try:
        block = KeyBlock.expand(form, master, randoms)
    finally:
        wipe(master)
    return Derived(values=(block.value(0), block.value(1)), ivs=block.ivs)


def _held(secret: TokenKey) -> bytearray:
    try:
        return secret.object.read_value()
    except Pkcs11Error as error:
        raise MechanismError(
            f"the token does not derive TLS keys, and does not show {secret.object.identity} either: {error}",
            hint="use a token with CKM_TLS12_KEY_AND_MAC_DERIVE (TLS 1.2) or CKM_HKDF_DERIVE (TLS 1.3)",
        ) from error


def _pair(
    suite: CipherSuite, derived: Derived, side: Side, sequences: tuple[int, int], *, encrypt_then_mac: bool = False
) -> TlsKeyPair:
    def key(part: int, direction: Direction, sequence: int) -> TlsRecordKey:
        state = TlsRecordState(
            suite=suite,
            direction=direction,
            iv=derived.ivs[part],
            sequence=sequence,
            encrypt_then_mac=encrypt_then_mac,
        )
        return TlsRecordKey(derived.values[part], state)

    write, read = _order(side)
    return TlsKeyPair(
        write=key(write, Direction.ENCRYPT, sequences[0]), read=key(read, Direction.DECRYPT, sequences[1])
    )
