"""Key agreement in the token: ECDH.

Source: PKCS#11 v3.1 section 6.3.17 (CKM_ECDH1_DERIVE).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization

from hsmbridge._ck import CkEcdh1DeriveParams
from hsmbridge.codes import CKA, CKK, CKM, CKO
from hsmbridge.mechanism import Mechanism
from hsmbridge.template import PackedTemplate

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

    from hsmbridge.destruction import Ours
    from hsmbridge.objects import Object

__all__ = ["derive_shared_secret"]

_KDF_NULL = 1  # CKD_NULL


def derive_shared_secret(ours: Ours, private: Object, peer: ec.EllipticCurvePublicKey) -> bytes:
    """Let the token agree with a peer, and read the shared secret: the x coordinate, as long as the curve's field.

    Args:
        ours: takes the session object that holds the secret; it is destroyed again.
        private: an EC private key with CKA_DERIVE.
        peer: a public key on the same curve.

    Raises:
        Pkcs11Error: the token refuses, or (in FIPS mode) lets nobody read the result.
    """
    point = peer.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    params = CkEcdh1DeriveParams(_KDF_NULL, 0, None, len(point), point)
    size = (peer.key_size + 7) // 8
    template = PackedTemplate(
        {
            CKA.CLASS: CKO.SECRET_KEY,
            CKA.KEY_TYPE: CKK.GENERIC_SECRET,
            CKA.TOKEN: False,
            CKA.SENSITIVE: False,
            CKA.EXTRACTABLE: True,
            CKA.VALUE_LEN: size,
        }
    )
    token = private.token
    with token.sessions as session:
        mechanism = Mechanism(CKM.ECDH1_DERIVE, params, keep=point)
        shared = ours.adopt(token.calls.derive_key(session, mechanism, private.handle, template))
    value = bytes(shared.read_value())
    ours.remove(shared)
    return value
