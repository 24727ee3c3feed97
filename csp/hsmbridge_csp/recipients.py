"""For whom a blob is sealed, and who opens it.

A recipient wraps the content key; one in a token also wraps and unwraps the token keys that travel by value.

Source: RFC 9052 section 5.1; RFC 9053 section 6 (key agreement and key transport); docs/blob-format.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from hsmbridge.destruction import Ours
    from hsmbridge.objects import Object
    from hsmbridge_csp.content import ContentKey
    from hsmbridge_csp.cose import CoseRecipient

__all__ = ["Opener", "Sealer"]


class Sealer(Protocol):
    """Somebody to seal for."""

    allow_unsafe: bool

    @property
    def fingerprint(self) -> bytes:
        """Names the recipient's key (the kid)."""
        ...

    @property
    def wrapping_key(self) -> Object | None:
        """What wraps a token key that goes by value; None where the recipient is not in a token of ours."""
        ...

    def seal(self, ours: Ours | None) -> tuple[ContentKey, CoseRecipient]:
        """Make a content key and wrap it for the recipient."""
        ...


class Opener(Protocol):
    """A recipient's own key."""

    allow_unsafe: bool

    @property
    def unwrapping_key(self) -> Object | None:
        """What unwraps a token key that came by value; None where this key is not in a token."""
        ...

    def matches(self, recipient: CoseRecipient) -> bool:
        """Whether the blob's recipient is this key."""
        ...

    def open(self, recipient: CoseRecipient, ours: Ours | None) -> ContentKey:
        """Unwrap the content key."""
        ...
