"""What can honestly be said about bytes that have no BLOBHEADER."""

from __future__ import annotations

from typing import Final

__all__ = ["cose_name", "guess_bare_wrap"]

_SEMIBLOCK: Final = 8
_RFC3394_LEAST: Final = 24
"""RFC 3394 section 2: at least two 8-byte semiblocks of key, and one of checksum."""

_RFC5649_LEAST: Final = 16
"""RFC 5649 section 4.1: one semiblock of key and one of AIV, encrypted as one block."""

_RSA_BITS: Final = (2048, 3072, 4096)
_TEXT: Final = bytes(range(0x20, 0x7F)) + b"\t\r\n"
_COSE_STARTS: Final = {
    b"\xd0\x83": "COSE_Encrypt0",
    b"\xd2\x84": "COSE_Sign1",
    b"\xd8\x60\x84": "COSE_Encrypt",
}
"""Tag 16, 18 or 96 (RFC 9052 table 1) around an array of three or four items, as RFC 8949 encodes them."""

_CONTAINERS: Final = {
    b"-----BEGIN ": ("PEM", "decode the PEM first"),
    b"\x1e\xf1\xb5\xb0": ("PVK", "take the PVK file's own header off first: a PRIVATEKEYBLOB follows it"),
}
_OPAQUE: Final = "opaque wrapped key: cannot be told apart from random bytes"


def guess_bare_wrap(data: bytes) -> dict[str, object]:
    """Say what *data*, which has no BLOBHEADER, may be; only lengths and a few first bytes are evidence.

    Args:
        data: anything.

    Returns:
        `kind` ("cose", "pem", "pvk", "text" or "opaque"), `bytes`, and `summary` for people; for "opaque" also
        `candidates`: one entry per wrapping that gives this length, with `wrapping`, `min_key_bytes`, `max_key_bytes`
        and, with RSA, `rsa_bits`.

    Source: RFC 3394, RFC 5649, RFC 8017 section 7.1, PKCS#11 v3.1 CKM_RSA_AES_KEY_WRAP, RFC 9052.
    """
    known = _recognise(data)
    if known is not None:
        kind, summary = known
        return {"kind": kind, "bytes": len(data), "summary": summary}
    candidates = _candidates(len(data))
    if candidates:
        ways = "; ".join(_sentence(candidate) for candidate in candidates)
        summary = f"{_OPAQUE}; its {len(data)} bytes are consistent with: {ways}"
    else:
        summary = (
            f"no wrapping that is known here gives {len(data)} bytes; damaged, cut off, or not a wrapped key at all"
        )
    return {"kind": "opaque", "bytes": len(data), "summary": summary, "candidates": candidates}


def cose_name(data: bytes) -> str | None:
    """Name the tagged COSE structure that *data* begins like, or return None."""
    return next((name for start, name in _COSE_STARTS.items() if data.startswith(start)), None)


def _recognise(data: bytes) -> tuple[str, str] | None:
    """Return kind and summary if the first bytes or the alphabet give *data* away."""
    for prefix, (container, advice) in _CONTAINERS.items():
        if data.startswith(prefix):
            return container.lower(), f"looks like {container}, which is not a bare wrapped key; {advice}"
    if data and not data.translate(None, _TEXT):
        return "text", "looks like text, not like a wrapped key; if it is hexadecimal or base64, decode it first"
    name = cose_name(data)
    if name is not None:
        # One random input in some 30,000 begins like this, hence "looks like".
        return "cose", f"looks like {name} without the OPAQUEKEYBLOB header that belongs in front of it"
    return None


def _candidates(length: int) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    if length % _SEMIBLOCK == 0:
        if length >= _RFC3394_LEAST:
            found.append(_candidate("RFC 3394 (AES-KW)", length - 8, length - 8))
        if length >= _RFC5649_LEAST:
            found.append(_candidate("RFC 5649 (AES-KWP)", length - 15, length - 8))
        if length >= _RFC3394_LEAST:
            # The padding is 1 to 8 bytes long, and never absent.
            found.append(_candidate("PKCS#7 padding, then RFC 3394", length - 16, length - 9))
    for bits in _RSA_BITS:
        modulus = bits // 8
        if length == modulus:
            # At most what OAEP leaves room for with SHA-1: two hashes of 20 bytes and two bytes more.
            found.append(_candidate("RSA-OAEP", 1, modulus - 42, bits))
        behind = length - modulus
        if behind >= _RFC5649_LEAST and behind % _SEMIBLOCK == 0:
            found.append(_candidate("RSA-AES-KWP", behind - 15, behind - 8, bits))
    return found


def _candidate(wrapping: str, least: int, most: int, rsa_bits: int | None = None) -> dict[str, object]:
    entry: dict[str, object] = {"wrapping": wrapping, "min_key_bytes": least, "max_key_bytes": most}
    if rsa_bits is not None:
        entry["rsa_bits"] = rsa_bits
    return entry


def _sentence(candidate: dict[str, object]) -> str:
    least, most = candidate["min_key_bytes"], candidate["max_key_bytes"]
    size = f"{least}" if least == most else f"{least} to {most}"
    under = f" under a {candidate['rsa_bits']}-bit RSA key" if "rsa_bits" in candidate else ""
    return f"{candidate['wrapping']}{under} of {size} bytes"
