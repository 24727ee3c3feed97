"""One end of a channel in a process of its own.

``python -m tests.support.channel_child ACT SOCKET IDENTITY PEER``: listens or connects as the receiver, says a line of
JSON when the channel is open, and then does what ACT says.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from hsmbridge_csp.channel import Channel, Listener, Side, Terms, connect
from hsmbridge_csp.identity import FileIdentity

LONG = 60


def main() -> None:
    """Do it."""
    act, path, identity, peer = sys.argv[1:]
    terms = Terms(
        side=Side.RECEIVER,
        identity=FileIdentity.load(Path(identity)),
        believed=frozenset({bytes.fromhex(peer)}),
    )
    if act == "hold":
        with Listener(Path(path)):
            _say({"pid": os.getpid()})
            time.sleep(LONG)
        return
    if act == "connect":
        _run(act, connect(Path(path), terms, 20))
        return
    with Listener(Path(path)) as listener:
        _say({"pid": os.getpid()})
        _run(act, listener.accept(terms, 20))


def _run(act: str, channel: Channel) -> None:
    with channel:
        _say({"pid": os.getpid(), "peer": channel.peer.pid, "transcript": channel.transcript.hex()})
        if act == "sleep":
            time.sleep(LONG)
        elif act == "flood":
            while True:
                channel.send(17, bytes(1 << 20))
        else:
            frame = channel.receive()
            for descriptor in frame.fds:
                os.write(descriptor, b"written by the other process")
                os.close(descriptor)
            channel.send(17, frame.payload[::-1])


def _say(document: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
