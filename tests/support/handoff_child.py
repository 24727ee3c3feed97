"""A program that hands over what only a program can.

``python -m tests.support.handoff_child WHAT BUNDLE RECIPIENT PEER``. WHAT is ``session``, a session key of a token, for
the KEK whose label is RECIPIENT; or ``running``, a software key in the middle of a CBC stream, for the public key in
the file RECIPIENT. PEER is a pinned name. Prints the key's bytes in hexadecimal digits.
"""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hsmbridge_csp.cipher_key import CipherKey
from hsmbridge_csp.handoff.offline import send_bundle
from hsmbridge_csp.handoff.parties import Party
from hsmbridge_csp.handoff.sender import Sender
from hsmbridge_csp.handoff.source import LiveSource
from hsmbridge_csp.identity import IDENTITY_FILE, FileIdentity, config_directory
from hsmbridge_csp.journal import Journal
from hsmbridge_csp.modes import Cipher
from hsmbridge_csp.recipient_ecdh import EcdhSealer
from hsmbridge_csp.recipient_kek import TokenKek
from hsmbridge_csp.token_key import TokenKey
from hsmbridge_csp.trust import TRUST_FILE, TrustStore, load_public_key

from hsmbridge.codes import CKA, CKK
from hsmbridge.destruction import Ours
from hsmbridge.entry import key_entry
from hsmbridge.objects import find_key
from tests.support.children import close, open_token

if TYPE_CHECKING:
    from hsmbridge.template import Template

__all__ = ["main"]

_TEMPLATE: Template = {
    CKA.SENSITIVE: True,
    CKA.EXTRACTABLE: True,
    CKA.ENCRYPT: True,
    CKA.LABEL: "moved",
    CKA.ID: b"moved",
}


def main() -> None:
    """Send it."""
    what, bundle, recipient, peer = sys.argv[1:]
    value = secrets.token_bytes(32)
    home = config_directory()
    trust = TrustStore.load(home / TRUST_FILE)
    fingerprint = next(pin.fingerprint for pin in trust.pins if pin.name == peer)
    with Journal() as journal:
        party = Party(identity=FileIdentity.load(home / IDENTITY_FILE), journal=journal, trust=trust)
        if what == "session":
            token = open_token()
            with Ours(token) as ours:
                key = TokenKey(ours.release(key_entry(token).enter(ours, CKK.AES, value, _TEMPLATE)))
            kek = TokenKek(find_key(token, label=recipient))
            send_bundle(Sender(party, token), party, [LiveSource(key)], Path(bundle), kek, fingerprint, token)
            close(token)
        else:
            running = CipherKey(Cipher.AES, bytearray(value))
            running.encrypt(b"the first record", final=False)
            public = load_public_key(Path(recipient).read_bytes(), name=recipient)
            sealer = EcdhSealer(public)  # type: ignore[arg-type]  # the test made it of that kind
            send_bundle(Sender(party), party, [LiveSource(running)], Path(bundle), sealer, fingerprint)
    sys.stdout.write(value.hex())


if __name__ == "__main__":
    main()
