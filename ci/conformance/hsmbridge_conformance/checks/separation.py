"""Separation: a KEK that can do more than wrapping undoes it, and so does a wrap that anybody can change."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from hsmbridge_csp.blob import Blob
from hsmbridge_csp.sealing import open_blob

from hsmbridge.codes import CKA, CKK, CKM, CKO
from hsmbridge.destruction import Ours
from hsmbridge.dialects import Dialect, dialect_named
from hsmbridge.errors import InputError, KekError, MechanismError, Pkcs11Error, PolicyError, UnwrapError
from hsmbridge.keyrequest import KeyRequest
from hsmbridge.mechanism import Mechanism
from hsmbridge.probe import Route, probe
from hsmbridge.unwrapping import unwrap
from hsmbridge.wrapping import wrap
from hsmbridge_conformance.catalogue import check
from hsmbridge_conformance.forging import sealed_by_hand
from hsmbridge_conformance.handing import must_refuse, must_work, provider, recipient, without_call
from hsmbridge_conformance.keymaking import usage
from hsmbridge_conformance.verdict import Failed, Level, Subject, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hsmbridge.objects import Object
    from hsmbridge.template import Template
    from hsmbridge_conformance.rig import Rig
    from hsmbridge_conformance.wrapcases import WrapCase

__all__: list[str] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ability:
    """What a KEK can do besides."""

    rsa: bool
    flag: CKA

    def __str__(self) -> str:
        return f"{'RSA' if self.rsa else 'AES'}/{self.flag.name}"


def _abilities(rig: Rig) -> Iterable[_Ability]:
    del rig
    for flag in (CKA.ENCRYPT, CKA.DECRYPT, CKA.SIGN, CKA.VERIFY, CKA.DERIVE):
        yield _Ability(rsa=False, flag=flag)
    for flag in (CKA.ENCRYPT, CKA.VERIFY, CKA.DECRYPT, CKA.SIGN):
        yield _Ability(rsa=True, flag=flag)


@check("HSB-SEP-001", subject=Subject.TOOLKIT, level=Level.MUST, clauses="HSB", cases=_abilities)
def kek_that_can_do_more(rig: Rig, ability: _Ability) -> None:
    """A KEK that may also encrypt, decrypt, sign, verify or derive is refused.

    Whoever may DECRYPT with a KEK reads what it has wrapped; whoever may ENCRYPT makes a known value into a key. Such
    a KEK is made, where the module makes one, and hsmbridge is asked to wrap under it, or to unwrap: it must refuse
    before C_WrapKey or C_UnwrapKey.
    """
    kek = _able_kek(rig, ability)
    if rig.attribute(kek, ability.flag) is not True:
        raise Unsupported(f"the module makes no KEK that also has CKA_{ability.flag.name}")
    key = rig.make("aes:256")
    request = KeyRequest(cls=CKO.SECRET_KEY, key_type=CKK.AES, template={}, size=32)
    uses: dict[str, Callable[[], object]] = {
        "wrapped": lambda: wrap(key, kek),
        "unwrapped": lambda: unwrap(kek, bytes(256 if ability.rsa else 40), request),
    }
    if ability.rsa:
        del uses["wrapped" if kek.identity.cls == CKO.PRIVATE_KEY else "unwrapped"]
    with without_call(rig, "C_WrapKey", "C_UnwrapKey"):
        for what, use in uses.items():
            error = must_refuse(f"a KEK with {ability.flag.name} {what} a key", KekError, use)
            if ability.flag.name not in str(error):
                raise Failed(f"refused for another reason: {error}")


def _able_kek(rig: Rig, ability: _Ability) -> Object:
    if not ability.rsa:
        return rig.make_kek({ability.flag: True})
    flags: Template = {CKA.DECRYPT: False, CKA.SIGN: False, CKA.UNWRAP: True, CKA.EXTRACTABLE: False}
    public: Template = {CKA.ENCRYPT: False, CKA.VERIFY: False, CKA.WRAP: True}
    half = {CKA.DECRYPT: CKA.ENCRYPT, CKA.SIGN: CKA.VERIFY}.get(ability.flag)
    if half is None:
        return rig.make_pair("rsa:2048", flags, {**public, ability.flag: True})[0]
    return rig.make_pair("rsa:2048", {**flags, ability.flag: True}, {**public, half: True})[1]


def _mechanisms(rig: Rig) -> Iterable[WrapCase]:
    return (case for case in rig.wrap_cases() if not case.rsa)


@check("HSB-SEP-002", subject=Subject.MODULE, level=Level.INFO, clauses="W HSB", cases=_mechanisms)
def token_permits_it(rig: Rig, case: WrapCase) -> str:
    """Does the module permit a KEK that reads what it has wrapped?

    PKCS#11 does not forbid a KEK with CKA_WRAP and CKA_DECRYPT; hsmbridge does. A key is wrapped under one and the
    wrap is decrypted block by block with the same key.
    """
    try:
        kek = rig.make_kek({CKA.DECRYPT: True})
        wrapped = rig.wrap(case, kek, rig.make("aes:256"))
        with rig.token.sessions as session:
            rig.calls.decrypt(session, Mechanism(CKM.AES_ECB), kek.handle, wrapped[: len(wrapped) // 16 * 16])
    except (Pkcs11Error, Unsupported) as error:
        return f"no: {error}"
    return "yes: the KEK wraps a key and decrypts the wrap"


_REFUSED_NAMES = (
    "aes-ecb", "aes-cbc", "aes-cbc-pad", "des3-ecb", "des3-cbc", "rsa-pkcs", "rsa-pkcs1-v1_5", "rsa-x-509",
)  # fmt: skip
_NEVER = frozenset(
    {
        CKM.AES_ECB, CKM.AES_CBC, CKM.AES_CBC_PAD, CKM.DES3_ECB, CKM.DES3_CBC, CKM.DES3_CBC_PAD, CKM.RSA_PKCS,
        CKM.RSA_X_509,
    }
)  # fmt: skip


@check("HSB-SEP-003", subject=Subject.TOOLKIT, level=Level.MUST, clauses="HSB")
def no_malleable_wraps(rig: Rig, case: None) -> str:
    """ECB, CBC and RSA PKCS #1 v1.5 never wrap a key, whoever asks for them.

    Asked for by name, they must be refused. Of everything that hsmbridge finds on this module, no way may lead through
    them, however many the module lists. And a blob from a sender who is believed, whose record names one of them for
    the key inside, must be refused as well, with nothing but the content key unwrapped: a padding oracle needs a
    receiver that tries.
    """
    del case
    for name in _REFUSED_NAMES:
        must_refuse(f"{name} was taken for a wrapping mechanism", MechanismError, partial(dialect_named, name))
    routes = [found for found in probe(rig.token).findings().values() if isinstance(found, Route)]
    used = {CKM(part.mechanism.number) for route in routes for part in (route, route.inner) if part is not None}
    if used & _NEVER:
        raise Failed(f"keys are wrapped with {', '.join(sorted(number.name for number in used & _NEVER))}")
    to, sender = recipient(rig), provider(rig)
    key = sender.adopt(rig.make("aes:256", usage(CKA.ENCRYPT)))
    with must_work("the export failed"), Ours(rig.token) as ours:
        blob = Blob.parse(sender.export_key(key, to.sealer))
        record = open_blob(blob, to.opener, ours)
        before = rig.journal.counted("C_UnwrapKey")
        open_blob(blob, to.opener, ours)
        needed = rig.journal.counted("C_UnwrapKey") - before
    same = (blob.header, blob.encrypted.protected)
    for name in _REFUSED_NAMES:
        forged = sealed_by_hand(rig, to, blob, replace(record, dialect=name).encode(), changed=same)
        attempt = partial(sender.import_key, forged, to.opener)
        before = rig.journal.counted("C_UnwrapKey")
        must_refuse(f"a key was unwrapped with {name}", (PolicyError, InputError), attempt)
        if rig.journal.counted("C_UnwrapKey") - before > needed:
            raise Failed(f"C_UnwrapKey was called for a key that is said to be wrapped with {name}")
    listed = sum(number in rig.token.mechanisms() for number in _NEVER)
    return f"the module lists {listed} such mechanisms"


@check("HSB-SEP-004", subject=Subject.TOOLKIT, level=Level.MUST, clauses="HSB")
def kek_by_fingerprint(rig: Rig, case: None) -> None:
    """A KEK is known by its fingerprint: one of the same name is another KEK.

    A blob is sealed for one KEK. Another has its CKA_LABEL and its CKA_ID, as an attacker who may make keys would
    arrange it, and is used to open the blob. It must be refused by its fingerprint, without a call of C_UnwrapKey.
    """
    del case
    sender = provider(rig)
    if not probe(rig.token).has(Dialect.AES_KW):
        raise Unsupported("an AES KEK needs RFC 3394, which the module does not do")
    kek = rig.make_kek()
    twin = rig.make_kek({CKA.ID: kek.identity.id, CKA.LABEL: kek.identity.label})
    if twin.read_identity() != kek.read_identity():
        raise Unsupported("the module does not give two keys one name")
    right, wrong = sender.kek(kek), sender.kek(twin)
    with must_work("sealing for an AES KEK failed"):
        blob = sender.export_key(sender.adopt(rig.make("aes:256", usage(CKA.ENCRYPT))), right)
        rig.ours.take(sender.import_key(blob, right).object)  # type: ignore[attr-defined]  # a token key has one
    _ = wrong.fingerprint  # computed before the count begins
    with without_call(rig, "C_UnwrapKey"):
        must_refuse("a KEK of the same name opened the blob", KekError, lambda: sender.import_key(blob, wrong))


@check("HSB-SEP-005", subject=Subject.TOOLKIT, level=Level.SHOULD, clauses="HSB ERR")
def uniform_errors(rig: Rig, case: None) -> str:
    """A failed unwrap says that it failed, and not why.

    A wrapped key is opened under another KEK, and with single bits flipped at its beginning, middle and end. All must
    fail with the same error and the same words: whoever can try often learns from every difference. A wrap that is cut
    short, which anybody can see, fails with the same kind of error. How long success and failure take is told in the
    remark.
    """
    del case
    dialect = next((one for one in (Dialect.AES_KWP, Dialect.AES_KW) if probe(rig.token).has(one)), None)
    if dialect is None:
        raise Unsupported("the module has neither RFC 3394 nor RFC 5649")
    kek, other = rig.make_kek(), rig.make_kek()
    request = KeyRequest(cls=CKO.SECRET_KEY, key_type=CKK.AES, template={CKA.SENSITIVE: True}, size=32)
    with must_work("a wrap and unwrap failed"):
        wrapped = wrap(rig.make("aes:256"), kek, dialect).data
        good = [_timed(rig, kek, wrapped, request, dialect) for _ in range(9)]
    told: set[str] = set()
    bad: list[float] = []
    for at in (0, 7, 8, len(wrapped) // 2, len(wrapped) - 1):
        damaged = wrapped[:at] + bytes([wrapped[at] ^ 1]) + wrapped[at + 1 :]
        for opener, data in ((kek, damaged), (other, wrapped)):
            start = time.perf_counter()
            error = must_refuse(
                "a damaged wrap was opened", UnwrapError, partial(unwrap, opener, data, request, dialect)
            )
            bad.append(time.perf_counter() - start)
            told.add(f"{type(error).__name__}: {error}")
    for short in (wrapped[:-1], wrapped[:-8]):
        must_refuse("a wrap that was cut short was opened", UnwrapError, partial(unwrap, kek, short, request, dialect))
    if len(told) > 1:
        raise Failed("failures differ: " + "; ".join(sorted(told)))
    fast, slow = (f"{1e6 * statistics.median(times):.0f} µs" for times in (bad, good))
    return f"all say {told.pop()!r}; a failure takes {fast}, a success {slow}"


def _timed(rig: Rig, kek: Object, wrapped: bytes, request: KeyRequest, dialect: Dialect) -> float:
    start = time.perf_counter()
    key = unwrap(kek, wrapped, request, dialect).key
    taken = time.perf_counter() - start
    rig.ours.take(key)
    return taken
