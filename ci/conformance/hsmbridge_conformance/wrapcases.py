"""The wrapping mechanisms that a module has: those that do something when they are tried.

Capabilities are never believed from a list or a flag (SoftHSM leaves the flags of CKM_AES_CBC_PAD to chance), and
nothing is assumed about what a mechanism writes: that is for the checks to find out.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hsmbridge.codes import CKA, CKK, CKM, CKO, name_of
from hsmbridge.dialects import Dialect
from hsmbridge.errors import HsmbridgeError, Pkcs11Error
from hsmbridge.mechanism import Mechanism, oaep, rsa_aes_key_wrap
from hsmbridge_conformance.journal import GivenUp
from hsmbridge_conformance.verdict import Failed, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsmbridge.objects import Object
    from hsmbridge.template import Value
    from hsmbridge_conformance.rig import Rig

__all__ = ["ALL_CASES", "WrapCase", "wrap_cases"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WrapCase:
    """A wrapping mechanism, with its parameter.

    Attributes:
        name: as in reports, without blanks.
        mechanism: ready to be called.
        rsa: the wrapping key is an RSA pair, not an AES key.
        integrity: the format notices changes; AES-CBC does not.
        listed: the mechanism number that the module must list.
    """

    name: str
    mechanism: Mechanism
    rsa: bool
    integrity: bool
    listed: CKM

    def __str__(self) -> str:
        return self.name

    def make_kek(self, rig: Rig, **flags: bool) -> tuple[Object, Object]:
        """Make a session KEK for this mechanism.

        Args:
            rig: the worker's means.
            flags: ``WRAP=False`` and the like: attributes of the half that has them.

        Returns: the key that wraps and the key that unwraps; for AES they are one.

        Raises:
            Unsupported: the module makes no such key.
        """
        changed: dict[int, Value] = {CKA[name]: value for name, value in flags.items()}
        if not self.rsa:
            kek = rig.make_kek(changed)
            return kek, kek
        private: dict[int, Value] = {CKA.DECRYPT: False, CKA.SIGN: False, CKA.UNWRAP: True, CKA.EXTRACTABLE: False}
        public: dict[int, Value] = {CKA.ENCRYPT: False, CKA.VERIFY: False, CKA.WRAP: True}
        return rig.make_pair(
            f"rsa:{_RSA_BITS}",
            private | {kind: value for kind, value in changed.items() if kind == CKA.UNWRAP},
            public | {kind: value for kind, value in changed.items() if kind in (CKA.WRAP, CKA.TRUSTED)},
        )


_RSA_BITS = 2048
"""The suite's own pairs live for one check: large enough for every module, and quick to make."""


def _aes(number: CKM, *, integrity: bool = True, parameter: bytes | None = None) -> WrapCase:
    return WrapCase(
        name=name_of(CKM, number),
        mechanism=Mechanism(number, parameter),
        rsa=False,
        integrity=integrity,
        listed=number,
    )


def _rsa(number: CKM, make: Callable[[CKM], Mechanism], digest: CKM) -> WrapCase:
    name = f"{name_of(CKM, number)}+{name_of(CKM, digest).removeprefix('CKM_')}"
    return WrapCase(name=name, mechanism=make(digest), rsa=True, integrity=True, listed=number)


ALL_CASES = (
    _aes(CKM.AES_KEY_WRAP),
    _aes(CKM.AES_KEY_WRAP_PAD),
    _aes(CKM.AES_KEY_WRAP_KWP),
    _aes(CKM.AES_KEY_WRAP_PKCS7),
    _aes(CKM.AES_CBC_PAD, integrity=False, parameter=bytes(16)),
    _rsa(CKM.RSA_PKCS_OAEP, oaep, CKM.SHA_1),
    _rsa(CKM.RSA_PKCS_OAEP, oaep, CKM.SHA256),
    _rsa(CKM.RSA_AES_KEY_WRAP, rsa_aes_key_wrap, CKM.SHA_1),
    _rsa(CKM.RSA_AES_KEY_WRAP, rsa_aes_key_wrap, CKM.SHA256),
)
"""Every mechanism under which hsmbridge would let a key travel, and CBC, which it uses inside its envelope only."""

AES_DIALECTS = {CKM.AES_KEY_WRAP: Dialect.AES_KW, CKM.AES_KEY_WRAP_KWP: Dialect.AES_KWP}
"""What the specification says that a number means; 0x210A has three meanings in the field."""


def wrap_cases(rig: Rig, *, unwrap: bool) -> list[WrapCase]:
    """Try every mechanism once and return those that answer CKR_OK, right or wrong.

    A module that crashes or hangs when a mechanism is tried has it too: the checks say what became of it.

    Args:
        rig: the worker's means.
        unwrap: try C_UnwrapKey as well as C_WrapKey.
    """
    listed = rig.token.mechanisms()
    return [case for case in ALL_CASES if case.listed in listed and is_usable(rig, case, unwrap=unwrap)]


def is_usable(rig: Rig, case: WrapCase, *, unwrap: bool) -> bool:
    """Wrap a session key, and unwrap it again where that is asked for."""
    if case.name in rig.deadly:
        return True
    wrapped = None
    rig.journal.trying(case.name)
    try:
        with rig.case():
            wrapping, unwrapping = case.make_kek(rig)
            wrapped = rig.wrap(case, wrapping, rig.make("aes:256"))
            if unwrap:
                rig.unwrap(case, unwrapping, wrapped, arriving())
    except GivenUp as outcome:
        rig.deadly[case.name] = str(outcome)
    except Pkcs11Error as error:
        # CKR_OK and a handle that stands for nothing is no inability: what follows an unwrap is for the checks.
        return wrapped is not None and error.function != "C_UnwrapKey"
    except (HsmbridgeError, Unsupported):
        return False
    except Failed:  # an object that does not go, which is for other checks
        return wrapped is not None
    finally:
        rig.journal.trying("")
    return True


def arriving(key_type: CKK = CKK.AES) -> dict[int, bool | int]:
    """Return the smallest template of an unwrap: class and type; the rest is the module's default."""
    return {CKA.CLASS: CKO.SECRET_KEY, CKA.KEY_TYPE: key_type}


def random_id() -> bytes:
    """Return a CKA_ID that is nobody's."""
    return secrets.token_bytes(16)
