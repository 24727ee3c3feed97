"""What checks of the toolkit start from: a provider with the run's identity, and a recipient in the token.

Source: docs/blob-format.md (recipients: A256KW, RSAES-OAEP with SHA-256).
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from hsmbridge_csp.provider import Provider
from hsmbridge_csp.recipient_rsa import RsaOpener, RsaSealer

from hsmbridge.codes import CKA
from hsmbridge.dialects import Dialect
from hsmbridge.errors import HsmbridgeError, MechanismError
from hsmbridge.probe import probe
from hsmbridge.publickeys import public_key_of
from hsmbridge_conformance.importing import run_identity
from hsmbridge_conformance.peer import PeerDied
from hsmbridge_conformance.verdict import Failed, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hsmbridge_csp.recipients import Opener, Sealer

    from hsmbridge.objects import Object
    from hsmbridge_conformance.rig import Rig

__all__ = ["Recipient", "must_refuse", "must_work", "provider", "recipient", "without_call"]

_RSA_RECIPIENT = "rsa:3072"
"""The weakest RSA recipient that hsmbridge seals for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """A KEK in the token, as a sender and as a receiver see it.

    Attributes:
        kek: what unwraps.
        sealer, opener: for export and import.
        wraps: which sort of wrap the recipient makes.
    """

    kek: Object
    sealer: Sealer
    opener: Opener
    wraps: Dialect

    @property
    def kek_id(self) -> str:
        """CKA_ID as hex: for the second process."""
        return self.kek.identity.id.hex()


def provider(rig: Rig) -> Provider:
    """Return a provider on the run's token, which signs as the run."""
    return Provider(rig.token, identity=run_identity())


def recipient(rig: Rig) -> Recipient:
    """Return the worker's recipient: an AES-256 KEK in the token, or an RSA pair where AES keys wrap nothing.

    Raises:
        Unsupported: the module has nothing under which hsmbridge lets a key travel.
    """
    return rig.kept("recipient", lambda: _make(rig))


def _make(rig: Rig) -> Recipient:
    try:
        if probe(rig.token).has(Dialect.AES_KW):
            return _symmetric(rig)
        if probe(rig.token).has(Dialect.RSA_OAEP_SHA256):
            return _asymmetric(rig)
    except HsmbridgeError as error:
        raise Unsupported(f"no KEK to seal for: {error}") from None
    raise Unsupported("no blob can be sealed for this token: neither RFC 3394 nor RSA-OAEP with SHA-256 works")


def _symmetric(rig: Rig) -> Recipient:
    kek = rig.make_kek({CKA.TOKEN: True})
    used = provider(rig).kek(kek)
    return Recipient(kek=kek, sealer=used, opener=used, wraps=Dialect.AES_KW)


def _asymmetric(rig: Rig) -> Recipient:
    public, private = rig.make_pair(
        _RSA_RECIPIENT,
        {
            CKA.TOKEN: True, CKA.DECRYPT: False, CKA.SIGN: False, CKA.DERIVE: False, CKA.UNWRAP: True,
            CKA.EXTRACTABLE: False,
        },
        {CKA.ENCRYPT: False, CKA.VERIFY: False, CKA.WRAP: True},
    )  # fmt: skip
    key = public_key_of(public)
    if not isinstance(key, RSAPublicKey):
        raise Unsupported("the module does not give the numbers of an RSA public key")
    sealer = RsaSealer(key, public)
    return Recipient(kek=private, sealer=sealer, opener=RsaOpener(private), wraps=Dialect.RSA_OAEP_SHA256)


@contextmanager
def must_work(what: str) -> Iterator[None]:
    """Judge what hsmbridge does on this module.

    Args:
        what: the beginning of the sentence for a toolkit that cannot: ``the export failed``.

    Raises:
        Unsupported: the module lacks a mechanism; Failed: anything else goes wrong.
    """
    try:
        yield
    except MechanismError as error:
        raise Unsupported(str(error)) from None
    except PeerDied:
        raise
    except HsmbridgeError as error:
        raise Failed(f"{what}: {type(error).__name__}: {error}") from None


def must_refuse(
    what: str, kinds: type[HsmbridgeError] | tuple[type[HsmbridgeError], ...], call: Callable[[], object]
) -> HsmbridgeError:
    """Make a call that hsmbridge has to refuse.

    Args:
        what: the sentence for a toolkit that does not: ``a KEK that may also DECRYPT wrapped a key``.
        kinds: the errors that such a refusal has.
        call: makes the call.

    Returns: the error.

    Raises:
        Failed: it was not refused, or for another reason.
    """
    try:
        call()
    except kinds as error:
        return error
    except HsmbridgeError as error:
        raise Failed(f"refused for another reason, with {type(error).__name__}: {error}") from None
    except (ValueError, TypeError, LookupError, ArithmeticError, OSError, RuntimeError) as error:
        raise Failed(f"not refused, but stumbled over: {type(error).__name__}: {error}") from None
    raise Failed(what)


@contextmanager
def without_call(rig: Rig, *functions: str) -> Iterator[None]:
    """Insist that the module is not asked.

    Raises:
        Failed: one of the C functions was called inside the block.
    """
    before = [rig.journal.counted(function) for function in functions]
    yield
    for function, count in zip(functions, before, strict=True):
        called = rig.journal.counted(function) - count
        if called:
            raise Failed(f"it was refused only after {called} call{'s' if called > 1 else ''} of {function}")
