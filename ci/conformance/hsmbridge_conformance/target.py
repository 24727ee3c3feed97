"""Which token a run is about, in the words in which one process tells another.

The PIN travels through a pipe only: never through an argument, the environment or a file.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from hsmbridge.module import Module

if TYPE_CHECKING:
    from hsmbridge.token import Token

__all__ = ["Target"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A module, a token in it, and the way in.

    Attributes:
        module: path of the module.
        module_args: string for C_Initialize, or None.
        label: the token's label; None where it is the only token.
        pin: the user's PIN; None for a token that asks for none, or that has a PIN pad.
        login: whether to log in.
    """

    module: str
    module_args: str | None
    label: str | None
    pin: str | None = field(repr=False)
    login: bool = True

    def open(self) -> Token:
        """Open the module, find the token and log in, once.

        Raises:
            UnavailableError: one of the three is not to be had.
        """
        token = Module.open(self.module, init_args=self.module_args).token(label=self.label)
        if self.login:
            token.login(self.pin)
        return token

    def message(self) -> dict[str, Any]:
        """Return it for :meth:`from_message` of another process."""
        return asdict(self)

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> Target:
        """Take what :meth:`message` gave."""
        return cls(**message)
