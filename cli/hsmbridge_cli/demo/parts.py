"""The seven keys of the demo, and what each does in either process.

A part begins in the secure process, stops, and goes on in the application process; what both wrote together is what the
judges get to see.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hsmbridge_csp.cipher_key import CipherKey, StreamingKey
from hsmbridge_csp.mac_key import Mac, MacKey
from hsmbridge_csp.modes import Cipher, Direction, Mode
from hsmbridge_csp.record_key import Aead, RecordKey, RecordState
from hsmbridge_csp.stream import CipherState
from hsmbridge_csp.token_key import TokenKey

from hsmbridge.codes import CKA
from hsmbridge.generation import generate_key
from hsmbridge.keyspec import parse_keyspec, usage_of
from hsmbridge.objects import find_key

if TYPE_CHECKING:
    from hsmbridge_csp.keys import Key

    from hsmbridge.template import Template
    from hsmbridge.token import Token
    from hsmbridge_cli.demo.script import Config

__all__ = ["IV", "PARTS", "PLAINTEXT_BYTES", "RECORD", "RECORDS", "Part", "Scene", "files_of"]

PLAINTEXT_BYTES = 2005
"""No multiple of a block; and pkcs11-tool decrypts no more than its buffer holds."""

RECORD = 401
RECORDS = 5
_PAUSE_AT = 1003  # bytes: in the middle of a block
_PAUSE_AFTER = 3  # records: the next one has sequence number 3
IV = bytes(range(16))
"""Every stream's IV, and the first 12 bytes of it the records' fixed IV: each key is used once."""


def files_of(directory: str | Path, name: str) -> tuple[Path, Path]:
    """Return the file that goes into a part, and the one that comes out."""
    return Path(directory, f"{name}.in"), Path(directory, f"{name}.out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Where a part's key comes from.

    Attributes:
        token: logged in.
        config: the run.
    """

    token: Token
    config: Config


class Part(ABC):
    """One key.

    Attributes:
        name: of its files, and in the JSON output.
        title: for people.
        algorithm: as the JSON output names it.
        secret_size: bytes of a software key, which the parent makes since it judges; 0 for a key in the token.
        on_token: whether the parent makes it as a token object.
    """

    name: str
    title: str
    algorithm: str
    secret_size = 0
    on_token = False

    @abstractmethod
    def key(self, scene: Scene, secret: bytearray) -> Key:
        """Make or find the key, in the secure process."""

    @abstractmethod
    def begin(self, key: Key, config: Config) -> None:
        """Do the first part of the work, in the secure process."""

    @abstractmethod
    def finish(self, key: Key, config: Config) -> None:
        """Do the rest, in the application process."""


class _Stream(Part):
    """A block cipher stream, stopped inside a block."""

    def begin(self, key: Key, config: Config) -> None:
        source, target = files_of(config.directory, self.name)
        target.write_bytes(_streaming(key).encrypt(source.read_bytes()[:_PAUSE_AT]))

    def finish(self, key: Key, config: Config) -> None:
        source, target = files_of(config.directory, self.name)
        with target.open("ab") as stream:
            stream.write(_streaming(key).encrypt(source.read_bytes()[_PAUSE_AT:], final=True))


class CbcStream(_Stream):
    """AES-256-CBC, a software key."""

    name, title, algorithm, secret_size = "cbc", "AES-256-CBC in memory", "AES-256-CBC", 32

    def key(self, _scene: Scene, secret: bytearray) -> Key:
        """Take the bytes."""
        return CipherKey(Cipher.AES, secret, CipherState(mode=Mode.CBC, iv=IV))


class CtrStream(_Stream):
    """AES-128-CTR, a software key: its running encryptor can only move."""

    name, title, algorithm, secret_size = "ctr", "AES-128-CTR in memory", "AES-128-CTR", 16

    def key(self, _scene: Scene, secret: bytearray) -> Key:
        """Take the bytes."""
        return CipherKey(Cipher.AES, secret, CipherState(mode=Mode.CTR, iv=IV))


class GcmRecords(Part):
    """AES-256-GCM record key, stopped at sequence number 3."""

    name, title, algorithm, secret_size = "gcm", "AES-256-GCM record key", "AES-256-GCM", 32

    def key(self, _scene: Scene, secret: bytearray) -> Key:
        """Take the bytes."""
        state = RecordState(iv=IV[:12], direction=Direction.ENCRYPT, limit=Aead.AES_GCM.limit)
        return RecordKey(Aead.AES_GCM, secret, state)

    def begin(self, key: Key, config: Config) -> None:
        """Seal three records."""
        self._seal(key, config, range(_PAUSE_AFTER))

    def finish(self, key: Key, config: Config) -> None:
        """Seal the rest."""
        self._seal(key, config, range(_PAUSE_AFTER, RECORDS))

    def _seal(self, key: Key, config: Config, numbers: range) -> None:
        assert isinstance(key, RecordKey)  # noqa: S101 - made by key(), or arrived as what it was
        source, target = files_of(config.directory, self.name)
        plaintext = source.read_bytes()
        with target.open("ab") as records:
            for number in numbers:
                records.write(key.seal(plaintext[number * RECORD : (number + 1) * RECORD]))


class HmacRecords(Part):
    """HMAC-SHA256 record key, stopped at sequence number 3."""

    name, title, algorithm, secret_size = "hmac", "HMAC-SHA256 record key", "HMAC-SHA256", 32

    def key(self, _scene: Scene, secret: bytearray) -> Key:
        """Take the bytes."""
        return MacKey(Mac.HMAC_SHA256, secret)

    def begin(self, key: Key, config: Config) -> None:
        """Sign three records."""
        self._sign(key, config, range(_PAUSE_AFTER))

    def finish(self, key: Key, config: Config) -> None:
        """Sign the rest."""
        self._sign(key, config, range(_PAUSE_AFTER, RECORDS))

    def _sign(self, key: Key, config: Config, numbers: range) -> None:
        assert isinstance(key, MacKey)  # noqa: S101 - made by key(), or arrived as what it was
        source, target = files_of(config.directory, self.name)
        plaintext = source.read_bytes()
        with target.open("ab") as tags:
            for number in numbers:
                tags.write(key.sign_record(plaintext[number * RECORD : (number + 1) * RECORD]))


class SessionStream(_Stream):
    """An extractable session object: its bytes cross under the KEK, from token to token."""

    name, title, algorithm = "session", "AES-256 session object", "AES-256-CBC"

    def key(self, scene: Scene, _secret: bytearray) -> Key:
        """Generate it in the token."""
        spec = parse_keyspec("aes:256")
        template: Template = {CKA.LABEL: scene.config.label(self.name), CKA.EXTRACTABLE: True, **usage_of(spec)}
        return _with_iv(TokenKey(generate_key(scene.token, spec, template)))


class TokenStream(_Stream):
    """A token object: it stays, and goes by reference."""

    name, title, algorithm, on_token = "token", "AES-256 token object", "AES-256-CBC", True

    def key(self, scene: Scene, _secret: bytearray) -> Key:
        """Find it."""
        return _with_iv(TokenKey(find_key(scene.token, label=scene.config.label(self.name))))


class TokenSignatures(Part):
    """A P-256 private key in the token: each process lets it sign, and it never leaves."""

    name, title, algorithm, on_token = "ec", "EC P-256 private key", "ECDSA-P256", True

    def key(self, scene: Scene, _secret: bytearray) -> Key:
        """Find the private half."""
        return TokenKey(find_key(scene.token, label=scene.config.label(self.name)))

    def begin(self, key: Key, config: Config) -> None:
        """Sign the first half."""
        self._sign(key, config, "begun", slice(_PAUSE_AT))

    def finish(self, key: Key, config: Config) -> None:
        """Sign the second half."""
        self._sign(key, config, "finished", slice(_PAUSE_AT, None))

    def _sign(self, key: Key, config: Config, which: str, part: slice) -> None:
        assert isinstance(key, TokenKey)  # noqa: S101 - found in the token
        source, target = files_of(config.directory, self.name)
        raw = key.sign(source.read_bytes()[part])
        half = len(raw) // 2
        numbers = (int.from_bytes(number, "big") for number in (raw[:half], raw[half:]))
        Path(config.directory, f"{self.name}.{which}").write_bytes(source.read_bytes()[part])
        target.with_suffix(f".{which}.sig").write_bytes(encode_dss_signature(*numbers))


PARTS: tuple[Part, ...] = (
    CbcStream(),
    CtrStream(),
    GcmRecords(),
    HmacRecords(),
    SessionStream(),
    TokenStream(),
    TokenSignatures(),
)


def _streaming(key: Key) -> StreamingKey:
    assert isinstance(key, StreamingKey)  # noqa: S101 - made by key(), or arrived as what it was
    return key


def _with_iv(key: TokenKey) -> TokenKey:
    key.set_cipher_state(CipherState(mode=Mode.CBC, iv=IV))
    return key
