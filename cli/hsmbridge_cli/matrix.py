"""What a token's wrapping mechanisms do to each type of key, found out by carrying one across and back.

The keys and KEKs are session objects made for the trial, and removed after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from hsmbridge.codes import CKA, CKK, CKO
from hsmbridge.destruction import Ours
from hsmbridge.errors import HsmbridgeError
from hsmbridge.generation import generate_kek, generate_key
from hsmbridge.keyspec import parse_keyspec, usage_of
from hsmbridge.publickeys import public_key_of
from hsmbridge.unwrapping import KeyRequest, unwrap
from hsmbridge.wrapping import wrap

if TYPE_CHECKING:
    from hsmbridge.dialects import Dialect
    from hsmbridge.keyspec import KeySpec
    from hsmbridge.objects import Object
    from hsmbridge.token import Token

__all__ = ["KEY_TYPES", "Matrix", "Trial"]

KEY_TYPES = ("aes:128", "aes:256", "des3", "generic:20", "generic:32", "rsa:2048", "ec:p-256", "ed25519")
"""What is tried: generic:20 is an HMAC-SHA1 key, whose length many mechanisms change."""

_AES_KEK, _RSA_KEK = "aes:256", "rsa:3072"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What came of one mechanism with one type of key.

    Attributes:
        dialect: the mechanism, by the name that --mechanism takes.
        key_type: as --type takes it.
        wraps: the key came out.
        unwraps: and in again.
        why: what was refused, empty where nothing was.
    """

    dialect: str
    key_type: str
    wraps: bool
    unwraps: bool
    why: str = ""

    @property
    def verdict(self) -> str:
        """One word for a table."""
        return "yes" if self.unwraps else "wrap only" if self.wraps else "no"


class Matrix:
    """The trials of one token; ``with Matrix(token) as matrix`` removes at the end what they made.

    Args:
        token: logged in.
    """

    def __init__(self, token: Token) -> None:
        self._token = token
        self._ours = Ours(token)
        self._keys: dict[str, Object | str] = {}
        self._points: dict[str, bytes] = {}
        self._keks: dict[bool, tuple[Object, Object] | str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.__exit__(None, None, None)

    @property
    def debris(self) -> list[str]:
        """What could not be removed at the end, one sentence each."""
        return self._ours.debris

    def try_one(self, dialect: Dialect, key_type: str) -> Trial:
        """Carry a key of one type through one mechanism and back."""
        spec = parse_keyspec(key_type)
        key, keks = self._key(spec), self._kek(is_rsa=dialect.is_rsa)
        if isinstance(key, str) or isinstance(keks, str):
            why = key if isinstance(key, str) else f"no KEK: {keks}"
            return Trial(dialect=str(dialect), key_type=key_type, wraps=False, unwraps=False, why=why)
        wrapping, unwrapping = keks
        try:
            wrapped = wrap(key, wrapping, dialect)
        except HsmbridgeError as error:
            return Trial(dialect=str(dialect), key_type=key_type, wraps=False, unwraps=False, why=str(error))
        request = KeyRequest(
            cls=spec.cls,
            key_type=spec.key_type,
            template={
                CKA.TOKEN: False,
                CKA.PRIVATE: True,
                CKA.SENSITIVE: True,
                CKA.EXTRACTABLE: False,
                **usage_of(spec),
            },
            size=None if spec.is_pair else spec.bits // 8,
            ec_point=self._points.get(key_type, b""),
        )
        try:
            arrived = unwrap(unwrapping, wrapped.data, request, dialect)
        except HsmbridgeError as error:
            return Trial(dialect=str(dialect), key_type=key_type, wraps=True, unwraps=False, why=str(error))
        self._ours.remove(self._ours.adopt(arrived.key.handle))
        return Trial(dialect=str(dialect), key_type=key_type, wraps=True, unwraps=True)

    def _key(self, spec: KeySpec) -> Object | str:
        name = str(spec)
        if name not in self._keys:
            template = {CKA.EXTRACTABLE: True, CKA.LABEL: "hsmbridge trial", **usage_of(spec)}
            try:
                key = self._adopt_pair(generate_key(self._token, spec, template))
                self._keys[name] = key
                public = public_key_of(key) if spec.key_type == CKK.EC else None
                self._points[name] = _point(public)
            except HsmbridgeError as error:
                self._keys[name] = f"no such key: {error}"
        return self._keys[name]

    def _kek(self, *, is_rsa: bool) -> tuple[Object, Object] | str:
        if is_rsa not in self._keks:
            spec = parse_keyspec(_RSA_KEK if is_rsa else _AES_KEK)
            try:
                kek = generate_kek(self._token, spec, label="hsmbridge trial", persist=False, unwrap_template=False)
                self._adopt_pair(kek)
                self._keks[is_rsa] = (self._halves(kek)[0] if is_rsa else kek, kek)
            except HsmbridgeError as error:
                self._keks[is_rsa] = str(error)
        return self._keks[is_rsa]

    def _adopt_pair(self, key: Object) -> Object:
        """Make ours what has just been generated, public half included: it bears the random CKA_ID that we wrote."""
        for half in (*self._halves(key), key):
            self._ours.adopt(half.handle)
        return key

    def _halves(self, key: Object) -> list[Object]:
        if key.identity.cls != CKO.PRIVATE_KEY:
            return []
        return self._token.find({CKA.CLASS: CKO.PUBLIC_KEY, CKA.TOKEN: False, CKA.ID: key.identity.id})


def _point(public: object) -> bytes:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    if not isinstance(public, ec.EllipticCurvePublicKey):
        return b""
    return public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
