"""``hsmbridge handoff``: the move."""

from __future__ import annotations

import click

from hsmbridge_cli.lazy import LazyGroup
from hsmbridge_cli.options import token_options

__all__ = ["handoff"]

_COMMANDS = {
    "send": ("hsmbridge_cli.commands.handoff_send:handoff_send", "Hand keys over; they are destroyed here afterwards."),
    "receive": ("hsmbridge_cli.commands.handoff_receive:handoff_receive", "Take keys over, and sign the receipt."),
    "commit": (
        "hsmbridge_cli.commands.handoff_commit:handoff_commit",
        "Act on a receipt: destroy what was handed over.",
    ),
    "ls": ("hsmbridge_cli.commands.handoff_ls:handoff_ls", "List the handoffs that are not settled."),
    "show": ("hsmbridge_cli.commands.handoff_show:handoff_show", "Show one handoff, its keys and its steps."),
    "recover": (
        "hsmbridge_cli.commands.handoff_recover:handoff_recover",
        "Settle, from evidence, what was cut short.",
    ),
}


@click.group(cls=LazyGroup, lazy=_COMMANDS)
@token_options
def handoff() -> None:
    """Move keys: hand them over, and destroy them here.

    Many keys go as one: all, or none. The source is frozen until the recipient's signed word comes back: a receipt, on
    which what lives in software is destroyed, or a tombstone, on which it goes on. What lives in hardware is never
    destroyed; it goes by reference. Every step is in a journal, and what is cut short is settled by `recover`.
    """
