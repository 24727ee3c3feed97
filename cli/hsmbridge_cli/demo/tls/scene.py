"""The scene: a key in a token, a certificate for it, and the two processes, ready for clients."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hsmbridge_csp.identity import FileIdentity

from hsmbridge.errors import HsmbridgeError
from hsmbridge_cli.demo.tls.script import TlsConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cryptography.hazmat.primitives.asymmetric import rsa

__all__ = ["HOST", "ProcessFailedError", "Scene", "play"]

HOST = "localhost"

_TIMEOUT = 60
_PEM = serialization.Encoding.PEM
_NOTHING: dict[str, str] = {}
_OVERWRITING = {
    "GLIBC_TUNABLES": "glibc.malloc.perturb=85:glibc.malloc.tcache_count=0",
    "PYTHONMALLOC": "malloc",
}
"""Has Python take memory from glibc, and glibc overwrite what is freed, and keep nothing aside that it would not."""


class ProcessFailedError(HsmbridgeError):
    """One of the two processes failed; its own words are on standard error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Both processes at work.

    Attributes:
        port: where the secure process waits for clients.
        authority: file with the certificate that clients trust.
        secure, application: the processes.
    """

    port: int
    authority: Path
    secure: subprocess.Popen[str]
    application: subprocess.Popen[str]

    def report(self, process: subprocess.Popen[str]) -> list[dict[str, Any]]:
        """Ask one of them what became of the connections that it has had so far; it waits for those to end."""
        assert process.stdin is not None  # noqa: S101 - asked for when it was started
        process.stdin.write("\n")
        process.stdin.flush()
        connections: list[dict[str, Any]] = _read(process)["connections"]
        return connections

    def finish(self) -> dict[str, Any]:
        """Let the secure process end; returns what became of the token's key."""
        assert self.secure.stdin is not None  # noqa: S101 - as above
        self.secure.stdin.close()
        return _read(self.secure)


def certify(public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> tuple[x509.Certificate, x509.Certificate]:
    """Return a certificate for a server's public key, and that of the authority that lived for it alone."""
    authority = ec.generate_private_key(ec.SECP256R1())
    names = [
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in (HOST, "hsmbridge demo authority")
    ]
    now = dt.datetime.now(dt.UTC)

    def begin(subject: x509.Name, key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(names[1])
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=subject is names[1], path_length=None), critical=True)
        )

    alternatives = x509.SubjectAlternativeName([x509.DNSName(HOST), x509.IPAddress(IPv4Address("127.0.0.1"))])
    server = begin(names[0], public).add_extension(alternatives, critical=False).sign(authority, hashes.SHA256())
    return server, begin(names[1], authority.public_key()).sign(authority, hashes.SHA256())


@contextmanager
def play(
    config: TlsConfig, public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey, environment: Mapping[str, str] = _NOTHING
) -> Iterator[Scene]:
    """Start both processes; end them at the end.

    Args:
        config: token, names and directory; the rest is filled in here.
        public: of the token's key.
        environment: that the secure process needs for its token, beside the one that is here.

    Raises:
        ProcessFailedError: one of them does not start.
    """
    directory = Path(config.directory)
    certificate, authority = certify(public)
    trusted = directory / "authority.pem"
    trusted.write_bytes(authority.public_bytes(_PEM))
    secure, application = FileIdentity.generate(), FileIdentity.generate()
    public_pem = (_PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    of_secure = replace(
        config,
        identity=secure.to_pem().decode(),
        peer=application.public_key.public_bytes(*public_pem).decode(),
        certificate=certificate.public_bytes(_PEM).decode(),
    )
    of_application = TlsConfig(
        directory=config.directory,
        identity=application.to_pem().decode(),
        peer=secure.public_key.public_bytes(*public_pem).decode(),
        timeout=config.timeout,
    )
    with (
        _process("application", of_application) as receiving,
        _process("secure", of_secure, **{**environment, **_OVERWRITING}) as sending,
    ):
        yield Scene(port=_read(sending)["port"], authority=trusted, secure=sending, application=receiving)


@contextmanager
def _process(name: str, config: TlsConfig, **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-m", f"hsmbridge_cli.demo.tls.{name}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore", **environment},
    )
    assert process.stdin is not None  # noqa: S101 - asked for above
    assert process.stdout is not None  # noqa: S101 - asked for above
    try:
        process.stdin.write(config.to_json() + "\n")
        process.stdin.flush()
        if name == "application":
            _read(process)
        yield process
        process.stdin.close()
        process.wait(_TIMEOUT)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdin.close()
        process.stdout.close()


def _read(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None  # noqa: S101 - asked for when it was started
    line = process.stdout.readline()
    if not line:
        raise ProcessFailedError("a process of the demo ended without a report", hint="its own message is above")
    report: dict[str, Any] = json.loads(line)
    return report
