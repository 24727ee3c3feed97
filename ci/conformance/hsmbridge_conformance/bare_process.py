"""A process that does nothing but C_Initialize(NULL), which a process can do only before any other call.

The return value is printed on the file descriptor that is the second argument; the first is the module's path.
"""

from __future__ import annotations

import json
import os
import sys

from hsmbridge_csp.hardening import disable_core_dumps

from hsmbridge.errors import Pkcs11Error
from hsmbridge_conformance.barecalls import BareCalls

__all__ = ["main"]


def main() -> None:
    """Load the module, call the one function, and tell."""
    disable_core_dumps()
    answer: dict[str, int | str]
    try:
        answer = {"function": "C_Initialize", "ckr": BareCalls(sys.argv[1]).initialize()}
    except Pkcs11Error as error:
        answer = {"function": error.function, "ckr": error.ckr}
    with os.fdopen(int(sys.argv[2]), "w", encoding="utf-8") as pipe:
        pipe.write(json.dumps(answer))


if __name__ == "__main__":
    main()
