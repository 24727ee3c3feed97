"""The handshake: two hellos in clear, two proofs and two confirmations encrypted.

Both ends speak at once in each round. When it returns, both have verified each other: the last message of each end is
sent only after the other's proof held.

Source: docs/channel.md, "Handshake".
"""

from __future__ import annotations

import hmac
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from hsmbridge_csp.channel.errors import DescriptorError, FrameError, HandshakeError, ProofError, ReflectionError
from hsmbridge_csp.channel.frames import HEADER, MAX_HANDSHAKE, FrameType
from hsmbridge_csp.channel.hello import NONCE_SIZE, Hello
from hsmbridge_csp.channel.passing import close_all
from hsmbridge_csp.channel.proof import Proof, make_proof, verify_proof
from hsmbridge_csp.channel.schedule import Schedule, hash_hellos, hash_proofs

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsmbridge_csp.channel.protection import Inbound, Outbound
    from hsmbridge_csp.channel.terms import Terms
    from hsmbridge_csp.channel.wire import Wire

__all__ = ["Session", "shake"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What a handshake leaves.

    Attributes:
        outbound: protects what we send.
        inbound: checks what the peer sends.
        exporter: secret of the content keys, 32 bytes.
        transcript: names this channel, 32 bytes, not secret.
        fingerprint: of the peer's identity.
    """

    outbound: Outbound
    inbound: Inbound
    exporter: bytearray = field(repr=False)
    transcript: bytes
    fingerprint: bytes


def shake(wire: Wire, terms: Terms) -> Session:
    """Shake hands.

    Args:
        wire: a new connection; whatever is raised, the caller closes it.
        terms: ours.

    Raises:
        ChannelError: the peer is not there, not wanted, or not authentic.
    """
    deadline = time.monotonic() + terms.handshake_timeout

    def left() -> float:
        return max(0.0, deadline - time.monotonic())

    private = X25519PrivateKey.generate()
    mine = Hello(
        side=terms.side, public=private.public_key().public_bytes_raw(), nonce=secrets.token_bytes(NONCE_SIZE)
    ).encode()
    wire.send(HEADER.pack(len(mine), FrameType.HELLO, 0, 0) + mine, (), left())
    theirs = _receive_hello(wire, left())
    hello = _check_hello(theirs, mine, terms)
    hellos = hash_hellos({terms.side: mine, terms.side.other: theirs})
    schedule = Schedule(private, hello.public, hellos)
    outbound, inbound = schedule.outbound(terms.side), schedule.inbound(terms.side.other)
    try:
        proof = make_proof(terms.identity, terms.side, hellos, schedule).encode()
        wire.send(outbound.seal(FrameType.PROOF, proof), (), left())
        peers = _receive_own(wire, inbound, FrameType.PROOF, left)
        fingerprint = verify_proof(Proof.decode(peers), terms.believed, terms.side.other, hellos, schedule)
        transcript = hash_proofs(hellos, {terms.side: proof, terms.side.other: peers})
        wire.send(outbound.seal(FrameType.READY, transcript), (), left())
        _check_ready(_receive_own(wire, inbound, FrameType.READY, left), transcript)
        return Session(
            outbound=outbound,
            inbound=inbound,
            exporter=schedule.exporter(transcript),
            transcript=transcript,
            fingerprint=fingerprint,
        )
    except BaseException:
        outbound.forget()
        inbound.forget()
        raise
    finally:
        schedule.forget()


def _receive_hello(wire: Wire, timeout: float) -> bytes:
    header, body, descriptors = wire.receive(MAX_HANDSHAKE, timeout)
    _refuse_descriptors(descriptors)
    if header != HEADER.pack(len(body), FrameType.HELLO, 0, 0):
        raise FrameError(
            "the peer does not begin with a hello", hint="look what listens at, or connects to, this socket"
        )
    return body


def _check_hello(theirs: bytes, mine: bytes, terms: Terms) -> Hello:
    if theirs == mine:
        raise ReflectionError(
            "our own hello came back",
            hint="something between the two ends reflects what it gets; look what listens there",
        )
    hello = Hello.decode(theirs)
    if hello.side is terms.side:
        raise HandshakeError(
            f"both ends are the {terms.side}", hint="run `handoff send` at one end and `handoff receive` at the other"
        )
    return hello


def _receive_own(wire: Wire, inbound: Inbound, expected: FrameType, left: Callable[[], float]) -> bytes:
    header, body, descriptors = wire.receive(MAX_HANDSHAKE, left())
    _refuse_descriptors(descriptors)
    kind, count, payload = inbound.open(header, body)
    if kind != expected or count:
        raise FrameError(
            f"frame type {kind} came where the handshake needs {expected.name}", hint="start the handoff again"
        )
    return payload


def _check_ready(theirs: bytes, transcript: bytes) -> None:
    if not hmac.compare_digest(theirs, transcript):
        raise ProofError("the two ends saw different handshakes", hint="somebody is in between; start again")


def _refuse_descriptors(descriptors: list[int]) -> None:
    if descriptors:
        close_all(descriptors)
        raise DescriptorError(
            "file descriptors came before anybody was known", hint="they were closed; look what is at the other end"
        )
