"""Keys made for a check: named as the run's own, session objects unless the check says otherwise."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hsmbridge.codes import CKA, CKK, CKM, CKO
from hsmbridge.destruction import Ours
from hsmbridge.entry import key_entry
from hsmbridge.errors import HsmbridgeError
from hsmbridge.keyspec import parse_keyspec
from hsmbridge.mechanism import Mechanism
from hsmbridge.template import PackedTemplate
from hsmbridge_conformance.verdict import Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsmbridge.objects import Object
    from hsmbridge.template import Template, Value
    from hsmbridge.token import Token

__all__ = ["LABEL", "USAGE", "KeyMaker", "usage"]

LABEL = "hsmbridge conformance"
"""CKA_LABEL of everything that the suite makes; what says whose an object is, is its CKA_ID."""

USAGE = (CKA.ENCRYPT, CKA.DECRYPT, CKA.SIGN, CKA.VERIFY, CKA.WRAP, CKA.UNWRAP, CKA.DERIVE)
"""The usage flags of a secret key, all of which are always named: defaults differ between modules."""


def usage(*allowed: CKA) -> dict[int, Value]:
    """Return all usage flags of a secret key, true for *allowed* only."""
    return {kind: kind in allowed for kind in USAGE}


class KeyMaker:
    """Makes keys in a token and takes them over.

    Args:
        token: logged in.
        prefix: first bytes of every CKA_ID of this run.

    Attributes:
        ours: what the current check made and has not removed; emptied between checks.
    """

    def __init__(self, token: Token, prefix: bytes) -> None:
        self.token = token
        self.calls = token.calls
        self.prefix = prefix
        self.ours = Ours(token)

    # ---- names

    def new_id(self) -> bytes:
        """Return a CKA_ID of this run, 16 bytes."""
        return self.prefix + secrets.token_bytes(16 - len(self.prefix))

    def named(self, template: Template | None = None) -> dict[int, Value]:
        """Return a template with this run's name, a session object unless *template* says otherwise."""
        return {CKA.TOKEN: False, CKA.ID: self.new_id(), CKA.LABEL: LABEL, **(template or {})}

    # ---- keys

    def adopt(self, handle: int) -> Object:
        """Take a handle that the module has just returned for a new object: it goes when the check ends."""
        return self.ours.adopt(handle)

    def make(self, spec: str = "aes:256", template: Template | None = None) -> Object:
        """Generate a secret key: a sensitive, extractable session object without any use, *template* overrides.

        Raises:
            Unsupported: the module generates no such key.
        """
        wanted_spec = parse_keyspec(spec)
        length: dict[int, Value] = {CKA.VALUE_LEN: wanted_spec.bits // 8} if wanted_spec.has_length else {}
        wanted = self.named(
            {
                CKA.CLASS: CKO.SECRET_KEY,
                CKA.KEY_TYPE: wanted_spec.key_type,
                **length,
                CKA.SENSITIVE: True,
                CKA.EXTRACTABLE: True,
                **usage(),
                **(template or {}),
            }
        )
        return self.adopt(self._generate(wanted_spec.generation, wanted))

    def make_kek(self, template: Template | None = None, spec: str = "aes:256") -> Object:
        """Generate an AES KEK that wraps and unwraps, and nothing else; *template* overrides.

        Raises:
            Unsupported: the module generates no such key.
        """
        return self.make(spec, {CKA.EXTRACTABLE: False, **usage(CKA.WRAP, CKA.UNWRAP), **(template or {})})

    def make_pair(
        self, spec: str, template: Template | None = None, public: Template | None = None
    ) -> tuple[Object, Object]:
        """Generate a key pair of session objects.

        Returns: the public and the private key; the private one is sensitive and extractable, *template* overrides.

        Raises:
            Unsupported: the module generates no such pair.
        """
        wanted_spec = parse_keyspec(spec)
        numbers: Template = (
            {CKA.MODULUS_BITS: wanted_spec.bits, CKA.PUBLIC_EXPONENT: b"\x01\x00\x01"}
            if wanted_spec.key_type == CKK.RSA
            else {CKA.EC_PARAMS: wanted_spec.ec_params}
        )
        private = self.named({CKA.PRIVATE: True, CKA.SENSITIVE: True, CKA.EXTRACTABLE: True, **(template or {})})
        shared: Template = {CKA.TOKEN: private[CKA.TOKEN], CKA.ID: private[CKA.ID], CKA.LABEL: LABEL}
        with self.token.sessions as session, self._supported(f"{spec} key pairs"):
            handles = self.calls.generate_key_pair(
                session,
                Mechanism(wanted_spec.generation),
                PackedTemplate({**shared, **numbers, **(public or {})}),
                PackedTemplate(private),
            )
        return self.adopt(handles[0]), self.adopt(handles[1])

    def enter(self, key_type: CKK, value: bytes, template: Template | None = None) -> Object:
        """Put a secret session key of known bytes into the token, sensitive and extractable, *template* overrides.

        Raises:
            Unsupported: the module takes no known bytes.
        """
        wanted = self.named({CKA.SENSITIVE: True, CKA.EXTRACTABLE: True, **usage(), **(template or {})})
        with self._supported("keys of known bytes"):
            return key_entry(self.token).enter(self.ours, key_type, value, wanted)

    def enter_kek(self, value: bytes, template: Template | None = None) -> Object:
        """Put an AES KEK of known bytes into the token that wraps and unwraps, and nothing else."""
        safe: Template = {CKA.EXTRACTABLE: False, **usage(CKA.WRAP, CKA.UNWRAP), **(template or {})}
        return self.enter(CKK.AES, value, safe)

    def _generate(self, mechanism: CKM, template: Template) -> int:
        with self.token.sessions as session, self._supported("such keys"):
            return self.calls.generate_key(session, Mechanism(mechanism), PackedTemplate(template))

    @contextmanager
    def _supported(self, what: str) -> Iterator[None]:
        """Turn a refusal to make a key into "unsupported": no check is about that."""
        try:
            yield
        except HsmbridgeError as error:
            raise Unsupported(f"no {what}: {error}") from None
