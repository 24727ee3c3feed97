"""TLS keys derived in a token: the secret never leaves it, the keys leave it only if the token lets them.

Source: PKCS#11 v3.1 sections 6.40.7 (CKM_TLS12_KEY_AND_MAC_DERIVE) and 6.62 (HKDF); docs/tls.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hsmbridge.codes import CKA, CKK, CKM, CKO, CKR
from hsmbridge.destruction import Ours
from hsmbridge.errors import MechanismError, Pkcs11Error
from hsmbridge.template import PackedTemplate
from hsmbridge.tls_mechanisms import Tls12KeyMaterial, hkdf_expand
from hsmbridge_csp.errors import NTE, CspError
from hsmbridge_csp.tls.schedule import hkdf_label
from hsmbridge_csp.tls.suites import Bulk
from hsmbridge_csp.token_key import TokenKey
from hsmbridge_csp.wipe import wipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsmbridge.objects import Object
    from hsmbridge.template import Template
    from hsmbridge_csp.tls.prf import Randoms
    from hsmbridge_csp.tls.suites import RecordForm

__all__ = ["Derived", "TokenTlsKeys", "next_traffic_secret_in_token", "tls12_in_token", "tls13_in_token"]

_LACKING = frozenset({CKR.MECHANISM_INVALID, CKR.FUNCTION_NOT_SUPPORTED})
_HASHES = {"SHA256": CKM.SHA256, "SHA384": CKM.SHA384}
_KEY_TYPES = {Bulk.AES_GCM: CKK.AES, Bulk.AES_CBC: CKK.AES, Bulk.CHACHA20_POLY1305: CKK.CHACHA20}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTlsKeys:
    """A connection's keys that stay in the token, as session objects: the application can only let it compute.

    Attributes:
        keys: bulk keys, the client's and the server's, for their writing.
        macs: MAC keys; none with an AEAD.
        ivs: fixed IVs, which tokens give in the clear.
    """

    keys: tuple[TokenKey, TokenKey]
    macs: tuple[TokenKey, TokenKey] | None = None
    ivs: tuple[bytes, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """What this process may hold: for each side, the client first, the bytes of its record key, and its IV."""

    values: tuple[bytearray, bytearray]
    ivs: tuple[bytes, bytes]

    def __repr__(self) -> str:
        return "<Derived>"


def tls12_in_token(form: RecordForm, master: Object, randoms: Randoms) -> Derived | TokenTlsKeys:
    """Derive a TLS 1.2 connection's keys from a master secret in a token.

    The keys inherit CKA_SENSITIVE and CKA_EXTRACTABLE from the master secret: what can be read is read, and its session
    objects are removed.

    Raises:
        MechanismError: the token has no CKM_TLS12_KEY_AND_MAC_DERIVE.
        Pkcs11Error: it refuses.
    """
    material = Tls12KeyMaterial(
        mac=form.mac_size,
        key=form.key_size,
        iv=form.iv_size,
        client_random=randoms.client,
        server_random=randoms.server,
        prf=_HASHES[form.hash_name],
    )
    token = master.token
    with Ours(token) as ours:
        with token.sessions as session:
            try:
                token.calls.derive_key(session, material.mechanism, master.handle, PackedTemplate(_use(form)))
            except Pkcs11Error as error:
                raise _lacking(error, "CKM_TLS12_KEY_AND_MAC_DERIVE") from error
        # NSS makes MAC keys of no length for an AEAD, too; they are ours, and go at the end.
        macs = [ours.adopt(handle) for handle in material.mac_handles if handle]
        keys = [ours.adopt(handle) for handle in material.key_handles if handle]
        return _hand_out(ours, form, keys, macs if form.mac_size else [], material.ivs)


def tls13_in_token(form: RecordForm, secrets: tuple[Object, Object]) -> Derived | TokenTlsKeys:
    """Derive a TLS 1.3 connection's keys from the two application traffic secrets in a token.

    Args:
        form: of the suite.
        secrets: the client's and the server's.

    Raises:
        MechanismError: the token has no CKM_HKDF_DERIVE or CKM_HKDF_DATA.
        Pkcs11Error: it refuses.
    """
    with Ours(secrets[0].token) as ours:
        data: Template = {CKA.CLASS: CKO.DATA, CKA.TOKEN: False, CKA.VALUE_LEN: form.iv_size}
        keys = [_expand(ours, form, secret, "key", _use(form)) for secret in secrets]
        ivs = [bytes(_expand(ours, form, secret, "iv", data).read_value()) for secret in secrets]
        derived = _hand_out(ours, form, keys, [], (ivs[0], ivs[1]))
    if isinstance(derived, Derived):
        for value, secret in zip(derived.values, secrets, strict=True):
            value.extend(_read(secret, None) or b"")
    return derived


def next_traffic_secret_in_token(form: RecordForm, secret: Object) -> TokenKey:
    """Return application_traffic_secret_N+1 as a session object (RFC 8446 section 7.2).

    Raises:
        MechanismError: the token has no CKM_HKDF_DERIVE; Pkcs11Error: it refuses.
    """
    use: Template = {
        CKA.CLASS: CKO.SECRET_KEY,
        CKA.KEY_TYPE: CKK.GENERIC_SECRET,
        CKA.TOKEN: False,
        CKA.DERIVE: True,
        CKA.VALUE_LEN: form.hash_size,
    }
    with Ours(secret.token) as ours:
        return TokenKey(ours.release(_expand(ours, form, secret, "traffic upd", use)))


def _expand(ours: Ours, form: RecordForm, secret: Object, label: str, use: Template) -> Object:
    """HKDF-Expand-Label without a context, as long as the template says."""
    length = use[CKA.VALUE_LEN]
    assert isinstance(length, int)  # noqa: S101 - the templates are those above and below
    info = hkdf_label(label, b"", length)
    mechanism = hkdf_expand(_HASHES[form.hash_name], info, as_data=use[CKA.CLASS] == CKO.DATA)
    token = secret.token
    with token.sessions as session:
        try:
            return ours.adopt(token.calls.derive_key(session, mechanism, secret.handle, PackedTemplate(use)))
        except Pkcs11Error as error:
            raise _lacking(error, mechanism.name) from error


def _use(form: RecordForm) -> dict[int, bool | int]:
    # NSS makes no bulk keys, and says OK, where CKA_VALUE_LEN does not repeat what the parameter says.
    return {
        CKA.CLASS: CKO.SECRET_KEY,
        CKA.KEY_TYPE: _KEY_TYPES[form.bulk],
        CKA.TOKEN: False,
        CKA.ENCRYPT: True,
        CKA.DECRYPT: True,
        CKA.VALUE_LEN: form.key_size,
    }


def _hand_out(
    ours: Ours, form: RecordForm, keys: Sequence[Object], macs: Sequence[Object], ivs: tuple[bytes, bytes]
) -> Derived | TokenTlsKeys:
    if len(keys) != len(ivs) or len(macs) not in (0, len(ivs)):
        raise CspError("the token derived fewer keys than it was asked for", nte=NTE.FAIL, hint="derive in software")
    values = [_read(keys[side], macs[side] if macs else None) for side in range(len(keys))]
    first, second = values
    if first is not None and second is not None:
        if {len(first), len(second)} != {form.key_size + form.mac_size}:
            wipe(first, second)
            raise CspError("the token derived keys of another length", nte=NTE.FAIL, hint="derive in software")
        return Derived(values=(first, second), ivs=ivs)
    held = [TokenKey(ours.release(key)) for key in (*keys, *macs)]
    return TokenTlsKeys(keys=(held[0], held[1]), macs=(held[2], held[3]) if macs else None, ivs=ivs)


def _read(key: Object, mac: Object | None) -> bytearray | None:
    try:
        value = key.read_value()
        return value if mac is None else value + mac.read_value()
    except Pkcs11Error as error:
        if error.ckr == CKR.ATTRIBUTE_SENSITIVE:
            return None
        raise


def _lacking(error: Pkcs11Error, mechanism: str) -> Pkcs11Error | MechanismError:
    if error.ckr not in _LACKING:
        return error
    return MechanismError(
        f"the token does not do {mechanism}", hint="derive in software, from a secret that this process may hold"
    )
