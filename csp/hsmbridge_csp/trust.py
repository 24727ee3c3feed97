"""Whom we believe: public keys pinned in a small file, as ssh's ``known_hosts`` is.

A line is ``ROLE NAME BASE64``: ``sender`` or ``recipient``, a name without spaces, and the DER SubjectPublicKeyInfo.
There is no trust on first use; one's own identity is trusted without a line.

Source: docs/identity.md; RFC 5280 section 4.1 (SubjectPublicKeyInfo).
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from hsmbridge.errors import InputError, PolicyError
from hsmbridge.publickeys import PublicKey, spki_fingerprint
from hsmbridge_csp.errors import NTE, CspError

if TYPE_CHECKING:
    from pathlib import Path

    from hsmbridge_csp.identity import VerifyingKey

__all__ = ["Pin", "Role", "TrustStore", "UnknownSenderError", "load_public_key", "make_pin"]

TRUST_FILE = "trusted"
_MAX_FILE = 1 << 20
_MAX_NAME = 64


class UnknownSenderError(CspError, PolicyError):
    """A blob is signed by nobody whom we believe, or by nobody at all."""

    nte = NTE.BAD_SIGNATURE


class Role(StrEnum):
    """What a pinned key is believed to be."""

    SENDER = "sender"
    RECIPIENT = "recipient"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """One pinned key.

    Attributes:
        role: sender or recipient.
        name: what its owner is called here.
        key: the public key.
        fingerprint: SHA-256 of its SubjectPublicKeyInfo.
    """

    role: Role
    name: str
    key: PublicKey
    fingerprint: bytes

    @property
    def line(self) -> str:
        """The line of the file."""
        der = self.key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return f"{self.role} {self.name} {base64.b64encode(der).decode()}"


class TrustStore:
    """The pinned keys.

    Args:
        pins: in the file's order.
    """

    def __init__(self, pins: tuple[Pin, ...] = ()) -> None:
        self.pins = pins

    @classmethod
    def load(cls, path: Path) -> TrustStore:
        """Read the file; a missing one trusts nobody.

        Raises:
            PolicyError: others may write it.
            InputError: a line is malformed; it is named.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return cls()
        with os.fdopen(descriptor, "rb") as source:
            _check_private(os.fstat(descriptor), path)
            raw = source.read(_MAX_FILE + 1)
        return cls.parse(raw, name=str(path))

    @classmethod
    def parse(cls, raw: bytes, *, name: str) -> TrustStore:
        """Read the bytes of a file.

        Raises:
            InputError: too long, not ASCII, or a line is malformed.
        """
        if len(raw) > _MAX_FILE:
            raise InputError(f"{name} is too long", hint=f"at most {_MAX_FILE} bytes")
        pins = []
        for number, line in enumerate(raw.splitlines(), 1):
            if line.strip() and not line.startswith(b"#"):
                pins.append(_parse_line(line, f"{name}, line {number}"))
        return cls(tuple(pins))

    def add(self, path: Path, pin: Pin) -> TrustStore:
        """Pin one more key, durably.

        Returns: the new store.

        Raises:
            PolicyError: others may write the file.
        """
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "ab") as target:
            status = os.fstat(descriptor)
            _check_private(status, path)
            ended = status.st_size == 0 or os.pread(descriptor, 1, status.st_size - 1) == b"\n"
            target.write(f"{'' if ended else chr(10)}{pin.line}\n".encode())
            target.flush()
            os.fsync(descriptor)
        return TrustStore((*self.pins, pin))

    def sender(self, fingerprint: bytes) -> VerifyingKey:
        """Return the public key of a pinned sender.

        Raises:
            UnknownSenderError: nobody with that fingerprint is pinned as a sender.
        """
        for pin in self.pins:
            if pin.role is Role.SENDER and pin.fingerprint == fingerprint:
                if isinstance(pin.key, (ed25519.Ed25519PublicKey, ec.EllipticCurvePublicKey)):
                    return pin.key
                break
        raise UnknownSenderError(
            f"the blob is signed by {fingerprint.hex()}, whom nobody vouches for here",
            hint="if you know the sender, pin the public key: `hsmbridge identity trust --name NAME FILE`",
        )

    def named(self, role: Role, name: str) -> Pin | None:
        """Return the pin of a role and name, None where there is none."""
        return next((pin for pin in self.pins if pin.role is role and pin.name == name), None)


def _check_private(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o022:
        raise PolicyError(f"{path} can be changed by others", hint=f"chmod 600 {path}")


def make_pin(role: Role, name: str, key: PublicKey) -> Pin:
    """Make a pin.

    Raises:
        InputError: the name cannot stand in the file.
    """
    if not name.isascii() or not name.isprintable() or " " in name or not 0 < len(name) <= _MAX_NAME:
        raise InputError(f"{name!r} cannot name a key", hint=f"use up to {_MAX_NAME} ASCII characters without spaces")
    return Pin(role=role, name=name, key=key, fingerprint=spki_fingerprint(key))


def load_public_key(raw: bytes, *, name: str) -> PublicKey:
    """Read a public key in PEM or DER (SubjectPublicKeyInfo).

    Raises:
        InputError: not one, or of a kind that is not used here.
    """
    loaders = (serialization.load_pem_public_key, serialization.load_der_public_key)
    for loader in loaders:
        try:
            key = loader(raw)
        except (ValueError, UnsupportedAlgorithm):
            continue
        if isinstance(key, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey)):
            return key
    raise InputError(
        f"{name} is not a public key", hint="give a SubjectPublicKeyInfo in PEM or DER: RSA, EC or Ed25519"
    )


def _parse_line(line: bytes, where: str) -> Pin:
    parts = line.split(b" ")
    try:
        role, name, encoded = (part.decode("ascii") for part in parts)
        key = load_public_key(base64.b64decode(encoded, validate=True), name=where)
        return make_pin(Role(role), name, key)
    except (ValueError, binascii.Error):
        raise InputError(f"{where} is malformed", hint="a line is: sender|recipient NAME BASE64") from None
