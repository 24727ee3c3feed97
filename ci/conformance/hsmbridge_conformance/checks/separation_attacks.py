"""Separation, continued: known attacks on PKCS#11's wrapping functions, each tried against hsmbridge on this module.

Source: Clulow, "On the Security of PKCS#11" (CHES 2003); Bortolozzo, Centenaro, Focardi and Steel, "Attacking and
Fixing PKCS#11 Security Tokens" (CCS 2010).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from hsmbridge_csp.blob import Blob
from hsmbridge_csp.sealing import open_blob
from hsmbridge_csp.token_key import TokenKey

from hsmbridge.codes import CKA, CKK, CKO
from hsmbridge.destruction import Ours
from hsmbridge.dialects import Dialect
from hsmbridge.errors import InputError, KekError, Pkcs11Error, PolicyError
from hsmbridge.keyrequest import KeyRequest
from hsmbridge.probe import probe
from hsmbridge.template import PackedTemplate
from hsmbridge.unwrapping import unwrap
from hsmbridge.wrapping import Wrapper, wrap
from hsmbridge_conformance.catalogue import check
from hsmbridge_conformance.forging import sealed_by_hand
from hsmbridge_conformance.handing import must_refuse, must_work, provider, recipient, without_call
from hsmbridge_conformance.keymaking import usage
from hsmbridge_conformance.verdict import Failed, Level, Subject, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hsmbridge.objects import Object
    from hsmbridge.template import Template
    from hsmbridge_conformance.rig import Rig

__all__: list[str] = []


def _dialect(rig: Rig) -> Dialect:
    """Return a format in which AES KEKs wrap here.

    Raises:
        Unsupported: there is none.
    """
    found = next((one for one in (Dialect.AES_KWP, Dialect.AES_KW) if probe(rig.token).has(one)), None)
    if found is None:
        raise Unsupported("the module has neither RFC 3394 nor RFC 5649")
    return found


@check("HSB-SEP-006", subject=Subject.TOOLKIT, level=Level.MUST, clauses="HSB U")
def same_attributes_again(rig: Rig, case: None) -> None:
    """A key comes back with the attributes that it had, and with no ability that it had not.

    The attack unwraps a sensitive key once more with CKA_SENSITIVE=false, or as a KEK. A sensitive key that may encrypt
    and nothing else is exported and imported by the provider; the new object must be sensitive, and each of its usage
    flags as before. The receiver has no say in it: the attributes come from the authenticated record.
    """
    del case
    to, sender = recipient(rig), provider(rig)
    key = rig.make("aes:256", usage(CKA.ENCRYPT))
    with must_work("a key did not come back"):
        arrived = sender.import_key(sender.export_key(sender.adopt(key), to.sealer), to.opener)
    if not isinstance(arrived, TokenKey):
        raise Failed(f"a key of the token came back as {type(arrived).__name__}")
    copy = rig.ours.take(arrived.object)
    for kind in (CKA.SENSITIVE, CKA.EXTRACTABLE, *usage()):
        if rig.attribute(copy, CKA(kind)) != rig.attribute(key, CKA(kind)):
            raise Failed(f"CKA_{CKA(kind).name} of the key that came back differs")


def _ways(rig: Rig) -> Iterable[str]:
    del rig
    return ("C_SetAttributeValue", "C_CopyObject")


@check("HSB-SEP-007", subject=Subject.TOOLKIT, level=Level.MUST, clauses="HSB", cases=_ways)
def kek_changed_meanwhile(rig: Rig, way: str) -> None:
    """A KEK is looked at again right before each use.

    A safe KEK wraps a key; then it, or a copy of it, is given CKA_DECRYPT. Where the module allows that, the next wrap
    under it must be refused before C_WrapKey, though the same wrapper was content a moment ago.
    """
    kek, key = rig.make_kek(), rig.make("aes:256")
    wrapper = Wrapper(kek, _dialect(rig))
    with must_work("a wrap under a safe KEK failed"):
        wrapper.wrap(key)
        wrapper.wrap(key)
    try:
        if way == "C_SetAttributeValue":
            kek.set({CKA.DECRYPT: True})
        else:
            kek = _copy(rig, kek, {CKA.DECRYPT: True})
            wrapper = Wrapper(kek, _dialect(rig))
    except Pkcs11Error as error:
        raise Unsupported(f"the module does not let a KEK be changed so: {error}") from None
    if rig.attribute(kek, CKA.DECRYPT) is not True:
        raise Unsupported(f"{way} answered CKR_OK and changed nothing")
    with without_call(rig, "C_WrapKey"):
        must_refuse("a KEK that had been given DECRYPT wrapped a key", KekError, lambda: wrapper.wrap(key))


def _copy(rig: Rig, key: Object, template: Template) -> Object:
    with rig.token.sessions as session:
        return rig.adopt(rig.calls.copy_object(session, key.handle, PackedTemplate(rig.named(template))))


_CONFUSIONS = {
    "aes-as-des3": ("aes:256", CKK.DES3, None),
    "aes-256-as-aes-128": ("aes:256", CKK.AES, 16),
    "aes-256-as-generic:16": ("aes:256", CKK.GENERIC_SECRET, 16),
    "aes-128-as-aes-256": ("aes:128", CKK.AES, 32),
}
"""What is wrapped, and what it is said to be."""


def _confusions(rig: Rig) -> Iterable[str]:
    del rig
    return _CONFUSIONS


@check("HSB-SEP-008", subject=Subject.TOOLKIT, level=Level.MUST, clauses="HSB U", cases=_confusions)
def other_type_or_length(rig: Rig, confusion: str) -> None:
    """A wrapped key is not taken for one of another type or length.

    Some modules make a DES3 key of 32 bytes, or cut a key down to the length that the caller names: half a key is soon
    found. A bare wrap is unwrapped as what it cannot be, and a blob from a sender who is believed says the same of the
    key inside. Both must be refused before the module sees the wrapped key, and leave nothing behind.
    """
    spec, key_type, size = _CONFUSIONS[confusion]
    kek, dialect = rig.make_kek(), _dialect(rig)
    key = rig.make(spec, usage(CKA.ENCRYPT))
    with must_work("the wrap failed"):
        wrapped = wrap(key, kek, dialect).data
    there = rig.inventory()
    request = KeyRequest(cls=CKO.SECRET_KEY, key_type=key_type, template={CKA.SENSITIVE: True}, size=size)
    with without_call(rig, "C_UnwrapKey"):
        must_refuse(f"{confusion}: unwrapped", InputError, lambda: unwrap(kek, wrapped, request, dialect))
    to, sender = recipient(rig), provider(rig)
    with must_work("the export failed"), Ours(rig.token) as ours:
        blob = Blob.parse(sender.export_key(sender.adopt(key), to.sealer))
        record = open_blob(blob, to.opener, ours)
    if record.captured is None:
        raise Failed("a key of the token went without its attributes")
    lie = replace(record, captured=replace(record.captured, key_type=key_type, size=size))
    data = sealed_by_hand(rig, to, blob, lie.encode(), changed=(blob.header, blob.encrypted.protected))
    attempt = partial(sender.import_key, data, to.opener)
    must_refuse(f"{confusion}: imported", (InputError, PolicyError), attempt)
    if rig.inventory() != there:
        raise Failed("a refused unwrap left an object behind")


def _weak(rig: Rig) -> Iterable[str]:
    del rig
    return ("aes:128", "rsa:2048")


@check("HSB-SEP-009", subject=Subject.TOOLKIT, level=Level.MUST, clauses="HSB", cases=_weak)
def weak_kek_refused(rig: Rig, spec: str) -> None:
    """A strong key is not wrapped under a weak KEK.

    An AES-256 key is to be wrapped under AES-128, and under RSA-2048. Modules do it (see HSB-WRAP-008); hsmbridge must
    refuse before C_WrapKey: a key is worth no more than what it was wrapped under.
    """
    key = rig.make("aes:256")
    if spec.startswith("aes"):
        kek = rig.make_kek(spec=spec)
    else:
        flags: Template = {CKA.DECRYPT: False, CKA.SIGN: False, CKA.UNWRAP: True, CKA.EXTRACTABLE: False}
        kek = rig.make_pair(spec, flags, {CKA.ENCRYPT: False, CKA.VERIFY: False, CKA.WRAP: True})[0]
    with without_call(rig, "C_WrapKey"):
        must_refuse(f"AES-256 was wrapped under {spec}", KekError, lambda: wrap(key, kek))


@check("HSB-SEP-010", subject=Subject.TOOLKIT, level=Level.MUST, clauses="HSB SK")
def trusted_kek_only(rig: Rig, case: None) -> None:
    """A key with CKA_WRAP_WITH_TRUSTED goes under a trusted KEK only, whatever the module would do.

    Such a key is to be wrapped under a KEK without CKA_TRUSTED, bare and in a blob. Some modules keep the attribute and
    ignore it (see HSB-WRAP-006); hsmbridge must refuse before C_WrapKey reaches the key.
    """
    del case
    key = rig.make("aes:256", {**usage(CKA.ENCRYPT), CKA.WRAP_WITH_TRUSTED: True})
    if rig.attribute(key, CKA.WRAP_WITH_TRUSTED) is not True:
        raise Unsupported("the module does not keep CKA_WRAP_WITH_TRUSTED")
    kek = rig.make_kek()
    with without_call(rig, "C_WrapKey"):
        must_refuse("a key was wrapped under a KEK that is not trusted", KekError, lambda: wrap(key, kek))
    to, sender = recipient(rig), provider(rig)
    export = partial(sender.export_key, sender.adopt(key), to.sealer)
    with without_call(rig, "C_WrapKey"):
        must_refuse("a key was exported under a KEK that is not trusted", KekError, export)
