"""One importer of a bundle at a time on this host, whatever journals the others have.

Of two processes that share a journal, the journal lets one import. Two with journals of their own meet in the token
only, and a token's search need not show what another process has just made: SoftHSM never shows a process an object
whose file it happened to read while it was still empty. So whoever imports a bundle holds a name that the kernel gives
out once, from before he touches the token until his keys have their names. It is gone with the process, however that
ends. It has to be known to be taken: it is made of the bundle's id and digest.

Source: unix(7), abstract socket addresses; docs/handoff.md, "What cannot be promised".
"""

from __future__ import annotations

import errno
import hashlib
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hsmbridge.errors import ExistsError
from hsmbridge_csp.handoff.errors import HandoffError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["importing_alone"]


@contextmanager
def importing_alone(handoff: bytes, digest: bytes) -> Iterator[None]:
    """Be the only process of this host that imports a bundle, while the block runs.

    Args:
        handoff: the bundle's id.
        digest: of its blobs.

    Raises:
        ExistsError: another process imports it right now.
        HandoffError: the kernel does not say.
    """
    name = hashlib.sha256(b"hsmbridge importing/1" + handoff + digest).hexdigest()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as held:
        try:
            held.bind(f"\0hsmbridge/{name}")
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ExistsError(
                    f"another process is importing the bundle of handoff {handoff.hex()}",
                    hint="nothing was imported here; if no key is there in the end, receive the bundle again",
                ) from None
            raise HandoffError(
                f"whether another process imports the bundle is not known: {error.strerror}",
                hint="nothing was imported; receive the bundle again where Unix sockets work",
            ) from None
        yield
