"""Objects in a token: a handle that knows whether it is still alive, and what it stood for.

Source: PKCS#11 v3.1 section 4 (objects) and 5.7 (object management).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hsmbridge.attributes import AttributeQuery, Attributes, read_secret
from hsmbridge.codes import CKA, CKK, CKO, UNAVAILABLE, name_of
from hsmbridge.errors import ExistsError, NotFoundError, Pkcs11Error, StaleObjectError
from hsmbridge.template import PackedTemplate, Template

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsmbridge.token import Token

__all__ = ["Identity", "Object", "find_key", "refuse_taken_id"]

_IDENTITY = AttributeQuery((CKA.CLASS, CKA.KEY_TYPE, CKA.ID, CKA.LABEL))

_KEY_CLASSES = (CKO.SECRET_KEY, CKO.PRIVATE_KEY, CKO.PUBLIC_KEY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What an object is called: compared again right before it is destroyed.

    Attributes:
        cls: CKA_CLASS; key_type: CKA_KEY_TYPE or None; id: CKA_ID; label: CKA_LABEL.
    """

    cls: int
    key_type: int | None
    id: bytes
    label: str

    def __str__(self) -> str:
        kind = name_of(CKK, self.key_type) if self.key_type is not None else ""
        name = f"label {self.label!r}" if self.label else f"id {self.id.hex()}" if self.id else "without a name"
        return f"{name_of(CKO, self.cls)} {kind} {name}".replace("  ", " ")


class Object:
    """One object of a token, in this process. Made by :meth:`hsmbridge.token.Token.adopt` only.

    A handle dies with its object: after a destroy it never reaches the module again, since openCryptoki gives the
    same number to the next object that it makes.
    """

    __slots__ = ("__weakref__", "_handle", "_identity", "token")

    def __init__(self, token: Token, handle: int) -> None:
        self.token = token
        self._handle: int | None = handle
        self._identity: Identity | None = None

    @property
    def handle(self) -> int:
        """The CK_OBJECT_HANDLE.

        Raises:
            StaleObjectError: the object was destroyed.
        """
        if self._handle is None:
            raise StaleObjectError(
                f"{self._identity or 'the object'} was destroyed",
                hint="its handle is dead; find or import the key again",
            )
        return self._handle

    @property
    def alive(self) -> bool:
        """Whether the handle may still be used."""
        return self._handle is not None

    def retire(self) -> int:
        """Take the handle for its one destroy; afterwards the object is dead whatever the token answers."""
        handle = self.handle
        self._handle = None
        self.token.forget(handle)
        return handle

    @property
    def identity(self) -> Identity:
        """Class, type, CKA_ID and label as they were when first asked for."""
        if self._identity is None:
            self._identity = self.read_identity()
        return self._identity

    @property
    def name(self) -> str:
        """What is known of the object without asking the token: for messages about one that may be gone."""
        return str(self._identity or "an object without a name")

    def know(self, identity: Identity) -> None:
        """Note class, type, CKA_ID and label that a read-back has just shown."""
        self._identity = identity

    def read_identity(self) -> Identity:
        """Ask the token for class, type, CKA_ID and label now."""
        found = self.read(_IDENTITY)
        cls = found.number(CKA.CLASS)
        return Identity(
            cls=UNAVAILABLE if cls is None else cls,
            key_type=found.number(CKA.KEY_TYPE),
            id=found.data(CKA.ID),
            label=found.text(CKA.LABEL),
        )

    def read(self, query: AttributeQuery) -> Attributes:
        """Read a set of attributes.

        Raises:
            Pkcs11Error: the object or the session is gone.
        """
        with self.token.sessions as session:
            return query.read(self.token.calls, session, self.handle)

    def read_value(self) -> bytearray:
        """Read CKA_VALUE of a readable secret key, for the caller to wipe.

        Raises:
            Pkcs11Error: CKR_ATTRIBUTE_SENSITIVE where the token keeps it.
        """
        with self.token.sessions as session:
            return read_secret(self.token.calls, session, self.handle)

    def set(self, template: Template) -> None:
        """Set attributes (C_SetAttributeValue).

        Raises:
            Pkcs11Error: the token refuses.
        """
        try:
            with self.token.sessions as session:
                self.token.calls.set_attributes(session, self.handle, PackedTemplate(template))
        except Pkcs11Error:
            self._rename(template)
            raise
        self._identity = None

    def _rename(self, template: Template) -> None:
        """Know the name that a call has given though it reported an error: else the object counts as another one."""
        known, key_id, label = self._identity, template.get(CKA.ID), template.get(CKA.LABEL)
        if known is None:
            return
        named = replace(
            known,
            id=key_id if isinstance(key_id, bytes) else known.id,
            label=label if isinstance(label, str) else known.label,
        )
        with suppress(Pkcs11Error):  # where nothing answers, it keeps the name that it had
            if self.read_identity() == named:
                self._identity = named

    def __repr__(self) -> str:
        state = f"handle {self._handle}" if self._handle is not None else "destroyed"
        return f"<Object {self._identity or '?'} ({state})>"


def find_key(
    token: Token, *, label: str | None = None, key_id: bytes | None = None, classes: Sequence[int] = _KEY_CLASSES
) -> Object:
    """Find exactly one key.

    Args:
        token: where to look.
        label: CKA_LABEL, exact.
        key_id: CKA_ID, exact.
        classes: classes in order of preference; the first with a match decides, so that the private half of a pair is
            not confused with its public half.

    Raises:
        NotFoundError: none, or more than one in the preferred class.
    """
    wanted: dict[int, bytes | str | int] = {}
    if label is not None:
        wanted[CKA.LABEL] = label
    if key_id is not None:
        wanted[CKA.ID] = key_id
    name = " and ".join(
        part
        for part in (f"label {label!r}" if label is not None else "", f"id {key_id.hex()}" if key_id else "")
        if part
    )
    for cls in classes:
        found = token.find({CKA.CLASS: cls, **wanted})
        if len(found) == 1:
            return found[0]
        if found:
            raise NotFoundError(
                f"{len(found)} keys have {name or 'no name'} in token {token.label!r}",
                hint="name one by id:HEX, or by a URI with object, id and type; see `hsmbridge key ls`",
            )
    kinds = ", ".join(name_of(CKO, cls) for cls in classes)
    raise NotFoundError(
        f"no key with {name or 'no name'} in token {token.label!r} (looked for {kinds})",
        hint="see `hsmbridge key ls`; private keys show only after login",
    )


def refuse_taken_id(token: Token, cls: int, key_id: bytes) -> None:
    """Make sure that a new token object does not share class and CKA_ID with one that is there.

    NSS keeps one token key for each CKA_ID: a second one silently replaces the first, whatever its type and label.

    Raises:
        ExistsError: the token has such a key.
    """
    if key_id and token.handles({CKA.CLASS: cls, CKA.TOKEN: True, CKA.ID: key_id}):
        raise ExistsError(
            f"token {token.label!r} has a {name_of(CKO, cls)} with id {key_id.hex()} already",
            hint="give the new key another id; a second key with the same id can replace the first on some tokens",
        )
