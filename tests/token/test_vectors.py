"""NIST's key wrap vectors through C_WrapKey and C_UnwrapKey.

They are the CAVP files of SP 800-38F as the package cryptography_vectors carries them: KW is RFC 3394, KWP is RFC 5649.
Left out are TKW, which wraps under triple DES, and the files named ``_inv``, which run AES backwards: PKCS#11 has no
mechanism for either.
"""

from __future__ import annotations

import importlib.resources
import secrets
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from hsmbridge.codes import CKA, CKK
from hsmbridge.destruction import Ours
from hsmbridge.dialects import Dialect
from hsmbridge.entry import key_entry
from hsmbridge.errors import LengthChangeError, Pkcs11Error, UnwrapError
from hsmbridge.probe import Route, probe
from hsmbridge.unwrapping import Unwrapper, unwrap
from hsmbridge.wrapping import wrap
from tests.support.judges import aes_unwrap, aes_wrap
from tests.support.tokens import enter, enter_kek, inventory, raw_wrap, request_for, requires, requires_entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsmbridge.objects import Object
    from hsmbridge.token import Token

FOLDER = importlib.resources.files("cryptography_vectors") / "keywrap" / "kwtestvectors"
DIALECTS = {"KW": Dialect.AES_KW, "KWP": Dialect.AES_KWP}
FILES = [(name, bits) for name in DIALECTS for bits in (128, 192, 256)]
IN_A_FILE = 500
FAILING_IN_A_FILE = 100
LARGEST = 512
"""Bytes of the longest vectors; a token may have a limit for secrets below that, and NSS does."""

ROOM_OF_OAEP = 190
"""What key entry can carry where it has to go through RSA-2048 OAEP with SHA-256."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector:
    """One vector: KEK, plaintext (None where unwrapping must fail), ciphertext."""

    kek: bytes
    plain: bytes | None
    wrapped: bytes


def vectors(name: str) -> Iterator[Vector]:
    """Read a CAVP file: paragraphs of ``NAME = VALUE``, those that count begin with COUNT."""
    for paragraph in (FOLDER / f"{name}.txt").read_text("ascii").replace("\r", "").split("\n\n"):
        if not paragraph.startswith("COUNT"):
            continue
        fields = dict(line.partition(" = ")[::2] for line in paragraph.splitlines())
        assert fields.keys() in ({"COUNT", "K", "P", "C"}, {"COUNT", "K", "C", "FAIL"})
        plain = None if "FAIL" in fields else bytes.fromhex(fields["P"])
        yield Vector(kek=bytes.fromhex(fields["K"]), plain=plain, wrapped=bytes.fromhex(fields["C"]))


def type_of(size: int) -> CKK:
    """Return AES for the lengths of AES keys, else generic secret."""
    return CKK.AES if size in (16, 24, 32) else CKK.GENERIC_SECRET


def enter_plain(ours: Ours, token: Token, plain: bytes) -> Object:
    """Put a plaintext into the token; a long one in two steps where key entry is by RSA."""
    if key_entry(token).creates is not False or len(plain) <= ROOM_OF_OAEP:
        return enter(ours, token, type_of(len(plain)), plain)
    carrier = secrets.token_bytes(32)
    request = request_for(CKK.GENERIC_SECRET)
    wrapped = aes_wrap(Dialect.AES_KWP, carrier, plain)
    return ours.take(unwrap(enter_kek(ours, token, carrier), wrapped, request, Dialect.AES_KWP).key)


def test_the_files_hold_what_is_expected_of_them() -> None:
    """All twelve files are read in full, 500 vectors each.

    A hundred of those for unwrapping must fail; `cryptography` agrees with the others.
    """
    for name, bits in FILES:
        to_wrap, to_open = list(vectors(f"{name}_AE_{bits}")), list(vectors(f"{name}_AD_{bits}"))
        assert len(to_wrap) == len(to_open) == IN_A_FILE
        assert [vector.plain for vector in to_wrap].count(None) == 0
        assert [vector.plain for vector in to_open].count(None) == FAILING_IN_A_FILE
        for vector in to_wrap[::50]:
            assert vector.plain is not None
            assert aes_wrap(DIALECTS[name], vector.kek, vector.plain) == vector.wrapped


@pytest.mark.parametrize(("name", "bits"), FILES)
def test_wrapping_vectors(token: Token, name: str, bits: int) -> None:
    """C_WrapKey makes the vector's ciphertext of its plaintext, or the length is refused.

    Rightly so: the token gets it wrong.
    """
    dialect = DIALECTS[name]
    requires(token, dialect)
    requires_entry(token)
    route = probe(token).route(dialect)
    before = inventory(token)
    outcomes: Counter[str] = Counter()
    for vector in vectors(f"{name}_AE_{bits}"):
        with Ours(token) as ours:
            outcomes[wrap_one(ours, token, route, vector)] += 1
    assert outcomes["wrapped"] >= IN_A_FILE // 5, outcomes
    assert outcomes.total() == IN_A_FILE
    if route.keeps_length:
        assert outcomes["refused"] == 0, outcomes
    assert inventory(token) == before


def wrap_one(ours: Ours, token: Token, route: Route, vector: Vector) -> str:
    """Wrap one vector and say what came of it."""
    assert vector.plain is not None
    size = len(vector.plain)
    kek = enter_kek(ours, token, vector.kek)
    try:
        key = enter_plain(ours, token, vector.plain)
    except Pkcs11Error:
        assert size == LARGEST
        return "too long for the token"
    if route.carries(size):
        # Unsafe only since a KEK of 128 bits may be shorter than what it wraps.
        assert wrap(key, kek, route.dialect, allow_unsafe_kek=True).data == vector.wrapped
        return "wrapped"
    with pytest.raises(LengthChangeError, match=f"{size} bytes would come back changed"):
        wrap(key, kek, route.dialect, allow_unsafe_kek=True)
    wrong = raw_wrap(route, kek, key)
    assert wrong != vector.wrapped
    assert aes_unwrap(route.dialect, vector.kek, wrong) == vector.plain + bytes(-size % 8)
    return "refused"


@pytest.mark.parametrize(("name", "bits"), FILES)
def test_unwrapping_vectors(token: Token, name: str, bits: int) -> None:
    """C_UnwrapKey makes the vector's plaintext of its ciphertext.

    The hundred forged ones are refused and leave no object.
    """
    dialect = DIALECTS[name]
    requires(token, dialect)
    requires_entry(token)
    before = inventory(token)
    outcomes: Counter[str] = Counter()
    for vector in vectors(f"{name}_AD_{bits}"):
        with Ours(token) as ours:
            kek = enter_kek(ours, token, vector.kek)
            unwrapper = Unwrapper(kek, dialect)
            if vector.plain is None:
                refuse_one(unwrapper, vector)
                outcomes["forged"] += 1
            else:
                outcomes[unwrap_one(ours, token, unwrapper, vector)] += 1
        if vector.plain is None:
            assert frozenset(token.handles({})) == before
    assert outcomes["unwrapped"] >= (IN_A_FILE - FAILING_IN_A_FILE) * 3 // 5, outcomes
    assert outcomes["forged"] == FAILING_IN_A_FILE
    assert outcomes.total() == IN_A_FILE
    assert frozenset(token.handles({})) == before


def refuse_one(unwrapper: Unwrapper, vector: Vector) -> None:
    """Offer a forged ciphertext, for a plaintext of any length."""
    with pytest.raises(UnwrapError) as refusal:
        unwrapper.unwrap(vector.wrapped, request_for(CKK.GENERIC_SECRET))
    assert refusal.value.hint


def unwrap_one(ours: Ours, token: Token, unwrapper: Unwrapper, vector: Vector) -> str:
    """Unwrap one vector and compare; where no key may be read, by a wrap that `cryptography` opens."""
    assert vector.plain is not None
    size = len(vector.plain)
    readable = key_entry(token).creates is True
    request = request_for(type_of(size), {CKA.SENSITIVE: not readable})
    try:
        key = ours.take(unwrapper.unwrap(vector.wrapped, request).key)
    except Pkcs11Error:
        assert size == LARGEST
        return "too long for the token"
    if readable:
        assert key.read_value() == vector.plain
    else:
        witness = secrets.token_bytes(32)
        wrapped = wrap(key, enter_kek(ours, token, witness), Dialect.AES_KWP).data
        assert aes_unwrap(Dialect.AES_KWP, witness, wrapped) == vector.plain
    return "unwrapped"
