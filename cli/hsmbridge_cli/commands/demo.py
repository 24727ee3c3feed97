"""`hsmbridge demo`: the story in one command."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hsmbridge_cli.display import emit_json, emit_table
from hsmbridge_cli.options import Settings, token_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsmbridge_cli.demo.director import Outcome
    from hsmbridge_cli.demo.script import Config

__all__ = ["demo"]


@click.command()
@token_options
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Leave the streams in DIR (new or empty), and print the command that repeats each judgment.",
)
@click.option(
    "--judge-module",
    metavar="PATH",
    help="Your module as pkcs11-tool can load it, where it needs init arguments otherwise.",
)
@click.option(
    "--tls",
    is_flag=True,
    help="Hand over live TLS connections instead: curl over TLS 1.2 and 1.3 (needs the extra `tls-demo`).",
)
@click.pass_obj
def demo(settings: Settings, keep: Path | None, judge_module: str | None, tls: bool) -> int:
    r"""Hand seven keys from a secure process to an application process.

    Each key is stopped in the middle of a stream and finished by the other process; then the software copies are
    destroyed at the source, and the key in the token is recognised and left alone. openssl and pkcs11-tool judge the
    streams.

    Without --module it makes a throw-away SoftHSM token in a private directory. With --module and --token-label it
    uses your token and removes the keys that it made there.

    With --tls the secure process runs handshakes with a certificate key in the token, and the application process takes
    the connections over, in the middle, without their clients noticing.

    \b
    Examples:
      hsmbridge demo
      hsmbridge demo --tls
      hsmbridge demo --keep /tmp/demo
      hsmbridge demo --json
    """
    from hsmbridge_csp.hardening import disable_core_dumps

    from hsmbridge_cli.demo.director import direct

    disable_core_dumps()
    if tls:
        return _demo_tls(settings, keep)
    with _directory(keep) as directory:
        config = _config(settings, directory, keep=keep is not None)
        outcome = direct(config, judge_module or config.module, keep=keep is not None)
        if settings.json:
            emit_json("demo", _document(outcome))
        else:
            _show(outcome, keep)
    return 0 if outcome.ok else 1


def _demo_tls(settings: Settings, keep: Path | None) -> int:
    from hsmbridge.errors import UsageError
    from hsmbridge_cli.demo.tls.director import direct
    from hsmbridge_cli.demo.tls.show import document, show

    if keep is not None:
        raise UsageError("--tls keeps nothing", hint="leave --keep out: the scene leaves nothing behind")
    with _directory(None) as directory:
        outcome = direct(_config(settings, directory, keep=False))
    if settings.json:
        emit_json("demo.tls", document(outcome))
    else:
        show(outcome)
    return 0 if outcome.ok else 1


def _document(outcome: Outcome) -> dict[str, object]:
    return {
        "ok": outcome.ok,
        "secure_pid": outcome.secure_pid,
        "application_pid": outcome.application_pid,
        "keys": outcome.keys,
    }


def _show(outcome: Outcome, keep: Path | None) -> None:
    from hsmbridge_cli.demo.parts import PARTS

    click.echo(f"secure process {outcome.secure_pid}  ->  application process {outcome.application_pid}\n")
    titles = {part.name: part.title for part in PARTS}
    rows = [
        (
            titles[key["name"]],
            key["residency"],
            key["why"],
            key["transfer"],
            key["source"],
            f"{'yes' if key['state_continued'] else 'NO'} ({key['judge']})",
        )
        for key in outcome.keys
    ]
    emit_table(("key", "lives in", "why", "crossed by", "source now", "stream goes on"), rows)
    if outcome.memory is None:
        click.echo("\nmemory of the secure process: not searched (the system does not allow it)")
    else:
        found = sum(outcome.memory.values())
        click.echo(
            f"\nmemory of the secure process: {len(outcome.memory)} destroyed software keys, found {found} times"
        )
    click.echo(
        "ok: every stream went on where it had stopped, and only software keys were destroyed"
        if outcome.ok
        else "FAILED: see the table"
    )
    if keep is not None:
        click.echo(f"\nTo repeat the judgments, in {keep}:")
        for judgment in outcome.judgments.values():
            click.echo(f"  {judgment.command}")
        click.echo("\nThe demo's keys are still in the token: their labels begin with hsmbridge-demo-.")


@contextlib.contextmanager
def _directory(keep: Path | None) -> Iterator[Path]:
    """Give a private directory: the user's, or one that is removed at the end."""
    from hsmbridge.errors import UsageError

    if keep is not None:
        keep.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(keep.iterdir()):
            raise UsageError(f"{keep} is not empty", hint="--keep takes a new or empty directory")
        keep.chmod(0o700)
        yield keep.resolve()
        return
    directory = tempfile.mkdtemp(prefix="hsmbridge-demo-")
    try:
        yield Path(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _config(settings: Settings, directory: Path, *, keep: bool) -> Config:
    """Use the token that was named on the command line, or make one.

    The environment is not asked: a demo makes keys.
    """
    from hsmbridge.errors import UsageError
    from hsmbridge.pin import Pin, resolve_pin
    from hsmbridge_cli.demo.script import Config
    from hsmbridge_cli.demo.stage import make_softhsm

    run = secrets.token_hex(4)
    if settings.module is None:
        module, label, pin = make_softhsm(directory)
        return Config(
            module=module,
            module_args=None,
            token_label=label,
            pin=pin,
            directory=str(directory),
            run=run,
            keep=keep,
        )
    if settings.token_label is None:
        raise UsageError("--module needs --token-label here", hint="name the token that the demo may make its keys in")
    secret = resolve_pin(pin_file=settings.pin_file, environ=os.environ)
    if not isinstance(secret, Pin):
        raise UsageError("the demo cannot use a PIN pad", hint="give the PIN with --pin-file")
    return Config(
        module=settings.module,
        module_args=settings.module_args,
        token_label=settings.token_label,
        pin=secret.reveal(),
        directory=str(directory),
        run=run,
        keep=keep,
    )
