"""Commands and groups as this program has them: loaded on use, the same options on both sides, examples in the help.

Nothing but click is imported here: `hsmbridge --version` and `--help` pay for every line.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["BROKEN_PIPE", "Command", "LazyGroup", "TokenOption"]

BROKEN_PIPE = 141
"""The status of a program that SIGPIPE ends: what `hsmbridge ... | head` has always meant."""


class TokenOption(click.Option):
    """An option that every command takes, before its name and after it; shown in a section of its own."""


class _TwoSections(click.Command):
    """Shows what is special to a command first, and what all of them take below it."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **attrs: Any) -> None:  # noqa: ANN401 - click's own
        super().__init__(*args, **attrs)
        self.examples = tuple(examples)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, then those that are the same everywhere."""
        own: list[tuple[str, str]] = []
        shared: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                (shared if isinstance(param, TokenOption) else own).append(record)
        for title, records in (("Options", own), ("Token and output (also before the command)", shared)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples as they are, unwrapped, so that they can be copied."""
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}{example}\n")
        super().format_epilog(ctx, formatter)


class Command(_TwoSections):
    """A command.

    Args:
        examples: command lines, shown at the end of its help.
    """


class LazyGroup(_TwoSections, click.Group):
    """A group that knows its commands by name and imports one when it is called.

    Args:
        lazy: command name to (``module:object``, one line of help).
        examples: command lines, shown at the end of its help.
    """

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]], **attrs: Any) -> None:  # noqa: ANN401 - click's
        super().__init__(*args, **attrs)
        self.lazy = dict(lazy)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order of the table, which is the order in which they are learnt."""
        del ctx
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None where there is none of that name."""
        del ctx
        if cmd_name not in self.lazy:
            return None
        module, _, name = self.lazy[cmd_name][0].partition(":")
        command = getattr(import_module(module), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{name} is no command")
        return command

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands first: they are what a group is for."""
        self.format_commands(ctx, formatter)
        super().format_options(ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table, without importing any."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, help_line) in self.lazy.items()])

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own
        """Run the command; a reader that has gone away ends it quietly."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # Python flushes once more at its end, and would then complain: give it somewhere to write to.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.exceptions.Exit(BROKEN_PIPE) from None
        return result
