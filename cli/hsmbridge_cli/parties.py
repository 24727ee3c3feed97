"""Recipients by the names that are typed: --kek and --to at an export, --kek and --as at an import."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hsmbridge_csp.hardening import disable_core_dumps
from hsmbridge_csp.recipient_ecdh import EcdhOpener, EcdhSealer
from hsmbridge_csp.recipient_kek import TokenKek
from hsmbridge_csp.recipient_rsa import RsaOpener, RsaSealer
from hsmbridge_csp.trust import TRUST_FILE, Role, TrustStore, load_public_key

from hsmbridge.codes import CKO
from hsmbridge.errors import KekError, UsageError
from hsmbridge.kek import Purpose, check_kek
from hsmbridge.publickeys import public_key_of
from hsmbridge_cli.display import warn
from hsmbridge_cli.files import MAX_WRAP_BYTES, read_input
from hsmbridge_cli.keynames import UNWRAPPING_KEY, WRAPPING_KEY, KeyName, parse_key_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hsmbridge_csp.recipients import Opener, Sealer

    from hsmbridge.objects import Object
    from hsmbridge.publickeys import PublicKey
    from hsmbridge.token import Token
    from hsmbridge_cli.options import Settings

__all__ = ["name_or_path", "opener_for", "recipient_name", "sealer_for", "sealer_of", "the_token", "token_for"]

_FORMS = ("label", "id", "pkcs11", "file")
_KINDS = "use RSA of 3072 bits or more, or P-256"


def name_or_path(text: str) -> KeyName:
    """Parse what names a key, or else is the path of a file.

    Raises:
        UsageError, UriError: a key's name that is none.
    """
    if text.partition(":")[0].lower() in _FORMS and ":" in text:
        return parse_key_name(text)
    return KeyName(text=text, path=text)


def recipient_name(text: str, directory: Path) -> tuple[KeyName, PublicKey | None]:
    """Parse --to: a token's public key, the name of a pinned recipient, or a file.

    A pin comes before a file of the same name, so that no file in the working directory can take its place.

    Raises:
        UsageError: a key's name that is none; PolicyError, InputError: the pins cannot be believed or read.
    """
    pin = TrustStore.load(directory / TRUST_FILE).named(Role.RECIPIENT, text)
    return (KeyName(text=text, path=text), pin.key) if pin is not None else (name_or_path(text), None)


@contextmanager
def token_for(settings: Settings, *names: KeyName | None, also: bool = False) -> Iterator[Token | None]:
    """Open the token if one of the keys is in it, or *also* it is needed for another reason; else give None."""
    from hsmbridge_cli.opening import open_token

    disable_core_dumps()
    if also or any(name is not None and name.path is None for name in names):
        with open_token(settings, *names) as token:
            yield token
    else:
        yield None


def the_token(token: Token | None) -> Token:
    """Return the token, which was opened since a key is in it.

    Raises:
        UsageError: none was.
    """
    if token is None:
        raise UsageError("no token is open", hint="name one with --module and --token-label")
    return token


def sealer_for(
    name: KeyName, token: Token | None, pinned: PublicKey | None = None, *, allow_unsafe: bool = False
) -> Sealer:
    """Find the recipient of an export.

    Args:
        name: what --kek or --to says.
        token: where a token key is looked for.
        pinned: the public key, where it is known already.
        allow_unsafe: take a KEK that may also decrypt, with a warning, or a smaller RSA key.

    Raises:
        NotFoundError: no such key; InputError: the file holds none.
        KekError: it is not safe, not strong enough, or of a kind that nothing is sealed for.
    """
    if name.path is not None:
        public = pinned or load_public_key(read_input(name.path, MAX_WRAP_BYTES), name=name.path)
        return sealer_of(public, allow_unsafe=allow_unsafe)
    found = name.find(the_token(token), WRAPPING_KEY)
    if found.identity.cls == CKO.SECRET_KEY:
        _look_at(found, Purpose.WRAP, allow_unsafe=allow_unsafe)
        return TokenKek(found, allow_unsafe=allow_unsafe)
    held = public_key_of(found)
    if isinstance(held, rsa.RSAPublicKey):
        _look_at(found, Purpose.WRAP, allow_unsafe=allow_unsafe)
    return sealer_of(held, found, allow_unsafe=allow_unsafe)


def sealer_of(public: PublicKey | None, held: Object | None = None, *, allow_unsafe: bool = False) -> Sealer:
    """Return the recipient that is a public key.

    Args:
        public: the key.
        held: the same key in the token.
        allow_unsafe: take a smaller RSA key.

    Raises:
        KekError: too weak, or of a kind that nothing is sealed for.
    """
    if isinstance(public, rsa.RSAPublicKey):
        return RsaSealer(public, held, allow_unsafe=allow_unsafe)
    if isinstance(public, ec.EllipticCurvePublicKey):
        return EcdhSealer(public)
    raise KekError("this kind of key cannot be a recipient", hint=_KINDS)


def opener_for(name: KeyName, token: Token | None, *, allow_unsafe: bool = False) -> Opener:
    """Find the key that opens a blob.

    Args:
        name: what --kek or --as says.
        token: where a token key is looked for.
        allow_unsafe: take a KEK that may also decrypt, with a warning.

    Raises:
        NotFoundError: no such key; InputError: the file holds none.
        KekError: it is not safe, or of a kind that opens nothing.
    """
    if name.path is not None:
        from hsmbridge_cli.keyfiles import load_private_key

        private = load_private_key(name.path)
        if isinstance(private, rsa.RSAPrivateKey):
            return RsaOpener(private)
        if isinstance(private, ec.EllipticCurvePrivateKey):
            return EcdhOpener(private)
        raise KekError(f"{name.path} holds a kind of key that opens no blob", hint=_KINDS)
    found = name.find(the_token(token), UNWRAPPING_KEY)
    if found.identity.cls == CKO.SECRET_KEY:
        _look_at(found, Purpose.UNWRAP, allow_unsafe=allow_unsafe)
        return TokenKek(found, allow_unsafe=allow_unsafe)
    if isinstance(public_key_of(found), ec.EllipticCurvePublicKey):
        return EcdhOpener(found)
    opener = RsaOpener(found, allow_unsafe=allow_unsafe)
    _look_at(found, Purpose.UNWRAP, allow_unsafe=allow_unsafe)
    return opener


def _look_at(kek: Object, purpose: Purpose, *, allow_unsafe: bool) -> None:
    for warning in check_kek(kek, purpose, allow_unsafe=allow_unsafe).warnings:
        warn(warning)
