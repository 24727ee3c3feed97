"""Mutations of bytes, and of CBOR by its structure.

The structural ones keep all enclosing lengths right, so that they reach what lies behind the length checks. They are
written on the encoding itself and not with the project's encoder, which cannot write what must be refused.

Source: RFC 8949 section 3 (heads, indefinite lengths), section 4.2.1 (what a deterministic encoding must not be).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

__all__ = ["BYTE_MUTATIONS", "Node", "head", "mutate_bytes", "mutate_tree", "parse_tree"]

UINT, NEGINT, BYTES, TEXT, ARRAY, MAP, TAG, SIMPLE = range(8)
BIG = 1 << 20
DEEP = 2000
INTERESTING = (0, 1, 2, 12, 13, 16, 23, 24, 255, 256, 65535, 65536, (1 << 32) - 1, 1 << 32, (1 << 64) - 1)
SIMPLES = (b"\xf4", b"\xf5", b"\xf6", b"\xf7", b"\xf8\x18", b"\xf9\x3c\x00", b"\xfb" + bytes(8), b"\xff", b"\xe0")


def head(major: int, argument: int, size: int | None = None) -> bytes:
    """Return the head of an item.

    Args:
        major: the major type.
        argument: below 2^64.
        size: bytes of the argument, 0 for one in the initial byte; None for the shortest form.
    """
    if size is None:
        size = next(
            size for size, limit in ((0, 24), (1, 1 << 8), (2, 1 << 16), (4, 1 << 32), (8, 1 << 64)) if argument < limit
        )
    if size == 0:
        return bytes([major << 5 | argument])
    return bytes([major << 5 | 24 + size.bit_length() - 1]) + argument.to_bytes(size, "big")


@dataclass(slots=True, kw_only=True, eq=False)
class Node:
    """One item of an encoding.

    Attributes:
        major: the major type.
        argument: the head's argument.
        raw: the whole item.
        children: items inside: of an array, a map (keys and values in turn), a tag, or a byte string that holds CBOR.
        parent: the item that this one is in.
        index: its place there.
    """

    major: int
    argument: int
    raw: bytes
    children: list[Node] = field(default_factory=list)
    parent: Node | None = None
    index: int = 0

    def walk(self) -> list[Node]:
        """Return this item and all inside it."""
        return [self, *(node for child in self.children for node in child.walk())]

    def replaced(self, raw: bytes) -> bytes:
        """Return the outermost item's encoding with *raw* in this one's place; lengths of byte strings follow."""
        node = self
        while node.parent is not None:
            parent = node.parent
            parts = [child.raw for child in parent.children]
            parts[node.index] = raw
            inside = b"".join(parts)
            raw = head(parent.major, len(inside) if parent.major == BYTES else parent.argument) + inside
            node = parent
        return raw


def parse_tree(data: bytes) -> Node:
    """Parse one deterministic item that is the whole of *data*."""
    node, end = _item(data, 0)
    if end != len(data):
        raise ValueError(data)
    return node


def _item(data: bytes, at: int) -> tuple[Node, int]:
    major, info = data[at] >> 5, data[at] & 31
    size = 0 if info < 24 else 1 << info - 24
    after = at + 1 + size
    argument = int.from_bytes(data[at + 1 : after], "big") if size else info
    children: list[Node] = []
    if major in (BYTES, TEXT):
        content, after = data[after : after + argument], after + argument
        children = _nested(content) if major == BYTES else []
    for _ in range({ARRAY: argument, MAP: 2 * argument, TAG: 1}.get(major, 0)):
        child, after = _item(data, after)
        children.append(child)
    node = Node(major=major, argument=argument, raw=data[at:after], children=children)
    for index, child in enumerate(children):
        child.parent, child.index = node, index
    return node, after


def _nested(content: bytes) -> list[Node]:
    if content and content[0] >> 5 in (ARRAY, MAP, TAG):
        try:
            return [parse_tree(content)]
        except (ValueError, IndexError, OverflowError):
            pass
    return []


# ---- bytes


def _flip(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    del others
    flipped = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 8))):
        flipped[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(flipped)


def _set(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    del others
    at = random.randrange(len(data))
    return data[:at] + bytes([random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))]) + data[at + 1 :]


def _truncate(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    del others
    return data[: random.randrange(len(data))]


def _extend(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return data + random.choice((b"\0", b"\n", data, random.choice(others), random.randbytes(random.randrange(1, 40))))


def _cut_out(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    del others
    at = random.randrange(len(data))
    return data[:at] + data[at + random.randrange(1, 20) :]


def _insert(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    del others
    at = random.randrange(len(data) + 1)
    return data[:at] + random.randbytes(random.randrange(1, 20)) + data[at:]


def _splice(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    other = random.choice(others)
    return data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other) + 1) :]


def _copy_block(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    other = random.choice(others)
    size = random.randrange(1, 65)
    start, at = random.randrange(len(other)), random.randrange(len(data))
    return data[:at] + other[start : start + size] + data[at + size :]


def _integer(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    del others
    size = random.choice((1, 2, 4, 8))
    at = random.randrange(len(data))
    order = random.choice(("big", "little"))
    here = int.from_bytes(data[at : at + size], "big")
    value = random.choice((here + 1, here - 1, *INTERESTING)) % (1 << 8 * size)
    return data[:at] + value.to_bytes(size, "big" if order == "big" else "little") + data[at + size :]


BYTE_MUTATIONS: dict[str, Callable[[Random, bytes, Sequence[bytes]], bytes]] = {
    "flip": _flip,
    "set": _set,
    "truncate": _truncate,
    "extend": _extend,
    "cut out": _cut_out,
    "insert": _insert,
    "splice": _splice,
    "block": _copy_block,
    "integer": _integer,
}
"""By name: what changes bytes without knowing what they mean."""

_BYTE_NAMES = tuple(BYTE_MUTATIONS)


def mutate_bytes(random: Random, data: bytes, others: Sequence[bytes]) -> tuple[str, bytes]:
    """Change bytes somewhere.

    Returns: the mutation's name and the bytes, which may by chance be the same as before.
    """
    name = random.choice(_BYTE_NAMES)
    return name, BYTE_MUTATIONS[name](random, data, others)


# ---- structure


def _number(random: Random, node: Node) -> bytes:
    near = (node.argument + 1, node.argument - 1, *INTERESTING)
    return head(random.choice((node.major, UINT, NEGINT)), random.choice(near) % (1 << 64))


def _length(random: Random, node: Node) -> bytes:
    """Let the head lie about the length or the count."""
    lie = random.choice((node.argument + 1, node.argument - 1, *INTERESTING)) % (1 << 64)
    return head(node.major, lie) + node.raw[len(head(node.major, node.argument)) :]


def _long_head(random: Random, node: Node) -> bytes:
    shortest = head(node.major, node.argument)
    sizes = [size for size in (1, 2, 4, 8) if size >= len(shortest)]
    if not sizes:
        return b"\x1f"  # reserved
    return head(node.major, node.argument, random.choice(sizes)) + node.raw[len(shortest) :]


def _indefinite(random: Random, node: Node) -> bytes:
    del random
    inside = node.raw[len(head(node.major, node.argument)) :]
    if node.major in (BYTES, TEXT):
        inside = node.raw
    return bytes([node.major << 5 | 31]) + inside + b"\xff"


def _pairs(node: Node) -> list[bytes]:
    raws = [child.raw for child in node.children]
    return [key + value for key, value in zip(raws[::2], raws[1::2], strict=True)] if node.major == MAP else raws


def _again(node: Node, parts: list[bytes]) -> bytes:
    return head(node.major, len(parts)) + b"".join(parts)


def _reorder(random: Random, node: Node) -> bytes:
    parts = _pairs(node)
    random.shuffle(parts)
    return _again(node, parts)


def _double(random: Random, node: Node) -> bytes:
    parts = _pairs(node)
    if parts:
        parts.insert(random.randrange(len(parts)), random.choice(parts))
    return _again(node, parts)


def _drop(random: Random, node: Node) -> bytes:
    parts = _pairs(node)
    if parts:
        del parts[random.randrange(len(parts))]
    return _again(node, parts)


def _add(random: Random, node: Node) -> bytes:
    new = random.choice((b"\x18\x63", b"\x39\xff\xff", b"\x61a", b"\xf5", b"\x3a\x00\x01\x00\xff"))
    parts = [*_pairs(node), new + b"\0" if node.major == MAP else new]
    if node.major == MAP and random.random() < 0.5:
        parts.sort()
    return _again(node, parts)


def _other_kind(random: Random, node: Node) -> bytes:
    if node.raw == b"\x01" and random.random() < 0.5:
        return b"\xf5"  # true, which Python takes for 1
    return random.choice((*SIMPLES, b"\x40", b"\x60", b"\x80", b"\xa0", b"\0", b"\x20", b"\x61\xff", b"\xc2\x41\x01"))


def _content(random: Random, node: Node) -> bytes:
    """Change a string and keep its length right."""
    content = node.raw[len(head(node.major, node.argument)) :] or b"\0"
    _, changed = mutate_bytes(random, content, [content])
    return head(node.major, len(changed)) + changed


def _wrapped(random: Random, node: Node) -> bytes:
    tag = head(TAG, random.choice((0, 2, 16, 18, 24, 28, 29, 96, 98, 258, 55799)))
    return random.choice((tag + node.raw, b"\x81" + node.raw, head(BYTES, len(node.raw)) + node.raw))


def _deep(random: Random, node: Node) -> bytes:
    depth = random.choice((5, 12, 13, 100, DEEP))
    kind = random.choice((b"\x81", b"\xa1\0", b"\xc6", b"\x9f"))
    return kind * depth + node.raw + (b"\xff" * depth if kind == b"\x9f" else b"")


def _huge(random: Random, node: Node) -> bytes:
    del node
    many = random.choice((9_000, 10_001, 60_000))
    pairs = b"".join(head(UINT, number) + b"\0" for number in range(many))
    claimed = head(random.choice((BYTES, TEXT, ARRAY, MAP)), random.choice((1 << 31, (1 << 64) - 1)))
    size = random.choice((BIG // 2, BIG, BIG + 1))
    return random.choice(
        (head(ARRAY, many) + bytes(many), head(MAP, many) + pairs, claimed, head(BYTES, size) + bytes(size))
    )


_OF_NUMBERS = (_number, _number, _long_head, _other_kind, _wrapped, _deep)
_OF_STRINGS = (_content, _content, _content, _length, _long_head, _indefinite, _other_kind, _wrapped, _deep)
_OF_LISTS = (_length, _long_head, _indefinite, _reorder, _double, _drop, _add, _other_kind, _wrapped, _deep)
_OPERATIONS: dict[int, Sequence[Callable[[Random, Node], bytes]]] = {
    UINT: _OF_NUMBERS,
    NEGINT: _OF_NUMBERS,
    BYTES: _OF_STRINGS,
    TEXT: _OF_STRINGS,
    ARRAY: _OF_LISTS,
    MAP: _OF_LISTS,
    TAG: (_number, _length, _long_head, _other_kind, _wrapped),
    SIMPLE: (_other_kind, _wrapped, _deep),
}
_BOMBS_IN = 2000
"""One mutation in so many is a size bomb: they cost as much as hundreds of others."""


def mutate_tree(random: Random, nodes: Sequence[Node]) -> tuple[str, bytes]:
    """Change one item of an encoding, or put another one in its place.

    Returns: the mutation's name and the outermost item, which may by chance be the same as before.
    """
    node = random.choice(nodes)
    if random.randrange(_BOMBS_IN) == 0:
        return "huge", node.replaced(_huge(random, node))
    if random.randrange(10) == 0:
        return "exchange", node.replaced(random.choice(nodes).raw)
    operation = random.choice(_OPERATIONS[node.major])
    return operation.__name__.strip("_").replace("_", " "), node.replaced(operation(random, node))
