"""End to end: a key that was wrapped here is unwrapped in another process, and is the same key there."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from hsmbridge.codes import CKA, CKF, CKK, CKM, CKO
from hsmbridge.errors import Pkcs11Error
from hsmbridge.keyspec import parse_keyspec
from hsmbridge.publickeys import public_key_of
from hsmbridge.template import PackedTemplate
from hsmbridge_conformance.catalogue import check
from hsmbridge_conformance.keymaking import KeyMaker, usage
from hsmbridge_conformance.uses import PRIVATE_USES, SECRETS, Use, verifies
from hsmbridge_conformance.verdict import Failed, Level, Subject, Unsupported
from hsmbridge_conformance.wrapcases import arriving

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hsmbridge.objects import Object
    from hsmbridge.template import Template
    from hsmbridge.token import Token
    from hsmbridge_conformance.rig import Rig
    from hsmbridge_conformance.wrapcases import WrapCase

__all__: list[str] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    """One cell of the matrix: a wrapping mechanism and a key type."""

    case: WrapCase
    spec: str

    def __str__(self) -> str:
        return f"{self.case}/{self.spec}"


def _secret_cells(rig: Rig) -> Iterable[_Cell]:
    return (_Cell(case=case, spec=spec) for case, spec in product(rig.wrap_cases(), SECRETS))


def _private_cells(rig: Rig) -> Iterable[_Cell]:
    return (_Cell(case=case, spec=spec) for case, spec in product(rig.wrap_cases(), PRIVATE_USES))


@check("HSB-E2E-001", subject=Subject.MODULE, level=Level.MUST, clauses="W U", cases=_secret_cells)
def secret_key_in_second_process(rig: Rig, cell: _Cell) -> None:
    """A secret key that another process unwraps is the same key there.

    A key whose bytes the suite knows is wrapped under a KEK in the token; a second process unwraps it and encrypts or
    signs with it. Other software computes from the bytes what must come out. Where the module lets the bytes of the
    arrived key be read, they are compared too: a key that comes back longer than it went may still compute the same.
    Where no known bytes enter the module, what the key computed before is the measure.
    """
    kind = SECRETS[cell.spec]
    value: bytes | None = kind.random()
    flags = usage(kind.use.flag)
    try:
        key = rig.enter(kind.key_type, value or b"", flags)
    except Unsupported:
        value, key = None, rig.make(cell.spec, flags)
    before = _use_here(key, kind.use)
    if value is not None and before != kind.software(value):
        raise Failed(f"{cell.spec} of known bytes computes something else than these bytes do")
    reply = _hand_over(rig, cell, key, {**arriving(kind.key_type), kind.use.flag: True}, kind.use)
    if value is not None and reply["value"] not in (None, value.hex()):
        raise Failed(f"a key of {len(value)} bytes came back as {len(bytes.fromhex(reply['value']))} bytes, changed")
    if bytes.fromhex(reply["output"]) != before:
        raise Failed("the key that arrived computes something else than the one that was wrapped")


@check("HSB-E2E-002", subject=Subject.MODULE, level=Level.MUST, clauses="PK W U", cases=_private_cells)
def private_key_in_second_process(rig: Rig, cell: _Cell) -> None:
    """A private key that another process unwraps signs for the original public key.

    A private key is wrapped under a KEK in the token; a second process unwraps it and signs. Other software verifies
    the signature with the public key that was made with the private one.
    """
    use = PRIVATE_USES[cell.spec]
    private_flags: Template = {CKA.SIGN: True, CKA.DECRYPT: False, CKA.UNWRAP: False}
    if parse_keyspec(cell.spec).key_type != CKK.RSA:
        private_flags = {CKA.SIGN: True}
    public_object, key = rig.kept(cell.spec, lambda: rig.make_pair(cell.spec, private_flags, {CKA.VERIFY: True}))
    public = public_key_of(public_object)
    if public is None or not verifies(public, _use_here(key, use)):
        raise Failed(f"{cell.spec}: a pair that was just made signs what its public key does not verify")
    template: dict[int, Any] = {
        CKA.CLASS: CKO.PRIVATE_KEY,
        CKA.KEY_TYPE: parse_keyspec(cell.spec).key_type,
        CKA.SIGN: True,
    }
    reply = _hand_over(rig, cell, key, template, use)
    if cell.case.listed == CKM.AES_KEY_WRAP and public_object.identity.key_type == CKK.RSA:
        _wraps_any_length(rig, cell)
    if not verifies(public, bytes.fromhex(reply["output"])):
        raise Failed("the private key that arrived signs what the original public key does not verify")


def _wraps_any_length(rig: Rig, cell: _Cell) -> None:
    """See whether more keys of this kind are wrapped.

    RFC 3394 takes multiples of 8 bytes, and the encodings of RSA keys differ by a few: one in six happens to fit.

    Raises:
        Unsupported: another key was refused.
    """
    wrapping, _ = rig.kept(f"KEK for {cell.case}", lambda: _token_kek(rig, cell.case))
    for _ in range(_MORE_KEYS):
        try:
            rig.wrap(cell.case, wrapping, rig.make_pair(cell.spec)[1])
        except Pkcs11Error as error:
            raise Unsupported(f"wraps some {cell.spec} keys and not others: {error}") from None


_MORE_KEYS = 4


def _use_here(key: Object, use: Use) -> bytes:
    try:
        return use.run(key)
    except Pkcs11Error as error:
        raise Unsupported(f"the key itself cannot be used to compare with: {error}") from None


def _hand_over(rig: Rig, cell: _Cell, key: Object, template: dict[int, Any], use: Use) -> dict[str, Any]:
    """Wrap here, unwrap and use in the second process."""
    wrapping, kek_id = rig.kept(f"KEK for {cell.case}", lambda: _token_kek(rig, cell.case))
    try:
        wrapped = rig.wrap(cell.case, wrapping, key)
    except Pkcs11Error as error:
        raise Unsupported(f"does not wrap {cell.spec}: {error}") from None
    named = rig.named(template)
    message = {
        str(int(kind)): f"hex:{value.hex()}" if isinstance(value, bytes) else value for kind, value in named.items()
    }
    try:
        reply: dict[str, Any] = rig.peer.ask(
            "use_unwrapped",
            case=cell.case.name,
            kek_id=kek_id,
            wrapped=wrapped.hex(),
            template=message,
            use=use.message(),
        )
    except Pkcs11Error as error:
        if error.function == "C_UnwrapKey":
            raise Unsupported(f"wraps {cell.spec} and does not unwrap it: {error}") from None
        raise Failed(f"the key arrived and cannot be used: {error}") from None
    return reply


def _token_kek(rig: Rig, case: WrapCase) -> tuple[Object, str]:
    """Make a KEK that a second process sees; what wraps, and the CKA_ID."""
    if not case.rsa:
        kek = rig.make_kek({CKA.TOKEN: True})
        return kek, kek.identity.id.hex()
    private: Template = {
        CKA.TOKEN: True, CKA.DECRYPT: False, CKA.SIGN: False, CKA.UNWRAP: True, CKA.EXTRACTABLE: False,
    }  # fmt: skip
    public, _ = rig.make_pair("rsa:2048", private, {CKA.ENCRYPT: False, CKA.VERIFY: False, CKA.WRAP: True})
    return public, public.identity.id.hex()


@check("HSB-E2E-003", subject=Subject.MODULE, level=Level.SHOULD, clauses="W U")
def across_tokens(rig: Rig, case: None) -> str:
    """A key goes from one token of the module to another.

    An RSA pair is made in the second token, its public half is put into the first and wraps a key of known bytes
    there; the second token unwraps it, and what it computes is compared with other software. Only a second token that
    asks for no PIN is used: a PIN is never tried on a token that it was not given for.
    """
    del case
    mechanism = next((one for one in rig.wrap_cases() if one.rsa), None)
    if mechanism is None:
        raise Unsupported("needs a wrapping mechanism with RSA keys, and the module has none that works")
    others = [token for token in rig.token.module.tokens() if token.slot_id != rig.token.slot_id]
    other = next((token for token in others if not token.flags & CKF.TOKEN_LOGIN_REQUIRED), None)
    if other is None:
        there = "has no other token" if not others else "has no other token that is open without a PIN"
        raise Unsupported(f"the module {there}, and one PIN is tried on one token only")
    kind = SECRETS["aes:256"]
    value = kind.random()
    source = rig.enter(kind.key_type, value, usage())
    maker = KeyMaker(other, rig.prefix)
    with maker.ours:
        private_flags: Template = {CKA.PRIVATE: False, CKA.DECRYPT: False, CKA.SIGN: False, CKA.UNWRAP: True}
        public, private = maker.make_pair("rsa:2048", private_flags, {CKA.WRAP: True})
        try:
            wrapped = rig.wrap(mechanism, _copy_public(rig, public), source)
            output = _unwrap_and_use(other, mechanism, (maker, private), wrapped)
        except Pkcs11Error as error:
            raise Unsupported(f"to token {other.label!r}, which asks for no PIN: {error}") from None
    if output != kind.software(value):
        raise Failed(f"the key that arrived in token {other.label!r} computes something else")
    return f"to token {other.label!r}, with {mechanism}"


def _copy_public(rig: Rig, public: Object) -> Object:
    """Put a public key of another token into this one, as a session object that wraps."""
    numbers: dict[int, Any] = {kind: rig.attribute(public, kind) for kind in (CKA.MODULUS, CKA.PUBLIC_EXPONENT)}
    template: dict[int, Any] = {CKA.CLASS: CKO.PUBLIC_KEY, CKA.KEY_TYPE: CKK.RSA, CKA.WRAP: True, **numbers}
    with rig.token.sessions as session:
        return rig.adopt(rig.calls.create_object(session, PackedTemplate(rig.named(template))))


def _unwrap_and_use(other: Token, mechanism: WrapCase, kek: tuple[KeyMaker, Object], wrapped: bytes) -> bytes:
    maker, private = kek
    use = SECRETS["aes:256"].use
    template = PackedTemplate(maker.named({**arriving(), use.flag: True}))
    with other.sessions as session:
        handle = other.calls.unwrap_key(session, mechanism.mechanism, private.handle, wrapped, template)
    return use.run(maker.adopt(handle))
