"""Blobs sealed by a token, opened by cwt: the KEK has known bytes, and the judge gets them."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import cbor2
import pytest
from hsmbridge_csp.cipher_key import CipherKey
from hsmbridge_csp.identity import FileIdentity, TokenIdentity
from hsmbridge_csp.modes import Cipher
from hsmbridge_csp.provider import Provider

from hsmbridge.codes import CKA, CKM
from hsmbridge.destruction import Ours
from hsmbridge.dialects import Dialect
from hsmbridge.generation import generate_key
from hsmbridge.keyspec import parse_keyspec
from tests.support.cwt import CwtRefusedError, open_with_cwt, requires_cwt
from tests.support.tokens import enter_kek, requires, requires_entry

if TYPE_CHECKING:
    from hsmbridge_csp.identity import Identity

    from hsmbridge.template import Template
    from hsmbridge.token import Token


@pytest.mark.parametrize("signer", ["file", "token"])
def test_cwt_opens_a_blob_under_a_kek(token: Token, signer: str) -> None:
    """Given the KEK's bytes, cwt finds the key, signed in a file's EdDSA or the token's ES256; given others, not."""
    requires_cwt()
    requires(token, Dialect.AES_KW)
    requires_entry(token)
    value, kek_value = secrets.token_bytes(32), secrets.token_bytes(32)
    with Ours(token) as ours:
        identity: Identity = FileIdentity.generate()
        if signer == "token":
            requires(token, CKM.ECDSA, CKM.EC_KEY_PAIR_GEN)
            key_id = secrets.token_bytes(16)
            use: Template = {CKA.TOKEN: False, CKA.SIGN: True, CKA.ID: key_id, CKA.LABEL: "signer"}
            identity = TokenIdentity(ours.take(generate_key(token, parse_keyspec("ec:p-256"), use)))
        provider = Provider(token, identity=identity)
        kek = provider.kek(enter_kek(ours, token, kek_value))
        blob = provider.export_key(CipherKey(Cipher.AES, bytearray(value)), kek)
        record = cbor2.loads(open_with_cwt(blob, identity.public_key, kek_value))
        assert (record[1], record[3]) == ("AES", value)
        with pytest.raises(CwtRefusedError):
            open_with_cwt(blob, identity.public_key, secrets.token_bytes(32))
        with pytest.raises(CwtRefusedError):
            open_with_cwt(blob, FileIdentity.generate().public_key, kek_value)
