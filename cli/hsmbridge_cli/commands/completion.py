"""``hsmbridge completion``."""

from __future__ import annotations

import click

from hsmbridge_cli.lazy import Command
from hsmbridge_cli.options import token_options

__all__ = ["completion"]

_VARIABLE = "_HSMBRIDGE_COMPLETE"
"""click looks for completion requests in this variable, which it derives from the program's name."""


@click.command(
    cls=Command,
    examples=(
        'bash: eval "$(hsmbridge completion bash)"          in ~/.bashrc',
        'zsh:  eval "$(hsmbridge completion zsh)"           in ~/.zshrc',
        "fish: hsmbridge completion fish | source           in ~/.config/fish/config.fish",
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@token_options
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(found(ctx.find_root().command, {}, "hsmbridge", _VARIABLE).source())
