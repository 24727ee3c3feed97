"""How the scene is told: as a table, or as a document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hsmbridge_cli.display import emit_table

if TYPE_CHECKING:
    from hsmbridge_cli.demo.tls.director import TlsOutcome

__all__ = ["document", "show"]


def document(outcome: TlsOutcome) -> dict[str, Any]:
    """Return what ``--json`` prints."""
    return {
        "ok": outcome.ok,
        "secure_pid": outcome.secure_pid,
        "application_pid": outcome.application_pid,
        "token_key": outcome.token_key,
        "connections": outcome.connections,
    }


def show(outcome: TlsOutcome) -> None:
    """Print the table."""
    click.echo(f"secure process {outcome.secure_pid}  ->  application process {outcome.application_pid}\n")
    rows = [
        (
            each["version"],
            each["suite"].removeprefix("TLS_"),
            each["client"],
            f"{each['requests_before']} + {each['requests_after']}",
            "yes" if each["right"] else "NO",
            _passage(each["sequences_at_handoff"], each["sequences_at_end"]),
            each["record_keys"][0] if len(set(each["record_keys"])) == 1 else "MIXED",
        )
        for each in outcome.connections
    ]
    columns = ("version", "suite", "client", "answers", "all right", "records: handoff -> end", "keys at source")
    emit_table(columns, rows)
    key = outcome.token_key
    click.echo(f"\ncertificate's key: {key['outcome']} in the token ({key['why']})")
    found = [each["found_in_memory"] for each in outcome.connections]
    if None in found:
        click.echo("memory of the secure process: not searched (the system does not allow it)")
    else:
        click.echo(f"memory of the secure process: record keys and secrets found {sum(found)} times")
    click.echo(
        "ok: the clients noticed nothing, and the secure process can neither read nor write what they say"
        if outcome.ok
        else "FAILED: see the table"
    )


def _passage(first: list[int], last: list[int]) -> str:
    return f"out {first[0]} -> {last[0]}, in {first[1]} -> {last[1]}"
