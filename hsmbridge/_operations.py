"""The one-shot operations of a key in the token: encrypt, decrypt, sign, verify.

Source: PKCS#11 v3.1 sections 5.8, 5.10, 5.12 and 5.14.
"""

from __future__ import annotations

import ctypes
import logging
from ctypes import byref, c_ulong, c_void_p, create_string_buffer
from typing import TYPE_CHECKING, Any

from hsmbridge.codes import CKR, ckr_name
from hsmbridge.errors import Pkcs11Error
from hsmbridge.observing import current_observer

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsmbridge._ck import CkFunctionList
    from hsmbridge.mechanism import Mechanism

__all__ = ["LOG", "Operations", "bind_function", "check", "check_making"]

LOG = logging.getLogger("hsmbridge")
"""Where the layer reports what it cannot raise: objects that may be left behind."""

LOG.addHandler(logging.NullHandler())

_CRYPT_SLACK = 512
"""Bytes beyond the input that a one-shot operation may return: padding, tag, or an RSA-4096 block."""


def bind_function(functions: CkFunctionList, name: str, *types: Any) -> Callable[..., int]:  # noqa: ANN401 - ctypes
    """Return a function of the module's list as a Python callable; the GIL is released for the time of each call."""
    call: Callable[..., int] = ctypes.CFUNCTYPE(c_ulong, *types)(getattr(functions, name))
    observer = current_observer()
    if observer is None:
        return call

    def observed(*arguments: Any) -> int:  # noqa: ANN401 - whatever the C function takes
        answer = observer.entering(name, arguments)
        return observer.returned(name, call(*arguments) if answer is None else answer)

    return observed


def check(function: str, ckr: int) -> None:
    """Raise for anything but CKR_OK.

    Raises:
        Pkcs11Error: with the function and the number.
    """
    if ckr != CKR.OK:
        raise Pkcs11Error(function, ckr)


def check_making(function: str, ckr: int) -> None:
    """Raise for anything but CKR_OK from a call that makes an object.

    Where the answer speaks of the device, the call can have taken effect all the same: that is reported.

    Raises:
        Pkcs11Error: with the function and the number.
    """
    if ckr != CKR.OK:
        error = Pkcs11Error(function, ckr)
        if error.is_of_device or ckr == CKR.DEVICE_ERROR:
            LOG.warning("an object that %s made may be left: it answered %s", function, ckr_name(ckr))
        raise error


class Operations:
    """Cryptographic operations, each one Init call and one call with all the data.

    Args:
        functions: the module's CK_FUNCTION_LIST.
    """

    def __init__(self, functions: CkFunctionList) -> None:
        ul, ptr = c_ulong, c_void_p
        self._one_shot = {
            verb: (
                bind_function(functions, f"C_{verb}Init", ul, ptr, ul),
                bind_function(functions, f"C_{verb}", ul, ptr, ul, ptr, ptr),
            )
            for verb in ("Encrypt", "Decrypt", "Sign")
        }
        self._verify_init = bind_function(functions, "C_VerifyInit", ul, ptr, ul)
        self._verify = bind_function(functions, "C_Verify", ul, ptr, ul, ptr, ul)

    def encrypt(self, session: int, mechanism: Mechanism, key: int, data: bytes) -> bytes:
        """C_EncryptInit and C_Encrypt."""
        return self._single_part("Encrypt", session, mechanism, key, data)

    def decrypt(self, session: int, mechanism: Mechanism, key: int, data: bytes) -> bytes:
        """C_DecryptInit and C_Decrypt."""
        return self._single_part("Decrypt", session, mechanism, key, data)

    def sign(self, session: int, mechanism: Mechanism, key: int, data: bytes) -> bytes:
        """C_SignInit and C_Sign; a MAC with a secret key."""
        return self._single_part("Sign", session, mechanism, key, data)

    def verify(self, session: int, mechanism: Mechanism, key: int, data: bytes, signature: bytes) -> None:
        """C_VerifyInit and C_Verify.

        Raises:
            Pkcs11Error: CKR_SIGNATURE_INVALID and CKR_SIGNATURE_LEN_RANGE among others.
        """
        check("C_VerifyInit", self._verify_init(session, mechanism.pointer, key))
        check("C_Verify", self._verify(session, data, len(data), signature, len(signature)))

    def _single_part(self, verb: str, session: int, mechanism: Mechanism, key: int, data: bytes) -> bytes:
        init, run = self._one_shot[verb]
        check(f"C_{verb}Init", init(session, mechanism.pointer, key))
        buffer = create_string_buffer(len(data) + _CRYPT_SLACK)
        length = c_ulong(len(buffer))
        check(f"C_{verb}", run(session, data, len(data), buffer, byref(length)))
        return buffer.raw[: length.value]
