"""The keys of a case: made at the source, known again at the destination."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsmbridge_csp.cipher_key import CipherKey
from hsmbridge_csp.handoff.source import FileSource, LiveSource
from hsmbridge_csp.keys import SoftwareKey
from hsmbridge_csp.modes import Cipher, Direction
from hsmbridge_csp.provider import Provider
from hsmbridge_csp.record_key import Aead, RecordKey, RecordState
from hsmbridge_csp.token_key import TokenKey

from tests.sweep.bench import FILE, HARDWARE, KEK, MOVING, RECORD, answer_of, moving_key

if TYPE_CHECKING:
    from hsmbridge_csp.handoff.source import Source
    from hsmbridge_csp.keys import Key
    from hsmbridge_csp.recipient_kek import TokenKek

    from hsmbridge.token import Token
    from tests.sweep.look import Look
    from tests.sweep.scene import Scene

__all__ = ["describe", "kek_of", "source_of", "warm"]

_IV, _LIMIT = bytes(12), 1000


def kek_of(token: Token) -> TokenKek:
    """Return the KEK."""
    provider = Provider(token)
    return provider.kek(provider.find_key(label=KEK).object)


def source_of(name: str, scene: Scene, token: Token | None) -> Source:
    """Make, or find, a key that is going to move."""
    bench = scene.bench
    if name == FILE:
        scene.key_file.touch(mode=0o600)
        scene.key_file.write_bytes(bench.key(FILE))
        return FileSource(scene.key_file, CipherKey(Cipher.AES, bytearray(bench.key(FILE))))
    if name == RECORD:
        state = RecordState(iv=_IV, direction=Direction.ENCRYPT, limit=_LIMIT)
        return LiveSource(RecordKey(Aead.AES_GCM, bytearray(bench.key(RECORD)), state))
    if token is None:
        raise ValueError(f"{name} needs a token")
    if name == MOVING:
        return LiveSource(TokenKey(moving_key(token, bench.key(MOVING))))
    return LiveSource(Provider(token).find_key(label=HARDWARE))


def warm(token: Token) -> None:
    """Let the package find out what it asks each token once: how keys enter it, what its wraps are."""
    kek = kek_of(token)
    provider = Provider(token)
    spare = provider.adopt(moving_key(token, bytes(32)))
    blob = provider.export_key(spare, kek)
    provider.destroy_key(spare)
    provider.destroy_key(provider.import_key(blob, kek, allow_unsigned=True))


def describe(key: Key, name: str, look: Look | None) -> dict[str, object]:
    """Say of a key object whether its holder may use it, and which key it is.

    Returns: ``name``, ``usable``, ``frozen``, ``dead``, ``answer``: one block under it, empty where there is none.
    """
    dead = _refuses(key.check_alive)
    return {
        "name": name,
        "usable": not _refuses(key.check_usable),
        "frozen": key.frozen,
        "dead": dead,
        "answer": "" if dead else _answer(key, look),
    }


def _refuses(check: object) -> bool:
    try:
        check()  # type: ignore[operator]
    except Exception:  # noqa: BLE001 - whatever it says, it says no
        return True
    return False


def _answer(key: Key, look: Look | None) -> str:
    if isinstance(key, SoftwareKey):
        return answer_of(bytes(key.value))
    if isinstance(key, TokenKey) and look is not None and key.object.alive:
        return look.answer(key.object.handle)
    return ""
