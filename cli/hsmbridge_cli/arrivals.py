"""What `unwrap` asks the token for, and what came of it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hsmbridge.codes import CKA, CKK
from hsmbridge.destruction import Ours
from hsmbridge.errors import InputError, UsageError
from hsmbridge.keyspec import KeySpec, parse_keyspec, usage_of
from hsmbridge.unwrapping import KeyRequest, Unwrapped, unwrap
from hsmbridge_cli.files import MAX_WRAP_BYTES, read_input
from hsmbridge_cli.keyfacts import check_value, key_summary, shown_attributes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsmbridge.dialects import Dialect
    from hsmbridge.objects import Object
    from hsmbridge.probe import Route
    from hsmbridge.template import Value

__all__ = ["Arrived", "Wish", "bring_in", "request_of"]

_RANDOM_ID_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What was said about the new key on the command line.

    Attributes:
        key_type: type and perhaps size; label, id: None where they were not given.
        sensitive: CKA_SENSITIVE; extractable: CKA_EXTRACTABLE.
        attributes: those of -a.
        public_key: file of an EC key's public half.
    """

    key_type: str
    label: str | None
    id: bytes | None
    sensitive: bool
    extractable: bool
    attributes: Mapping[int, Value]
    public_key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """What became of it.

    Attributes:
        summary: the key, as :func:`hsmbridge_cli.keyfacts.key_summary` tells it; attributes and kcv likewise.
        route: how it came.
        kept: whether it is still there.
        warnings: for the user.
    """

    summary: dict[str, object]
    attributes: dict[str, object]
    kcv: str | None
    route: Route
    kept: bool
    warnings: tuple[str, ...]


def request_of(wish: Wish, *, persist: bool) -> KeyRequest:
    """Turn a wish into the request that goes to the token.

    Raises:
        UsageError: the wish contradicts itself, or a file cannot be read; InputError: no public key in that file.
    """
    spec = parse_keyspec(wish.key_type)
    if spec.key_type == CKK.RSA and spec.bits:
        raise UsageError("an RSA key's size is inside the wrap", hint="write --key-type rsa")
    options: dict[int, Value] = {CKA.SENSITIVE: wish.sensitive, CKA.EXTRACTABLE: wish.extractable}
    if wish.label is not None:
        options[CKA.LABEL] = wish.label
    if wish.id is not None:
        options[CKA.ID] = wish.id
    twice = [kind for kind in options if kind in wish.attributes]
    if twice:
        raise UsageError(
            f"attribute {CKA(twice[0]).name} has an option of its own",
            hint="use --label, --id, --sensitive and --extractable instead of -a",
        )
    template: dict[int, Value] = {
        CKA.TOKEN: persist,
        CKA.PRIVATE: True,
        CKA.ID: secrets.token_bytes(_RANDOM_ID_BYTES),
        **usage_of(spec),
        **options,
        **wish.attributes,
    }
    if wish.public_key is not None and spec.key_type != CKK.EC:
        raise UsageError("--public-key is for EC keys", hint="leave it out")
    return KeyRequest(
        cls=spec.cls,
        key_type=spec.key_type,
        template=template,
        expected={CKA.EC_PARAMS: spec.ec_params} if spec.key_type == CKK.EC and spec.ec_params else {},
        size=spec.bits // 8 if spec.bits and not spec.is_pair else None,
        ec_point=b"" if wish.public_key is None else _point(wish.public_key, spec),
    )


def bring_in(
    kek: Object, wrapped: bytes, request: KeyRequest, dialect: Dialect | None, *, allow_unsafe_kek: bool
) -> Arrived:
    """Unwrap a key and describe it; a session object is removed again, and is what a dry run wants.

    Raises:
        UnwrapError, KekError, ExistsError, ReadBackError, Pkcs11Error: see :func:`hsmbridge.unwrapping.unwrap`.
    """
    came = unwrap(kek, wrapped, request, dialect, allow_unsafe_kek=allow_unsafe_kek)
    if request.persistent:
        return _described(came, kept=True)
    with Ours(kek.token) as ours:
        ours.adopt(came.key.handle)
        arrived = _described(came, kept=False)
    return replace(arrived, warnings=(*arrived.warnings, *ours.debris))


def _described(came: Unwrapped, *, kept: bool) -> Arrived:
    attributes, _ = shown_attributes(came.key)
    return Arrived(
        summary=key_summary(came.key),
        attributes=attributes,
        kcv=check_value(came.key),
        route=came.route,
        kept=kept,
        warnings=came.warnings,
    )


def _point(path: str, spec: KeySpec) -> bytes:
    """Read the uncompressed point of a public key in PEM or DER."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    data = read_input(path, MAX_WRAP_BYTES)
    load = serialization.load_pem_public_key if b"-----BEGIN " in data else serialization.load_der_public_key
    try:
        key = load(data)
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(f"{path} holds no public key", hint="give SubjectPublicKeyInfo in PEM or DER") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or (spec.bits and key.curve.key_size != spec.bits):
        raise UsageError(
            f"{path} holds another kind of key than {spec}", hint="give the public half of the wrapped key"
        )
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
