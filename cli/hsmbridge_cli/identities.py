"""Our own identity, and whom we believe: the two files in the configuration directory.

Source: docs/identity.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from hsmbridge_csp.identity import IDENTITY_FILE, FileIdentity, TokenIdentity, config_directory
from hsmbridge_csp.trust import TRUST_FILE, Role, TrustStore

from hsmbridge.codes import CKO
from hsmbridge.errors import PolicyError, UsageError
from hsmbridge_cli.display import clean
from hsmbridge_cli.files import OutputFile
from hsmbridge_cli.parties import the_token

if TYPE_CHECKING:
    from hsmbridge_csp.identity import Identity, VerifyingKey

    from hsmbridge.token import Token
    from hsmbridge_cli.keynames import KeyName

__all__ = [
    "Believed",
    "identity_path",
    "keep_first_identity",
    "load_identity",
    "make_identity",
    "own_identity",
    "signer",
    "trust_path",
]


def identity_path() -> Path:
    """Return where our own identity lies."""
    return config_directory() / IDENTITY_FILE


def trust_path() -> Path:
    """Return where the pins lie."""
    return config_directory() / TRUST_FILE


def load_identity(path: Path) -> FileIdentity:
    """Read an identity from a file.

    Raises:
        UsageError: the file cannot be read; PolicyError: others can read it; InputError: it holds no identity.
    """
    try:
        return FileIdentity.load(path)
    except (OSError, ValueError) as error:
        # ValueError: a NUL in the path.
        reason = (getattr(error, "strerror", None) or "not a file name").lower()
        raise UsageError(
            f"identity {path} cannot be read: {reason}", hint="make one with `hsmbridge identity new`"
        ) from None


def own_identity() -> FileIdentity | None:
    """Return our own identity; None where there is none yet.

    Raises:
        PolicyError: others can read it; InputError: the file holds none.
    """
    path = identity_path()
    return load_identity(path) if path.exists() else None


def make_identity(path: Path) -> FileIdentity:
    """Make an identity and keep it; the file is there as a whole or not at all.

    Raises:
        PolicyError: there is one.
        UsageError: the file cannot be made.
    """
    if path.exists():
        raise PolicyError(
            f"there is an identity in {path} already",
            hint="receivers have pinned it: keep it, or move it away first and have them pin the new one",
        )
    made = FileIdentity.generate()
    _keep(made, path)
    return made


def signer(name: KeyName | None, token: Token | None) -> Identity:
    """Return who signs: what --identity names, else our own, else a new one for :func:`keep_first_identity`.

    Args:
        name: a file's or a token key's name; None for our own.
        token: where a token key is looked for.

    Raises:
        UsageError, PolicyError, InputError: see :func:`load_identity`; KeyStateError: a token key that is no identity.
    """
    if name is None:
        return own_identity() or FileIdentity.generate()
    if name.path is not None:
        return load_identity(Path(name.path))
    return TokenIdentity(name.find(the_token(token), (CKO.PRIVATE_KEY,)))


def keep_first_identity(used: Identity) -> None:
    """Keep the identity that signed a first export, now that nothing was refused, and say so; others are kept already.

    Raises:
        UsageError: the file cannot be made, or another process has made one meanwhile.
    """
    path = identity_path()
    if path.exists() or not isinstance(used, FileIdentity):
        return
    _keep(used, path)
    click.echo(
        f"hsmbridge: note: made your identity {used.fingerprint.hex()}, in {clean(str(path))};"
        " receivers must pin it: `hsmbridge identity show --public FILE`",
        err=True,
    )


def _keep(made: FileIdentity, path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{path.parent} cannot be made: {(error.strerror or 'error').lower()}",
            hint="set HSMBRIDGE_HOME to a directory of yours",
        ) from None
    OutputFile(str(path)).write(made.to_pem())


class Believed:
    """Whose signatures are believed: our own, and those of the pinned senders.

    Raises:
        PolicyError: others may change the files; InputError: they are malformed.
    """

    def __init__(self) -> None:
        self.own = own_identity()
        self.store = TrustStore.load(trust_path())

    def __call__(self, fingerprint: bytes) -> VerifyingKey:
        """Return the public key of a sender.

        Raises:
            UnknownSenderError: nobody vouches for it.
        """
        if self.own is not None and self.own.fingerprint == fingerprint:
            return self.own.public_key
        return self.store.sender(fingerprint)

    def name_of(self, fingerprint: bytes) -> str:
        """Return what a believed sender is called here."""
        for pin in self.store.pins:
            if pin.role is Role.SENDER and pin.fingerprint == fingerprint:
                return pin.name
        return "yourself"
