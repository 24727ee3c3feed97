"""``hsmbridge inspect``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hsmbridge_cli.lazy import Command
from hsmbridge_cli.options import Settings, token_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsmbridge_csp.recipients import Opener

    from hsmbridge.errors import HsmbridgeError
    from hsmbridge.token import Token

__all__ = ["inspect"]

_COSE_NAMES = {"-5": "A256KW", "-31": "ECDH-ES+A256KW", "-41": "RSAES-OAEP-SHA-256"}
"""Source: IANA's COSE Algorithms."""


@click.command(
    cls=Command,
    examples=(
        "hsmbridge inspect key.blob",
        "openssl rsa -in key.pem -outform MSBLOB | hsmbridge inspect -",
        "hsmbridge inspect --json *.blob",
        "hsmbridge inspect payroll.blob --kek label:transport",
    ),
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--kek", metavar="KEY", help="Verify and open blobs of ours with this KEK of the token.")
@click.option("--as", "private", metavar="PRIVKEY", help="The same with a private key: a file, or a key of the token.")
@click.option("--allow-unsigned", is_flag=True, help="Open a copy that nobody signed.")
@click.option("--allow-unsafe-kek", is_flag=True, help="Take a KEK that may also decrypt.")
@token_options
@click.pass_obj
def inspect(
    settings: Settings,
    *,
    files: tuple[str, ...],
    kek: str | None,
    private: str | None,
    allow_unsigned: bool,
    allow_unsafe_kek: bool,
) -> int:
    """Say what a key blob holds, without a token.

    Knows the CryptoAPI blobs, SIMPLEBLOB to KEYSTATEBLOB. Bytes without such a header may be a bare wrapped key: those
    are opaque, and only their length says something. No secret is shown. A FILE of - is standard input. Nothing is
    verified, unless --kek or --as names the key that a blob of ours is sealed for: then its sender is verified, and it
    is opened.
    """
    if kek is None and private is None:
        if allow_unsigned or allow_unsafe_kek:
            raise click.UsageError("--allow-unsigned and --allow-unsafe-kek go with --kek or --as")
        return _finish(settings, *_look_at_all(files))
    from hsmbridge_cli.keynames import parse_key_name
    from hsmbridge_cli.parties import name_or_path, opener_for, token_for

    if kek is not None and private is not None:
        raise click.UsageError("--kek and --as exclude each other")
    party = parse_key_name(kek) if kek is not None else name_or_path(private or "")
    if kek is not None and party.path is not None:
        raise click.UsageError("--kek names a key of the token; for a private key in a file there is --as")
    with token_for(settings, party) as token:
        opener = opener_for(party, token, allow_unsafe=allow_unsafe_kek)
        found = _look_at_all(files, opener, token, allow_unsigned=allow_unsigned)
    return _finish(settings, *found)


def _look_at_all(
    files: tuple[str, ...], opener: Opener | None = None, token: Token | None = None, *, allow_unsigned: bool = False
) -> tuple[list[dict[str, object]], list[tuple[str, HsmbridgeError]]]:
    """Look at each file; what is bad or refused does not keep the others from being told."""
    from hsmbridge.errors import InputError, PolicyError

    reports: list[dict[str, object]] = []
    failures: list[tuple[str, HsmbridgeError]] = []
    for name in files:
        report: dict[str, object] = {"file": name, "kind": "bad"}
        try:
            data = _read(name)
            report |= _look(data)
            if opener is not None and report.get("format") == "hsmbridge":
                report |= _open(data, opener, token, allow_unsigned=allow_unsigned)
        except (InputError, PolicyError) as error:
            if isinstance(error, InputError):
                report["kind"] = "bad"
            report |= {"error": str(error), "hint": error.hint}
            failures.append((name, error))
        reports.append(report)
    return reports, failures


def _finish(settings: Settings, reports: list[dict[str, object]], failures: list[tuple[str, HsmbridgeError]]) -> int:
    """Print everything and return the status: that of the first failure."""
    _print(settings, reports)
    for name, failure in failures:
        click.echo(_line("error", f"{name}: {failure}"), err=True)
        click.echo(_line("hint", failure.hint or ""), err=True)
    if not failures:
        return 0
    from hsmbridge_cli.failures import exit_code

    return exit_code(failures[0][1])


def _open(data: bytes, opener: Opener, token: Token | None, *, allow_unsigned: bool) -> dict[str, object]:
    """Verify a blob of ours, then open it."""
    from hsmbridge_csp.blob import Blob
    from hsmbridge_csp.wipe import wipe

    from hsmbridge_cli.blobopening import UNSIGNED, opened, verified
    from hsmbridge_cli.display import warn
    from hsmbridge_cli.recordfacts import describe_record

    blob = Blob.parse(data)
    sender = verified(blob, allow_unsigned=allow_unsigned)
    if sender["status"] != "valid":
        warn(UNSIGNED)
    record, debris = opened(blob, opener, token)
    for sentence in debris:
        warn(sentence)
    content = describe_record(record)
    wipe(record.key)
    return {"signature": sender, "content": content}


def _read(name: str) -> bytes:
    from hsmbridge_csp.cryptoapi_blobs import MAX_OPAQUE_BLOB_BYTES

    from hsmbridge_cli.files import read_input

    return read_input(name, MAX_OPAQUE_BLOB_BYTES)


def _look(data: bytes) -> dict[str, object]:
    from hsmbridge_csp.blobheader import looks_like_blob

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

        return _with_names(describe_opaque(data))
    return describe(blob)


def _with_names(described: dict[str, object]) -> dict[str, object]:
    """Call the recipients' algorithms by their names instead of by COSE's numbers."""
    recipients = described.get("recipients")
    for recipient in recipients if isinstance(recipients, list) else ():
        number = str(recipient.get("algorithm"))
        recipient["algorithm"] = _COSE_NAMES.get(number, number)
    return described


def _print(settings: Settings, reports: list[dict[str, object]]) -> None:
    from hsmbridge_cli.display import emit_fields, emit_json

    if settings.json:
        emit_json("inspect", {"files": reports})
        return
    for number, report in enumerate(report for report in reports if report["kind"] != "bad"):
        if number:
            click.echo()
        emit_fields(
            (name.replace("_", " "), _lines(value) if name in ("signature", "content") else _text(value))
            for name, value in report.items()
            if name not in ("kind", "candidates", "error", "hint")
        )


def _text(value: object) -> object:
    """Show nested values as people write them."""
    if isinstance(value, list):
        return ", ".join(str(_text(item)) for item in value)
    if isinstance(value, dict):
        return _pairs(value)
    return value


def _lines(value: object) -> str:
    """Show what an opened blob says, a line for each field that says something."""
    fields = value.items() if isinstance(value, dict) else ()
    return "\n".join(f"{str(name).replace('_', ' ')}: {_text(item)}" for name, item in fields if item not in (None, ""))


def _pairs(value: Mapping[object, object]) -> str:
    return ", ".join(f"{name} {_text(item)}" for name, item in value.items() if item not in (None, "", {}, []))


def _line(kind: str, text: str) -> str:
    from hsmbridge_cli.display import clean

    return f"hsmbridge: {kind}: {clean(text)}"
