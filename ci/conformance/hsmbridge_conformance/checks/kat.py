"""Known answers: what a module wraps, others can open, and the reverse.

The other side is ``cryptography`` and the RFCs' own test vectors, under KEKs of known bytes.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.asymmetric import rsa

from hsmbridge.attributes import AttributeQuery
from hsmbridge.codes import CKA, CKK, CKM, CKO, ckr_name
from hsmbridge.dialects import oaep_padding
from hsmbridge.errors import HsmbridgeError, Pkcs11Error
from hsmbridge.keyspec import parse_keyspec
from hsmbridge.publickeys import rsa_public_key
from hsmbridge.template import PackedTemplate
from hsmbridge_conformance.catalogue import check
from hsmbridge_conformance.checks._formats import (
    RFC_3394,
    RFC_3394_VECTORS,
    RFC_5649,
    RFC_5649_VECTORS,
    Format,
    Vector,
    name_format,
)
from hsmbridge_conformance.checks._trial import Trial, listed, trials
from hsmbridge_conformance.checks._unwrapping import Unwrapping, arrive, attempt, is_that_key, unreadable
from hsmbridge_conformance.verdict import Failed, Level, Subject, Unsupported
from hsmbridge_conformance.wrapcases import arriving

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    from hsmbridge.objects import Object
    from hsmbridge_conformance.rig import Rig

__all__: list[str] = []

_KEK_SIZES = (16, 24, 32)
_RSA_BITS = 2048
_PUBLIC = AttributeQuery((CKA.MODULUS, CKA.PUBLIC_EXPONENT))


def _key_wrap(rig: Rig) -> Iterable[Trial]:
    sizes = ("generic:16", "generic:20", "generic:32", "generic:64")
    return trials(listed(rig, CKM.AES_KEY_WRAP), "aes:128", "aes:192", "aes:256", "des3", *sizes)


def _key_wrap_with_padding(rig: Rig) -> Iterable[Trial]:
    sizes = ("generic:1", "generic:7", "generic:8", "generic:9", "generic:20", "generic:33", "generic:64")
    return trials(listed(rig, CKM.AES_KEY_WRAP_KWP), "aes:128", "aes:192", "aes:256", "des3", *sizes)


@check("HSB-KAT-001", subject=Subject.MODULE, level=Level.MUST, clauses="KW W U", cases=_key_wrap)
def key_wrap(rig: Rig, trial: Trial) -> str | None:
    """CKM_AES_KEY_WRAP is RFC 3394, in both directions.

    Keys of known bytes are wrapped under KEKs of 128, 192 and 256 bits; the result must be that of the test vectors of
    RFC 3394 section 4 or, for random keys, of another implementation. That result is then unwrapped and must be the
    same key. A key of 20 bytes does not fit the format: it must be refused, since one that is filled up with zeros
    comes back as another key, and no return value ever says so.
    """
    return _known_answers(rig, trial, RFC_3394, RFC_3394_VECTORS)


@check("HSB-KAT-002", subject=Subject.MODULE, level=Level.MUST, clauses="KW W U", cases=_key_wrap_with_padding)
def key_wrap_with_padding(rig: Rig, trial: Trial) -> str | None:
    """CKM_AES_KEY_WRAP_KWP is RFC 5649, in both directions and for every length.

    As HSB-KAT-001, with the test vectors of RFC 5649 section 6, and with keys whose length is no multiple of 8. This
    format exists to carry those: they must arrive with the length that they had.
    """
    return _known_answers(rig, trial, RFC_5649, RFC_5649_VECTORS)


def _known_answers(rig: Rig, trial: Trial, wanted: Format, published: tuple[Vector, ...]) -> str | None:
    spec = parse_keyspec(trial.what)
    size = spec.bits // 8
    typed = () if spec.key_type == CKK.DES3 else tuple(vector for vector in published if len(vector.key) == size)
    try:
        vectors = typed + tuple(_random(spec.key_type, size, kek_size, wanted) for kek_size in _KEK_SIZES)
    except ValueError:
        return _must_not_fit(rig, trial, spec.key_type, size)
    for vector in vectors:
        kek = rig.enter_kek(vector.kek)
        wrapped = _wrap(rig, trial, kek, rig.enter(spec.key_type, vector.key))
        if wrapped != vector.wrapped:
            raise Failed(_what_it_is(vector, wrapped, wanted))
        what = f"a right wrap of {size} bytes under AES-{8 * len(vector.kek)}"
        opened = Unwrapping(rig=rig, case=trial.case, kek=kek, wrapped=vector.wrapped)
        if not is_that_key(opened, arrive(opened, spec.key_type, what), vector.key):
            raise Failed(f"{what} was unwrapped to another key")
    return None


def _random(key_type: CKK, size: int, kek_size: int, wanted: Format) -> Vector:
    kek, key = secrets.token_bytes(kek_size), secrets.token_bytes(size)
    if key_type == CKK.DES3:  # odd parity in the lowest bit of each byte, which some modules see to
        key = bytes(byte & 0xFE | (byte >> 1).bit_count() % 2 ^ 1 for byte in key)
    return Vector(kek=kek, key=key, wrapped=wanted.wrap(kek, key))


def _wrap(rig: Rig, trial: Trial, kek: Object, key: Object) -> bytes:
    try:
        return rig.wrap(trial.case, kek, key)
    except Pkcs11Error as error:
        if rig.unusable(error):
            raise Unsupported(f"{trial.case} does not wrap {trial.what}: {ckr_name(error.ckr)}") from None
        raise Failed(f"C_WrapKey refused {trial.what}, which the format carries: {ckr_name(error.ckr)}") from None


def _what_it_is(vector: Vector, wrapped: bytes, wanted: Format) -> str:
    found = name_format(vector.kek, vector.key, wrapped)
    return (
        f"a key of {len(vector.key)} bytes was wrapped as {found.name if found else 'something unknown'} "
        f"({len(wrapped)} bytes), not as {wanted.name} ({len(vector.wrapped)} bytes)"
    )


def _must_not_fit(rig: Rig, trial: Trial, key_type: CKK, size: int) -> str:
    kek_bytes, value = secrets.token_bytes(32), secrets.token_bytes(size)
    kek = rig.enter_kek(kek_bytes)
    try:
        wrapped = rig.wrap(trial.case, kek, rig.enter(key_type, value))
    except Pkcs11Error as error:
        if rig.unusable(error):
            raise Unsupported(f"{trial.case} does not wrap {trial.what}: {ckr_name(error.ckr)}") from None
        return f"refused, as it must be: {ckr_name(error.ckr)}"
    try:
        inside = keywrap.aes_key_unwrap(kek_bytes, wrapped)
    except (keywrap.InvalidUnwrap, ValueError):
        raise Failed(f"a key of {size} bytes was wrapped to {len(wrapped)} bytes that are not RFC 3394") from None
    zeros = "with zeros added" if inside == value.ljust(len(inside), b"\0") else "changed"
    back = attempt(rig, trial.case, kek, wrapped, {**arriving(key_type), CKA.SENSITIVE: True})
    accepted = ckr_name(back) if isinstance(back, int) else "CKR_OK"
    raise Failed(
        f"a key of {size} bytes, which does not fit RFC 3394, was wrapped as {len(inside)}, {zeros}; "
        f"unwrapping that answers {accepted}"
    )


# ---- RSA


def _rsa_mechanisms(rig: Rig) -> Iterable[Trial]:
    return trials(listed(rig, CKM.RSA_PKCS_OAEP, CKM.RSA_AES_KEY_WRAP), "aes:256", "generic:20")


@check("HSB-KAT-005", subject=Subject.MODULE, level=Level.SHOULD, clauses="HSB U", cases=_rsa_mechanisms)
def rsa_unwrap(rig: Rig, trial: Trial) -> None:
    """What others encrypted with RSA-OAEP is unwrapped to exactly that key.

    Known bytes are encrypted by another implementation for a key pair of the token (CKM_RSA_AES_KEY_WRAP: an AES key
    for the pair, and the bytes under that key), with SHA-1 or SHA-256 in OAEP and in MGF1, and unwrapped. Bytes and
    length must be the same: this is the way in for keys from outside.
    """
    spec = parse_keyspec(trial.what)
    value = secrets.token_bytes(spec.bits // 8)
    public, private = trial.case.make_kek(rig)
    sealed = _seal(trial, _numbers(public), value)
    opened = Unwrapping(rig=rig, case=trial.case, kek=private, wrapped=sealed)
    arrived = arrive(opened, spec.key_type, f"{trial.what} that another one encrypted")
    try:
        found = bytes(arrived.read_value())
    except Pkcs11Error:
        found = _wrapped_out(rig, trial, arrived)
    if len(found) != len(value):
        raise Failed(f"{len(value)} bytes were unwrapped to {len(found)}")
    if found != value:
        raise Failed("C_UnwrapKey answered CKR_OK and made another key")


def _numbers(public: Object) -> RSAPublicKey:
    try:
        return rsa_public_key(public.read(_PUBLIC))
    except HsmbridgeError as error:
        raise Unsupported(f"the key pair's public numbers cannot be had: {error}") from None


def _digest(trial: Trial) -> CKM:
    return CKM.SHA256 if str(trial.case).endswith("+SHA256") else CKM.SHA_1


def _seal(trial: Trial, public: RSAPublicKey, value: bytes) -> bytes:
    padding = oaep_padding(_digest(trial))
    if trial.case.listed == CKM.RSA_PKCS_OAEP:
        return public.encrypt(value, padding)
    inner = secrets.token_bytes(32)
    return public.encrypt(inner, padding) + keywrap.aes_key_wrap_with_padding(inner, value)


def _wrapped_out(rig: Rig, trial: Trial, arrived: Object) -> bytes:
    """Wrap a key that cannot be read for a pair of ours, and open that in software."""
    outside = rsa.generate_private_key(65537, _RSA_BITS)
    numbers = outside.public_key().public_numbers()
    template = rig.named(
        {
            CKA.CLASS: CKO.PUBLIC_KEY,
            CKA.KEY_TYPE: CKK.RSA,
            CKA.WRAP: True,
            CKA.MODULUS: numbers.n.to_bytes(_RSA_BITS // 8, "big"),
            CKA.PUBLIC_EXPONENT: numbers.e.to_bytes(3, "big"),
        }
    )
    try:
        with rig.token.sessions as session:
            key = rig.adopt(rig.calls.create_object(session, PackedTemplate(template)))
        wrapped = rig.wrap(trial.case, key, arrived)
    except Pkcs11Error as error:
        raise unreadable(error) from None
    block, rest = wrapped[: _RSA_BITS // 8], wrapped[_RSA_BITS // 8 :]
    try:
        opened = outside.decrypt(block, oaep_padding(_digest(trial)))
        return keywrap.aes_key_unwrap_with_padding(opened, rest) if rest else opened
    except (keywrap.InvalidUnwrap, ValueError):
        raise Failed(f"what {trial.case} wraps cannot be opened by another one") from None
