"""From the settings to the target of a conformance run: which module and token, and the PIN, with no module loaded.

The processes that do load it are the suite's own: whatever the module does, this one lives on to tell it.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from hsmbridge_conformance.target import Target
from hsmbridge_csp.hardening import disable_core_dumps

from hsmbridge.errors import ModuleError, UsageError
from hsmbridge.pin import Pin, resolve_pin
from hsmbridge.uri import Pkcs11Uri
from hsmbridge_cli.display import remark
from hsmbridge_cli.opening import WHICH_MODULE, one_of, uris_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsmbridge_cli.options import Settings

__all__ = ["make_target"]


def make_target(settings: Settings) -> Target:
    """Say which token a run is about, and take its PIN from the first source there is.

    Raises:
        ModuleError: no module is named. LoginError: no PIN is given.
        UsageError: two answers to one question, or a URI that says more than a run can go by.
    """
    uris = uris_of(settings)
    for uri in uris:
        _refuse_more(uri)
    module = one_of("module", settings.module, *(uri.module_path for uri in uris)) or os.environ.get("PKCS11_MODULE")
    if not module:
        raise ModuleError("no PKCS#11 module is named", hint=WHICH_MODULE)
    label = one_of("token", settings.token_label, *(uri.token for uri in uris))
    if label is None and not uris:
        label = os.environ.get("PKCS11_TOKEN_LABEL") or None
    disable_core_dumps()
    pin = resolve_pin(
        pin_file=settings.pin_file,
        uri=next((uri for uri in uris if uri.pin_source is not None), None),
        environ=os.environ,
        prompt=_prompt(label),
    )
    if not isinstance(pin, Pin):
        raise UsageError("a PIN pad is not asked for by a run", hint="give the PIN in a file")
    remark(settings, f"PIN from {pin.source}")
    try:
        return Target(
            module=module,
            module_args=settings.module_args or os.environ.get("PKCS11_MODULE_ARGS") or None,
            label=label,
            pin=pin.reveal(),
        )
    finally:
        pin.wipe()


def _refuse_more(uri: Pkcs11Uri) -> None:
    """The suite's processes find their token by its label: a URI that names it otherwise would not be heeded."""
    plain = Pkcs11Uri(token=uri.token, module_path=uri.module_path, pin_source=uri.pin_source)
    if plain != uri:
        raise UsageError(
            "a conformance run finds its token by its label alone",
            hint="of a URI it takes token, module-path and pin-source; leave the rest out",
        )


def _prompt(label: str | None) -> Callable[[], str] | None:
    if not sys.stdin.isatty():
        return None

    def ask() -> str:
        from getpass import getpass

        return getpass(f"PIN of token {label!r}: " if label else "PIN of the token: ")

    return ask
