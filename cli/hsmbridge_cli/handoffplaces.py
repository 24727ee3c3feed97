"""DEST of `handoff receive`: where the keys of a handoff arrive, and what they are called there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hsmbridge_csp.handoff.destination import Destination, InToken
from hsmbridge_csp.handoff.files import InFiles
from hsmbridge_csp.private_key import PRIVATE_ALGORITHMS
from hsmbridge_csp.record import Transfer

from hsmbridge.errors import PolicyError, UsageError
from hsmbridge_cli.files import OutputFile
from hsmbridge_cli.keyfiles import render_software_key
from hsmbridge_cli.keynames import parse_key_name
from hsmbridge_cli.recordfacts import what_is_more_than_the_key

if TYPE_CHECKING:
    from hsmbridge_csp.keys import SoftwareKey
    from hsmbridge_csp.recipients import Opener
    from hsmbridge_csp.record import KeyRecord

    from hsmbridge.token import Token

__all__ = ["Place"]

_PROGRAM = "receive it in a program: hsmbridge_csp gives it in exactly that state"
_TO_FILE = "receive it with -o file:PATH"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """DEST.

    Attributes:
        kind: ``token``, ``file``, ``dry-run`` or ``answer``.
        path: the file, or the directory, of ``file``.
        many: whether it is a directory.
        raw: bare bytes instead of a JWK.
    """

    kind: str
    path: Path | None = None
    many: bool = False
    raw: bool = False

    @classmethod
    def parse(cls, output: str | None, *, persist: bool, dry_run: bool, raw: bool) -> Place:
        """Take the options, of which at most one says where; a file must be possible, and not be there yet.

        Raises:
            UsageError: it is, or the directory is none.
        """
        if output is None:
            return cls(kind="token" if persist else "dry-run" if dry_run else "answer")
        name = parse_key_name(output).path
        if name is None:
            raise UsageError(f"{output} is no file", hint="write -o file:PATH or -o file:DIR/")
        if name.endswith("/") or Path(name).is_dir():
            if not Path(name).is_dir():
                raise UsageError(f"{name} is no directory", hint="make it first, mode 700")
            return cls(kind="file", path=Path(name), many=True, raw=raw)
        OutputFile(name)  # looks whether it can be made, before anybody sends anything
        return cls(kind="file", path=Path(name), raw=raw)

    def destination(self, token: Token | None, opener: Opener | None) -> Destination:
        """Return an empty destination for the keys of one handoff."""
        if self.kind == "file":
            return _KeyFiles(self, token, opener)
        if self.kind == "token" and token is not None:
            return _KeyObjects(token, opener)
        return _Nowhere()


class _KeyFiles(InFiles):
    """Software keys in files that say what they are called by: the path that was given, or kind and blob id."""

    def __init__(self, place: Place, token: Token | None, opener: Opener | None) -> None:
        super().__init__(self._path, self._rendered, token, opener)
        self._place = place
        self._blob = b""

    def place(self, record: KeyRecord, blob: bytes) -> str:
        """Name a key's file.

        Raises:
            PolicyError: a file cannot hold the key as it is, or there is another key for it.
        """
        self._blob = blob
        if record.transfer is Transfer.WRAPPED:
            raise PolicyError("a token key's bytes never exist outside tokens", hint="receive it with --persist --kek")
        if record.transfer is Transfer.REFERENCE and self.token is None:
            raise PolicyError("a key stayed in its token", hint="name the token: --module, --token-label")
        more = what_is_more_than_the_key(record)
        if more is not None:
            raise PolicyError(f"a key comes with {more}, which nothing at rest can hold", hint=_PROGRAM)
        return super().place(record, blob)

    def _path(self, position: int, record: KeyRecord) -> Path:
        path = self._place.path or Path()
        if self._place.many:
            suffix = "pem" if record.algorithm in PRIVATE_ALGORITHMS else "bin" if self._place.raw else "jwk"
            return path / f"{record.algorithm.lower()}-{self._blob.hex()}.{suffix}"
        if position:
            raise PolicyError("several keys came, and one file is named", hint="receive them with -o file:DIR/")
        return path

    def _rendered(self, key: SoftwareKey) -> bytes:
        return render_software_key(key, raw=self._place.raw)


class _KeyObjects(Destination):
    """Token objects, and token keys that stayed where they are and are found there.

    Args:
        token: logged in.
        opener: the KEK; None where only references can come.
    """

    persistent = True

    def __init__(self, token: Token, opener: Opener | None) -> None:
        super().__init__(token, opener)
        self._in_token = None if opener is None else InToken(token, opener)

    def place(self, record: KeyRecord, blob: bytes) -> str:
        """``token:LABEL:ID``, or ``reference``.

        Raises:
            PolicyError: a software key, or one with a running state.
        """
        more = what_is_more_than_the_key(record)
        if more is not None:
            raise PolicyError(f"a key comes with {more}, which no token object can hold", hint=_PROGRAM)
        if record.transfer is Transfer.REFERENCE:
            return "reference"
        if record.transfer is Transfer.VALUE or self._in_token is None:
            raise PolicyError("a software key was made in no token, and is not made for one", hint=_TO_FILE)
        return self._in_token.place(record, blob)

    def make(self, record: KeyRecord, blob: bytes) -> None:
        """Unwrap a key, or find it."""
        if record.transfer is Transfer.REFERENCE or self._in_token is None:
            self._take(record, persist=False)
            return
        self._in_token.make(record, blob)
        self.keys.append(self._in_token.keys[-1])

    def publish(self) -> None:
        """Give what was made its own names."""
        if self._in_token is not None:
            self._in_token.publish()

    def withdraw(self) -> None:
        """Remove what was made; what was found stays."""
        if self._in_token is not None:
            self._in_token.withdraw()
        self.keys.clear()


class _Nowhere(Destination):
    """Takes nothing: whoever offers keys gets a tombstone."""

    def place(self, record: KeyRecord, blob: bytes) -> str:  # noqa: ARG002 - the same for all
        """Refuse.

        Raises:
            PolicyError: always.
        """
        raise PolicyError("this end takes no keys, it only answers", hint="say a DEST: --persist or -o file:PATH")

    def make(self, record: KeyRecord, blob: bytes) -> None:  # noqa: ARG002 - the same for all
        """Refuse.

        Raises:
            PolicyError: always.
        """
        raise PolicyError("this end takes no keys", hint="say a DEST: --persist or -o file:PATH")
