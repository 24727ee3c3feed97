"""Typed errors of the PKCS#11 layer.

Every error has a one-line message and a ``hint`` that says what to do instead. The five families below are what
callers (and the exit codes of the command line) tell apart; nothing here performs I/O.
"""

from __future__ import annotations

from hsmbridge.codes import CKR, ckr_name

__all__ = [
    "ExistsError",
    "ForkError",
    "HardwareKeyError",
    "HsmbridgeError",
    "InputError",
    "KekError",
    "LengthChangeError",
    "LoginError",
    "MechanismError",
    "ModuleError",
    "NotExtractableError",
    "NotFoundError",
    "Pkcs11Error",
    "PolicyError",
    "ReadBackError",
    "StaleObjectError",
    "TokenError",
    "UnavailableError",
    "UnwrapError",
    "UriError",
    "UsageError",
]


class HsmbridgeError(Exception):
    """Base of all errors that hsmbridge raises on purpose.

    Attributes:
        hint: what the reader can do about it, or None.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class Pkcs11Error(HsmbridgeError):
    """The token refused or failed a call.

    Attributes:
        function: the C function's name, for example ``C_WrapKey``.
        ckr: the CK_RV as a number; vendor codes survive unchanged.

    Source: PKCS#11 v3.1 section 5.1 (function return values).
    """

    def __init__(self, function: str, ckr: int, *, subject: str | None = None, hint: str | None = None) -> None:
        about = f" for {subject}" if subject else ""
        super().__init__(f"{function} failed{about}: {ckr_name(ckr)}", hint=hint or _HINTS.get(ckr))
        self.function = function
        self.ckr = ckr

    @property
    def is_of_device(self) -> bool:
        """Whether the answer speaks of device, session or login, and so says nothing about what was asked."""
        return self.ckr in _OF_DEVICE


_OF_DEVICE = frozenset(
    {
        CKR.DEVICE_REMOVED, CKR.DEVICE_MEMORY, CKR.HOST_MEMORY, CKR.SESSION_HANDLE_INVALID, CKR.SESSION_CLOSED,
        CKR.USER_NOT_LOGGED_IN, CKR.TOKEN_NOT_PRESENT, CKR.CRYPTOKI_NOT_INITIALIZED,
    }
)  # fmt: skip


class ReadBackError(HsmbridgeError):
    """An object in the token is not what was asked for; what was ours has been removed."""


class StaleObjectError(HsmbridgeError):
    """A handle was used after its object had been destroyed; it never reached the module."""


class UnavailableError(HsmbridgeError):
    """The module, the token or the login is not available."""


class ModuleError(UnavailableError):
    """The PKCS#11 module cannot be loaded or initialised."""


class ForkError(ModuleError):
    """The process was forked after C_Initialize; PKCS#11 forbids going on with the parent's sessions."""


class TokenError(UnavailableError):
    """No such token, or more than one."""


class LoginError(UnavailableError):
    """The PIN is missing, wrong or locked. It was tried at most once."""

    def __init__(self, message: str, *, ckr: int | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.ckr = ckr


class InputError(HsmbridgeError):
    """What was given to us is malformed, truncated, oversized or not authentic."""


class UnwrapError(InputError):
    """The token did not accept the wrapped key: damaged, or wrapped under another KEK."""

    def __init__(self, message: str, *, ckr: int | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.ckr = ckr


class UsageError(HsmbridgeError):
    """The request itself makes no sense, whatever the token and the input are."""


class UriError(UsageError):
    """A ``pkcs11:`` URI does not follow RFC 7512, or says two things at once."""


class NotFoundError(UsageError):
    """No object matches, or more than one does."""


class PolicyError(HsmbridgeError):
    """Refused by a rule that protects keys."""


class ExistsError(PolicyError):
    """The token has a key of that class and CKA_ID already; NSS would silently replace it."""


class HardwareKeyError(PolicyError):
    """The key lives in hardware, or may do so: it is never destroyed."""


class KekError(PolicyError):
    """The key that should wrap is not safe, not strong enough, or not allowed for this purpose."""


class NotExtractableError(PolicyError):
    """The key cannot leave the token by value."""


class MechanismError(PolicyError):
    """The mechanism is not on the allow-list, or not usable on this token."""


class LengthChangeError(MechanismError):
    """The mechanism would give the key back with another length."""


_HINTS: dict[int, str] = {
    CKR.PIN_INCORRECT: "the PIN was tried once and is not tried again; check it before the token locks",
    CKR.PIN_LOCKED: "the security officer (SO) must unlock the PIN",
    CKR.KEY_UNEXTRACTABLE: "hand the key over by reference instead",
    CKR.USER_NOT_LOGGED_IN: "give a PIN: --pin-file, pin-source in the URI, or PKCS11_PIN",
    CKR.TOKEN_WRITE_PROTECTED: "the token is read-only",
    CKR.DEVICE_REMOVED: "the token was removed; look with `hsmbridge token ls`",
    CKR.DEVICE_MEMORY: "the token is full",
    CKR.MECHANISM_INVALID: "the token lacks the mechanism; `hsmbridge token show --probe` says what it has",
    CKR.ATTRIBUTE_VALUE_INVALID: "the token forbids an attribute value; in FIPS mode nothing readable is made",
    CKR.TEMPLATE_INCONSISTENT: "the token does not allow these attributes together",
    CKR.KEY_TYPE_INCONSISTENT: "the mechanism needs a key of another type",
    CKR.KEY_FUNCTION_NOT_PERMITTED: "the key's usage attributes do not allow this",
}
