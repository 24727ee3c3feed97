"""The options that every command takes, and the settings that they end up in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from hsmbridge_cli.lazy import TokenOption

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DIALECTS", "Settings", "complete_dialect", "token_options"]

_F = TypeVar("_F", bound="Callable[..., Any]")

DIALECTS = (
    "aes-kw",
    "aes-kwp",
    "aes-kw-pkcs7",
    "rsa-oaep-sha256",
    "rsa-oaep-sha1",
    "rsa-aes-kwp",
    "rsa-aes-kwp-sha1",
)
"""The names of hsmbridge.dialects.Dialect, for completion without a cryptographic library; a test compares the two."""


class Settings:
    """What was said on the command line about module, token, PIN and output; None where nothing was said.

    Attributes:
        module: --module; module_args: --module-args; token_label: --token-label; uri: --uri; pin_file: --pin-file.
        json: one document on standard output instead of text.
        verbosity: how often -v was given.
    """

    __slots__ = ("json", "module", "module_args", "pin_file", "token_label", "uri", "verbosity")

    def __init__(self) -> None:
        self.module: str | None = None
        self.module_args: str | None = None
        self.token_label: str | None = None
        self.uri: str | None = None
        self.pin_file: str | None = None
        self.json = False
        self.verbosity = 0


def token_options(command: _F) -> _F:
    """Give a command or group the options of :class:`Settings`; what stands later on the command line wins."""
    for decorate in reversed(_OPTIONS):
        command = decorate(command)
    return command


def complete_dialect(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Complete --mechanism."""
    del ctx, param
    return [name for name in DIALECTS if name.startswith(incomplete)]


def _remember(ctx: click.Context, param: click.Parameter, value: object) -> None:
    settings = ctx.ensure_object(Settings)
    name = param.name or ""
    if ctx.get_parameter_source(name) is not click.core.ParameterSource.COMMANDLINE:
        return
    if name == "verbosity":
        settings.verbosity += value if isinstance(value, int) else 0
    else:
        setattr(settings, name, value)


def _option(*names: str, **attrs: Any) -> Callable[[_F], _F]:  # noqa: ANN401 - click's own
    return click.option(*names, cls=TokenOption, expose_value=False, callback=_remember, **attrs)


_OPTIONS = (
    _option("--module", metavar="PATH", help="PKCS#11 module [env: PKCS11_MODULE]."),
    _option(
        "--module-args", metavar="TEXT", help="Its C_Initialize string, which NSS needs [env: PKCS11_MODULE_ARGS]."
    ),
    _option("--token-label", "--token", "token_label", metavar="L", help="Token by label [env: PKCS11_TOKEN_LABEL]."),
    _option("--uri", metavar="URI", help="Token, module-path and pin-source as an RFC 7512 URI."),
    _option(
        "--pin-file", metavar="FILE", help="File with the PIN, mode 600; - reads standard input [env: PKCS11_PIN]."
    ),
    _option("--json", is_flag=True, help="One JSON document on standard output."),
    _option(
        "-v", "--verbose", "verbosity", count=True, help="Say what is done; -vv adds tracebacks to internal errors."
    ),
)
