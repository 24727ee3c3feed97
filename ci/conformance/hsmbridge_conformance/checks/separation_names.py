"""Separation, continued: names that an attacker gives to keys of his own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from hsmbridge_csp.recipient_rsa import RsaSealer

from hsmbridge.codes import CKA
from hsmbridge.errors import KekError, NotFoundError
from hsmbridge.publickeys import public_key_of
from hsmbridge_conformance.catalogue import check
from hsmbridge_conformance.handing import must_refuse, must_work, provider, recipient, without_call
from hsmbridge_conformance.keymaking import usage
from hsmbridge_conformance.otherside import SoftwareKek
from hsmbridge_conformance.verdict import Failed, Level, Subject, Unsupported

if TYPE_CHECKING:
    from hsmbridge.objects import Object
    from hsmbridge.template import Template
    from hsmbridge_conformance.rig import Rig

__all__: list[str] = []


@check("HSB-SEP-011", subject=Subject.TOOLKIT, level=Level.MUST, clauses="HSB")
def trojan_public_key(rig: Rig, case: None) -> None:
    """A public key that an attacker has put into the token is not the recipient's.

    A recipient's RSA key is known by its fingerprint. The token holds another public key under the name that the
    recipient's has there: one whose private half is outside. Sealing for the recipient with that object as the
    wrapping key must be refused before C_WrapKey, for whoever has the private half would read every key.
    """
    del case
    public = _pair(rig)
    recipient_key = public_key_of(public)
    if not isinstance(recipient_key, RSAPublicKey):
        raise Unsupported("the module does not give the numbers of an RSA public key")
    with must_work("the recipient's own key was refused"):
        RsaSealer(recipient_key, public)
    name: Template = {CKA.ID: public.identity.id, CKA.LABEL: public.identity.label}
    trojan = SoftwareKek(is_rsa=True).wrapping_object(rig, {**name, CKA.ENCRYPT: False, CKA.VERIFY: False})
    with without_call(rig, "C_WrapKey"):
        must_refuse(
            "a key of the same name was taken for the recipient's", KekError, lambda: RsaSealer(recipient_key, trojan)
        )


def _pair(rig: Rig) -> Object:
    private: Template = {CKA.DECRYPT: False, CKA.SIGN: False, CKA.UNWRAP: True, CKA.EXTRACTABLE: False}
    return rig.make_pair("rsa:3072", private, {CKA.ENCRYPT: False, CKA.VERIFY: False, CKA.WRAP: True})[0]


@check("HSB-SEP-012", subject=Subject.TOOLKIT, level=Level.MUST, clauses="HSB")
def key_swapped_behind_reference(rig: Rig, case: None) -> None:
    """A key that stays in its token is recognised, not just found by its name.

    A token object is exported by reference. It is then removed, and another key with the same type, CKA_ID and
    CKA_LABEL is put in its place. The import must not take that for the key that was meant.
    """
    del case
    to, sender = recipient(rig), provider(rig)
    template: Template = {CKA.TOKEN: True, **usage(CKA.ENCRYPT, CKA.DECRYPT)}
    key = rig.make("aes:256", template)
    name = key.identity
    with must_work("a key did not go by reference"):
        blob = sender.export_key(sender.adopt(key), to.sealer, by_reference=True)
        found = sender.import_key(blob, to.opener)
    if getattr(found, "object", None) is not key:
        raise Failed("a key that went by reference was not found again")
    rig.ours.remove(key)
    must_refuse("a key was found that had been removed", NotFoundError, lambda: sender.import_key(blob, to.opener))
    swapped = rig.make("aes:256", {**template, CKA.ID: name.id, CKA.LABEL: name.label})
    if swapped.read_identity() != name:
        raise Unsupported("the module does not give a second key the name of the first")
    must_refuse(
        "another key of the same name was taken for the one that was meant",
        NotFoundError,
        lambda: sender.import_key(blob, to.opener),
    )
