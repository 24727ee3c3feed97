"""``hsmbridge doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hsmbridge_cli.lazy import Command
from hsmbridge_cli.options import Settings, token_options

if TYPE_CHECKING:
    from hsmbridge_cli.checkup import Finding

__all__ = ["doctor"]

_NOT_AVAILABLE = 5
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command(
    cls=Command,
    examples=(
        "hsmbridge doctor --module /usr/lib/softhsm/libsofthsm2.so --token-label prod",
        "hsmbridge doctor --module libsoftokn3.so --module-args \"configdir='sql:/etc/pki/nssdb'\" --json",
    ),
)
@token_options
@click.pass_obj
def doctor(settings: Settings) -> int:
    """Say what is wrong with this set-up.

    Loads the module, looks at the token, logs in once, tries the wrapping mechanisms with session keys, and looks at
    each key that may wrap or unwrap. Ends with 0 if the set-up can be used, warnings or not, and with 5 if module,
    token or login are not available.
    """
    from hsmbridge_cli.checkup import examine
    from hsmbridge_cli.display import emit_json

    findings = examine(settings)
    usable = all(finding.status != "fail" for finding in findings)
    if settings.json:
        emit_json("doctor", {"usable": usable, "findings": [finding.document() for finding in findings]})
    else:
        _print(findings)
    return 0 if usable else _NOT_AVAILABLE


def _print(findings: list[Finding]) -> None:
    from hsmbridge_cli.display import clean

    for finding in findings:
        status = click.style(f"{finding.status:<4}", fg=_COLOURS[finding.status])
        click.echo(f"{status}  {finding.check:<10}  {clean(finding.message)}")
        if finding.hint:
            click.echo(f"{'':18}hint: {clean(finding.hint)}")
