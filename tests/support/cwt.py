"""cwt, another COSE implementation, which needs an older cbor2 than we do: a process in its own environment.

Source: tests/judges/open_with_cwt.py; `make judges`.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from hsmbridge_csp.identity import VerifyingKey

__all__ = ["CwtRefusedError", "open_channel_blob_with_cwt", "open_with_cwt", "requires_cwt", "verify_with_cwt"]

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-judges" / "bin" / "python"
SCRIPT = ROOT / "tests" / "judges" / "open_with_cwt.py"


class CwtRefusedError(Exception):
    """The judge did not verify or open a blob; the message is what it wrote."""


def requires_cwt() -> None:
    """Skip a test where the judge is not installed; in CI its absence is a failure."""
    if not PYTHON.exists():
        if "CI" in os.environ:
            pytest.fail("no judge: run `make judges`")
        pytest.skip("cwt is not installed: `make judges`")


def open_with_cwt(blob: bytes, sender: VerifyingKey, key: bytes | EllipticCurvePrivateKey) -> bytes:
    """Verify and open a blob.

    Args:
        blob: with its BLOBHEADER.
        sender: the public key that must have signed it.
        key: the KEK's bytes, or the recipient's private key.

    Returns: what was encrypted.

    Raises:
        CwtRefusedError: not authentic, or not for that key.
    """
    told = {
        "blob": blob.hex(),
        "sender": sender.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode(),
    }
    if isinstance(key, bytes):
        told["kek"] = key.hex()
    else:
        told["private"] = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
    return _ask(told)


def open_channel_blob_with_cwt(blob: bytes, content_key: bytes) -> bytes:
    """Open a blob that was sealed for a channel.

    Args:
        blob: with its BLOBHEADER.
        content_key: the key of its handoff.

    Returns: what was encrypted.

    Raises:
        CwtRefusedError: not authentic, or not under that key.
    """
    return _ask({"blob": blob.hex(), "content": content_key.hex()})


def verify_with_cwt(signed: bytes, context: bytes, signer: VerifyingKey) -> bytes:
    """Verify a tagged COSE_Sign1.

    Args:
        signed: its bytes.
        context: the external_aad.
        signer: the public key.

    Returns: the payload.

    Raises:
        CwtRefusedError: not authentic.
    """
    pem = signer.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    return _ask({"signed": signed.hex(), "context": context.hex(), "sender": pem})


def _ask(told: dict[str, str]) -> bytes:
    requires_cwt()
    # Isolated (-I): neither this project nor the environment's PYTHONPATH is there.
    done = subprocess.run(
        [PYTHON, "-I", SCRIPT], input=json.dumps(told), capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode != 0:
        raise CwtRefusedError(done.stderr)
    return bytes.fromhex(json.loads(done.stdout)["payload"])
