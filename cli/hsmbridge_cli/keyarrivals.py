"""Where the key of a blob goes, what stands in the way, and what came of it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hsmbridge_csp.clearpart import Purpose
from hsmbridge_csp.keys import SoftwareKey
from hsmbridge_csp.record import KeyRecord, Transfer
from hsmbridge_csp.token_key import TokenKey
from hsmbridge_csp.transfer import key_from
from hsmbridge_csp.wipe import wipe

from hsmbridge.destruction import Ours
from hsmbridge.errors import ExistsError, PolicyError, UsageError
from hsmbridge.objects import refuse_taken_id
from hsmbridge_cli.blobopening import opened
from hsmbridge_cli.files import OutputFile
from hsmbridge_cli.keyfacts import check_value, key_summary, shown_attributes
from hsmbridge_cli.keyfiles import render_software_key
from hsmbridge_cli.keynames import parse_key_name
from hsmbridge_cli.recordfacts import TRANSFERS, describe_record, what_is_more_than_the_key

if TYPE_CHECKING:
    from hsmbridge_csp.blob import Blob
    from hsmbridge_csp.clearpart import ClearPart
    from hsmbridge_csp.recipients import Opener

    from hsmbridge.token import Token

__all__ = ["Destination", "Imported", "arrive", "check_clear_part"]

_GO_ON = "go on with it in a program: hsmbridge_csp.Provider.import_key gives it in exactly that state"


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """DEST.

    Attributes:
        kind: ``token``, ``file`` or ``dry-run``.
        path: of the file; file: where it is written.
        raw: bare bytes instead of a JWK.
    """

    kind: str
    path: str | None = None
    file: OutputFile | None = None
    raw: bool = False

    @classmethod
    def parse(cls, output: str | None, *, persist: bool, raw: bool) -> Destination:
        """Take the options, of which exactly one says where; a file must be possible, and not be there yet.

        Raises:
            UsageError: it is.
        """
        if output is None:
            return cls(kind="token" if persist else "dry-run")
        path = parse_key_name(output).path
        if path is None:
            raise UsageError(f"{output} is no file", hint="write -o file:PATH, or --persist for a key of the token")
        return cls(kind="file", path=path, file=OutputFile(path), raw=raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of a blob's key.

    Attributes:
        document: JSON-ready.
        now: where it is now, for people.
        warnings: for the user.
    """

    document: dict[str, object]
    now: str
    warnings: tuple[str, ...]


def check_clear_part(clear: ClearPart, destination: Destination) -> None:
    """Refuse, before anything is opened, what the clear part of a verified blob excludes.

    Raises:
        PolicyError: a moved key, or one by reference that shall become a file.
    """
    if clear.purpose is Purpose.MOVE and destination.kind != "dry-run":
        raise PolicyError(
            "the blob moves a key: its sender has stopped it, and only one process may go on with it", hint=_GO_ON
        )
    if clear.by_reference and destination.kind == "file":
        raise PolicyError("the blob refers to a key that stayed in its token: there is nothing to write", hint=_PERSIST)


_PERSIST = "say --persist, or --dry-run"


def arrive(blob: Blob, opener: Opener, token: Token | None, destination: Destination) -> Imported:
    """Open a verified blob and bring its key to its destination; after a failure nothing is left.

    Raises:
        BlobError: not authentic. KekError: for another key.
        PolicyError: the key cannot be there as it was.
        NotFoundError, ExistsError, UnwrapError, ReadBackError, Pkcs11Error: as for a reference or an unwrap.
    """
    record, debris = opened(blob, opener, token)
    obstacle = _obstacle(record, destination)
    if obstacle is not None and destination.kind != "dry-run":
        wipe(record.key)
        raise obstacle
    warnings = [*debris, *(() if obstacle is None else (str(obstacle),))]
    document: dict[str, object] = {
        "transfer": TRANSFERS[record.transfer],
        "state": describe_record(record)["state"],
    }
    try:
        key = key_from(record, token, opener, persist=destination.kind == "token")
    except ExistsError as error:
        raise ExistsError(
            str(error), hint="a blob's key keeps its id: it is there already, or its id is taken"
        ) from error
    if isinstance(key, SoftwareKey):
        return _software(key, destination, document, warnings)
    if not isinstance(key, TokenKey):
        raise PolicyError("this kind of key has no place in a token", hint=_GO_ON)
    if record.transfer is Transfer.WRAPPED and destination.kind == "dry-run":
        return _tried(key, document, warnings)
    document |= _facts(key)
    now = "in the token" if record.transfer is Transfer.WRAPPED else "where it was: in its token, found and recognised"
    return Imported(document={**document, "warnings": warnings}, now=now, warnings=tuple(warnings))


def _obstacle(record: KeyRecord, destination: Destination) -> PolicyError | None:
    """Say why the key cannot be at its destination as it was."""
    if destination.kind == "file" and record.transfer is not Transfer.VALUE:
        return PolicyError("the blob holds a token key, whose bytes never exist outside tokens", hint=_PERSIST)
    if destination.kind == "token" and record.transfer is Transfer.VALUE:
        return PolicyError(
            "the blob holds a software key: made in no token, and not made for one",
            hint="write it to a file with -o file:PATH",
        )
    more = what_is_more_than_the_key(record)
    if more is None:
        return None
    place = "a file" if record.transfer is Transfer.VALUE else "a token object"
    return PolicyError(f"the key comes with {more}, which {place} cannot hold", hint=_GO_ON)


def _software(key: SoftwareKey, destination: Destination, document: dict[str, object], warnings: list[str]) -> Imported:
    evidence = key.classify()
    document |= {
        "key": {
            "class": "software",
            "type": key.algorithm,
            "bits": key.bits,
            "residency": str(evidence.residency),
            "reason": evidence.reason,
        },
        "kcv": None,
        "attributes": {},
    }
    try:
        if destination.file is not None:
            destination.file.write(render_software_key(key, raw=destination.raw))
    finally:
        key.dispose()
    now = f"in {destination.path}" if destination.file is not None else "forgotten again (dry run): it opens"
    return Imported(document={**document, "warnings": warnings}, now=now, warnings=tuple(warnings))


def _tried(key: TokenKey, document: dict[str, object], warnings: list[str]) -> Imported:
    """Describe a session object that a dry run made, and remove it."""
    made = key.object
    with ExitStack() as stack:
        ours = stack.enter_context(Ours(made.token))
        ours.take(made)
        document |= _facts(key)
        try:
            refuse_taken_id(made.token, made.identity.cls, made.identity.id)
        except ExistsError as error:
            warnings.append(f"--persist would be refused: {error}")
    warnings += ours.debris
    now = "removed again (dry run): it opens, and came out as it was"
    return Imported(document={**document, "warnings": warnings}, now=now, warnings=tuple(warnings))


def _facts(key: TokenKey) -> dict[str, object]:
    attributes, _ = shown_attributes(key.object)
    return {"key": key_summary(key.object), "kcv": check_value(key.object), "attributes": attributes}
