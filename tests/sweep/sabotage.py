"""Mistakes made in the package on purpose: the sweep has to find each, or it proves nothing.

A mistake is made in a worker, before it forks the processes of its cases.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from hsmbridge_csp.handoff.destination import Destination
from hsmbridge_csp.handoff.sender import Sender
from hsmbridge_csp.keys import SoftwareKey

import hsmbridge.destruction
from hsmbridge.codes import CKR
from hsmbridge.errors import HsmbridgeError
from hsmbridge.residency import Residency, classify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hsmbridge.objects import Identity, Object
    from hsmbridge.residency import Classification

__all__ = ["SABOTAGE", "VARIABLE", "Sabotage"]

VARIABLE = "HSMBRIDGE_SWEEP_SABOTAGE"
"""In the environment of a worker: which mistake it makes."""

_FAILS = f"{CKR.DEVICE_ERROR:#x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sabotage:
    """A mistake.

    Attributes:
        make: makes it, in this process and its forks.
        case: name of a case that is hit by it.
        found: part of the violation that has to be found there.
    """

    make: Callable[[], None]
    case: str
    found: str


def _replace(owner: Any, name: str, new: Any) -> None:  # noqa: ANN401 - classes and modules, functions of any kind
    setattr(owner, name, new)


@contextmanager
def _no_doubt(_sender: Sender, _handoff: bytes) -> Iterator[None]:
    yield


def _destroying(sealed: Callable[..., Any], sender: Sender, pending: Any, data: Any) -> Any:  # noqa: ANN401 - of sealed()
    for source in pending.sources:
        source.destroy(pending.entry.handoff)
    return sealed(sender, pending, data)


def _twice(destroy: Callable[[Object, Identity], int], key: Object, expected: Identity) -> int:
    handle = destroy(key, expected)
    with suppress(HsmbridgeError), key.token.sessions as session:
        key.token.calls.destroy_object(session, handle)
    return handle


def _as_software(key: Object) -> Classification:
    return replace(classify(key), residency=Residency.SOFTWARE)


def _telling(make: Callable[..., None], key: SoftwareKey, algorithm: str, value: bytearray, *rest: Any) -> None:  # noqa: ANN401 - of SoftwareKey
    make(key, algorithm, value, *rest)
    sys.stderr.write(f"{value.hex()}\n")


def _method(function: Callable[..., Any], old: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that can be a method, and is given the old one first."""
    return lambda *arguments: function(old, *arguments)


SABOTAGE: dict[str, Sabotage] = {
    "thaws in doubt": Sabotage(
        make=partial(_replace, Sender, "doubting", _no_doubt),
        case="handoff-value/receiver/C_SetAttributeValue#1=kill-before",
        found="moving has two usable holders",
    ),
    "destroys before the receipt": Sabotage(
        make=partial(_replace, Sender, "sealed", _method(_destroying, Sender.sealed)),
        case="handoff-value/receiver/C_UnwrapKey#1=kill-before",
        found="a source was destroyed without a receipt",
    ),
    "leaves a failed import": Sabotage(
        make=partial(_replace, Destination, "withdraw", lambda _: None),
        case=f"handoff-value/receiver/C_UnwrapKey#3=after:{_FAILS}",
        found="a key is in the token, and the receiver never signed for it",
    ),
    "destroys twice": Sabotage(
        make=partial(_replace, hsmbridge.destruction, "_destroy", _method(_twice, hsmbridge.destruction._destroy)),  # noqa: SLF001 - to be broken
        case="destroy-software/actor/",
        found="called C_DestroyObject twice for one handle",
    ),
    "takes hardware for software": Sabotage(
        make=partial(_replace, hsmbridge.destruction, "classify", _as_software),
        case="destroy-hardware/actor/",
        found="called C_DestroyObject for a token object that was there before",
    ),
    "prints keys": Sabotage(
        make=partial(_replace, SoftwareKey, "__init__", _method(_telling, SoftwareKey.__init__)),
        case="handoff-files/none/",
        found="the key 'file' is in sender.output",
    ),
}
