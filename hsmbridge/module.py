"""A PKCS#11 module: loaded once per process, initialised with locking, refused after a fork.

Source: PKCS#11 v3.1 section 5.4 (general-purpose functions) and 5.4.1 on fork.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from hsmbridge._binding import Library, binding_call
from hsmbridge._calls import Calls
from hsmbridge.codes import CKR
from hsmbridge.errors import ForkError, ModuleError, Pkcs11Error, TokenError
from hsmbridge.token import Token

if TYPE_CHECKING:
    from hsmbridge.uri import Pkcs11Uri

__all__ = ["Module"]

_loaded: dict[str, Module] = {}
_loading = threading.Lock()


class Module:
    """A loaded PKCS#11 module. Use :meth:`open`: a process has one instance for each library.

    Attributes:
        path: the file it was loaded from.
        manufacturer: CK_INFO.manufacturerID.
        description: CK_INFO.libraryDescription.
        library_version: CK_INFO.libraryVersion, (major, minor).
        cryptoki_version: CK_INFO.cryptokiVersion, (major, minor).
    """

    def __init__(self, path: str, init_args: str | None) -> None:
        self.path = path
        self._init_args = init_args
        self._library = Library(path, init_args)
        self.calls = Calls(self._library.functions)
        self.manufacturer: str = self._library.manufacturer_id
        self.description: str = self._library.library_description
        self.library_version: tuple[int, int] = self._library.library_version
        self.cryptoki_version: tuple[int, int] = self._library.cryptoki_version
        self._forked = False
        self._tokens: dict[int, Token] = {}
        self._tokens_lock = threading.Lock()
        os.register_at_fork(after_in_child=self._note_fork)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, init_args: str | None = None) -> Module:
        """Load and initialise a module, or return the one that this process has already.

        Args:
            path: the library's file.
            init_args: library parameters for C_Initialize (``pReserved``), which NSS needs.

        Raises:
            ModuleError: no such file, not a PKCS#11 library, refused to initialise, or open with other arguments.
            ForkError: the process is a fork of one that had the module open.
        """
        if sys.platform != "linux":
            raise ModuleError("hsmbridge supports Linux only", hint="run it on 64-bit Linux, where it is tested")
        real = os.path.realpath(path)
        with _loading:
            module = _loaded.get(real)
            if module is None:
                if not Path(real).is_file():
                    raise ModuleError(
                        f"no PKCS#11 module at {os.fspath(path)}",
                        hint="give the path of the vendor's library with --module or PKCS11_MODULE",
                    )
                module = _loaded[real] = cls(real, init_args)
        module.check_process()
        if init_args not in (None, module._init_args):
            raise ModuleError(
                f"{real} is open already with other init arguments", hint="a process has one set of init arguments"
            )
        return module

    def _note_fork(self) -> None:
        self._forked = True

    def check_process(self) -> None:
        """Refuse to go on in a child of fork().

        Raises:
            ForkError: always in such a child; its inherited sessions work by accident or not at all.
        """
        if self._forked:
            raise ForkError(
                "this process was forked after the PKCS#11 module had been opened",
                hint="start a new process (spawn) and open the module there",
            )

    def tokens(self) -> list[Token]:
        """Return every token that is present and initialised, in slot order.

        Raises:
            Pkcs11Error: C_GetSlotList or C_GetTokenInfo failed for another reason than an absent token.
        """
        self.check_process()
        found: list[Token] = []
        with binding_call("C_GetSlotList"):
            slots = self._library.get_slots()
        for slot in slots:
            try:
                with binding_call("C_GetTokenInfo"):
                    info = slot.get_token()
            except Pkcs11Error as error:
                if error.ckr in (CKR.TOKEN_NOT_PRESENT, CKR.TOKEN_NOT_RECOGNIZED):
                    continue
                raise
            with self._tokens_lock:
                known = self._tokens.get(slot.slot_id)
                if known is None or known.serial != info.serial or known.closed:
                    known = self._tokens[slot.slot_id] = Token(self, slot, info)
            found.append(known)
        return [token for token in found if token.initialized]

    def token(self, *, label: str | None = None, serial: bytes | None = None, uri: Pkcs11Uri | None = None) -> Token:
        """Find exactly one token.

        Args:
            label: CK_TOKEN_INFO.label without its padding.
            serial: CK_TOKEN_INFO.serialNumber without its padding.
            uri: token attributes of an RFC 7512 URI.

        Raises:
            TokenError: none matches, or more than one.
        """
        present = self.tokens()
        matching = [
            token
            for token in present
            if (label is None or token.label == label)
            and (serial is None or token.serial == serial)
            and (uri is None or token.matches(uri))
        ]
        if len(matching) == 1:
            return matching[0]
        there = ", ".join(repr(token.label) for token in present) or "none"
        wanted = f"labelled {label!r}" if label is not None else "matching"
        if matching:
            raise TokenError(
                f"{len(matching)} tokens match",
                hint=f"name one with --token-label or serial= in the URI; there are: {there}",
            )
        raise TokenError(f"no token {wanted} in {self.path}", hint=f"tokens there: {there}; see `hsmbridge token ls`")

    def __repr__(self) -> str:
        major, minor = self.library_version
        return f"<Module {self.path} ({self.description} {major}.{minor})>"
