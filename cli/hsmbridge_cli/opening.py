"""From the settings to a token that is logged in.

Options and URIs must agree: two answers to "which token?" are an error, since the wrong one would mean the wrong key.
The environment fills in what neither says.
"""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from hsmbridge_csp.hardening import disable_core_dumps

from hsmbridge.codes import CKF
from hsmbridge.errors import HsmbridgeError, ModuleError, TokenError, UsageError
from hsmbridge.module import Module
from hsmbridge.pin import Pin, resolve_pin
from hsmbridge_cli.display import remark
from hsmbridge_cli.keynames import parse_token_uri

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hsmbridge.token import Token
    from hsmbridge.uri import Pkcs11Uri
    from hsmbridge_cli.keynames import KeyName
    from hsmbridge_cli.options import Settings

__all__ = ["WHICH_MODULE", "log_in", "one_of", "open_module", "open_token", "pick_token", "uris_of"]

WHICH_MODULE = "give its path with --module, PKCS11_MODULE, or module-path in a pkcs11: URI"
"""The hint where nothing says which."""


@contextmanager
def open_token(settings: Settings, *names: KeyName | None, login: bool = True) -> Iterator[Token]:
    """Open module and token, log in, and close the token at the end.

    Args:
        settings: the options.
        names: the keys that the command is about; their URIs may say which module, token and PIN.
        login: whether to log in, where the token asks for that.

    Raises:
        UnavailableError: no module, no token or no login.
        UsageError: two answers to one question.
    """
    uris = uris_of(settings, *names)
    token = pick_token(settings, uris, open_module(settings, uris))
    if login:
        log_in(settings, uris, token)
    try:
        yield token
    finally:
        token.close()


def uris_of(settings: Settings, *names: KeyName | None) -> tuple[Pkcs11Uri, ...]:
    """Return all the URIs that were given."""
    given = () if settings.uri is None else (parse_token_uri(settings.uri),)
    return given + tuple(name.uri for name in names if name is not None and name.uri is not None)


def open_module(settings: Settings, uris: tuple[Pkcs11Uri, ...]) -> Module:
    """Load the module.

    Raises:
        ModuleError: none is named, or it cannot be loaded.
        UsageError: two are named.
    """
    path = one_of("module", settings.module, *(uri.module_path for uri in uris)) or os.environ.get("PKCS11_MODULE")
    if not path:
        raise ModuleError("no PKCS#11 module is named", hint=WHICH_MODULE)
    arguments = settings.module_args or os.environ.get("PKCS11_MODULE_ARGS") or None
    disable_core_dumps()
    module = Module.open(path, init_args=arguments)
    atexit.register(_finish, module)
    remark(settings, f"module {module.path}: {module.description}")
    return module


def pick_token(settings: Settings, uris: tuple[Pkcs11Uri, ...], module: Module) -> Token:
    """Find the token that is meant; where nothing says which, the only one there is.

    Raises:
        TokenError: none, or more than one.
        UsageError: two are named.
    """
    label = one_of("token", settings.token_label, *(uri.token for uri in uris))
    if label is None and not uris:
        label = os.environ.get("PKCS11_TOKEN_LABEL") or None
    matching = [token for token in module.tokens() if all(_fits(token, uri) for uri in uris)]
    if label is not None:
        matching = [token for token in matching if token.label == label]
    if len(matching) != 1:
        if not uris:
            return module.token(label=label)  # it words the refusal, with the labels that there are
        how_many = f"{len(matching)} tokens match" if matching else "no token matches"
        named = " and ".join(str(uri) for uri in uris)
        raise TokenError(f"{how_many} {named}", hint="every attribute of a URI must match; see `hsmbridge token ls`")
    remark(settings, f"token {matching[0].label!r} in slot {matching[0].slot_id}")
    return matching[0]


def log_in(settings: Settings, uris: tuple[Pkcs11Uri, ...], token: Token) -> None:
    """Log the user in with the first PIN source there is; the PIN is tried once.

    Raises:
        LoginError: no PIN, or not the right one.
        UsageError: two PIN sources are named.
    """
    source = one_of("PIN source", *(uri.pin_source for uri in uris))
    if not token.flags & CKF.TOKEN_LOGIN_REQUIRED and settings.pin_file is None and source is None:
        return
    pin = resolve_pin(
        pin_file=settings.pin_file,
        uri=next((uri for uri in uris if uri.pin_source is not None), None),
        environ=os.environ,
        protected_path=token.has_pin_pad,
        prompt=_prompt(token),
    )
    if not isinstance(pin, Pin):
        remark(settings, "waiting for the PIN pad")
        token.login(None)
        return
    remark(settings, f"PIN from {pin.source}")
    try:
        token.login(pin)
    finally:
        pin.wipe()


def _finish(module: Module) -> None:
    """Let go of the module: a TPM keeps what a process has loaded into it until C_Finalize."""
    with suppress(HsmbridgeError):
        module.calls.finalize()


def _prompt(token: Token) -> Callable[[], str] | None:
    if not sys.stdin.isatty():
        return None

    def ask() -> str:
        from getpass import getpass

        return getpass(f"PIN of token {token.label!r}: ")

    return ask


def _fits(token: Token, uri: Pkcs11Uri) -> bool:
    """RFC 7512 section 2.5: every attribute that the URI gives must be that of the token, its slot and its library."""
    module = token.module
    pairs: tuple[tuple[object, object], ...] = (
        (uri.slot_id, token.slot_id),
        (uri.slot_description, token.slot_description.rstrip()),
        (uri.library_manufacturer, module.manufacturer.rstrip()),
        (uri.library_description, module.description.rstrip()),
        (uri.library_version, module.library_version),
    )
    return token.matches(uri) and all(wanted is None or wanted == seen for wanted, seen in pairs)


def one_of(what: str, *answers: str | None) -> str | None:
    """Return the one answer that was given, None where there is none.

    Raises:
        UsageError: there are two.
    """
    given = {answer for answer in answers if answer is not None}
    if len(given) > 1:
        raise UsageError(
            f"two different answers to which {what} is meant: {', '.join(sorted(given))}",
            hint="say it once: options, --uri, KEY and KEK must agree",
        )
    return next(iter(given), None)
