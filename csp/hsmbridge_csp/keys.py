"""Keys as the provider's callers hold them: what all kinds have in common.

A key carries its running state, whoever computes. Once exported for a move it is frozen; once destroyed it is nothing.

Source: CryptoAPI HCRYPTKEY, CryptDestroyKey; docs/residency.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from hsmbridge.residency import Classification, Residency
from hsmbridge_csp.disposition import Disposition, Outcome
from hsmbridge_csp.errors import NTE, BadKeyError, KeyStateError, PermissionDeniedError
from hsmbridge_csp.permissions import DEFAULT, Permission

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Key", "SoftwareKey"]


class Key(ABC):
    """A key with its running state.

    Attributes:
        algorithm: ``AES``, ``3DES``, ``AES-GCM``, ``HMAC-SHA256``, ``RSA``, …
        bits: its size, 0 where the token does not tell.
        permissions: KP_PERMISSIONS.
    """

    def __init__(self, algorithm: str, bits: int, permissions: Permission = DEFAULT) -> None:
        self.algorithm = algorithm
        self.bits = bits
        self.permissions = permissions
        self._why_dead: str | None = None
        self._frozen = False

    @property
    def frozen(self) -> bool:
        """Whether an export for a move has stopped this key."""
        return self._frozen

    def freeze(self) -> None:
        """Stop the key: it was exported for a move and must not go on here."""
        self._frozen = True

    def thaw(self) -> None:
        """Let the key go on: nothing of it has left, or the recipient has promised never to import it."""
        self._frozen = False

    def check_usable(self, needed: Permission | None = None) -> None:
        """Refuse a key that was destroyed or frozen, or may not do what is asked.

        Raises:
            BadKeyError: destroyed; KeyStateError: frozen; PermissionDeniedError: not among its permissions.
        """
        self.check_alive()
        if self._frozen:
            raise KeyStateError(
                "the key was exported for a move and is frozen here", hint="go on with it where it was imported"
            )
        if needed is not None and needed not in self.permissions:
            raise PermissionDeniedError(
                f"the key's permissions do not include {needed.name}", hint="KP_PERMISSIONS say what it may do"
            )

    def check_alive(self) -> None:
        """Refuse a key that was destroyed.

        Raises:
            BadKeyError: it was.
        """
        if self._why_dead is not None:
            raise BadKeyError(self._why_dead, hint="import or find the key again", nte=NTE.BAD_KEY)

    def state_map(self) -> dict[int, Any]:
        """Return the running state for a key record; empty where this kind of key has none.

        Raises:
            KeyStateError: something is running that cannot be carried.
        """
        return {}

    @property
    def can_only_move(self) -> bool:
        """Whether a second holder of this state could use one nonce or keystream twice."""
        return False

    @abstractmethod
    def classify(self) -> Classification:
        """Say where the key's only copy lives."""

    @abstractmethod
    def dispose(self) -> Disposition:
        """Destroy the key if it lives in software; either way this object is dead afterwards."""

    @abstractmethod
    def duplicate(self) -> Self:
        """Return a second key in the same state; afterwards nothing is shared (CryptDuplicateKey).

        Raises:
            KeyStateError: a nonce-bearing encryptor, of which there must not be two.
        """


class SoftwareKey(Key):
    """A key whose bytes this process holds.

    Args:
        algorithm: by name.
        value: the key's bytes; the caller hands them over, and they are overwritten at the end.
        permissions: KP_PERMISSIONS.
    """

    def __init__(self, algorithm: str, value: bytearray, permissions: Permission = DEFAULT) -> None:
        super().__init__(algorithm, 8 * len(value), permissions)
        self._value = value

    @property
    def value(self) -> bytearray:
        """The key's bytes, for export.

        Raises:
            BadKeyError: the key was destroyed.
        """
        self.check_alive()
        return self._value

    def classify(self) -> Classification:
        """Software, always."""
        self.check_alive()
        reason = "its bytes are held by this process"
        return Classification(residency=Residency.SOFTWARE, evidence=(reason,), reason=reason)

    def dispose(self) -> Disposition:
        """Overwrite the bytes. Copies that the interpreter made are beyond reach (docs/limits.md)."""
        self.check_alive()
        found = self.classify()
        self._value[:] = bytes(len(self._value))
        self._forget()
        self._why_dead = "the key was destroyed"
        return Disposition(outcome=Outcome.DESTROYED, residency=found.residency, evidence=found.evidence)

    def _forget(self) -> None:
        """Drop whatever else holds the key: contexts of cryptographic libraries."""

    def _check_duplicable(self) -> None:
        self.check_usable()
        if self.can_only_move:
            raise KeyStateError(
                "an encryptor of this kind cannot be duplicated: two would use one keystream or nonce twice",
                hint="move it; or take ENCRYPT off its KP_PERMISSIONS first",
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.algorithm}, {self.bits} bits>"
