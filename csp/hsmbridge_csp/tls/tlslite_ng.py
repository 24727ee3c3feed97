"""A server's handshake by tlslite-ng, with a certificate key that stays in its token.

The one module that knows the library. It comes with the extra `tls-demo`; nothing else of hsmbridge needs it. What it
cannot do over a connection that goes on without it, it does not offer: tickets, heartbeats, early data, renegotiation.

Source: docs/tls.md; RFC 8446 section 4; RFC 5246 section 7.4; tlslite-ng 0.8.2, recordlayer.py and session.py.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hsmbridge.errors import HsmbridgeError, InputError, UnavailableError
from hsmbridge_csp.errors import KeyStateError
from hsmbridge_csp.tls.connection import TlsConnection
from hsmbridge_csp.tls.derive import Side, TlsKeyPair, derive_tls12_keys, derive_tls13_keys
from hsmbridge_csp.tls.errors import TlsHandshakeError
from hsmbridge_csp.tls.prf import Randoms
from hsmbridge_csp.tls.suites import CipherSuite, TlsVersion

try:
    from tlslite.api import X509, HandshakeSettings, TLSConnection, X509CertChain  # type: ignore[import-untyped]
    from tlslite.utils.python_ecdsakey import Python_ECDSAKey  # type: ignore[import-untyped]
    from tlslite.utils.python_rsakey import Python_RSAKey  # type: ignore[import-untyped]
except ImportError as missing:
    raise UnavailableError(
        "no library for TLS handshakes is installed", hint="pip install 'hsmbridge[tls-demo]' brings tlslite-ng"
    ) from missing

if TYPE_CHECKING:
    import socket

    from cryptography.x509 import Certificate

    from hsmbridge_csp.tls.tokensigner import HandshakeSigner

__all__ = ["TlsServer"]

_CURVES = {"secp256r1": "NIST256p", "secp384r1": "NIST384p", "secp521r1": "NIST521p"}
_VERSIONS = {TlsVersion.TLS12: (3, 3), TlsVersion.TLS13: (3, 4)}


class _TokenEcKey(Python_ECDSAKey):  # type: ignore[misc]  # the library has no types
    """What the library takes for a private EC key: the public one, and the token signs."""

    def __init__(self, signer: HandshakeSigner, public: ec.EllipticCurvePublicKey) -> None:
        numbers = public.public_numbers()
        super().__init__(numbers.x, numbers.y, _CURVES[public.curve.name])
        self.private_key = self.public_key  # asked for its curve, and whether it is there
        self._signer = signer

    def _sign(self, data: bytes, hAlg: str) -> bytearray:  # noqa: ARG002, N803 - the library's signature
        return bytearray(self._signer.sign_ecdsa(bytes(data)))


class _TokenRsaKey(Python_RSAKey):  # type: ignore[misc]  # the library has no types
    """The same for RSA."""

    def __init__(self, signer: HandshakeSigner, modulus: int, exponent: int) -> None:
        super().__init__(modulus, exponent)
        self._signer = signer

    def hasPrivateKey(self) -> bool:  # noqa: N802 - the library's name
        return True

    def sign(
        self,
        bytes: bytearray,  # noqa: A002 - the library's name
        padding: str = "pkcs1",
        hashAlg: str = "sha256",  # noqa: N803 - the library's name
        saltLen: int | None = None,  # noqa: ARG002, N803 - as long as the hash, which is all that TLS knows
    ) -> bytearray:
        if padding == "pss":
            return bytearray(self._signer.sign_pss(_bytes(bytes), hashAlg))
        return bytearray(self._signer.sign_pkcs1(_bytes(self.addPKCS1Prefix(bytes, hashAlg))))


_bytes = bytes


class TlsServer:
    """Makes connections of sockets.

    Args:
        signer: the certificate's key.
        certificate: for its public key.
        versions: that are spoken.
        protocols: for clients that ask by ALPN.

    Raises:
        InputError: the certificate is another key's.
    """

    def __init__(
        self,
        signer: HandshakeSigner,
        certificate: Certificate,
        versions: tuple[TlsVersion, ...] = (TlsVersion.TLS12, TlsVersion.TLS13),
        protocols: tuple[bytes, ...] = (b"http/1.1",),
    ) -> None:
        form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        if not hmac.compare_digest(certificate.public_key().public_bytes(*form), signer.public.public_bytes(*form)):
            raise InputError("the certificate is another key's", hint="make one for the key in the token")
        der = X509()
        der.parseBinary(certificate.public_bytes(serialization.Encoding.DER))
        self._chain = X509CertChain([der])
        if isinstance(signer.public, ec.EllipticCurvePublicKey):
            self._key: Any = _TokenEcKey(signer, signer.public)
        else:
            numbers = signer.public.public_numbers()
            self._key = _TokenRsaKey(signer, numbers.n, numbers.e)
        self._alpn = [bytearray(protocol) for protocol in protocols]
        self._versions = sorted(_VERSIONS[version] for version in versions)

    def accept(self, sock: socket.socket) -> TlsConnection:
        """Run the handshake with a client that has connected.

        Args:
            sock: with a timeout, which holds for each step; the connection's from now on.

        Returns: the connection, at its first record of application data.

        Raises:
            TlsHandshakeError: no agreement, or the client went away; the socket is closed.
            HsmbridgeError: the token did not sign; the socket is closed.
        """
        handshake = TLSConnection(sock)
        try:
            handshake.handshakeServer(
                certChain=self._chain, privateKey=self._key, settings=self._settings(), alpn=self._alpn
            )
            return _taken_from(handshake, sock)
        except HsmbridgeError:
            sock.close()
            raise
        except Exception as error:  # what a client sends can make the library raise whatever Python has
            sock.close()
            raise TlsHandshakeError(
                f"the handshake failed: {type(error).__name__}: {error}", hint="the client's own message says more"
            ) from error
        finally:
            _forget(handshake)

    def _settings(self) -> Any:  # noqa: ANN401 - the library's type
        settings = HandshakeSettings()
        settings.minVersion, settings.maxVersion = self._versions[0], self._versions[-1]
        settings.cipherNames = ["aes128gcm", "aes256gcm", "chacha20-poly1305"]
        settings.keyExchangeNames = ["ecdhe_ecdsa", "ecdhe_rsa"]
        settings.eccCurves = ["x25519", "secp256r1", "secp384r1", "secp521r1"]
        settings.keyShares = ["x25519"]
        settings.dhGroups = []
        settings.more_sig_schemes = []
        settings.dsaSigHashes = []
        settings.rsaSigHashes = ["sha256", "sha384", "sha512"]
        settings.ecdsaSigHashes = ["sha256", "sha384", "sha512"]
        # Nobody answers these after the handoff.
        settings.use_heartbeat_extension = False
        settings.record_size_limit = None
        settings.ticket_count = 0
        return settings


def _taken_from(handshake: Any, sock: socket.socket) -> TlsConnection:  # noqa: ANN401 - the library's type
    """Read the connection's state out of the library's objects.

    Raises:
        KeyStateError: NTE_BAD_KEY_STATE: the library holds a message that is not whole, or has not written everything.
    """
    if not handshake._defragmenter.is_empty() or handshake.sock._write_queue:  # noqa: SLF001 - tried with this version
        raise KeyStateError("a handshake message or a write is pending", hint="let the handshake library finish")
    session, layer = handshake.session, handshake._recordLayer  # noqa: SLF001 - as above
    suite = CipherSuite(session.cipherSuite)
    sequences = layer._writeState.seqnum, layer._readState.seqnum  # noqa: SLF001 - as above
    if suite.version is TlsVersion.TLS13:
        keys = derive_tls13_keys(suite, session.cl_app_secret, session.sr_app_secret, Side.SERVER, sequences=sequences)
    else:
        randoms = Randoms(client=bytes(handshake._clientRandom), server=bytes(handshake._serverRandom))  # noqa: SLF001
        keys = derive_tls12_keys(suite, session.masterSecret, randoms, Side.SERVER, sequences=sequences)
    assert isinstance(keys, TlsKeyPair)  # noqa: S101 - derived from bytes, not in a token
    return TlsConnection(
        sock,
        keys.write,
        keys.read,
        bytes(handshake.sock._read_buffer),  # noqa: SLF001 - as above
        plaintext=bytes(handshake._readBuffer),  # noqa: SLF001 - as above
    )


def _forget(handshake: Any) -> None:  # noqa: ANN401 - the library's type
    """Overwrite what can be reached of the handshake's secrets; the rest is the memory allocator's (docs/tls.md)."""
    session = handshake.session
    for name in ("masterSecret", "cl_app_secret", "sr_app_secret", "exporterMasterSecret", "resumptionMasterSecret"):
        secret = getattr(session, name, None)
        if isinstance(secret, bytearray):
            secret[:] = bytes(len(secret))
