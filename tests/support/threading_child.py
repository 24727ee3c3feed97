"""Many threads on one token unwrap, wrap and destroy until the time is up.

Every value is compared with what went in.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from hsmbridge.codes import CKA, CKK
from hsmbridge.destruction import Ours, destroy_session_key
from hsmbridge.dialects import Dialect
from hsmbridge.errors import UnwrapError
from hsmbridge.residency import classify
from hsmbridge.unwrapping import Unwrapper
from hsmbridge.wrapping import Wrapper
from tests.support.children import open_token
from tests.support.judges import aes_unwrap
from tests.support.tokens import WayIn, enter_kek, inventory, request_for, rsa_public_object, usage

if TYPE_CHECKING:
    from hsmbridge.token import Token

THREADS = 48


class WayOut:
    """A KEK that wraps, and the software side that opens: the mirror of WayIn, in the same dialect."""

    def __init__(self, token: Token, dialect: Dialect) -> None:
        self.dialect, ours = dialect, Ours(token)
        if dialect.is_rsa:
            self._private = rsa.generate_private_key(65537, 3072)
            self.kek = ours.release(rsa_public_object(ours, token, self._private.public_key()))
        else:
            self._secret = secrets.token_bytes(32)
            self.kek = ours.release(enter_kek(ours, token, self._secret))

    def open(self, wrapped: bytes) -> bytes:
        """Open with `cryptography`."""
        if not self.dialect.is_rsa:
            return aes_unwrap(self.dialect, self._secret, wrapped)
        digest = hashes.SHA256() if self.dialect is Dialect.RSA_OAEP_SHA256 else hashes.SHA1()  # noqa: S303 - as in WayIn
        return self._private.decrypt(wrapped, padding.OAEP(padding.MGF1(digest), digest, None))


class Crew:
    """What the threads share: two KEKs, the deadline, the counts and the complaints."""

    def __init__(self, token: Token, seconds: float) -> None:
        self.token = token
        self.way_in = WayIn(token)
        self.way_out = WayOut(token, self.way_in.dialect)
        self.deadline = time.monotonic() + seconds
        self.counts: Counter[str] = Counter()
        self.complaints: list[str] = []
        self._lock = threading.Lock()

    def work(self) -> None:
        """Go round until the time is up; an error of any kind ends the thread and is reported."""
        mine: Counter[str] = Counter()
        try:
            while time.monotonic() < self.deadline and not self.complaints:
                self.round(mine)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not be lost in a thread
            self.complaints.append(repr(error))
        with self._lock:
            self.counts += mine

    def round(self, mine: Counter[str]) -> None:
        """One key comes in, goes out and is destroyed; now and then one is damaged."""
        value = secrets.token_bytes(32)
        sealed = self.way_in.seal(value)
        request = request_for(CKK.AES, {**usage(CKA.ENCRYPT, CKA.DECRYPT)}, size=32)
        key = Unwrapper(self.way_in.kek).unwrap(sealed, request).key
        mine["unwrapped"] += 1
        if key.identity.id != request.template[CKA.ID]:
            self.complaints.append("an object has another one's CKA_ID")
        if self.way_out.open(Wrapper(self.way_out.kek).wrap(key).data) != value:
            self.complaints.append("a wrong value came out")
        mine["wrapped"] += 1
        if not classify(key).is_software or not destroy_session_key(key).absent:
            self.complaints.append("a key was not destroyed")
        mine["destroyed"] += 1
        if mine["destroyed"] % 8 == 0:
            try:
                Unwrapper(self.way_in.kek).unwrap(sealed[:-1] + bytes([sealed[-1] ^ 1]), request)
                self.complaints.append("a damaged wrap was taken")
            except UnwrapError:
                mine["refused"] += 1


def main() -> None:
    """Run all threads and print what they did."""
    token = open_token()
    inventory(token)
    crew = Crew(token, float(os.environ["HSMBRIDGE_THREAD_SECONDS"]))
    before = inventory(token)
    threads = [threading.Thread(target=crew.work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    left = len(inventory(token) - before)
    print(json.dumps({"counts": crew.counts, "complaints": crew.complaints, "left": left}))  # noqa: T201 - for the parent


if __name__ == "__main__":
    main()
