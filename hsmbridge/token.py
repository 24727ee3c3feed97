"""A token: its description, its login, its sessions and the objects that this process knows in it.

Source: PKCS#11 v3.1 sections 3.2 (CK_TOKEN_INFO), 5.5 and 5.6.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

from hsmbridge._binding import binding_call
from hsmbridge.codes import CKA, CKF, CKO, CKR, ckr_name
from hsmbridge.errors import LoginError
from hsmbridge.objects import Object
from hsmbridge.sessions import SessionPool
from hsmbridge.template import PackedTemplate, Template

if TYPE_CHECKING:
    from pkcs11 import Slot as BindingSlot
    from pkcs11 import Token as BindingToken

    from hsmbridge.module import Module
    from hsmbridge.pin import Pin
    from hsmbridge.uri import Pkcs11Uri

__all__ = ["Token"]

_CKU_USER = 1


class Token:
    """One token in one slot. Made by :meth:`hsmbridge.module.Module.tokens`.

    Attributes:
        label: CK_TOKEN_INFO.label; serial (bytes), model and manufacturer likewise, all without padding.
        flags: CK_TOKEN_INFO.flags as a number.
        sessions: the pool through which every operation goes.
    """

    def __init__(self, module: Module, slot: BindingSlot, info: BindingToken) -> None:
        self.module = module
        self.calls = module.calls
        self._slot = slot
        self.slot_id: int = slot.slot_id
        self.slot_description: str = slot.slot_description
        self.label: str = info.label
        self.serial: bytes = info.serial
        self.model: str = info.model
        self.manufacturer: str = info.manufacturer_id
        self.firmware_version: tuple[int, int] = info.firmware_version
        self.flags = int(info.flags)
        self.sessions = SessionPool(info, module.check_process)
        self.closed = False
        self.logged_in = False
        self._login_lock = threading.Lock()
        self._objects: weakref.WeakValueDictionary[int, Object] = weakref.WeakValueDictionary()
        self._objects_lock = threading.Lock()

    @property
    def initialized(self) -> bool:
        """CKF_TOKEN_INITIALIZED."""
        return bool(self.flags & CKF.TOKEN_INITIALIZED)

    @property
    def has_pin_pad(self) -> bool:
        """CKF_PROTECTED_AUTHENTICATION_PATH: the PIN is typed into the token, not into us."""
        return bool(self.flags & CKF.TOKEN_PROTECTED_AUTHENTICATION_PATH)

    def matches(self, uri: Pkcs11Uri) -> bool:
        """Tell whether the token attributes of *uri* fit this token (RFC 7512 section 2.5)."""
        return uri.matches_token(
            label=self.label,
            serial=self.serial.decode("utf-8", "replace"),
            manufacturer=self.manufacturer,
            model=self.model,
        )

    def mechanisms(self) -> frozenset[int]:
        """Return the mechanism numbers that the token lists. A listed mechanism need not work: see the probe."""
        self.module.check_process()
        with binding_call("C_GetMechanismList"):
            return frozenset(int(mechanism) for mechanism in self._slot.get_mechanisms())

    def login(self, pin: Pin | str | None) -> None:
        """Log the user in for this process, once; the login lasts until :meth:`close`.

        Args:
            pin: the user PIN, or None for the token's PIN pad.

        Raises:
            LoginError: wrong, locked or missing PIN, or one that would now be the last try. It is never tried twice.
        """
        with self._login_lock:
            if self.logged_in:
                return
            if self.flags & CKF.TOKEN_USER_PIN_LOCKED:
                raise LoginError("the user PIN is locked", hint="the security officer (SO) must unlock it")
            if self.flags & CKF.TOKEN_USER_PIN_FINAL_TRY:
                raise LoginError(
                    f"one more wrong PIN would lock token {self.label!r}; not tried",
                    hint="log in once with the vendor's own tool and the right PIN: that resets the counter",
                )
            secret = None if pin is None else (pin if isinstance(pin, str) else pin.reveal()).encode()
            with self.sessions as session:
                ckr = self.calls.login(session, _CKU_USER, secret)
            if ckr not in (CKR.OK, CKR.USER_ALREADY_LOGGED_IN):
                raise LoginError(
                    f"login to token {self.label!r} failed: {ckr_name(ckr)}", ckr=ckr, hint=_login_hint(ckr)
                )
            self.logged_in = True

    def adopt(self, handle: int) -> Object:
        """Return the one :class:`Object` of this process that stands for *handle*.

        One object for one handle, so that a destroyed handle is dead for everybody who holds it.
        """
        known = self._objects.get(handle)
        if known is not None:
            return known
        with self._objects_lock:
            known = self._objects.get(handle)
            if known is None:
                known = self._objects[handle] = Object(self, handle)
            return known

    def forget(self, handle: int) -> None:
        """Forget a destroyed object, so that a new one may come back under the same handle (openCryptoki does that)."""
        with self._objects_lock:
            self._objects.pop(handle, None)

    def find(self, template: Template) -> list[Object]:
        """Return all objects that match *template* and that the current login shows."""
        return [self.adopt(handle) for handle in self.handles(template)]

    def handles(self, template: Template) -> list[int]:
        """Return the handles of all matching objects, to be counted or compared; use :meth:`find` to work with them."""
        with self.sessions as session:
            return self.calls.find_objects(session, PackedTemplate(template))

    def keys(self) -> list[Object]:
        """Return all secret, private and public keys that the current login shows."""
        return [
            key for kind in (CKO.SECRET_KEY, CKO.PRIVATE_KEY, CKO.PUBLIC_KEY) for key in self.find({CKA.CLASS: kind})
        ]

    def close(self) -> None:
        """Close all sessions.

        Session objects made here die with them; objects of this token are unusable afterwards.
        """
        self.closed = True
        self.logged_in = False
        self.sessions.close()

    def __repr__(self) -> str:
        return f"<Token {self.label!r} in slot {self.slot_id} of {self.module.path}>"


def _login_hint(ckr: int) -> str:
    if ckr == CKR.PIN_LOCKED:
        return "the security officer (SO) must unlock the PIN"
    if ckr in (CKR.PIN_INCORRECT, CKR.PIN_INVALID, CKR.PIN_LEN_RANGE):
        return "it was tried once and is not tried again; check the PIN before the token locks"
    if ckr == CKR.USER_PIN_NOT_INITIALIZED:
        return "the security officer (SO) must set the user PIN first"
    return "look at the token with `hsmbridge doctor`"
