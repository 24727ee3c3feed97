"""One C_UnwrapKey with one template, and the proof that the object is what was asked for.

Modules differ in what they take: openCryptoki refuses to be told its own defaults and ignores CKA_SENSITIVE until it
is set afterwards; NSS wants an EC key's point in a vendor attribute. What is done about it is here, and the read-back
decides.

Source: PKCS#11 v3.1 sections 5.14.4 and 5.7.6 (C_SetAttributeValue).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsmbridge.attributes import AttributeQuery
from hsmbridge.codes import CKA, CKK, CKO, CKR, name_of
from hsmbridge.errors import Pkcs11Error, ReadBackError
from hsmbridge.objects import Identity
from hsmbridge.template import PackedTemplate, Template
from hsmbridge.values import is_default

if TYPE_CHECKING:
    from hsmbridge.attributes import Attributes
    from hsmbridge.keyrequest import KeyRequest
    from hsmbridge.mechanism import Mechanism
    from hsmbridge.objects import Object
    from hsmbridge.template import Value
    from hsmbridge.token import Token

__all__ = ["Arrival", "note_debris"]

_DEFAULTS_THAT_MAY_NOT_BE_NAMED: Template = {CKA.SENSITIVE: False, CKA.EXTRACTABLE: True}
"""openCryptoki answers CKR_ATTRIBUTE_READ_ONLY to these; left out, they come out just so."""

_SET_LATER = frozenset(
    {
        CKA.LABEL, CKA.ID, CKA.SENSITIVE, CKA.EXTRACTABLE, CKA.ENCRYPT, CKA.DECRYPT, CKA.SIGN, CKA.SIGN_RECOVER,
        CKA.VERIFY, CKA.WRAP, CKA.UNWRAP, CKA.DERIVE, CKA.START_DATE, CKA.END_DATE,
    }
)  # fmt: skip
"""What a module may ignore in the template and still take from C_SetAttributeValue.

openCryptoki ignores CKA_SENSITIVE, NSS the usage of a private key. CKA_SENSITIVE and CKA_EXTRACTABLE can only be
tightened, which the token sees to.
"""


class Arrival:
    """A template ready for many calls, and its read-back.

    Args:
        token: where the keys arrive.
        request: what was asked for.
        on_token: whether the object is to be a token object.
    """

    def __init__(self, token: Token, request: KeyRequest, *, on_token: bool) -> None:
        self.request = request
        self.on_token = on_token
        self.token = token
        self._named = {CKA.CLASS: request.cls, CKA.KEY_TYPE: request.key_type, **request.template, CKA.TOKEN: on_token}
        self._wanted: dict[int, Value] = {**request.expected, **self._named}
        self._packed = PackedTemplate(self._named)
        length = (CKA.VALUE_LEN,) if request.cls == CKO.SECRET_KEY and request.key_type in _HAS_LENGTH else ()
        self._query = AttributeQuery((*self._wanted, *length))
        self._right: Attributes | None = None

    def call(self, session: int, kek: Object, mechanism: Mechanism, wrapped: bytes) -> int:
        """Call C_UnwrapKey.

        Returns: the new handle.

        Raises:
            Pkcs11Error: as the token answered.
        """
        calls = self.token.calls
        try:
            return calls.unwrap_key(session, mechanism, kek.handle, wrapped, self._packed)
        except Pkcs11Error as error:
            other = self._other_template(error.ckr)
            if other is None:
                if error.ckr == CKR.TEMPLATE_INCOMPLETE and self.request.key_type == CKK.EC:
                    error.hint = "this token needs the public point of an EC key: give its public key (--public-key)"
                raise
        handle = calls.unwrap_key(session, mechanism, kek.handle, wrapped, other)
        self._packed = other
        return handle

    def _other_template(self, ckr: int) -> PackedTemplate | None:
        if ckr == CKR.ATTRIBUTE_READ_ONLY:
            fewer = {
                kind: value
                for kind, value in self._named.items()
                if _DEFAULTS_THAT_MAY_NOT_BE_NAMED.get(kind) is not value
            }
            return PackedTemplate(fewer) if len(fewer) < len(self._named) else None
        if ckr == CKR.TEMPLATE_INCOMPLETE and self.request.ec_point:
            return PackedTemplate({**self._named, CKA.NSS_DB: self.request.ec_point})
        if ckr == CKR.TEMPLATE_INCOMPLETE and self.request.size is not None:
            return PackedTemplate({**self._named, CKA.VALUE_LEN: self.request.size})
        return None

    def check(self, session: int, key: Object) -> None:
        """Compare the new object with what was asked for.

        Raises:
            ReadBackError: a difference; the caller removes the object.
        """
        found = self._query.read(self.token.calls, session, key.handle)
        if found is not self._right:  # the very same answers as those of the key before need no second look
            found = self._compare(key, found)
        if CKA.ID in found and CKA.LABEL in found:
            identity = Identity(
                cls=self.request.cls,
                key_type=self.request.key_type,
                id=found.data(CKA.ID),
                label=found.text(CKA.LABEL),
            )
            key.know(identity)

    def _compare(self, key: Object, found: Attributes) -> Attributes:
        """Mend what can be mended, and return what the object is like then."""
        different = self._differences(found)
        later = {kind: self._wanted[kind] for kind in different if kind in _SET_LATER}
        if later:
            key.set(later)
            found = key.read(self._query)
            different = self._differences(found)
        if different:
            kind = different[0]
            got = found[kind] if kind in found else found.why_not(kind)
            raise ReadBackError(
                f"the unwrapped key came out with {name_of(CKA, kind)} {got!r} instead of {self._wanted.get(kind)!r}",
                hint="it was removed; leave the attribute out, or use another mechanism or token",
            )
        length = found.number(CKA.VALUE_LEN)
        if self.request.size is not None and length and length != self.request.size:
            raise ReadBackError(
                f"the unwrapped key has {length} bytes instead of {self.request.size}; it was removed",
                hint="the mechanism changes lengths on this token",
            )
        self._right = found
        return found

    def _differences(self, found: Attributes) -> list[int]:
        """What is not as wanted; an attribute that the module does not know at all has its default."""
        return [
            kind
            for kind, value in self._wanted.items()
            if found.get(kind) != value
            and not (found.unreadable.get(kind) == CKR.ATTRIBUTE_TYPE_INVALID and is_default(kind, value))
        ]


def note_debris(error: Pkcs11Error, arrival: Arrival) -> None:
    """Say in an error's notes what a refused template may have left behind.

    SoftHSM keeps the object that it had begun, with the attributes up to the one that it refused. Nobody can tell for
    certain whose it is, so it is not removed.
    """
    template = arrival.request.template
    ids = {b"", template.get(CKA.ID, b"")}
    token, kind = arrival.token, "token" if arrival.on_token else "session"
    alike = {handle for key_id in ids for handle in token.handles({CKA.TOKEN: arrival.on_token, CKA.ID: key_id})}
    if alike:
        error.add_note(f"token {token.label!r} holds {len(alike)} {kind} objects that may be left of this or of others")


_HAS_LENGTH = (CKK.AES, CKK.GENERIC_SECRET, CKK.SHA_1_HMAC, CKK.SHA256_HMAC, CKK.SHA384_HMAC, CKK.SHA512_HMAC)
