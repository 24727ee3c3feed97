"""Every operation of the token layer once or more, for pkcs11-spy to log.

It prints which handles must never be destroyed.
"""

from __future__ import annotations

import json
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from hsmbridge.codes import CKA, CKK
from hsmbridge.destruction import Ours, destroy_session_key
from hsmbridge.errors import HardwareKeyError, HsmbridgeError, ReadBackError, StaleObjectError, UnwrapError
from hsmbridge.generation import enforces_unwrap_template, generate_kek, generate_key, kek_fingerprint
from hsmbridge.keyspec import parse_keyspec
from hsmbridge.objects import find_key
from hsmbridge.probe import probe
from hsmbridge.residency import classify
from hsmbridge.unwrapping import KeyRequest, unwrap
from hsmbridge.wrapping import wrap
from tests.support.children import open_token
from tests.support.tokens import WayIn, make, request_for, token_key

if TYPE_CHECKING:
    from hsmbridge.objects import Object
    from hsmbridge.template import Template
    from hsmbridge.token import Token

PERSISTENT: Template = {CKA.TOKEN: True, CKA.EXTRACTABLE: False}


def main() -> None:
    """Run it all."""
    token = open_token()
    probe(token).findings()
    hardware = keys_of_hardware(token)
    crossings(token, hardware)
    destroys(token)
    refusals(token, hardware)
    for key in token.keys():  # noqa: SIM118 - no dictionary
        classify(key)
    # after everything else: what is still called hardware must still be there
    assert all(token.handles({CKA.ID: key.identity.id}) for key in hardware)
    print(json.dumps({"hardware": [key.handle for key in hardware]}))  # noqa: T201 - the parent reads it


def keys_of_hardware(token: Token) -> list[Object]:
    """Make token keys, a session key that cannot leave, and KEKs."""
    ours = Ours(token)
    made = [token_key(token), ours.release(make(ours, token, {CKA.EXTRACTABLE: False}))]
    with suppress(HsmbridgeError):
        made.append(generate_key(token, parse_keyspec("rsa:2048"), {CKA.TOKEN: True, CKA.SIGN: True}))
    for spec in ("aes:256", "rsa:3072"):
        kek = generate_kek(token, parse_keyspec(spec), label=f"kek {spec} {secrets.token_hex(4)}")
        made.append(find_key(token, key_id=kek.identity.id, classes=(kek.identity.cls,)))
    enforces_unwrap_template(token)
    with suppress(HsmbridgeError):
        kek_fingerprint(made[-2])
    return made


def crossings(token: Token, hardware: list[Object]) -> None:
    """Unwrap to a session object and to a token object, wrap again, and offer what does not open."""
    way_in = WayIn(token)
    hardware.append(way_in.kek)
    for size in (16, 20, 32):
        key_type = CKK.GENERIC_SECRET if size == 20 else CKK.AES
        key = (
            unwrap(way_in.kek, way_in.seal(secrets.token_bytes(size)), request_for(key_type)).key
            if fits(way_in, size)
            else None
        )
        if key is not None:
            with suppress(HsmbridgeError):
                wrap(key, way_in.kek)
            destroy_session_key(key)
    hardware.append(unwrap(way_in.kek, way_in.seal(secrets.token_bytes(32)), request_for(CKK.AES, PERSISTENT)).key)
    damaged = bytearray(way_in.seal(secrets.token_bytes(32)))
    damaged[-1] ^= 1
    templates: tuple[Template, ...] = ({}, PERSISTENT)
    for template in templates:
        with pytest.raises(UnwrapError):
            unwrap(way_in.kek, bytes(damaged), request_for(CKK.AES, template))
        wish = request_for(CKK.AES, template)
        impossible = KeyRequest(
            cls=wish.cls, key_type=wish.key_type, template=wish.template, expected={CKA.NEVER_EXTRACTABLE: True}
        )
        with pytest.raises(ReadBackError):
            unwrap(way_in.kek, way_in.seal(secrets.token_bytes(32)), impossible)


def fits(way_in: WayIn, size: int) -> bool:
    """Whether the way in is defined for this length."""
    return way_in.dialect != "aes-kw" or size % 8 == 0


def destroys(token: Token) -> None:
    """Destroy session keys and make new objects in turn, so that a token which reuses handles does so."""
    for _ in range(20):
        ours = Ours(token)
        key = ours.release(make(ours, token))
        assert destroy_session_key(key).absent
        token_key(token)
        with pytest.raises(StaleObjectError):
            destroy_session_key(key)
    with pytest.raises(InterruptedError):
        stop_half_way(token)


def stop_half_way(token: Token) -> None:
    """Make two objects, remove one, and fail."""
    with Ours(token) as ours:
        ours.remove(make(ours, token))
        make(ours, token)
        raise InterruptedError


def refusals(token: Token, hardware: list[Object]) -> None:
    """Try to destroy each hardware key, several times and through a fresh search."""
    for key in hardware:
        for _ in range(2):
            with pytest.raises(HardwareKeyError):
                destroy_session_key(key)
        for found in token.find({CKA.ID: key.identity.id}):
            with pytest.raises(HardwareKeyError):
                destroy_session_key(found)


if __name__ == "__main__":
    main()
