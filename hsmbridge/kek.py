"""Key encryption keys: which may be used, how strong they are, and how they are told apart.

Source: docs/wrapping.md; Clulow, "On the Security of PKCS#11" (CHES 2003) for the attacks; NIST SP 800-57 part 1
table 2 for strengths.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from hsmbridge.attributes import AttributeQuery, Attributes
from hsmbridge.codes import CKA, CKK, CKO, CKR, name_of
from hsmbridge.errors import KekError
from hsmbridge.publickeys import ec_curve

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsmbridge.objects import Object
    from hsmbridge.template import Value

__all__ = [
    "KEY_QUERY",
    "UNWRAP_USAGE_QUERY",
    "USAGE_QUERY",
    "KekReport",
    "Purpose",
    "check_kek",
    "check_pair",
    "judge_kek",
    "kek_query",
    "rsa_strength",
    "strength",
]

KEY_QUERY = AttributeQuery((CKA.CLASS, CKA.KEY_TYPE, CKA.VALUE_LEN, CKA.EXTRACTABLE, CKA.WRAP_WITH_TRUSTED))
"""What a key is asked before it is wrapped. All of it exists in every secret key, so one call does."""

USAGE_QUERY = AttributeQuery(
    (CKA.WRAP, CKA.ENCRYPT, CKA.DECRYPT, CKA.SIGN, CKA.VERIFY, CKA.DERIVE, CKA.TRUSTED, CKA.WRAP_TEMPLATE)
)
"""What can change in an AES KEK between two wraps; the rest of what it is asked cannot (PKCS#11 v3.1 section 4.9)."""

UNWRAP_USAGE_QUERY = AttributeQuery(
    (CKA.UNWRAP, CKA.ENCRYPT, CKA.DECRYPT, CKA.SIGN, CKA.VERIFY, CKA.DERIVE, CKA.UNWRAP_TEMPLATE)
)
"""The same between two unwraps."""

_NUMBERS = AttributeQuery((CKA.KEY_TYPE, CKA.MODULUS, CKA.EC_PARAMS))
_SECRET_KEK = AttributeQuery(
    (
        CKA.CLASS, CKA.KEY_TYPE, CKA.VALUE_LEN, CKA.WRAP, CKA.UNWRAP, CKA.ENCRYPT, CKA.DECRYPT, CKA.SIGN, CKA.VERIFY,
        CKA.DERIVE, CKA.TRUSTED, CKA.WRAP_TEMPLATE, CKA.UNWRAP_TEMPLATE,
    )
)  # fmt: skip
_PUBLIC_KEK = AttributeQuery(
    (CKA.CLASS, CKA.KEY_TYPE, CKA.MODULUS, CKA.WRAP, CKA.ENCRYPT, CKA.VERIFY, CKA.TRUSTED, CKA.WRAP_TEMPLATE)
)
_PRIVATE_KEK = AttributeQuery(
    (CKA.CLASS, CKA.KEY_TYPE, CKA.MODULUS, CKA.UNWRAP, CKA.DECRYPT, CKA.SIGN, CKA.DERIVE, CKA.UNWRAP_TEMPLATE)
)
_FORBIDDEN = (CKA.ENCRYPT, CKA.DECRYPT, CKA.SIGN, CKA.VERIFY, CKA.DERIVE)

_FULL_STRENGTH = 256
_RECIPIENT_STRENGTH = 128
"""A public-key KEK must have this much whatever it wraps: RSA-3072 or P-256."""

_RSA_STRENGTH = ((15360, 256), (7680, 192), (4096, 140), (3072, 128), (2048, 112), (1024, 80))
_DES3_STRENGTH = 112


class Purpose(StrEnum):
    """What a KEK is used for."""

    WRAP = "wrap"
    UNWRAP = "unwrap"


@dataclass(frozen=True, slots=True, kw_only=True)
class KekReport:
    """A KEK that passed, and what there is to say about it.

    Attributes:
        key_type: CKK_AES or CKK_RSA.
        strength: bits, or None where the token does not tell.
        modulus: of an RSA key, else 0.
        trusted: CKA_TRUSTED.
        template: CKA_WRAP_TEMPLATE or CKA_UNWRAP_TEMPLATE, empty where there is none.
        warnings: what ``allow_unsafe`` let pass, for the user and the record.
    """

    key_type: int
    strength: int | None
    modulus: int
    trusted: bool
    template: Mapping[int, Value]
    warnings: tuple[str, ...]

    @property
    def modulus_size(self) -> int:
        """Bytes of the modulus: the length of an RSA-OAEP wrap."""
        return (self.modulus.bit_length() + 7) // 8


def strength(found: Attributes) -> int | None:
    """Return the security strength of a key in bits, from its attributes.

    A secret longer than 256 bits counts as 256: nothing wraps it better than AES-256.

    Returns: None where the token does not tell the length (SoftHSM says 0 for unwrapped keys).
    """
    key_type = found.number(CKA.KEY_TYPE)
    if key_type in (CKK.DES3, CKK.DES2):
        return _DES3_STRENGTH
    if key_type == CKK.RSA:
        bits = int.from_bytes(found.data(CKA.MODULUS), "big").bit_length()
        return rsa_strength(bits) if bits else None
    if key_type == CKK.EC:
        return min(ec_curve(found.data(CKA.EC_PARAMS)).key_size // 2, _FULL_STRENGTH)
    if key_type == CKK.EC_EDWARDS:
        return _RECIPIENT_STRENGTH
    length = found.number(CKA.VALUE_LEN)
    return min(8 * length, _FULL_STRENGTH) if length else None


def rsa_strength(bits: int) -> int:
    """Return the security strength of an RSA modulus, in bits (SP 800-57 part 1 table 2; RSA-4096 in between)."""
    return next((value for size, value in _RSA_STRENGTH if bits >= size), 0)


def check_kek(kek: Object, purpose: Purpose, *, allow_unsafe: bool = False) -> KekReport:
    """Look at a KEK right before it is used.

    Args:
        kek: a secret key, an RSA public key (wrap) or an RSA private key (unwrap).
        purpose: what it shall do now.
        allow_unsafe: let a KEK pass that may do more than wrapping; the report carries the warning.

    Raises:
        KekError: wrong class or type, not allowed to do this, or able to do more than wrap and unwrap.
    """
    return judge_kek(kek, purpose, kek.read(kek_query(kek, purpose)), allow_unsafe=allow_unsafe)


def judge_kek(kek: Object, purpose: Purpose, found: Attributes, *, allow_unsafe: bool = False) -> KekReport:
    """Judge what a KEK has answered to :func:`kek_query`; arguments and errors as :func:`check_kek`."""
    name = str(kek.identity)
    flag = CKA.WRAP if purpose is Purpose.WRAP else CKA.UNWRAP
    if found.flag(flag) is not True:
        raise KekError(f"{name} may not {purpose}: CKA_{flag.name} is not true", hint=_MAKE_ONE)
    warnings: tuple[str, ...] = ()
    also = [kind.name for kind in _FORBIDDEN if found.flag(kind) or kind in found.unreadable]
    if also:
        warnings += (f"{name} may also {', '.join(also)}: whoever may use it can read or forge what it wraps",)
    kind = CKA.WRAP_TEMPLATE if purpose is Purpose.WRAP else CKA.UNWRAP_TEMPLATE
    if found.unreadable.get(kind, CKR.ATTRIBUTE_TYPE_INVALID) != CKR.ATTRIBUTE_TYPE_INVALID:
        warnings += (f"{name} has a CKA_{kind.name} that the token does not show, so it cannot be obeyed",)
    if warnings and not allow_unsafe:
        raise KekError("; ".join(warnings), hint=f"{_MAKE_ONE}; --allow-unsafe-kek takes this one all the same")
    template = found.get(kind)
    return KekReport(
        key_type=found.number(CKA.KEY_TYPE) or CKK.RSA,
        strength=strength(found),
        modulus=int.from_bytes(found.data(CKA.MODULUS), "big"),
        trusted=found.flag(CKA.TRUSTED) is True,
        template=template if isinstance(template, dict) else {},
        warnings=warnings,
    )


_MAKE_ONE = "make a safe KEK with `hsmbridge key generate --kek`"


def kek_query(kek: Object, purpose: Purpose) -> AttributeQuery:
    """Return what a KEK is asked before it is used.

    Raises:
        KekError: it is of no kind that could do this.
    """
    cls, key_type = kek.identity.cls, kek.identity.key_type
    if cls == CKO.SECRET_KEY and key_type == CKK.AES:
        return _SECRET_KEK
    if key_type == CKK.RSA and cls == CKO.PUBLIC_KEY and purpose is Purpose.WRAP:
        return _PUBLIC_KEK
    if key_type == CKK.RSA and cls == CKO.PRIVATE_KEY and purpose is Purpose.UNWRAP:
        return _PRIVATE_KEK
    raise KekError(
        f"{kek.identity} cannot {purpose} keys",
        hint="an AES key wraps and unwraps; an RSA public key wraps, its private key unwraps",
    )


def check_pair(kek: KekReport, key: Object, found: Attributes, *, allow_unsafe: bool = False) -> tuple[str, ...]:
    """Check one key against the KEK that shall wrap it.

    Args:
        kek: the report of :func:`check_kek`.
        key: the key.
        found: its attributes, read with :data:`KEY_QUERY`.
        allow_unsafe: let a weaker KEK pass with a warning.

    Returns: warnings.

    Raises:
        KekError: the KEK is weaker than the key, not trusted enough, or its CKA_WRAP_TEMPLATE excludes the key.
    """
    if found.flag(CKA.WRAP_WITH_TRUSTED) and not kek.trusted:
        raise KekError(
            f"{key.identity} has CKA_WRAP_WITH_TRUSTED, and the KEK is not CKA_TRUSTED",
            hint="only the security officer (SO) can mark a KEK as trusted",
        )
    if kek.template:
        _check_template(kek.template, key)
    needed = strength(found if found.number(CKA.CLASS) == CKO.SECRET_KEY else key.read(_NUMBERS))
    if kek.key_type == CKK.RSA:
        needed = _RECIPIENT_STRENGTH
    if needed is None:
        needed = _FULL_STRENGTH  # the token does not tell, so the key may be the strongest there is
    if kek.strength is not None and kek.strength >= needed:
        return ()
    have = "unknown strength" if kek.strength is None else f"{kek.strength} bits"
    why = f"a KEK of {have} is weaker than {key.identity} needs ({needed} bits)"
    if not allow_unsafe:
        raise KekError(why, hint="use AES-256, or RSA of 3072 bits or more; --allow-unsafe-kek overrides")
    return (why,)


def _check_template(template: Mapping[int, Value], key: Object) -> None:
    """Hold a key against CKA_WRAP_TEMPLATE; what the key does not answer does not match."""
    found = key.read(AttributeQuery(tuple(template)))
    for kind, wanted in template.items():
        if kind not in found or found[kind] != wanted:
            raise KekError(
                f"the KEK's CKA_WRAP_TEMPLATE excludes {key.identity}: {name_of(CKA, kind)} differs",
                hint="use a KEK that is meant for this key",
            )
