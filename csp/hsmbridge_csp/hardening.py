"""No core file of a process that holds keys or PINs.

Source: setrlimit(2) RLIMIT_CORE; prctl(2) PR_SET_DUMPABLE, which also keeps other processes of the same user from
reading our memory through ptrace and /proc.
"""

from __future__ import annotations

import ctypes
import resource

__all__ = ["allow_inspection", "disable_core_dumps"]

_PR_SET_DUMPABLE = 4
_NOT_DUMPABLE = 0


def disable_core_dumps() -> bool:
    """Forbid core files of this process and of those that it starts.

    Both ways are taken: a core_pattern that pipes to a program ignores the limit, and exec() resets the other.

    Returns: whether the kernel took the second; the first cannot fail.
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    # The hard limit is left alone: a process that is started from here may need cores of its own.
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))
    zero = ctypes.c_ulong(0)
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(_NOT_DUMPABLE), zero, zero, zero)) == 0


def allow_inspection() -> None:
    """Let an ancestor look at this process's memory again: for the demo, when its keys are gone."""
    zero = ctypes.c_ulong(0)
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(1), zero, zero, zero)
