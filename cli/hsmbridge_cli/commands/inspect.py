"""``hsmbridge inspect``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hsmbridge_cli.lazy import Command
from hsmbridge_cli.options import Settings, token_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsmbridge.errors import HsmbridgeError

__all__ = ["inspect"]

_BAD_INPUT = 3


@click.command(
    cls=Command,
    examples=(
        "hsmbridge inspect key.blob",
        "openssl rsa -in key.pem -outform MSBLOB | hsmbridge inspect -",
        "hsmbridge inspect --json *.blob",
    ),
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@token_options
@click.pass_obj
def inspect(settings: Settings, files: tuple[str, ...]) -> int:
    """Say what a key blob holds, without a token.

    Knows the CryptoAPI blobs, SIMPLEBLOB to KEYSTATEBLOB. Bytes without such a header may be a bare wrapped key: those
    are opaque, and only their length says something. No secret is shown, and nothing is verified. A FILE of - is
    standard input.
    """
    from hsmbridge.errors import InputError

    reports: list[dict[str, object]] = []
    failures: list[tuple[str, HsmbridgeError]] = []
    for name in files:
        try:
            reports.append({"file": name, **_look(name)})
        except InputError as error:
            reports.append({"file": name, "kind": "bad", "error": str(error), "hint": error.hint})
            failures.append((name, error))
    _print(settings, reports)
    for name, failure in failures:
        click.echo(_line("error", f"{name}: {failure}"), err=True)
        click.echo(_line("hint", failure.hint or ""), err=True)
    return _BAD_INPUT if failures else 0


def _look(name: str) -> dict[str, object]:
    from hsmbridge_csp.blobheader import looks_like_blob
    from hsmbridge_csp.cryptoapi_blobs import MAX_OPAQUE_BLOB_BYTES

    from hsmbridge_cli.files import read_input

    data = read_input(name, MAX_OPAQUE_BLOB_BYTES)
    if looks_like_blob(data):
        return {"kind": "blob", "bytes": len(data), **_describe_blob(data)}
    from hsmbridge_csp.barewrap import guess_bare_wrap

    from hsmbridge.errors import InputError

    guess = guess_bare_wrap(data)
    if guess["kind"] == "opaque" and not guess["candidates"]:
        raise InputError(
            str(guess["summary"]), hint="a key blob begins with a BLOBHEADER, a bare wrap has a length of its format"
        )
    return guess


def _describe_blob(data: bytes) -> dict[str, object]:
    from hsmbridge_csp.barewrap import cose_name
    from hsmbridge_csp.cryptoapi_blobs import describe, parse_blob

    blob = parse_blob(data)
    body = getattr(blob, "body", b"")
    if body and cose_name(body) is not None:
        from hsmbridge_csp.blob import describe_opaque

        return describe_opaque(data)
    return describe(blob)


def _print(settings: Settings, reports: list[dict[str, object]]) -> None:
    from hsmbridge_cli.display import emit_fields, emit_json

    if settings.json:
        emit_json("inspect", {"files": reports})
        return
    for number, report in enumerate(report for report in reports if report["kind"] != "bad"):
        if number:
            click.echo()
        emit_fields(
            (name.replace("_", " "), _text(value))
            for name, value in report.items()
            if name not in ("kind", "candidates")
        )


def _text(value: object) -> object:
    """Show nested values as people write them."""
    if isinstance(value, list):
        return ", ".join(str(_text(item)) for item in value)
    if isinstance(value, dict):
        return _pairs(value)
    return value


def _pairs(value: Mapping[object, object]) -> str:
    return ", ".join(f"{name} {_text(item)}" for name, item in value.items())


def _line(kind: str, text: str) -> str:
    from hsmbridge_cli.display import clean

    return f"hsmbridge: {kind}: {clean(text)}"
