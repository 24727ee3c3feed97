"""What a token's wrapping mechanisms really do, found out by trying.

A session key of known bytes is wrapped under a session KEK of known bytes, and the result is opened in software; then
the other way round. That tells the dialect, whether lengths survive, and whether a flipped bit is noticed. Nothing is
stored in the token, and a raw wrap under a real KEK is never made or kept.

Source: docs/wrapping.md; RFC 3394; RFC 5649; RFC 8017.
"""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from hsmbridge.codes import CKK, CKM, name_of
from hsmbridge.destruction import Ours
from hsmbridge.dialects import Dialect
from hsmbridge.entry import key_entry
from hsmbridge.errors import HsmbridgeError, MechanismError, Pkcs11Error, UnavailableError
from hsmbridge.mechanism import Mechanism, oaep, rsa_aes_key_wrap
from hsmbridge.probe_aes import ODD_SIZE, TARGET_USE, AesTrial, raw_unwrap, raw_wrap
from hsmbridge.probe_rsa import RsaPair

if TYPE_CHECKING:
    from hsmbridge.token import Token

__all__ = ["Probe", "Route", "probe"]

_CANDIDATES = {
    Dialect.AES_KW: (CKM.AES_KEY_WRAP,),
    Dialect.AES_KWP: (CKM.AES_KEY_WRAP_KWP, CKM.AES_KEY_WRAP_PAD),
    Dialect.AES_KW_PKCS7: (CKM.AES_KEY_WRAP_PKCS7, CKM.AES_KEY_WRAP_PAD),
}
_SEMIBLOCK = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A mechanism of this token that was seen to speak a dialect.

    Attributes:
        dialect: what is on the wire.
        mechanism: what to call; for a composite, the OAEP part.
        keeps_length: whether a secret of any length the dialect takes comes back unchanged; if not, only multiples of
            8 do.
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
        usable = [
            str(other) for other in (Dialect.AES_KWP, Dialect.AES_KW, Dialect.RSA_OAEP_SHA256) if other != dialect
        ]
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
        mechanism = Mechanism(number)
        try:
            with Ours(self._token) as ours:
                trial = AesTrial(ours, self._token, mechanism, dialect)
                fault = trial.fault()
                if fault is not None:
                    return fault
                return Route(dialect=dialect, mechanism=mechanism, keeps_length=trial.keeps_length())
        except UnavailableError:
            raise  # that says nothing about the mechanism
        except HsmbridgeError as error:
            if isinstance(error, Pkcs11Error) and error.is_of_device:
                raise
            return str(error)

    def _try_rsa(self, dialect: Dialect, mechanism: Mechanism) -> Route | str:
        """Wrap under a known RSA key and open it in software; then unwrap what software wrapped."""
        try:
            with Ours(self._token) as ours:
                if self._rsa is None:
                    self._rsa = RsaPair()
                public = self._rsa.public_object(ours, self._token)
                keeps = True
                for key_type, size in ((CKK.AES, 32), (CKK.GENERIC_SECRET, ODD_SIZE)):
                    value = secrets.token_bytes(size)
                    target = self._entry.enter(ours, key_type, value, TARGET_USE)
                    same = self._rsa.open(dialect, raw_wrap(mechanism, public, target)) == value
                    if not same and key_type == CKK.AES:
                        return "the wrapped key opens as another value"
                    keeps = keeps and same
                value = secrets.token_bytes(32)
                private, public_of_private = self._rsa.private_object(ours, self._token, self._entry)
                sealed = self._rsa.seal(dialect, public_of_private, value)
                arrived = ours.adopt(raw_unwrap(mechanism, private, sealed, CKK.AES))
                if self._rsa.open(dialect, raw_wrap(mechanism, public, arrived)) != value:
                    return "an unwrapped key comes back changed"
        except UnavailableError:
            raise  # that says nothing about the mechanism
        except HsmbridgeError as error:
            if isinstance(error, Pkcs11Error) and error.is_of_device:
                raise
            return str(error)
        return Route(dialect=dialect, mechanism=mechanism, keeps_length=keeps)


_probes: WeakKeyDictionary[Token, Probe] = WeakKeyDictionary()
_probes_lock = threading.Lock()


def probe(token: Token) -> Probe:
    """Return the token's probe; its findings last as long as the process has the token."""
    with _probes_lock:
        known = _probes.get(token)
        if known is None:
            known = _probes[token] = Probe(token)
        return known
