"""Key types and sizes by the names that people type.

``aes:256``, ``des3``, ``generic:20``, ``rsa:3072``, ``ec:p-256``, ``ed25519``.

Source: PKCS#11 v3.1 section 6 (key types and their generation mechanisms); RFC 5480 section 2.1.1.1 (curve OIDs).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hsmbridge.codes import CKA, CKK, CKM, CKO
from hsmbridge.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from hsmbridge.template import Value

__all__ = ["KeySpec", "parse_keyspec", "usage_of"]

_CURVES = {
    "p-256": (256, bytes.fromhex("06082a8648ce3d030107")),
    "p-384": (384, bytes.fromhex("06052b81040022")),
    "p-521": (521, bytes.fromhex("06052b81040023")),
}
_ALIASES = {"secp256r1": "p-256", "prime256v1": "p-256", "secp384r1": "p-384", "secp521r1": "p-521"}
_ED25519_PARAMS = b"\x13\x0cedwards25519"
_AES_BITS = (128, 192, 256)
_RSA_BITS = range(2048, 16385)
_GENERIC_BYTES = range(1, 513)

_FORMS = "aes:128|192|256, des3, generic:BYTES, rsa:BITS, ec:p-256|p-384|p-521, ed25519"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySpec:
    """A key type with its size.

    Attributes:
        key_type: CKK_.
        bits: size; 0 where the type says it all or the size is not known yet.
        ec_params: CKA_EC_PARAMS for curves.
    """

    key_type: CKK
    bits: int = 0
    ec_params: bytes = b""

    @property
    def is_pair(self) -> bool:
        """Whether this is a private key with a public half."""
        return self.key_type in (CKK.RSA, CKK.EC, CKK.EC_EDWARDS)

    @property
    def cls(self) -> CKO:
        """CKO_PRIVATE_KEY or CKO_SECRET_KEY."""
        return CKO.PRIVATE_KEY if self.is_pair else CKO.SECRET_KEY

    @property
    def has_length(self) -> bool:
        """Whether CKA_VALUE_LEN goes into a generation template."""
        return self.key_type in (CKK.AES, CKK.GENERIC_SECRET)

    @property
    def generation(self) -> CKM:
        """The mechanism that generates it."""
        return {
            CKK.AES: CKM.AES_KEY_GEN,
            CKK.DES3: CKM.DES3_KEY_GEN,
            CKK.GENERIC_SECRET: CKM.GENERIC_SECRET_KEY_GEN,
            CKK.RSA: CKM.RSA_PKCS_KEY_PAIR_GEN,
            CKK.EC: CKM.EC_KEY_PAIR_GEN,
            CKK.EC_EDWARDS: CKM.EC_EDWARDS_KEY_PAIR_GEN,
        }[self.key_type]

    def __str__(self) -> str:
        if self.key_type == CKK.GENERIC_SECRET:
            return f"generic:{self.bits // 8}" if self.bits else "generic"
        if self.key_type == CKK.EC_EDWARDS:
            return "ed25519"
        curve = next((name for name, (_, params) in _CURVES.items() if params == self.ec_params), None)
        if curve:
            return f"ec:{curve}"
        name = self.key_type.name.lower()
        return f"{name}:{self.bits}" if self.bits and self.key_type != CKK.DES3 else name


def parse_keyspec(text: str) -> KeySpec:
    """Parse a key type; the size may be left out where it is not needed (an unwrap).

    Raises:
        UsageError: not one of the known forms.
    """
    name, _, size = text.strip().lower().partition(":")
    try:
        spec = _parse(name, size)
    except ValueError:
        spec = None
    if spec is None:
        raise UsageError(f"{text!r} is not a key type", hint=f"use one of: {_FORMS}")
    return spec


def _parse(name: str, size: str) -> KeySpec | None:
    if name in _FIXED:
        return None if size else _FIXED[name]
    if name == "ec":
        bits, params = _CURVES.get(_ALIASES.get(size, size), (0, b""))
        return KeySpec(key_type=CKK.EC, bits=bits, ec_params=params) if params or not size else None
    if name not in _SIZED:
        return None
    key_type, allowed, unit = _SIZED[name]
    number = int(size) if size else 0
    return KeySpec(key_type=key_type, bits=unit * number) if not size or number in allowed else None


_FIXED = {
    "des3": KeySpec(key_type=CKK.DES3, bits=192),
    "ed25519": KeySpec(key_type=CKK.EC_EDWARDS, bits=256, ec_params=_ED25519_PARAMS),
}
_SIZED: Mapping[str, tuple[CKK, Collection[int], int]] = {
    "aes": (CKK.AES, _AES_BITS, 1),
    "rsa": (CKK.RSA, _RSA_BITS, 1),
    "generic": (CKK.GENERIC_SECRET, _GENERIC_BYTES, 8),
}
"""Name to key type, allowed numbers, and how many bits one counts."""


def usage_of(spec: KeySpec) -> dict[int, Value]:
    """Return the usage attributes that a key of this type has unless the caller says otherwise.

    Never WRAP or UNWRAP.
    """
    if spec.key_type in (CKK.AES, CKK.DES3):
        on = {CKA.ENCRYPT, CKA.DECRYPT}
    elif spec.key_type == CKK.GENERIC_SECRET:
        on = {CKA.SIGN, CKA.VERIFY}
    else:
        on = {CKA.SIGN}
    every = (
        (CKA.DECRYPT, CKA.SIGN, CKA.UNWRAP, CKA.DERIVE)
        if spec.is_pair
        else (CKA.ENCRYPT, CKA.DECRYPT, CKA.SIGN, CKA.VERIFY, CKA.WRAP, CKA.UNWRAP, CKA.DERIVE)
    )
    return {kind: kind in on for kind in every}
