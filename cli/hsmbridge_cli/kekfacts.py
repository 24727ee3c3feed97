"""What there is to know about a KEK before anything is entrusted to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hsmbridge.attributes import AttributeQuery
from hsmbridge.codes import CKA, CKO
from hsmbridge.errors import HsmbridgeError, KekError
from hsmbridge.generation import enforces_unwrap_template, kek_fingerprint
from hsmbridge.kek import Purpose, check_kek

if TYPE_CHECKING:
    from hsmbridge.objects import Object

__all__ = ["READABLE", "KekFacts", "examine_kek"]

READABLE = "whoever may log in can read what this KEK wrapped"
"""What is said of a KEK that can unwrap and does not demand, or is not made to demand, that keys stay hidden."""

_QUERY = AttributeQuery((CKA.CLASS, CKA.WRAP, CKA.UNWRAP, CKA.UNWRAP_TEMPLATE))


@dataclass(frozen=True, slots=True, kw_only=True)
class KekFacts:
    """A KEK, examined.

    Attributes:
        fingerprint: what names it in a blob, in hexadecimal digits; None where it cannot be computed.
        no_fingerprint: why not.
        strength: bits, None where the token does not tell or the KEK was refused.
        hides: CKA_UNWRAP_TEMPLATE makes every key that it unwraps sensitive and not extractable.
        enforced: and the token sees to that; tried, not believed.
        unwraps: it can unwrap at all.
        complaints: why `wrap` and `unwrap` would refuse it, or only with --allow-unsafe-kek.
    """

    fingerprint: str | None
    no_fingerprint: str
    strength: int | None
    hides: bool
    enforced: bool
    unwraps: bool
    complaints: tuple[str, ...]

    @property
    def readable(self) -> bool:
        """Whether what it wrapped can be read by whoever may log in."""
        return self.unwraps and not (self.hides and self.enforced)

    def document(self) -> dict[str, object]:
        """Return it JSON-ready."""
        return {
            "fingerprint": self.fingerprint,
            "strength": self.strength,
            "unwrap_template": self.hides,
            "unwrap_template_enforced": self.hides and self.enforced,
            "safe": not self.complaints,
            "complaints": list(self.complaints),
            "warning": READABLE if self.readable else None,
        }


def examine_kek(kek: Object) -> KekFacts:
    """Examine a key that may wrap or unwrap.

    Raises:
        Pkcs11Error: the key is gone.
    """
    found = kek.read(_QUERY)
    template = found.get(CKA.UNWRAP_TEMPLATE)
    hides = (
        isinstance(template, dict) and template.get(CKA.SENSITIVE) is True and template.get(CKA.EXTRACTABLE) is False
    )
    purposes = [
        purpose
        for purpose, flag in ((Purpose.WRAP, CKA.WRAP), (Purpose.UNWRAP, CKA.UNWRAP))
        if found.flag(flag) is True
    ]
    strength, complaints = None, []
    for purpose in purposes:
        try:
            strength = check_kek(kek, purpose).strength
        except KekError as error:
            complaints.append(str(error))
            strength = _strength_all_the_same(kek, purpose) if strength is None else strength
    fingerprint, why = _fingerprint(kek)
    return KekFacts(
        fingerprint=fingerprint,
        no_fingerprint=why,
        strength=strength,
        hides=hides,
        enforced=hides and enforces_unwrap_template(kek.token),
        unwraps=found.flag(CKA.UNWRAP) is True,
        complaints=tuple(dict.fromkeys(complaints)),
    )


def _strength_all_the_same(kek: Object, purpose: Purpose) -> int | None:
    try:
        return check_kek(kek, purpose, allow_unsafe=True).strength
    except KekError:
        return None


def _fingerprint(kek: Object) -> tuple[str | None, str]:
    if kek.identity.cls not in (CKO.SECRET_KEY, CKO.PRIVATE_KEY, CKO.PUBLIC_KEY):
        return None, "not a key"
    try:
        return kek_fingerprint(kek).hex(), ""
    except HsmbridgeError as error:
        return None, str(error)
