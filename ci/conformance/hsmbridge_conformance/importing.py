"""Importing in the second process: by the provider, with the run's own identity and trust."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsmbridge_csp.identity import FileIdentity, config_directory
from hsmbridge_csp.provider import Provider
from hsmbridge_csp.recipient_rsa import RsaOpener

from hsmbridge.codes import CKO
from hsmbridge.errors import HsmbridgeError

if TYPE_CHECKING:
    from hsmbridge_csp.keys import Key
    from hsmbridge_csp.recipients import Opener

    from hsmbridge.objects import Object
    from hsmbridge.token import Token

__all__ = ["RUN_IDENTITY", "Importing", "opener_of", "run_identity"]

RUN_IDENTITY = "run-identity.pem"
"""The file in the run's private directory, which is HSMBRIDGE_HOME for its processes."""

_VERBS = frozenset({"encrypt", "decrypt", "sign", "seal", "open", "sign_record"})


def run_identity() -> FileIdentity:
    """Return the identity of this run: every process of the run has it, so each believes the other."""
    return FileIdentity.load(config_directory() / RUN_IDENTITY)


def opener_of(provider: Provider, kek: Object) -> Opener:
    """Return what opens blobs that are sealed for a KEK: an AES key, or an RSA private key."""
    return RsaOpener(kek) if kek.identity.cls == CKO.PRIVATE_KEY else provider.kek(kek)


class Importing:
    """Keys that arrived, by number.

    Args:
        token: where they live.
    """

    def __init__(self, token: Token) -> None:
        self._provider = Provider(token, identity=run_identity())
        self._openers: dict[bytes, Opener] = {}
        self._keys: list[Key] = []

    def take(self, blob: bytes, kek: Object) -> int:
        """Import a blob."""
        key_id = kek.identity.id
        if key_id not in self._openers:
            self._openers[key_id] = opener_of(self._provider, kek)
        self._keys.append(self._provider.import_key(blob, self._openers[key_id]))
        return len(self._keys) - 1

    def go_on(self, number: int, verb: str, data: bytes) -> bytes:
        """Use a key: ``encrypt``, ``decrypt``, ``sign``, ``seal``, ``open``, ``sign_record``."""
        use = getattr(self._keys[number], verb, None) if verb in _VERBS else None
        if use is None:
            raise HsmbridgeError(f"a key of this kind cannot {verb}")
        return bytes(use(data))

    def drop(self, number: int) -> str:
        """Destroy a key or let go of it."""
        return str(self._provider.destroy_key(self._keys[number]).outcome)
