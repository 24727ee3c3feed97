"""Clients that are not ours: curl, and Python's ssl where there is no curl.

Source: curl(1); Python's ssl, SSLContext.keylog_filename.
"""

from __future__ import annotations

import http.client
import os
import shutil
import ssl
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hsmbridge_csp.tls.suites import TlsVersion

from hsmbridge_cli.demo.tls.scene import HOST

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Fetched", "fetch"]

_SECONDS = 60
_CURL = {TlsVersion.TLS12: ("--tlsv1.2", "--tls-max", "1.2"), TlsVersion.TLS13: ("--tlsv1.3",)}
_SSL = {TlsVersion.TLS12: ssl.TLSVersion.TLSv1_2, TlsVersion.TLS13: ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What a client got over one connection.

    Attributes:
        client: its name.
        bodies: of the answers, in order.
        connections: how many it made; 1 is keep-alive.
    """

    client: str
    bodies: tuple[bytes, ...]
    connections: int


def fetch(version: TlsVersion, port: int, authority: Path, paths: tuple[str, ...], key_log: Path) -> Fetched:
    """Fetch some paths one after the other, with a client that verifies the certificate and logs its secrets.

    Args:
        version: the only one that it speaks.
        port: on loopback.
        authority: what it trusts.
        paths: what to fetch.
        key_log: where the secrets go.

    Raises:
        OSError: the client failed.
    """
    curl = shutil.which("curl")
    if curl is None:
        return _with_ssl(version, port, authority, paths, key_log)
    outputs = [key_log.with_suffix(f".{number}") for number, _ in enumerate(paths)]
    command = [curl, "-sS", "--fail", "--cacert", str(authority), *_CURL[version], "-w", "%{num_connects}\n"]
    for path, output in zip(paths, outputs, strict=True):
        command += ["-o", str(output), f"https://{HOST}:{port}{path}"]
    done = subprocess.run(  # noqa: S603 - a fixed program from PATH, without a shell
        command,
        env={**os.environ, "SSLKEYLOGFILE": str(key_log)},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode:
        raise OSError(f"curl ended with {done.returncode}: {done.stderr.strip()}")
    return Fetched(
        client="curl",
        bodies=tuple(output.read_bytes() for output in outputs),
        connections=sum(map(int, done.stdout.split())),
    )


def _with_ssl(version: TlsVersion, port: int, authority: Path, paths: tuple[str, ...], key_log: Path) -> Fetched:
    context = ssl.create_default_context(cafile=str(authority))
    context.minimum_version = context.maximum_version = _SSL[version]
    context.keylog_filename = str(key_log)
    connection = http.client.HTTPSConnection(HOST, port, context=context, timeout=_SECONDS)
    try:
        bodies = []
        sockets = set()
        for path in paths:
            connection.request("GET", path)
            sockets.add(id(connection.sock))
            bodies.append(connection.getresponse().read())
    finally:
        connection.close()
    return Fetched(client="Python ssl", bodies=tuple(bodies), connections=len(sockets))
