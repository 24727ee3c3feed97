"""C_WrapKey under our rules: a safe KEK, a probed mechanism, an unchanged length.

Source: PKCS#11 v3.1 section 5.14.3 (C_WrapKey); docs/wrapping.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hsmbridge.codes import CKA, CKK, CKM, CKO
from hsmbridge.destruction import Ours
from hsmbridge.dialects import Dialect
from hsmbridge.errors import LengthChangeError, MechanismError, NotExtractableError
from hsmbridge.kek import KEY_QUERY, USAGE_QUERY, KekReport, Purpose, check_pair, judge_kek, kek_query
from hsmbridge.mechanism import Mechanism
from hsmbridge.probe import Route, probe
from hsmbridge.template import PackedTemplate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsmbridge.attributes import Attributes
    from hsmbridge.objects import Object

__all__ = ["Wrapped", "Wrapper", "choose_route", "inner_key", "wrap"]

_FIXED_SIZE: Mapping[int | None, int] = {CKK.DES: 8, CKK.DES2: 16, CKK.DES3: 24}
_SEMIBLOCK = 8
_OAEP_OVERHEAD = {CKM.SHA256: 66, CKM.SHA_1: 42}
"""2 hLen + 2 bytes (RFC 8017 section 7.1.1)."""

_INNER_KEY_BYTES = 32
_AES_PREFERENCE = (Dialect.AES_KWP, Dialect.AES_KW)
_RSA_PREFERENCE = (Dialect.RSA_OAEP_SHA256, Dialect.RSA_AES_KWP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapped:
    """A wrapped key.

    Attributes:
        data: the bare output, as other tools expect it.
        route: how it was made.
        warnings: what an ``allow_unsafe_kek`` let pass, and what a reader of the data should know.
    """

    data: bytes
    route: Route
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """How keys that answer like this one are wrapped under a KEK that answers like this."""

    kek_found: Attributes
    found: Attributes
    route: Route
    length: int | None
    warnings: tuple[str, ...]


class Wrapper:
    """Wraps any number of keys under one KEK, which is looked at again right before each use.

    Args:
        kek: an AES key or an RSA public key of the same token as the keys.
        dialect: the format; None picks the best that the token has for each key.
        allow_unsafe_kek: accept a KEK that may also decrypt, or is weaker than the key; warned and recorded.
    """

    def __init__(self, kek: Object, dialect: Dialect | None = None, *, allow_unsafe_kek: bool = False) -> None:
        self._kek = kek
        self._dialect = dialect
        self._allow_unsafe = allow_unsafe_kek
        self._full_query = kek_query(kek, Purpose.WRAP)
        self._query = USAGE_QUERY if kek.identity.cls == CKO.SECRET_KEY else self._full_query
        self._plan: _Plan | None = None

    def wrap(self, key: Object) -> Wrapped:
        """Wrap one key.

        Raises:
            NotExtractableError: the key may not leave the token by value, whatever the token would do.
            KekError: the KEK is not safe or not strong enough.
            MechanismError: the dialect is not to be had here, or not with this kind of KEK.
            LengthChangeError: the key would come back with another length.
            Pkcs11Error: the token refuses.
        """
        token = self._kek.token
        with token.sessions as session:
            kek_found = self._query.read(token.calls, session, self._kek.handle)
            found = KEY_QUERY.read(token.calls, session, key.handle)
            plan = self._plan
            if plan is None or plan.kek_found is not kek_found or plan.found is not found:
                plan = self._make_plan(key, kek_found, found)
            data = self._apply(plan.route, key, session)
        if plan.length is not None and len(data) != plan.length:
            raise LengthChangeError(
                f"{key.identity} came out as a wrap of {len(data)} bytes instead of {plan.length}; not kept",
                hint="the token changed since it was probed: run `hsmbridge token show --probe`",
            )
        return Wrapped(data=data, route=plan.route, warnings=plan.warnings)

    def _make_plan(self, key: Object, kek_found: Attributes, found: Attributes) -> _Plan:
        """Check key and KEK; the result holds for every key and KEK that give the very same answers."""
        report = judge_kek(self._kek, Purpose.WRAP, self._kek.read(self._full_query), allow_unsafe=self._allow_unsafe)
        if found.flag(CKA.EXTRACTABLE) is not True:
            raise NotExtractableError(
                f"{key.identity} is not extractable: it cannot leave the token by value",
                hint="hand it over by reference (export --by-reference), or generate it with CKA_EXTRACTABLE=true",
            )
        warnings = report.warnings + check_pair(report, key, found, allow_unsafe=self._allow_unsafe)
        size = _size_of(found)
        route = choose_route(self._kek, report, self._dialect, found, size)
        if found.number(CKA.CLASS) == CKO.PRIVATE_KEY and not route.keeps_length:
            warnings += ("the token pads PKCS#8 to a multiple of 8 bytes: readers must ignore zeros behind the DER",)
        plain_aes = route.inner is None and not route.dialect.is_rsa
        length = _wrapped_length(route, size) if plain_aes and size is not None else None
        plan = _Plan(kek_found=kek_found, found=found, route=route, length=length, warnings=warnings)
        # CKA_WRAP_TEMPLATE may ask for more than these answers say; what is unsafe is looked at each time.
        self._plan = None if report.template or warnings else plan
        return plan

    def _apply(self, route: Route, key: Object, session: int) -> bytes:
        calls = key.token.calls
        if route.inner is None:
            return calls.wrap_key(session, route.mechanism, self._kek.handle, key.handle)
        with Ours(key.token) as ours:
            middle = inner_key(ours, key)
            head = calls.wrap_key(session, route.mechanism, self._kek.handle, middle.handle)
            return head + calls.wrap_key(session, route.inner.mechanism, middle.handle, key.handle)


def wrap(key: Object, kek: Object, dialect: Dialect | None = None, *, allow_unsafe_kek: bool = False) -> Wrapped:
    """Wrap one key; see :class:`Wrapper`."""
    return Wrapper(kek, dialect, allow_unsafe_kek=allow_unsafe_kek).wrap(key)


def choose_route(
    kek: Object, report: KekReport, dialect: Dialect | None, found: Attributes | None = None, size: int | None = None
) -> Route:
    """Find the way that this KEK, this token and this key allow.

    Args:
        kek: the wrapping or unwrapping key.
        report: its report.
        dialect: what is asked for; None tries the preferred ones in turn.
        found: the key's attributes for a wrap, read with KEY_QUERY; None for an unwrap.
        size: the secret's length in bytes, None if the token does not tell.

    Raises:
        MechanismError: nothing fits; LengthChangeError where only the length is in the way.
    """
    is_rsa = report.key_type == CKK.RSA
    if dialect is not None and dialect.is_rsa != is_rsa:
        needs = "an RSA" if dialect.is_rsa else "an AES"
        raise MechanismError(
            f"{dialect} needs {needs} KEK, not {kek.identity}", hint="name another --mechanism or --kek"
        )
    found_routes = probe(kek.token)
    if dialect is not None:
        route = found_routes.route(dialect)
        if found is not None:
            _check_length(route, report, found, size)
        return route
    failure: MechanismError | None = None
    for preferred in _RSA_PREFERENCE if is_rsa else _AES_PREFERENCE:
        try:
            route = found_routes.route(preferred)
            if found is not None:
                _check_length(route, report, found, size)
        except MechanismError as error:
            # A changed length is the better story than a mechanism that is not there.
            if failure is None or isinstance(error, LengthChangeError):
                failure = error
            continue
        return route
    raise failure or MechanismError("no wrapping mechanism", hint="see `hsmbridge token show --probe`")


def inner_key(ours: Ours, key: Object) -> Object:
    """Make the session AES-256 key of a two-call RSA-AES key wrap, in the token."""
    template = PackedTemplate(
        {
            CKA.CLASS: CKO.SECRET_KEY, CKA.KEY_TYPE: CKK.AES, CKA.TOKEN: False, CKA.VALUE_LEN: _INNER_KEY_BYTES,
            CKA.SENSITIVE: True, CKA.EXTRACTABLE: True, CKA.WRAP: True, CKA.ENCRYPT: False, CKA.DECRYPT: False,
        }
    )  # fmt: skip
    with key.token.sessions as session:
        return ours.adopt(key.token.calls.generate_key(session, Mechanism(CKM.AES_KEY_GEN), template))


def _size_of(found: Attributes) -> int | None:
    fixed = _FIXED_SIZE.get(found.number(CKA.KEY_TYPE))
    if fixed is not None:
        return fixed
    return found.number(CKA.VALUE_LEN) or None


def _check_length(route: Route, report: KekReport, found: Attributes, size: int | None) -> None:
    """Refuse what the route would not carry unchanged."""
    if found.number(CKA.CLASS) == CKO.PRIVATE_KEY:
        if route.dialect.is_rsa and route.inner is None and route.mechanism.number == CKM.RSA_PKCS_OAEP:
            raise MechanismError(
                f"a private key does not fit into {route.dialect}", hint="use rsa-aes-kwp, or an AES KEK with aes-kwp"
            )
        return  # PKCS#8 is DER and carries its own length
    if route.mechanism.number == CKM.RSA_PKCS_OAEP and route.inner is None:
        room = report.modulus_size - _OAEP_OVERHEAD[CKM(route.dialect.oaep_hash)]
        if size is not None and size > room:
            raise MechanismError(
                f"a secret of {size} bytes does not fit into {route.dialect} ({room} bytes)", hint="use rsa-aes-kwp"
            )
    if size is None:
        if found.number(CKA.KEY_TYPE) == CKK.AES or route.keeps_length:
            return
        raise LengthChangeError(
            f"the token does not tell this key's length, and {route} changes lengths that are no multiple of 8",
            hint="use a mechanism that keeps lengths: rsa-oaep-sha1 or rsa-oaep-sha256 where the token has it",
        )
    if not route.carries(size):
        raise LengthChangeError(
            f"a key of {size} bytes would come back changed: {route} carries only"
            f" {'16 bytes or more, in multiples of 8' if route.dialect is Dialect.AES_KW else 'multiples of 8 bytes'}",
            hint="use a mechanism that keeps its length: rsa-oaep-sha256 or rsa-oaep-sha1, whichever the token has",
        )


def _wrapped_length(route: Route, size: int) -> int:
    """Return the length of an AES wrap of a secret of *size* bytes."""
    padded = -(-size // _SEMIBLOCK) * _SEMIBLOCK
    if route.dialect is Dialect.AES_KW_PKCS7:
        padded = (size // _SEMIBLOCK + 1) * _SEMIBLOCK
    return padded + _SEMIBLOCK
