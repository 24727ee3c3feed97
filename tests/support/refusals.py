"""Blobs that an import must refuse before the token unwraps anything, imported one after the other under pkcs11-spy.

Everything is built before; then each import is bracketed by the size of the spy's log, so that the parent sees which
calls belong to which blob. It prints a JSON document: for each name the error and the bracket, objects left over.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cbor2
from hsmbridge_csp.cipher_key import CipherKey
from hsmbridge_csp.clearpart import Purpose
from hsmbridge_csp.identity import FileIdentity
from hsmbridge_csp.modes import Cipher
from hsmbridge_csp.provider import Provider
from hsmbridge_csp.trust import Role, TrustStore, make_pin

from hsmbridge.codes import CKA
from hsmbridge.destruction import Ours
from hsmbridge.errors import HsmbridgeError
from tests.fuzz.mutation import MAP, Node, head, parse_tree
from tests.support.children import close, open_token
from tests.support.tokens import enter_kek, make, usage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsmbridge_csp.recipient_kek import TokenKek

    from hsmbridge.token import Token

__all__ = ["main"]

HEADER = 8
SAME_LABEL = "transport"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """Who takes part: a believed sender, another one, a stranger; and the receiver."""

    sender: Provider
    other: Provider
    stranger: Provider
    unsigning: Provider
    receiver: Provider
    kek: TokenKek
    other_kek: TokenKek


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One import.

    Attributes:
        name: what is wrong with the blob, with its kind of key.
        blob: the bytes.
        allow_unsigned: whether an unsigned copy would be taken.
        with_other_kek: whether the KEK that is named for opening is another one than the blob's.
    """

    name: str
    blob: bytes
    allow_unsigned: bool = False
    with_other_kek: bool = False


def cast_of(token: Token, ours: Ours) -> Cast:
    """Make everybody; both KEKs have the same label."""
    sender, other, stranger = (FileIdentity.generate() for _ in range(3))
    pins = tuple(make_pin(Role.SENDER, name, one.public_key) for name, one in (("one", sender), ("two", other)))
    receiver = Provider(token, trust=TrustStore(pins))
    keks = [receiver.kek(enter_kek(ours, token, secrets.token_bytes(32), {CKA.LABEL: SAME_LABEL})) for _ in range(2)]
    assert keks[0].fingerprint != keks[1].fingerprint
    return Cast(
        sender=Provider(token, identity=sender),
        other=Provider(token, identity=other),
        stranger=Provider(token, identity=stranger),
        unsigning=Provider(token),
        receiver=receiver,
        kek=keks[0],
        other_kek=keks[1],
    )


def signed_by(provider: Provider, header: bytes, payload: bytes, protected: bytes = b"\xa1\x01\x27") -> bytes:
    """Put a COSE_Sign1 around a payload."""
    assert provider.identity is not None
    signature = provider.identity.sign(cbor2.dumps(["Signature1", protected, header, payload]))
    body = [protected, {4: provider.identity.fingerprint}, payload, signature]
    return header + cbor2.dumps(cbor2.CBORTag(18, body))


def cases(cast: Cast, kind: str, key: Any) -> Iterator[Case]:  # noqa: ANN401 - a key of any kind
    """Yield what must be refused, made from one key's blobs."""
    blob, second = (cast.sender.export_key(key, cast.kek) for _ in range(2))
    for name, other in changed(cast, blob, second):
        yield Case(name=f"{kind}: {name}", blob=other)
    unsigned = cast.unsigning.export_key(key, cast.kek)
    for name, other in (
        ("unsigned", unsigned),
        ("by a stranger", cast.stranger.export_key(key, cast.kek)),
    ):
        yield Case(name=f"{kind}: {name}", blob=other)
    stripped = blob[:HEADER] + cbor2.loads(blob[HEADER:]).value[2]
    yield Case(name=f"{kind}: signature taken off", blob=stripped, allow_unsigned=True)
    move = cast.unsigning.export_key(key.duplicate(), cast.kek, purpose=Purpose.MOVE)
    yield Case(name=f"{kind}: unsigned move", blob=move, allow_unsigned=True)
    yield Case(name=f"{kind}: another KEK of the same label", blob=blob, with_other_kek=True)
    yield Case(name=f"{kind}: unsigned, another KEK", blob=unsigned, allow_unsigned=True, with_other_kek=True)


def changed(cast: Cast, blob: bytes, second: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield a blob's changed forms: as an outsider makes them, and signed by the believed sender all the same."""
    header, sign1 = blob[:HEADER], cbor2.loads(blob[HEADER:]).value
    payload = sign1[2]
    yield "signed anew by a stranger", signed_by(cast.stranger, header, payload)
    yield "signed anew by another believed sender", signed_by(cast.other, header, payload)
    foreign = cbor2.loads(second[HEADER:]).value[3]
    yield "signature of another blob", header + cbor2.dumps(cbor2.CBORTag(18, [*sign1[:3], foreign]))
    yield "signature algorithm", signed_by(cast.sender, header, payload, b"\xa1\x01\x26")
    for place in range(HEADER):
        flipped = header[:place] + bytes([header[place] ^ 1]) + header[place + 1 :]
        yield f"header, byte {place}", flipped + blob[HEADER:]
        yield f"header, byte {place}, signed", signed_by(cast.sender, flipped, payload)
    recipients = cbor2.loads(cbor2.loads(second[HEADER:]).value[2]).value[3]
    encrypt = cbor2.loads(payload).value
    swapped = cbor2.dumps(cbor2.CBORTag(96, [*encrypt[:3], recipients]))
    yield "recipient of another blob", header + cbor2.dumps(cbor2.CBORTag(18, [sign1[0], sign1[1], swapped, sign1[3]]))
    doubled = cbor2.dumps(cbor2.CBORTag(96, [*encrypt[:3], encrypt[3] + recipients]))
    yield "two recipients, signed", signed_by(cast.sender, header, doubled)
    for name, inside in structural(payload):
        outside = header + cbor2.dumps(cbor2.CBORTag(18, [sign1[0], sign1[1], inside, sign1[3]]))
        yield name, outside
        yield f"{name}, signed", signed_by(cast.sender, header, inside)
    for name, inside in structural(blob[HEADER:]):
        yield f"outside: {name}", header + inside


def structural(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield one item's changed encodings."""
    tree = parse_tree(data)
    yield "trailing byte", data + b"\0"
    yield "truncated", data[:-1]
    yield "depth bomb", tree.children[0].replaced(b"\x81" * 100_000 + b"\0")
    yield "size bomb", tree.children[0].replaced(b"\x9b" + b"\xff" * 8)
    yield "too large", tree.children[0].replaced(head(2, 1 << 20) + bytes(1 << 20))
    for number, node in enumerate(one for one in tree.walk() if one.major == MAP):
        pairs = _pairs(node)
        yield f"map {number}, a key doubled", node.replaced(_map([pairs[0], *pairs]))
        yield f"map {number}, unknown label", node.replaced(_map([*pairs, b"\x3a\x7f\xff\xff\xff\0"]))
        yield f"map {number}, nothing in it", node.replaced(_map([]))
        if len(pairs) > 1:
            yield f"map {number}, re-ordered", node.replaced(_map(pairs[::-1]))
    yield from fields(tree)


def fields(tree: Node) -> Iterator[tuple[str, bytes]]:
    """Yield the encodings with one field of the clear part or of the recipient changed."""
    wanted = {
        "3a00010000": ("version unknown", b"\x02"),
        "02": ("crit unknown", b"\x81\x3a\x00\x01\x00\xff"),
        "3a00010001": ("blob id", head(2, 16) + bytes(16)),
        "3a00010007": ("sender in the clear part", head(2, 32) + bytes(32)),
        "3a00010008": ("recipient in the clear part", head(2, 16) + bytes(16)),
        "01": ("algorithm", b"\x38\x63"),
        "04": ("kid", head(2, 16) + bytes(16)),
    }
    for number, node in enumerate(tree.walk()):
        if node.major == MAP:
            for key, value in zip(node.children[::2], node.children[1::2], strict=True):
                name, other = wanted.get(key.raw.hex(), ("", b""))
                if name:
                    yield f"{name} ({number})", value.replaced(other)


def _pairs(node: Node) -> list[bytes]:
    raws = [child.raw for child in node.children]
    return [key + value for key, value in zip(raws[::2], raws[1::2], strict=True)]


def _map(pairs: list[bytes]) -> bytes:
    return head(MAP, len(pairs)) + b"".join(pairs)


def attempt(cast: Cast, case: Case, log: Path) -> dict[str, object]:
    """Import one blob.

    Returns: the error's class and its base classes, or none; its hint; where in the log its calls are.
    """
    kek = cast.other_kek if case.with_other_kek else cast.kek
    begin = log.stat().st_size
    kinds: list[str] = []
    hint: str | None = None
    try:
        key = cast.receiver.import_key(case.blob, kek, allow_unsigned=case.allow_unsigned)
    except HsmbridgeError as error:
        hint = error.hint
        kinds = [one.__name__ for one in type(error).__mro__]
    else:
        cast.receiver.destroy_key(key)
    return {"error": kinds, "hint": hint, "begin": begin, "end": log.stat().st_size}


def main() -> None:
    """Build all blobs, then import each."""
    log = Path(os.environ["PKCS11SPY_OUTPUT"])
    token = open_token()
    report: dict[str, dict[str, object]] = {}
    with Ours(token) as ours:
        cast = cast_of(token, ours)
        software = CipherKey(Cipher.AES, bytearray(secrets.token_bytes(32)))
        session = cast.sender.adopt(make(ours, token, {CKA.LABEL: "session", **usage(CKA.ENCRYPT, CKA.DECRYPT)}))
        all_cases = []
        for kind, key in (("software", software), ("session", session)):
            key.encrypt(b"stopped inside the second block")
            all_cases.append(Case(name=f"{kind}: as it was exported", blob=cast.sender.export_key(key, cast.kek)))
            all_cases += cases(cast, kind, key)
        before = frozenset(token.handles({}))
        for case in all_cases:
            report[case.name] = attempt(cast, case, log)
            report[case.name]["left"] = len(frozenset(token.handles({})) - before)
    close(token)
    print(json.dumps(report))  # noqa: T201 - the parent reads it


if __name__ == "__main__":
    main()
