"""Keys in a token: the token computes, the running state is here.

Source: PKCS#11 v3.1 sections 4.9 and 4.10; CryptoAPI CryptDestroyKey, which for a hardware key ends the handle only.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING

from hsmbridge.attributes import AttributeQuery
from hsmbridge.codes import CKA, CKK, CKM, CKO, name_of
from hsmbridge.destruction import destroy_session_key
from hsmbridge.errors import HardwareKeyError, Pkcs11Error
from hsmbridge.mechanism import Mechanism
from hsmbridge.publickeys import public_key_of
from hsmbridge.residency import Classification, Residency, classify
from hsmbridge.template import PackedTemplate
from hsmbridge_csp.cipher_key import StreamingKey, initial_state
from hsmbridge_csp.disposition import Disposition, Outcome
from hsmbridge_csp.engines import TokenEngine
from hsmbridge_csp.errors import BadKeyError, KeyStateError
from hsmbridge_csp.modes import Cipher
from hsmbridge_csp.permissions import DEFAULT, Permission
from hsmbridge_csp.proofs import sign_digest
from hsmbridge_csp.stream import CipherState, CipherStream

if TYPE_CHECKING:
    from hsmbridge.objects import Object

__all__ = ["TokenKey", "token_algorithm"]

_CIPHERS: dict[int | None, Cipher] = {CKK.AES: Cipher.AES, CKK.DES3: Cipher.TDES}
_MACS = {CKK.GENERIC_SECRET: CKM.SHA256_HMAC, CKK.SHA256_HMAC: CKM.SHA256_HMAC, CKK.AES: CKM.AES_CMAC}
_TOKEN = AttributeQuery((CKA.TOKEN,))


def token_algorithm(cls: int, key_type: int | None) -> str:
    """Return the name under which a token key of this class and type is recorded."""
    cipher = _cipher_of(cls, key_type)
    return cipher.value if cipher else name_of(CKK, key_type or 0).removeprefix("CKK_")


def _cipher_of(cls: int, key_type: int | None) -> Cipher | None:
    return _CIPHERS.get(key_type) if cls == CKO.SECRET_KEY else None


class TokenKey(StreamingKey):
    """A key in a token.

    Args:
        key: the object.
        state: where its stream stands; by default as for a software key, where its type is a block cipher.
        permissions: KP_PERMISSIONS.

    Raises:
        KeyStateError: a cipher state for a key that is no block cipher key.
    """

    def __init__(self, key: Object, state: CipherState | None = None, permissions: Permission = DEFAULT) -> None:
        self.object = key
        identity = key.identity
        self.key_type = CKK(identity.key_type) if identity.key_type in list(CKK) else None
        cipher = _cipher_of(identity.cls, self.key_type)
        self.stream = None
        if cipher is not None:
            self.stream = CipherStream(TokenEngine(cipher, key), state or initial_state(cipher))
        elif state is not None:
            raise KeyStateError(f"{identity} runs no block cipher", hint="the blob and the key do not belong together")
        super().__init__(token_algorithm(identity.cls, identity.key_type), 0, permissions)

    def sign(self, data: bytes) -> bytes:
        """Let the token sign, or compute a MAC.

        A private key signs the SHA-256 of the data (RSA PKCS#1 v1.5; ECDSA: r and s; Ed25519); a secret key computes
        HMAC-SHA256, an AES key CMAC.

        Raises:
            BadKeyError: this kind of key signs nothing, or a private key has no public half beside it.
            Pkcs11Error: the token refuses.
        """
        self.check_usable(Permission.MAC)
        if self.object.identity.cls == CKO.PRIVATE_KEY:
            public = public_key_of(self.object)
            if public is None:
                raise BadKeyError("the private key has no public half beside it", hint="its kind cannot be told")
            return sign_digest(self.object, public, hashlib.sha256(data).digest())
        mechanism = _MACS.get(self.key_type) if self.key_type is not None else None
        if mechanism is None:
            raise BadKeyError(f"{self.algorithm} keys sign nothing", hint="use a private key or a MAC key")
        token = self.object.token
        with token.sessions as session:
            return token.calls.sign(session, Mechanism(mechanism), self.object.handle, data)

    def classify(self) -> Classification:
        """Ask the token, now."""
        self.check_alive()
        return classify(self.object)

    def dispose(self) -> Disposition:
        """C_DestroyObject for an extractable session object; anything else is retained and only this object dies.

        Raises:
            Pkcs11Error: the token refused to destroy a session object; it may still be there.
        """
        self.check_alive()
        try:
            done = destroy_session_key(self.object)
        except HardwareKeyError:
            found = classify(self.object)
            self._why_dead = "the key was released; it stays in its token"
            return Disposition(outcome=Outcome.RETAINED, residency=Residency.HARDWARE, evidence=found.evidence)
        self._why_dead = "the key was destroyed"
        evidence = (*done.classification.evidence, "absent afterwards" if done.absent else "still listed afterwards")
        return Disposition(outcome=Outcome.DESTROYED, residency=Residency.SOFTWARE, evidence=evidence)

    def duplicate(self) -> TokenKey:
        """Copy the state; a session object is copied too (C_CopyObject), a token object is nobody's to destroy.

        Raises:
            KeyStateError: a nonce-bearing encryptor, or a token that does not copy.
        """
        self.check_usable()
        if self.can_only_move:
            raise KeyStateError(
                "an encryptor of this kind cannot be duplicated: two would use one keystream twice",
                hint="take ENCRYPT off its KP_PERMISSIONS first",
            )
        if self.object.read(_TOKEN).flag(CKA.TOKEN) is True:
            return TokenKey(self.object, self.cipher_state, self.permissions)
        token = self.object.token
        try:
            with token.sessions as session:
                template = PackedTemplate({CKA.TOKEN: False, CKA.ID: secrets.token_bytes(16)})
                handle = token.calls.copy_object(session, self.object.handle, template)
        except Pkcs11Error as error:
            raise KeyStateError(
                f"the token does not copy the session object: {error}",
                hint="export and import it instead",
                ckr=error.ckr,
            ) from error
        return TokenKey(token.adopt(handle), self.cipher_state, self.permissions)

    def __repr__(self) -> str:
        return f"<TokenKey {self.object.identity}>"
