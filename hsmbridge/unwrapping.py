"""C_UnwrapKey under our rules: session object first, read back, then kept.

Whatever this operation made and does not return is removed again; what a module leaves behind without a name of ours
is only reported.

Source: PKCS#11 v3.1 section 5.14.4 (C_UnwrapKey); docs/wrapping.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hsmbridge._arrival import Arrival, note_debris
from hsmbridge.codes import CKA, CKK, CKO, CKR, ckr_name, name_of
from hsmbridge.destruction import Ours
from hsmbridge.dialects import Dialect
from hsmbridge.errors import KekError, Pkcs11Error, UnwrapError
from hsmbridge.kek import UNWRAP_USAGE_QUERY, KekReport, Purpose, judge_kek, kek_query
from hsmbridge.keyrequest import KeyRequest
from hsmbridge.objects import refuse_taken_id
from hsmbridge.wrapped_size import WHY_UNWRAP, check_wrapped_size
from hsmbridge.wrapping import choose_route

if TYPE_CHECKING:
    from hsmbridge.attributes import Attributes
    from hsmbridge.mechanism import Mechanism
    from hsmbridge.objects import Object
    from hsmbridge.probe import Route

__all__ = ["KeyRequest", "Unwrapped", "Unwrapper", "unwrap"]

_NOT_AUTHENTIC = frozenset(
    {
        CKR.WRAPPED_KEY_INVALID, CKR.WRAPPED_KEY_LEN_RANGE, CKR.ENCRYPTED_DATA_INVALID, CKR.ENCRYPTED_DATA_LEN_RANGE,
        CKR.DATA_INVALID, CKR.DATA_LEN_RANGE, CKR.GENERAL_ERROR, CKR.FUNCTION_FAILED, CKR.AEAD_DECRYPT_FAILED,
    }
)  # fmt: skip
"""How modules say that a wrapped key is not good.

SoftHSM's is CKR_GENERAL_ERROR; the mechanism itself was probed just before.
"""

_INNER_KEY_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwrapped:
    """A key that has arrived.

    Attributes:
        key: the new object.
        route: how it came.
        warnings: what an ``allow_unsafe_kek`` let pass.
    """

    key: Object
    route: Route
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """How one request is served under a KEK that answers like this."""

    kek_found: Attributes
    request: KeyRequest
    size: int
    report: KekReport
    route: Route
    in_session: Arrival
    on_token: Arrival

    def serves(self, kek_found: Attributes, request: KeyRequest, wrapped: bytes) -> bool:
        """Whether nothing that the plan rests on has changed."""
        return self.kek_found is kek_found and self.request is request and self.size == len(wrapped)


class Unwrapper:
    """Unwraps any number of keys under one KEK.

    Args:
        kek: an AES key or an RSA private key.
        dialect: the format; None takes the token's preferred one for this KEK.
        allow_unsafe_kek: accept a KEK that may also decrypt; warned and recorded.

    Attributes:
        refuses_readable: a caller's note that nothing readable comes out of token or KEK.
    """

    def __init__(self, kek: Object, dialect: Dialect | None = None, *, allow_unsafe_kek: bool = False) -> None:
        self._kek = kek
        self._dialect = dialect
        self._allow_unsafe = allow_unsafe_kek
        self._full_query = kek_query(kek, Purpose.UNWRAP)
        self._query = UNWRAP_USAGE_QUERY if kek.identity.cls == CKO.SECRET_KEY else self._full_query
        self._plan: _Plan | None = None
        self.refuses_readable = False

    def unwrap(self, wrapped: bytes, request: KeyRequest) -> Unwrapped:
        """Unwrap one key: into a session object, read back, and for a token object once more and read back again.

        Args:
            wrapped: the bare wrap.
            request: what it is and what it shall become.

        Raises:
            UnwrapError: the bytes do not open under this KEK, or hold no key of that type and length.
            KekError: the KEK is not safe, or its CKA_UNWRAP_TEMPLATE forbids the request.
            ExistsError: the token has a key of that CKA_ID already.
            ReadBackError: the object came out otherwise than asked; it was removed.
            Pkcs11Error: the token refuses the template.
        """
        token = self._kek.token
        with token.sessions as session, Ours(token) as ours:
            kek_found = self._query.read(token.calls, session, self._kek.handle)
            plan = self._plan
            if plan is None or not plan.serves(kek_found, request, wrapped):
                plan = self._make_plan(kek_found, request, wrapped)
            key_id = request.template.get(CKA.ID)
            if request.persistent and isinstance(key_id, bytes):
                refuse_taken_id(token, request.cls, key_id)
            kek, mechanism, inner = self._kek, plan.route.mechanism, wrapped
            if plan.route.inner is not None:
                size = plan.report.modulus_size
                arrival = Arrival(token, _INNER_KEY, on_token=False)
                kek = _arrive(ours, session, arrival, (kek, mechanism, wrapped[:size]))
                mechanism, inner = plan.route.inner.mechanism, wrapped[size:]
            key = _arrive(ours, session, plan.in_session, (kek, mechanism, inner))
            if request.persistent:
                key = _arrive(ours, session, plan.on_token, (kek, mechanism, inner))
            return Unwrapped(key=ours.release(key), route=plan.route, warnings=plan.report.warnings)

    def _make_plan(self, kek_found: Attributes, request: KeyRequest, wrapped: bytes) -> _Plan:
        """Check the KEK, the length and the template; the result holds while all three stay as they are."""
        kek = self._kek
        report = judge_kek(kek, Purpose.UNWRAP, kek.read(self._full_query), allow_unsafe=self._allow_unsafe)
        dialect = self._dialect
        if dialect is None and report.key_type == CKK.RSA and len(wrapped) > report.modulus_size:
            dialect = Dialect.RSA_AES_KWP
        route = choose_route(kek, report, dialect)
        check_wrapped_size(route, report, wrapped, request)
        _check_template(report, request)
        plan = _Plan(
            kek_found=kek_found,
            request=request,
            size=len(wrapped),
            report=report,
            route=route,
            in_session=Arrival(kek.token, request, on_token=False),
            on_token=Arrival(kek.token, request, on_token=True),
        )
        # What is unsafe, and what depends on the value (an RSA ciphertext), is looked at each time.
        self._plan = None if report.warnings or route.dialect.is_rsa else plan
        return plan


def _arrive(ours: Ours, session: int, arrival: Arrival, parts: tuple[Object, Mechanism, bytes]) -> Object:
    """One C_UnwrapKey of (KEK, mechanism, wrap), and its read-back."""
    try:
        handle = arrival.call(session, *parts)
    except Pkcs11Error as error:
        if error.ckr not in _NOT_AUTHENTIC:
            note_debris(error, arrival)
            raise
        raise UnwrapError(
            f"the token did not accept the wrapped key ({ckr_name(error.ckr)})", ckr=error.ckr, hint=WHY_UNWRAP
        ) from None
    key = ours.adopt(handle, look=False)
    arrival.check(session, key)
    return key


_INNER_KEY = KeyRequest(
    cls=CKO.SECRET_KEY,
    key_type=CKK.AES,
    template={CKA.SENSITIVE: True, CKA.EXTRACTABLE: False, CKA.UNWRAP: True, CKA.DECRYPT: False},
    size=_INNER_KEY_BYTES,
)
"""The first of the two keys of an RSA-AES unwrap."""


def unwrap(
    kek: Object, wrapped: bytes, request: KeyRequest, dialect: Dialect | None = None, *, allow_unsafe_kek: bool = False
) -> Unwrapped:
    """Unwrap one key; see :class:`Unwrapper`."""
    return Unwrapper(kek, dialect, allow_unsafe_kek=allow_unsafe_kek).unwrap(wrapped, request)


def _check_template(report: KekReport, request: KeyRequest) -> None:
    """CKA_UNWRAP_TEMPLATE binds us whether or not the token enforces it.

    Its attributes must be named in the request.
    """
    for kind, wanted in report.template.items():
        if request.template.get(kind, wanted) != wanted:
            raise KekError(
                f"the KEK's CKA_UNWRAP_TEMPLATE demands another {name_of(CKA, kind)}",
                hint="leave the attribute out: the KEK decides what its keys may become",
            )
