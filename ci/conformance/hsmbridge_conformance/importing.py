"""Importing in the second process: by the provider, with the run's own identity and trust."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsmbridge_csp.identity import FileIdentity, config_directory
from hsmbridge_csp.provider import Provider

from hsmbridge.errors import HsmbridgeError

if TYPE_CHECKING:
    from hsmbridge_csp.keys import Key
    from hsmbridge_csp.recipient_kek import TokenKek

    from hsmbridge.objects import Object
    from hsmbridge.token import Token

__all__ = ["RUN_IDENTITY", "Importing", "run_identity"]

RUN_IDENTITY = "run-identity.pem"
"""The file in the run's private directory, which is HSMBRIDGE_HOME for its processes."""


def run_identity() -> FileIdentity:
    """Return the identity of this run: every process of the run has it, so each believes the other."""
    return FileIdentity.load(config_directory() / RUN_IDENTITY)


class Importing:
    """Keys that arrived, by number.

    Args:
        token: where they live.
        prefix: the run's CKA_ID prefix.
    """

    def __init__(self, token: Token, prefix: bytes) -> None:
        self._provider = Provider(token, identity=run_identity())
        self._prefix = prefix
        self._keks: dict[bytes, TokenKek] = {}
        self._keys: list[Key] = []

    def take(self, blob: bytes, kek: Object) -> int:
        """Import a blob."""
        known = self._keks.get(kek.identity.id)
        if known is None:
            known = self._keks[kek.identity.id] = self._provider.kek(kek)
        self._keys.append(self._provider.import_key(blob, known))
        return len(self._keys) - 1

    def go_on(self, number: int, verb: str, data: bytes) -> bytes:
        """Use a key: ``encrypt``, ``decrypt``, ``sign``, ``seal``, ``open``."""
        use = getattr(self._keys[number], verb, None)
        if use is None:
            raise HsmbridgeError(f"a key of this kind cannot {verb}")
        result = use(data)
        return bytes(result)

    def drop(self, number: int) -> str:
        """Destroy a key or let go of it."""
        return str(self._provider.destroy_key(self._keys[number]).outcome)
