"""Typed errors of a channel.

All are a :class:`ChannelError`, and each belongs to one of the families that callers and exit codes tell apart: what
came is not authentic (input), who came is not wanted (policy), nobody is there or stays there (unavailable), or the
call itself is wrong (usage). Nothing here performs I/O.
"""

from __future__ import annotations

from hsmbridge.errors import InputError, PolicyError, UnavailableError, UsageError
from hsmbridge_csp.errors import NTE, CspError

__all__ = [
    "ChannelClosedError",
    "ChannelError",
    "ChannelInputError",
    "ChannelPolicyError",
    "ChannelTimeoutError",
    "ChannelUnavailableError",
    "ChannelUsageError",
    "DescriptorError",
    "ExhaustedError",
    "FrameError",
    "FrameTooLargeError",
    "HandshakeError",
    "NoListenerError",
    "NotAuthenticError",
    "PeerClosedError",
    "PeerGoneError",
    "ProofError",
    "ReflectionError",
    "SocketBusyError",
    "UnpinnedPeerError",
    "UnsafeSocketError",
    "WrongCounterError",
    "WrongUserError",
]


class ChannelError(CspError):
    """Base of all errors of a channel. Where it comes out of an open channel, that channel is closed."""


class ChannelInputError(ChannelError, InputError):
    """What came over the socket is malformed or not authentic; nothing of it was delivered."""

    nte = NTE.BAD_DATA


class FrameError(ChannelInputError):
    """A frame does not have the shape or the type that belongs here."""


class FrameTooLargeError(FrameError):
    """A frame claims to be longer than any may be."""


class NotAuthenticError(ChannelInputError):
    """A frame does not decrypt: changed, reflected, or of another channel. Which of these is not told apart."""


class WrongCounterError(ChannelInputError):
    """A frame is not the next one: replayed, left out or out of order."""


class DescriptorError(ChannelInputError):
    """Other file descriptors came than the frame says; all of them were closed."""


class HandshakeError(ChannelInputError):
    """The peer does not speak this protocol, or not this version, or plays the same part."""


class ReflectionError(HandshakeError):
    """What came back is what we sent."""


class ProofError(HandshakeError):
    """The peer's proof of identity is not one, or is for another channel than this."""

    nte = NTE.BAD_SIGNATURE


class ChannelPolicyError(ChannelError, PolicyError):
    """Refused by a rule that protects keys."""

    nte = NTE.PERM


class UnpinnedPeerError(ChannelPolicyError):
    """The peer is nobody whom we believe."""


class WrongUserError(ChannelPolicyError):
    """The peer runs as another user than expected."""


class UnsafeSocketError(ChannelPolicyError):
    """Others may enter the directory of the socket, or something that is not ours lies in its place."""


class ExhaustedError(ChannelPolicyError):
    """The key of this direction has protected as much as it may."""


class ChannelUnavailableError(ChannelError, UnavailableError):
    """The peer is not there, or not any more."""


class ChannelTimeoutError(ChannelUnavailableError):
    """The peer said nothing, or took nothing, for too long."""


class PeerGoneError(ChannelUnavailableError):
    """The connection ended without the peer having closed the channel: it died, refused us, or was cut off."""


class PeerClosedError(ChannelUnavailableError):
    """The peer closed the channel in order: this is authentic, and nothing is missing."""


class ChannelClosedError(ChannelUnavailableError):
    """This end is closed, by its owner or by an earlier error."""


class NoListenerError(ChannelUnavailableError):
    """Nobody listens at that socket."""


class SocketBusyError(ChannelUnavailableError):
    """Another process listens at that socket."""


class ChannelUsageError(ChannelError, UsageError):
    """A call that makes no sense. It was refused before anything was sent; the channel is as it was."""
