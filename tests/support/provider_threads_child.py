"""Many threads share one provider and one KEK: keys of both kinds go out and come in until the time is up.

Every value is compared: a software key's stream with `cryptography`, a session key's with that of its copy.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher as Judge
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from hsmbridge_csp.cipher_key import CipherKey, StreamingKey
from hsmbridge_csp.disposition import Outcome
from hsmbridge_csp.identity import FileIdentity
from hsmbridge_csp.modes import Cipher
from hsmbridge_csp.provider import Provider

from hsmbridge.codes import CKA
from hsmbridge.generation import generate_kek, generate_key
from hsmbridge.keyspec import parse_keyspec
from tests.support.children import close, open_token
from tests.support.tokens import inventory, usage

if TYPE_CHECKING:
    from hsmbridge_csp.keys import Key

    from hsmbridge.template import Template
    from hsmbridge.token import Token

THREADS = 48
AES_256 = parse_keyspec("aes:256")
SESSION_KEY: Template = {CKA.EXTRACTABLE: True, CKA.LABEL: "one of many", **usage(CKA.ENCRYPT, CKA.DECRYPT)}
TEXT = bytes(7 * number % 251 for number in range(100))
STOP = 37  # inside the third block


def encrypted(value: bytes) -> bytes:
    """Encrypt the text with `cryptography`, in one go: CBC, zero IV, PKCS#7."""
    padder, encryptor = padding.PKCS7(128).padder(), Judge(AES(value), CBC(bytes(16))).encryptor()
    return encryptor.update(padder.update(TEXT) + padder.finalize()) + encryptor.finalize()


class Crew:
    """What the threads share: the provider, the KEK, the deadline, the counts and the complaints."""

    def __init__(self, token: Token, seconds: float) -> None:
        self.token = token
        self.provider = Provider(token, identity=FileIdentity.generate())
        kek = generate_kek(token, AES_256, label="shared", persist=False, unwrap_template=False)
        self.kek = self.provider.kek(kek)
        self.before = inventory(token)
        self.deadline = time.monotonic() + seconds
        self.counts: Counter[str] = Counter()
        self.complaints: list[str] = []
        self._lock = threading.Lock()

    def work(self) -> None:
        """Go round until the time is up; an error of any kind ends the thread and is reported."""
        mine: Counter[str] = Counter()
        try:
            while time.monotonic() < self.deadline and not self.complaints:
                self.software_key(mine)
                self.session_key(mine)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not be lost in a thread
            self.complaints.append(repr(error))
        with self._lock:
            self.counts += mine

    def software_key(self, mine: Counter[str]) -> None:
        """Carry a key of this process over in the middle of a block."""
        value = secrets.token_bytes(32)
        source = CipherKey(Cipher.AES, bytearray(value))
        begun = source.encrypt(TEXT[:STOP])
        arrived = self.carry(source)
        if begun + arrived.encrypt(TEXT[STOP:], final=True) != encrypted(value):
            self.complaints.append("a software key went on with another stream")
        self.destroy(source, arrived)
        mine["software"] += 1

    def session_key(self, mine: Counter[str]) -> None:
        """Carry a session object over by value, in the middle of a block too."""
        source = self.provider.adopt(generate_key(self.token, AES_256, SESSION_KEY))
        begun = source.encrypt(TEXT[:STOP])
        arrived = self.carry(source)
        if not begun or source.encrypt(TEXT[STOP:], final=True) != arrived.encrypt(TEXT[STOP:], final=True):
            self.complaints.append("a session key and its copy encrypt differently")
        self.destroy(source, arrived)
        mine["session"] += 1

    def carry(self, source: Key) -> StreamingKey:
        """Export a copy by value and import it."""
        blob = self.provider.export_key(source, self.kek, by_reference=False)
        arrived = self.provider.import_key(blob, self.kek)
        if not isinstance(arrived, StreamingKey):
            raise TypeError(f"{arrived!r} arrived")
        return arrived

    def destroy(self, *keys: Key) -> None:
        """Destroy keys, each of which lives in software."""
        for key in keys:
            outcome = self.provider.destroy_key(key).outcome
            if outcome is not Outcome.DESTROYED:
                self.complaints.append(f"{key!r} was {outcome}")


def main() -> None:
    """Run all threads and print what they did."""
    token = open_token()
    inventory(token)
    crew = Crew(token, float(os.environ["HSMBRIDGE_THREAD_SECONDS"]))
    threads = [threading.Thread(target=crew.work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    left = len(inventory(token) - crew.before)
    print(json.dumps({"counts": crew.counts, "complaints": crew.complaints, "left": left}))  # noqa: T201 - for the parent
    close(token)


if __name__ == "__main__":
    main()
