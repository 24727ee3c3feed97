"""A certificate's private key in a token, as a TLS handshake uses it: C_Sign, and the key never leaves.

Source: RFC 8446 section 4.2.3 (signature schemes); PKCS#11 v3.1 sections 6.1.6 (CKM_RSA_PKCS), 6.1.10
(CKM_RSA_PKCS_PSS) and 6.3.12 (CKM_ECDSA).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from hsmbridge.codes import CKM
from hsmbridge.mechanism import Mechanism
from hsmbridge.publickeys import public_key_of
from hsmbridge_csp.errors import NTE, BadKeyError, CspError
from hsmbridge_csp.permissions import Permission

if TYPE_CHECKING:
    from hsmbridge_csp.token_key import TokenKey

__all__ = ["HandshakeSigner"]

_PSS = {
    "sha256": (CKM.SHA256, 2, 32),
    "sha384": (CKM.SHA384, 3, 48),
    "sha512": (CKM.SHA512, 4, 64),
}
"""Hash, mask generation function over it (CKG_MGF1_…), and length of the salt, which is that of the hash."""

_PARAMS = struct.Struct("@LLL")
"""CK_RSA_PKCS_PSS_PARAMS."""


class HandshakeSigner:
    """Signs what a handshake has to sign.

    Args:
        key: the private key, EC or RSA, its public half beside it in the token.

    Raises:
        BadKeyError: neither EC nor RSA, or no public half.
    """

    def __init__(self, key: TokenKey) -> None:
        public = public_key_of(key.object)
        if not isinstance(public, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey)):
            raise BadKeyError(
                "a server's certificate key is EC or RSA, with its public half in the token",
                hint="make one with `hsmbridge key generate --type ec:p-256`",
            )
        self._key = key
        self.public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey = public

    def sign_ecdsa(self, digest: bytes) -> bytes:
        """Sign a digest with ECDSA.

        Returns: the signature in DER, as TLS has it.

        Raises:
            Pkcs11Error: the token refuses.
        """
        raw = self._sign(Mechanism(CKM.ECDSA), digest)
        half = len(raw) // 2
        return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))

    def sign_pss(self, digest: bytes, hash_name: str) -> bytes:
        """Sign a digest with RSASSA-PSS.

        Raises:
            CspError: NTE_BAD_ALGID, not a hash of TLS; Pkcs11Error: the token refuses.
        """
        if hash_name not in _PSS:
            raise CspError(f"{hash_name} is no hash of a TLS signature", nte=NTE.BAD_ALGID, hint="use SHA-256")
        mechanism = Mechanism(CKM.RSA_PKCS_PSS, _PARAMS.pack(*_PSS[hash_name]))
        return self._sign(mechanism, digest)

    def sign_pkcs1(self, digest_info: bytes) -> bytes:
        """Sign a DigestInfo with RSASSA-PKCS1-v1_5; TLS 1.2 only.

        Raises:
            Pkcs11Error: the token refuses.
        """
        return self._sign(Mechanism(CKM.RSA_PKCS), digest_info)

    def _sign(self, mechanism: Mechanism, data: bytes) -> bytes:
        self._key.check_usable(Permission.MAC)
        token = self._key.object.token
        with token.sessions as session:
            return token.calls.sign(session, mechanism, self._key.object.handle, data)
