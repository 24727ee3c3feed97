"""Where the PIN comes from, and the holder that does not show it.

The order is fixed: an explicit PIN file, the URI's ``pin-source``, the environment, the token's own PIN pad, a prompt.
The first that is there is the only one used: a PIN is tried once, so a second source would be a second try. A PIN is
never an argument, since every process of the machine can read those.

Source: RFC 7512 section 2.4 (pin-source); PKCS#11 v3.1 section 3.2 (CKF_PROTECTED_AUTHENTICATION_PATH).
"""

from __future__ import annotations

import hmac
import os
import re
from enum import Enum
from typing import TYPE_CHECKING, Final, NoReturn
from urllib.parse import unquote

from hsmbridge._pin_file import MAX_PIN_BYTES, STDIN, PinFileError, PinPermissionError, read_file, read_line
from hsmbridge.errors import HsmbridgeError, LoginError, UriError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import SupportsIndex

    from hsmbridge.uri import Pkcs11Uri

__all__ = [
    "MAX_PIN_BYTES",
    "PIN_PAD",
    "PIN_VARIABLE",
    "Pin",
    "PinFileError",
    "PinPad",
    "PinPermissionError",
    "read_pin_file",
    "resolve_pin",
]

PIN_VARIABLE: Final = "PKCS11_PIN"
"""The environment variable that may hold the PIN."""


class PinPad(Enum):
    """The PIN is typed at the token itself: C_Login gets no PIN from us."""

    PIN_PAD = "pin-pad"


PIN_PAD: Final = PinPad.PIN_PAD


class Pin:
    """A PIN: shown by :meth:`reveal` and by nothing else.

    Args:
        value: 1 to MAX_PIN_BYTES bytes of UTF-8, one line, no NUL.
        source: where it came from, for messages. Not secret.

    Raises:
        UsageError: the value cannot be a PIN.
    """

    __slots__ = ("_secret", "source")

    def __init__(self, value: str | bytes, *, source: str = "the caller") -> None:
        secret = value.encode(errors="surrogatepass") if isinstance(value, str) else value
        problem = _problem(secret)
        if problem:
            raise UsageError(f"the PIN from {source} {problem}", hint="give the PIN as one line of text")
        self._secret: bytearray | None = bytearray(secret)
        self.source = source

    def reveal(self) -> str:
        """Return the PIN, for C_Login only.

        Raises:
            UsageError: it has been wiped.
        """
        if self._secret is None:
            raise UsageError("the PIN has been wiped", hint="resolve the PIN again")
        return self._secret.decode()

    def wipe(self) -> None:
        """Overwrite our copy. Copies that :meth:`reveal` made, and Python's own, are beyond reach."""
        if self._secret is not None:
            self._secret[:] = bytes(len(self._secret))
            self._secret = None

    def __eq__(self, other: object) -> bool:
        """Compare two PINs in a time that does not depend on where they differ."""
        if not isinstance(other, Pin):
            return NotImplemented
        if self._secret is None or other._secret is None:
            return self is other
        return hmac.compare_digest(self._secret, other._secret)

    __hash__ = None  # type: ignore[assignment]  # a hash would be a fingerprint of the PIN

    def __repr__(self) -> str:
        return f"<Pin from {self.source}>"

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn:
        """Refuse to be pickled or copied."""
        raise TypeError("a PIN is neither pickled nor copied")


def resolve_pin(
    *,
    pin_file: str | os.PathLike[str] | None = None,
    uri: Pkcs11Uri | None = None,
    environ: Mapping[str, str],
    protected_path: bool = False,
    prompt: Callable[[], str] | None = None,
) -> Pin | PinPad:
    """Take the PIN from the first source there is.

    Args:
        pin_file: a file, or "-" for the first line of standard input.
        uri: its ``pin-source`` is used.
        environ: searched for PKCS11_PIN; set but empty counts as not set.
        protected_path: the token says CKF_PROTECTED_AUTHENTICATION_PATH.
        prompt: asks the user; given only where somebody can answer.

    Returns:
        The PIN, or PIN_PAD where the token asks for it itself.

    Raises:
        UsageError: the URI holds a pin-value; the file cannot be read. UriError: a pin-source that we do not serve.
        PinFileError: the file holds no PIN.
        PinPermissionError: others may read or change the file.
        LoginError: no source at all, or what was set or typed is no PIN.
    """
    if uri is not None and uri.pin_value is not None:
        raise UsageError(
            "the URI holds a pin-value, which other users of this machine can see",
            hint=f"put the PIN in a file with mode 600 and use pin-source=FILE or --pin-file, or set {PIN_VARIABLE}",
        )
    if pin_file is not None:
        return read_pin_file(pin_file)
    if uri is not None and uri.pin_source is not None:
        return read_pin_file(_pin_source_path(uri.pin_source))
    if value := environ.get(PIN_VARIABLE):
        return _made(value.encode(errors="surrogatepass"), source=PIN_VARIABLE, error=LoginError)
    if protected_path:
        return PIN_PAD
    if prompt is not None:
        return _made(prompt().encode(errors="surrogatepass"), source="the prompt", error=LoginError)
    raise LoginError(
        "no PIN is given",
        hint=f"give a PIN: --pin-file FILE (or - for standard input), pin-source=FILE in the URI, or {PIN_VARIABLE}",
    )


def read_pin_file(path: str | os.PathLike[str]) -> Pin:
    """Read a PIN file: a regular file or a pipe, ours or root's, closed to group and others, with one line.

    Args:
        path: the file, or "-" for the first line of standard input, which is not echoed where that is a terminal. What
            follows that line is left unread.

    Returns:
        The PIN, without the line's end.

    Raises:
        UsageError: the file cannot be opened or read, or is of another kind.
        PinFileError: it is empty, too long, not UTF-8, has NUL or a second line.
        PinPermissionError: others may read or change it.
    """
    name = os.fspath(path)
    if name == "-":
        return _made(read_line(STDIN), source="standard input", error=PinFileError)
    return _made(read_file(name), source=f"file {name!r}", error=PinFileError)


def _pin_source_path(source: str) -> str:
    """Turn a pin-source into a path: absolute, or a file: URI of this machine."""
    # Percent-escapes that are still here belong to the inner URI: the outer one has been decoded.
    match = re.fullmatch(
        r"file:(?://(?:localhost)?)?(/(?!/)(?:[^%?#]|%[0-9A-Fa-f]{2})*)", source, re.IGNORECASE | re.ASCII
    )
    if match:
        return unquote(match[1], errors="surrogateescape")
    if source.startswith("/"):
        return source
    if source.startswith("|"):
        raise UriError("pin-source names a command, and none is run", hint="pipe its output to --pin-file - instead")
    raise UriError(
        "pin-source is neither an absolute path nor a file: URI of this machine",
        hint=f"write pin-source=/path/to/file or pin-source=file:/path/to/file, or set {PIN_VARIABLE} instead",
    )


def _problem(secret: bytes) -> str | None:
    """Say why *secret* cannot be a PIN, without saying what it is."""
    if not secret:
        return "is empty"
    if len(secret) > MAX_PIN_BYTES:
        return f"is longer than {MAX_PIN_BYTES} bytes"
    if b"\0" in secret:
        return "contains a NUL byte"
    if b"\n" in secret or b"\r" in secret:
        return "has more than one line"
    try:
        secret.decode()
    except UnicodeDecodeError:
        return "is not UTF-8"
    return None


def _made(secret: bytes, *, source: str, error: type[HsmbridgeError]) -> Pin:
    problem = _problem(secret)
    if problem:
        raise error(f"the PIN from {source} {problem}", hint="give the PIN as one line of UTF-8 text and nothing else")
    return Pin(secret, source=source)
