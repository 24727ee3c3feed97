"""What is attacked: each target makes a mutated input, hands it to a parser and judges what comes back.

A target raises :class:`Finding` when the parser breaks its promise: another error than those it documents, or an input
that was changed and is taken all the same.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from hsmbridge_csp.blob import Blob
from hsmbridge_csp.blobheader import BlobHeader
from hsmbridge_csp.clearpart import Purpose
from hsmbridge_csp.cose import CoseSign1
from hsmbridge_csp.cryptoapi_blobs import parse_blob
from hsmbridge_csp.errors import NTE, BlobError
from hsmbridge_csp.kinds import software_key, token_state
from hsmbridge_csp.permissions import Permission
from hsmbridge_csp.record import KeyRecord, Transfer
from hsmbridge_csp.sealing import open_blob, verify_blob
from hsmbridge_csp.trust import TrustStore

from hsmbridge.capture import request_for
from hsmbridge.errors import InputError, PolicyError, UriError
from hsmbridge.uri import parse_uri
from tests.fuzz.mutation import Node, mutate_bytes, mutate_tree, parse_tree
from tests.fuzz.seeds import URIS, cryptoapi_blobs, records, world

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from hsmbridge_csp.recipients import Opener

__all__ = ["TARGETS", "UNCHANGED", "Finding", "Target"]

UNCHANGED = "an original"
"""The outcome of a blob that was taken: it has to be one that was exported, to the byte."""

HEADER = BlobHeader.LENGTH


class Finding(Exception):  # noqa: N818 - it is what the fuzzer is there to find, not an error of it
    """A parser broke its promise."""


class Target(Protocol):
    """A parser under attack."""

    def attack(self, random: Random) -> tuple[str, str]:
        """Try one mutated input.

        Returns: the mutation's name and the outcome's: an error's class, or what was taken.

        Raises:
            Finding: the parser broke its promise.
        """
        ...


class _Corpus:
    """Seeds as bytes and, where they hold CBOR behind a header, as trees."""

    def __init__(self, seeds: tuple[bytes, ...], *, cbor_at: int | None) -> None:
        self.seeds = seeds
        self._at = cbor_at
        self._nodes: list[list[Node]] = []
        if cbor_at is not None:
            self._nodes = [parse_tree(seed[cbor_at:]).walk() for seed in seeds]

    def mutate(self, random: Random, number: int) -> tuple[str, bytes]:
        seed = self.seeds[number]
        if not self._nodes or random.random() < 0.4:
            return mutate_bytes(random, seed, self.seeds)
        assert self._at is not None
        name, body = mutate_tree(random, self._nodes[number])
        return name, seed[: self._at] + body


class _BlobTarget:
    """Blob.parse, verify_blob and open_blob in the order in which an import calls them, with recipients in software."""

    def __init__(self, pairs: tuple[tuple[bytes, Opener], ...]) -> None:
        self._pairs = pairs
        self._originals = frozenset(blob for blob, _ in pairs)
        self._corpus = _Corpus(tuple(blob for blob, _ in pairs), cbor_at=HEADER)
        self._sender = TrustStore.parse(world().trust, name="trust").sender

    def attack(self, random: Random) -> tuple[str, str]:
        number = random.randrange(len(self._pairs))
        name, data = self._mutated(random, number)
        seed, opener = self._pairs[number]
        try:
            blob = Blob.parse(data)
            _check_same(name, data, blob.encode())
            _check_same(name, blob.encrypted.protected, blob.clear.encode())
            if blob.signed is not None or self.signs or blob.clear.purpose is not Purpose.COPY:
                verify_blob(blob, self._sender)
            open_blob(blob, opener, None)
        except (BlobError, PolicyError) as error:
            return name, f"{type(error).__name__}, {describe(error)}"
        except Finding:
            raise
        except Exception as error:
            raise Finding(f"{name}: {error!r} for {data[:4000].hex()}") from error
        if data not in self._originals:  # a splice can put another whole blob of the sender together
            raise Finding(f"{name}: taken although changed: {data.hex()}; it was {seed.hex()}")
        return name, UNCHANGED

    signs = True

    def _mutated(self, random: Random, number: int) -> tuple[str, bytes]:
        return self._corpus.mutate(random, number)


class _Unsigned(_BlobTarget):
    """Blobs without a signature, taken as copies all the same: the seal alone protects them."""

    signs = False


class _SignedAgain(_BlobTarget):
    """A COSE_Encrypt that was changed and then signed anew.

    By the believed sender, so that the layers behind the signature see it, or by a stranger.
    """

    def __init__(self, pairs: tuple[tuple[bytes, Opener], ...]) -> None:
        super().__init__(pairs)
        payloads = tuple(signed.payload for signed in (Blob.parse(blob).signed for blob, _ in pairs) if signed)
        self._payloads = _Corpus(payloads, cbor_at=0)

    def _mutated(self, random: Random, number: int) -> tuple[str, bytes]:
        header = self._pairs[number][0][:HEADER]
        if random.randrange(20) == 0:
            name, header = "header", mutate_bytes(random, header, [header])[1][:HEADER].ljust(HEADER, b"\0")
            payload = self._payloads.seeds[number]
        else:
            name, payload = self._payloads.mutate(random, number)
        signer = world().stranger if random.randrange(10) == 0 else world().sender
        unsigned = CoseSign1(protected=b"\xa1\x01\x27", kid=signer.fingerprint, payload=payload, signature=b"")
        signature = signer.sign(unsigned.to_be_signed(header))
        return name, header + replace(unsigned, signature=signature).encode()


class _Records:
    """Key records as a believed sender of another make might write them."""

    def __init__(self) -> None:
        self._corpus = _Corpus(records(), cbor_at=0)

    def attack(self, random: Random) -> tuple[str, str]:
        name, data = self._corpus.mutate(random, random.randrange(len(self._corpus.seeds)))
        before = bytes(bytearray(data))
        try:
            record = KeyRecord.decode(data)
            _check_same(name, before, data)
            _check_same(name, before, record.encode())
            if record.transfer is Transfer.VALUE:
                software_key(record.algorithm, bytearray(record.key), record.state, Permission(record.permissions))
            elif record.captured is not None:
                token_state(record)
                request_for(record.captured, on_token=False, ec_point=record.ec_point)
        except InputError as error:
            return name, f"{type(error).__name__}, {describe(error)}"
        except Finding:
            raise
        except Exception as error:
            raise Finding(f"{name}: {error!r} for {data[:4000].hex()}") from error
        return name, "a record"


class _CryptoApi:
    """CryptoAPI's own blobs."""

    def __init__(self) -> None:
        self._corpus = _Corpus(cryptoapi_blobs(), cbor_at=None)

    def attack(self, random: Random) -> tuple[str, str]:
        name, data = self._corpus.mutate(random, random.randrange(len(self._corpus.seeds)))
        try:
            blob = parse_blob(data)
        except BlobError as error:
            return name, f"{type(error).__name__}, {describe(error)}"
        except Exception as error:
            raise Finding(f"{name}: {error!r} for {data.hex()}") from error
        _check_same(name, data, blob.to_bytes())
        return name, "a blob"


class _Uris:
    """``pkcs11:`` URIs."""

    def __init__(self) -> None:
        self._corpus = _Corpus(tuple(uri.encode() for uri in URIS), cbor_at=None)

    def attack(self, random: Random) -> tuple[str, str]:
        name, data = self._corpus.mutate(random, random.randrange(len(self._corpus.seeds)))
        text = data.decode(random.choice(("latin-1", "utf-8")), "surrogateescape")
        try:
            uri = parse_uri(text)
        except UriError as error:
            return name, type(error).__name__
        except Exception as error:
            raise Finding(f"{name}: {error!r} for {text!r}") from error
        if parse_uri(uri.to_uri(include_pin=True)) != uri:
            raise Finding(f"{name}: another URI when written and read again: {text!r}")
        return name, "a URI"


class _TrustFiles:
    """The file of pinned keys."""

    def __init__(self) -> None:
        self._corpus = _Corpus((world().trust,), cbor_at=None)

    def attack(self, random: Random) -> tuple[str, str]:
        name, data = self._corpus.mutate(random, 0)
        try:
            pins = TrustStore.parse(data, name="a file").pins
        except InputError as error:
            return name, type(error).__name__
        except Exception as error:
            raise Finding(f"{name}: {error!r} for {data!r}") from error
        written = "".join(f"{pin.line}\n" for pin in pins).encode()
        if [pin.line for pin in TrustStore.parse(written, name="again").pins] != [pin.line for pin in pins]:
            raise Finding(f"{name}: other pins when written and read again: {data!r}")
        return name, "pins"


def _check_same(name: str, data: bytes, again: bytes) -> None:
    if again != data:
        raise Finding(f"{name}: read, but written with other bytes: {data.hex()}, {again.hex()}")


def describe(error: Exception) -> str:
    """Return the CryptoAPI code of an error by name, the class of one that has none."""
    nte = getattr(error, "nte", None)
    return f"NTE_{nte.name}" if isinstance(nte, NTE) else "refused by policy"


TARGETS: dict[str, Callable[[], Target]] = {
    "signed blob": lambda: _BlobTarget(world().signed),
    "unsigned blob": lambda: _Unsigned(world().unsigned),
    "blob signed again": lambda: _SignedAgain(world().signed),
    "key record": _Records,
    "CryptoAPI blob": _CryptoApi,
    "URI": _Uris,
    "trust file": _TrustFiles,
}
"""By name: what makes a target."""
