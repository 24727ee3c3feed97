"""The channel: an authenticated, encrypted connection of two processes on one host, over a Unix socket.

Source: docs/channel.md.
"""

from __future__ import annotations

from hsmbridge_csp.channel.channel import Channel
from hsmbridge_csp.channel.endpoint import Listener, connect
from hsmbridge_csp.channel.frames import Frame
from hsmbridge_csp.channel.terms import Peer, Side, Terms, pinned

__all__ = ["Channel", "Frame", "Listener", "Peer", "Side", "Terms", "connect", "pinned"]
