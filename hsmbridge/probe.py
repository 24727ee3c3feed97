"""What a token's wrapping mechanisms really do, found out by trying.

A session key of known bytes is wrapped under a session KEK of known bytes, and the result is opened in software; then the
other way round. That tells the dialect, whether lengths survive, and whether a flipped bit is noticed. Nothing is stored in the
token, and a raw wrap under a real KEK is never made or kept.

Source: docs/wrapping.md; RFC 3394; RFC 5649; RFC 8017.
"""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from hsmbridge.codes import CKA, CKK, CKM, CKO, CKR, name_of
from hsmbridge.destruction import Ours
from hsmbridge.dialects import Dialect, software_unwrap, software_wrap
from hsmbridge.entry import key_entry
from hsmbridge.errors import HsmbridgeError, InputError, MechanismError, Pkcs11Error
from hsmbridge.mechanism import Mechanism, oaep, rsa_aes_key_wrap
from hsmbridge.probe_rsa import RsaPair
from hsmbridge.template import PackedTemplate

if TYPE_CHECKING:
    from hsmbridge.objects import Object
    from hsmbridge.token import Token

__all__ = ["Probe", "Route", "probe"]

_CANDIDATES = {
    Dialect.AES_KW: (CKM.AES_KEY_WRAP,),
    Dialect.AES_KWP: (CKM.AES_KEY_WRAP_KWP, CKM.AES_KEY_WRAP_PAD),
    Dialect.AES_KW_PKCS7: (CKM.AES_KEY_WRAP_PKCS7, CKM.AES_KEY_WRAP_PAD),
}
_EVEN_SIZES = (16, 32)
_ODD_SIZE = 20
"""An HMAC-SHA1 key: the length that SoftHSM and NSS return as 24."""

_SEMIBLOCK = 8

_KEK_USE = {
    CKA.SENSITIVE: True, CKA.EXTRACTABLE: False, CKA.WRAP: True, CKA.UNWRAP: True, CKA.ENCRYPT: False, CKA.DECRYPT: False,
}  # fmt: skip
_TARGET_USE = {CKA.SENSITIVE: True, CKA.EXTRACTABLE: True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A mechanism of this token that was seen to speak a dialect.

    Attributes:
        dialect: what is on the wire.
        mechanism: what to call; for a composite, the OAEP part.
        keeps_length: whether a secret of any length the dialect takes comes back unchanged; if not, only multiples of 8 do.
        inner: where the token lacks RSA-AES key wrap, the AES-KWP route for the second of two calls.
    """

    dialect: Dialect
    mechanism: Mechanism
    keeps_length: bool
    inner: Route | None = None

    def carries(self, size: int) -> bool:
        """Whether a secret of *size* bytes survives this route."""
        return self.dialect.takes_length(size) and (self.keeps_length or size % _SEMIBLOCK == 0)

    def __str__(self) -> str:
        through = f" with {self.inner.mechanism.name}" if self.inner else ""
        return f"{self.dialect} by {self.mechanism.name}{through}"


class Probe:
    """The findings for one token; each dialect is tried when it is first asked for. Use :func:`probe`."""

    def __init__(self, token: Token) -> None:
        self._token = token
        self._entry = key_entry(token)
        self._lock = threading.RLock()
        self._routes: dict[Dialect, Route | str] = {}
        self._rsa: RsaPair | None = None

    def route(self, dialect: Dialect) -> Route:
        """Return the way to a dialect.

        Raises:
            MechanismError: no mechanism of this token speaks it; the message says what was tried and what came of it.
        """
        with self._lock:
            found = self._routes.get(dialect)
            if found is None:
                found = self._routes[dialect] = self._find(dialect)
        if isinstance(found, Route):
            return found
        usable = [str(other) for other in (Dialect.AES_KWP, Dialect.AES_KW, Dialect.RSA_OAEP_SHA256) if other != dialect]
        raise MechanismError(
            f"token {self._token.label!r} has no working {dialect} ({dialect.source}): {found}",
            hint=f"see `hsmbridge token show --probe` for what it has; others are {', '.join(usable)}",
        )

    def has(self, dialect: Dialect) -> bool:
        """Whether the token speaks *dialect*."""
        try:
            self.route(dialect)
        except MechanismError:
            return False
        return True

    def findings(self) -> dict[Dialect, Route | str]:
        """Try every dialect.

        Returns: for each the route, or what was tried and what came of it.
        """
        for dialect in Dialect:
            self.has(dialect)
        return dict(self._routes)

    def _find(self, dialect: Dialect) -> Route | str:
        tried: list[str] = []
        listed = self._token.mechanisms()
        if dialect in _CANDIDATES:
            for number in _CANDIDATES[dialect]:
                outcome = self._try_aes(number, dialect) if number in listed else "not listed"
                if isinstance(outcome, Route):
                    return outcome
                tried.append(f"{name_of(CKM, number)}: {outcome}")
            return "; ".join(tried)
        if dialect in (Dialect.RSA_OAEP_SHA256, Dialect.RSA_OAEP_SHA1):
            if CKM.RSA_PKCS_OAEP not in listed:
                return "CKM_RSA_PKCS_OAEP: not listed"
            outcome = self._try_rsa(dialect, oaep(dialect.oaep_hash))
            return outcome if isinstance(outcome, Route) else f"CKM_RSA_PKCS_OAEP: {outcome}"
        if CKM.RSA_AES_KEY_WRAP in listed:
            outcome = self._try_rsa(dialect, rsa_aes_key_wrap(dialect.oaep_hash))
            if isinstance(outcome, Route):
                return outcome
            tried.append(f"CKM_RSA_AES_KEY_WRAP: {outcome}")
        return self._compose(dialect, tried)

    def _compose(self, dialect: Dialect, tried: list[str]) -> Route | str:
        """Two calls where the token lacks the one: OAEP of a session AES key, then AES-KWP under that."""
        outer = Dialect.RSA_OAEP_SHA256 if dialect is Dialect.RSA_AES_KWP else Dialect.RSA_OAEP_SHA1
        try:
            by_rsa, by_aes = self.route(outer), self.route(Dialect.AES_KWP)
        except MechanismError as error:
            return "; ".join([*tried, f"nor in two calls: {error}"])
        return Route(dialect=dialect, mechanism=by_rsa.mechanism, keeps_length=by_aes.keeps_length, inner=by_aes)

    def _try_aes(self, number: CKM, dialect: Dialect) -> Route | str:
        kek_bytes = secrets.token_bytes(32)
        mechanism = Mechanism(number)
        try:
            with Ours(self._token) as ours:
                kek = self._entry.enter(ours, CKK.AES, kek_bytes, _KEK_USE)
                for size in _EVEN_SIZES:
                    fault = self._try_value(ours, mechanism, kek, kek_bytes, dialect, CKK.AES, size)
                    if fault:
                        return fault
                keeps = not self._try_value(
                    ours, mechanism, kek, kek_bytes, dialect, CKK.GENERIC_SECRET, _ODD_SIZE
                )
                if self._accepts_damage(ours, mechanism, kek, kek_bytes, dialect):
                    return "accepts a wrapped key with a flipped bit"
        except HsmbridgeError as error:
            return str(error)
        return Route(dialect=dialect, mechanism=mechanism, keeps_length=keeps)

    def _try_value(  # noqa: PLR0913 - one trial has this many parts
        self, ours: Ours, mechanism: Mechanism, kek: Object, kek_bytes: bytes, dialect: Dialect, key_type: CKK, size: int
    ) -> str | None:
        """Wrap and unwrap one known value.

        Returns: what is wrong, or None.
        """
        value = secrets.token_bytes(size)
        if not dialect.takes_length(size):
            return f"{dialect} does not take {size} bytes"
        expected = software_wrap(dialect, kek_bytes, value)
        try:
            wrapped = self._wrap(mechanism, kek, self._entry.enter(ours, key_type, value, _TARGET_USE))
            if wrapped != expected:
                return f"speaks {_dialect_of(kek_bytes, value, wrapped) or 'no known format'}"
            again = ours.adopt(self._unwrap(mechanism, kek, expected, key_type))
            if self._wrap(mechanism, kek, again) != expected:
                return f"a key of {size} bytes comes back changed"
        except Pkcs11Error as error:
            return str(error)
        return None

    def _accepts_damage(
        self, ours: Ours, mechanism: Mechanism, kek: Object, kek_bytes: bytes, dialect: Dialect
    ) -> bool:
        damaged = bytearray(software_wrap(dialect, kek_bytes, secrets.token_bytes(32)))
        damaged[9] ^= 1
        try:
            ours.adopt(self._unwrap(mechanism, kek, bytes(damaged), CKK.AES))
        except Pkcs11Error:
            return False
        return True

    def _try_rsa(self, dialect: Dialect, mechanism: Mechanism) -> Route | str:
        """Wrap under a known RSA key and open it in software; then unwrap what software wrapped."""
        try:
            with Ours(self._token) as ours:
                if self._rsa is None:
                    self._rsa = RsaPair()
                public = self._rsa.public_object(ours, self._token)
                keeps = True
                for key_type, size in ((CKK.AES, 32), (CKK.GENERIC_SECRET, _ODD_SIZE)):
                    value = secrets.token_bytes(size)
                    target = self._entry.enter(ours, key_type, value, _TARGET_USE)
                    same = self._rsa.open(dialect, self._wrap(mechanism, public, target)) == value
                    if not same and key_type == CKK.AES:
                        return "the wrapped key opens as another value"
                    keeps = keeps and same
                value = secrets.token_bytes(32)
                private, public_of_private = self._rsa.private_object(ours, self._token, self._entry)
                sealed = self._rsa.seal(dialect, public_of_private, value)
                arrived = ours.adopt(self._unwrap(mechanism, private, sealed, CKK.AES))
                if self._rsa.open(dialect, self._wrap(mechanism, public, arrived)) != value:
                    return "an unwrapped key comes back changed"
        except HsmbridgeError as error:
            return str(error)
        return Route(dialect=dialect, mechanism=mechanism, keeps_length=keeps)

    def _wrap(self, mechanism: Mechanism, kek: Object, key: Object) -> bytes:
        with self._token.sessions as session:
            return self._token.calls.wrap_key(session, mechanism, kek.handle, key.handle)

    def _unwrap(self, mechanism: Mechanism, kek: Object, wrapped: bytes, key_type: CKK) -> int:
        # CKA_EXTRACTABLE is left to its default on openCryptoki, which refuses to be told what it does anyway.
        template = {CKA.CLASS: CKO.SECRET_KEY, CKA.KEY_TYPE: key_type, CKA.TOKEN: False, CKA.SENSITIVE: True}
        with self._token.sessions as session:
            try:
                packed = PackedTemplate({**template, CKA.EXTRACTABLE: True})
                return self._token.calls.unwrap_key(session, mechanism, kek.handle, wrapped, packed)
            except Pkcs11Error as error:
                if error.ckr != CKR.ATTRIBUTE_READ_ONLY:
                    raise
                packed = PackedTemplate(template)
                return self._token.calls.unwrap_key(session, mechanism, kek.handle, wrapped, packed)


def _dialect_of(kek: bytes, value: bytes, wrapped: bytes) -> str | None:
    """Name the AES dialect in which *wrapped* holds *value*, zero-padded or not."""
    for dialect in _CANDIDATES:
        try:
            inside = software_unwrap(dialect, kek, wrapped)
        except InputError:
            continue
        if inside == value:
            return str(dialect)
        if inside.rstrip(b"\0") == value.rstrip(b"\0"):
            return f"{dialect}, but pads a key of {len(value)} bytes to {len(inside)}"
    return None


_probes: WeakKeyDictionary[Token, Probe] = WeakKeyDictionary()
_probes_lock = threading.Lock()


def probe(token: Token) -> Probe:
    """Return the token's probe; its findings last as long as the process has the token."""
    with _probes_lock:
        known = _probes.get(token)
        if known is None:
            known = _probes[token] = Probe(token)
        return known
