"""C_UnwrapKey under our rules: session object first, read back, then kept.

Whatever this operation made and does not return is removed again; what a module leaves behind without a name of ours
is only reported.

Source: PKCS#11 v3.1 section 5.14.4 (C_UnwrapKey); docs/wrapping.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hsmbridge._arrival import Arrival, note_debris
from hsmbridge.codes import CKA, CKK, CKO, CKR, ckr_name, name_of
from hsmbridge.destruction import Ours
from hsmbridge.dialects import Dialect
from hsmbridge.errors import KekError, Pkcs11Error, UnwrapError
from hsmbridge.kek import KekReport, Purpose, check_kek
from hsmbridge.objects import refuse_taken_id
from hsmbridge.wrapping import choose_route

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsmbridge.mechanism import Mechanism
    from hsmbridge.objects import Object
    from hsmbridge.probe import Route
    from hsmbridge.template import Value

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

_SEMIBLOCK = 8
_INNER_KEY_BYTES = 32
_SIZES = {CKK.AES: (16, 24, 32), CKK.DES3: (24,), CKK.DES2: (16,)}

_WHY_UNWRAP = "check the KEK, the mechanism and the file: a wrap opens only with the very key and format that made it"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRequest:
    """What the wrapped bytes are, and what the new object shall be.

    Attributes:
        cls: CKO_SECRET_KEY or CKO_PRIVATE_KEY.
        key_type: CKK_.
        template: every other attribute that is named to the token and read back; CKA_TOKEN says whether the key is
            kept.
        expected: attributes that are not named, since they are the defaults, but read back all the same.
        size: a secret's length in bytes where that is known from an authenticated record.
        ec_point: the uncompressed public point of an EC private key, which NSS cannot do without.
    """

    cls: CKO
    key_type: CKK
    template: Mapping[int, Value]
    expected: Mapping[int, Value] = field(default_factory=dict)
    size: int | None = None
    ec_point: bytes = b""

    @property
    def persistent(self) -> bool:
        """Whether a token object is wanted."""
        return self.template.get(CKA.TOKEN) is True


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
        self._last: tuple[Arrival, Arrival] | None = None
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
        report = check_kek(self._kek, Purpose.UNWRAP, allow_unsafe=self._allow_unsafe)
        dialect = self._dialect
        if dialect is None and report.key_type == CKK.RSA and len(wrapped) > report.modulus_size:
            dialect = Dialect.RSA_AES_KWP
        route = choose_route(self._kek, report, dialect)
        _check_size(route, report, wrapped, request)
        _check_template(report, request)
        key_id = request.template.get(CKA.ID)
        if request.persistent and isinstance(key_id, bytes):
            refuse_taken_id(self._kek.token, request.cls, key_id)
        with Ours(self._kek.token) as ours:
            kek, mechanism, inner = self._kek, route.mechanism, wrapped
            if route.inner is not None:
                head = wrapped[: report.modulus_size]
                kek = self._arrive(ours, kek, mechanism, head, Arrival(kek.token, _INNER_KEY, on_token=False))
                mechanism, inner = route.inner.mechanism, wrapped[report.modulus_size :]
            in_session, on_token = self._arrivals(request)
            key = self._arrive(ours, kek, mechanism, inner, in_session)
            if request.persistent:
                key = self._arrive(ours, kek, mechanism, inner, on_token)
            return Unwrapped(key=ours.release(key), route=route, warnings=report.warnings)

    def _arrive(self, ours: Ours, kek: Object, mechanism: Mechanism, wrapped: bytes, arrival: Arrival) -> Object:
        try:
            handle = arrival.call(kek, mechanism, wrapped)
        except Pkcs11Error as error:
            if error.ckr not in _NOT_AUTHENTIC:
                note_debris(error, arrival)
                raise
            raise UnwrapError(
                f"the token did not accept the wrapped key ({ckr_name(error.ckr)})", ckr=error.ckr, hint=_WHY_UNWRAP
            ) from None
        key = ours.adopt(handle)
        arrival.check(key)
        return key

    def _arrivals(self, request: KeyRequest) -> tuple[Arrival, Arrival]:
        """The packed templates, for a session and for a token object; kept while the same request comes again."""
        if self._last is None or self._last[0].request is not request:
            token = self._kek.token
            self._last = Arrival(token, request, on_token=False), Arrival(token, request, on_token=True)
        return self._last


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


def _check_size(route: Route, report: KekReport, wrapped: bytes, request: KeyRequest) -> None:
    """Refuse lengths that cannot be, before the token sees them: some modules take 32 bytes for a DES3 key."""
    size = len(wrapped)
    if route.dialect.is_rsa:
        if size < report.modulus_size or (size > report.modulus_size and "aes" not in route.dialect):
            raise UnwrapError(
                f"{size} bytes are no {route.dialect} under a {8 * report.modulus_size}-bit key", hint=_WHY_UNWRAP
            )
        if int.from_bytes(wrapped[: report.modulus_size], "big") >= report.modulus:
            raise UnwrapError("the RSA ciphertext is no number below the modulus", hint=_WHY_UNWRAP)
        if "aes" not in route.dialect:
            return
        size -= report.modulus_size
    if size % _SEMIBLOCK or size < (3 if route.dialect is Dialect.AES_KW else 2) * _SEMIBLOCK:
        raise UnwrapError(
            f"{len(wrapped)} bytes are no {route.dialect}: truncated, or another format", hint=_WHY_UNWRAP
        )
    allowed = (request.size,) if request.size is not None else _SIZES.get(request.key_type)
    if request.cls == CKO.SECRET_KEY and allowed is not None:
        if route.dialect is Dialect.AES_KW_PKCS7:
            fitting = {(-(-(value + 1) // _SEMIBLOCK) + 1) * _SEMIBLOCK for value in allowed}
        else:
            fitting = {(-(-value // _SEMIBLOCK) + 1) * _SEMIBLOCK for value in allowed}
        if size not in fitting:
            kind = name_of(CKK, request.key_type)
            raise UnwrapError(
                f"the wrap holds {size - _SEMIBLOCK} bytes, which is no {kind} key of this length",
                hint="check --key-type; the length inside a wrap is authentic",
            )


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
