"""How a KEY is named on the command line: a PKCS#11 URI, label:NAME, id:HEX or file:PATH."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hsmbridge.codes import CKO
from hsmbridge.errors import UsageError
from hsmbridge.objects import find_key
from hsmbridge.uri import parse_uri

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsmbridge.objects import Object
    from hsmbridge.token import Token
    from hsmbridge.uri import Pkcs11Uri

__all__ = ["ANY_KEY", "UNWRAPPING_KEY", "WRAPPING_KEY", "KeyName", "parse_id", "parse_key_name", "parse_token_uri"]

ANY_KEY = (CKO.SECRET_KEY, CKO.PRIVATE_KEY, CKO.PUBLIC_KEY)
WRAPPING_KEY = (CKO.SECRET_KEY, CKO.PUBLIC_KEY)
UNWRAPPING_KEY = (CKO.SECRET_KEY, CKO.PRIVATE_KEY)

_FORMS = "name a key as label:NAME, id:HEX, file:PATH or a PKCS#11 URI (pkcs11:object=NAME;type=secret-key)"
_CLASSES = {"secret-key": CKO.SECRET_KEY, "private": CKO.PRIVATE_KEY, "public": CKO.PUBLIC_KEY}
_MAX_ID = 255
"""Ours: no token stores a longer CKA_ID, and most stop at 64 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyName:
    """One key's name as it was typed; exactly one of the ways of naming is set.

    Attributes:
        text: as typed.
        label: CKA_LABEL; id: CKA_ID; uri: a URI that names an object.
        path: of a software key at rest.
    """

    text: str
    label: str | None = None
    id: bytes | None = None
    uri: Pkcs11Uri | None = None
    path: str | None = None

    def find(self, token: Token, classes: Sequence[int] = ANY_KEY) -> Object:
        """Find the key in the token.

        Args:
            token: where to look.
            classes: classes in order of preference, which a URI's type overrules.

        Raises:
            NotFoundError: none, or more than one.
            UsageError: the name is that of a file.
        """
        if self.path is not None:
            raise UsageError(
                f"{self.text} is a software key, and this command works on keys of the token",
                hint="name a key of the token as label:NAME, id:HEX or a PKCS#11 URI",
            )
        if self.uri is None:
            return find_key(token, label=self.label, key_id=self.id, classes=classes)
        if self.uri.type is not None:
            classes = (_CLASSES[self.uri.type],)
        return find_key(token, label=self.uri.object, key_id=self.uri.id, classes=classes)


def parse_key_name(text: str) -> KeyName:
    """Parse a KEY.

    Raises:
        UsageError: not one of the four forms; UriError: a URI that is none.
    """
    kind, colon, rest = text.partition(":")
    if kind.lower() == "pkcs11" and colon:
        uri = _checked(parse_uri(text))
        if uri.type is not None and uri.type not in _CLASSES:
            raise UsageError(f"a URI with type={uri.type} names no key", hint=f"use type={', '.join(_CLASSES)}")
        if uri.object is None and uri.id is None:
            raise UsageError("the URI names a token and no key in it", hint="add object=LABEL or id=%XX%XX")
        return KeyName(text=text, uri=uri)
    if rest and kind == "label":
        return KeyName(text=text, label=rest)
    if rest and kind == "id":
        return KeyName(text=text, id=parse_id(rest))
    if rest and kind == "file":
        return KeyName(text=text, path=rest)
    raise UsageError(f"{text!r} does not name a key", hint=_FORMS)


def parse_id(text: str) -> bytes:
    """Parse a CKA_ID in hexadecimal digits, which colons may separate, as other tools print it.

    Raises:
        UsageError: no such digits, none at all, or too many.
    """
    try:
        value = bytes.fromhex(text.replace(":", ""))
    except ValueError:
        value = b""
    if not 1 <= len(value) <= _MAX_ID:
        raise UsageError(f"{text!r} is no key id", hint="write it as hexadecimal digits, two for each byte: id:0a1b2c")
    return value


def parse_token_uri(text: str) -> Pkcs11Uri:
    """Parse the URI of --uri, which names a token and nothing in it.

    Raises:
        UsageError: it names an object; UriError: it is no URI.
    """
    uri = _checked(parse_uri(text))
    if uri.object is not None or uri.id is not None or uri.type is not None:
        raise UsageError("--uri names a token, not an object in it", hint="name the key itself as KEY or with --kek")
    return uri


def _checked(uri: Pkcs11Uri) -> Pkcs11Uri:
    """Refuse what must not be, or cannot be followed, wherever a URI is given."""
    if uri.pin_value is not None:
        raise UsageError(
            "the URI holds a pin-value, which other users of this machine can see",
            hint="put the PIN in a file with mode 600 and use pin-source=FILE or --pin-file, or set PKCS11_PIN",
        )
    if uri.module_name is not None:
        raise UsageError(
            "module-name is not looked up here", hint="give the library's path with module-path or --module"
        )
    if uri.slot_manufacturer is not None:
        raise UsageError("slot-manufacturer is not compared here", hint="name the token with token= or serial=")
    return uri
