"""How fast TLS records are sealed and opened where they stand, against `cryptography`'s AEAD called directly.

    python benchmarks/tls_records.py [--json FILE] [--records N] [--rounds N]

Records of 16 KiB. Ours seals a record and opens it again in one memoryview, so each makes its nonce, its header and its
sequence number, and looks at the peer's. The other side calls ``encrypt`` and ``decrypt`` with the same nonce, the same
text and the same five bytes of additional data each time; in place it calls ``encrypt_into`` and ``decrypt_into`` with
views that are ready.

Both sides take turns every few milliseconds, so that what else the machine does meets both.
"""

from __future__ import annotations

import argparse
import json
import secrets
import statistics
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from hsmbridge_csp.modes import Direction
from hsmbridge_csp.tls import CipherSuite, TlsRecordKey, TlsRecordState
from hsmbridge_csp.tls.suites import Bulk

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = 16_384
TURN = 100
"""Records that one side does before it is the other's turn."""

SUITES = {
    "TLS 1.3, AES-128-GCM": CipherSuite.TLS_AES_128_GCM_SHA256,
    "TLS 1.2, AES-128-GCM": CipherSuite.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    "TLS 1.3, AES-256-GCM": CipherSuite.TLS_AES_256_GCM_SHA384,
    "TLS 1.3, ChaCha20-Poly1305": CipherSuite.TLS_CHACHA20_POLY1305_SHA256,
}
SIDES = ("ours", "direct", "in place", "seal", "encrypt")
"""Seal and open; encrypt and decrypt; the same in place; seal alone; encrypt alone."""


class Contest:
    """One suite.

    Args:
        suite: the suite.
    """

    def __init__(self, suite: CipherSuite) -> None:
        form = suite.form
        key, iv = secrets.token_bytes(form.key_size), secrets.token_bytes(form.iv_size)

        def make(direction: Direction) -> TlsRecordKey:
            return TlsRecordKey(bytearray(key), TlsRecordState(suite=suite, direction=direction, iv=iv))

        self._sealer, self._opener = make(Direction.ENCRYPT), make(Direction.DECRYPT)
        self._other = make(Direction.ENCRYPT)
        self._aead = AESGCM(key) if form.bulk is Bulk.AES_GCM else ChaCha20Poly1305(key)
        self.turns: dict[str, Callable[[], None]] = dict(
            zip(SIDES, (self._ours, self._direct, self._in_place, self._seal, self._encrypt), strict=True)
        )

    def race(self, records: int) -> dict[str, float]:
        """Let each side do *records*, in turns.

        Returns: records per second; a record is sealed and opened, or sealed alone.
        """
        seconds = dict.fromkeys(SIDES, 0.0)
        for _ in range(max(1, records // TURN)):
            for side, turn in self.turns.items():
                start = perf_counter()
                turn()
                seconds[side] += perf_counter() - start
        return {side: max(1, records // TURN) * TURN / spent for side, spent in seconds.items()}

    def check(self) -> None:
        """See to it that both ways make the same text of it."""
        room = memoryview(bytearray(self._sealer.record_size(SIZE)))
        text = secrets.token_bytes(SIZE)
        room[self._sealer.prefix : self._sealer.prefix + SIZE] = text
        _, length = self._opener.open_from(room, self._sealer.seal_into(room, SIZE))
        assert bytes(room[self._sealer.prefix : self._sealer.prefix + length]) == text, "another text came out"

    def _ours(self) -> None:
        seal, open_, room = self._sealer.seal_into, self._opener.open_from, self._room(self._sealer)
        for _ in range(TURN):
            open_(room, seal(room, SIZE))

    def _seal(self) -> None:
        seal, room = self._other.seal_into, self._room(self._other)
        for _ in range(TURN):
            seal(room, SIZE)

    def _direct(self) -> None:
        encrypt, decrypt = self._aead.encrypt, self._aead.decrypt
        nonce, text, header = bytes(12), bytes(SIZE), bytes(5)
        for _ in range(TURN):
            decrypt(nonce, encrypt(nonce, text, header), header)

    def _encrypt(self) -> None:
        encrypt = self._aead.encrypt
        nonce, text, header = bytes(12), bytes(SIZE), bytes(5)
        for _ in range(TURN):
            encrypt(nonce, text, header)

    def _in_place(self) -> None:
        encrypt, decrypt = self._aead.encrypt_into, self._aead.decrypt_into
        nonce, header, body = bytes(12), bytes(5), memoryview(bytearray(SIZE + 16))
        text = body[:SIZE]
        for _ in range(TURN):
            encrypt(nonce, text, header, body)
            decrypt(nonce, body, header, text)

    @staticmethod
    def _room(key: TlsRecordKey) -> memoryview:
        return memoryview(bytearray(key.record_size(SIZE)))


def measure(records: int, rounds: int) -> list[dict[str, dict[str, float]]]:
    """Return for each round, for each suite, the records per second of each side."""
    contests = {name: Contest(suite) for name, suite in SUITES.items()}
    for contest in contests.values():
        contest.check()
        contest.race(TURN)
    return [{name: contest.race(records) for name, contest in contests.items()} for _ in range(rounds)]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description="TLS records in place against the AEAD alone")
    parser.add_argument("--json", type=Path, help="write the figures of each round here")
    parser.add_argument("--records", type=int, default=4000, help="records of each side in a round")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    rounds = measure(options.records, options.rounds)
    if options.json:
        options.json.write_text(json.dumps(rounds), "utf-8")
    print(f"{'records of 16 KiB':28}{'ours/s':>9}{'direct/s':>10}{'ratio':>7}{'in place':>10}{'seal only':>11}")
    for name in SUITES:
        figures = {side: statistics.median(one[name][side] for one in rounds) for side in SIDES}
        ratios = [
            statistics.median(one[name][ours] / one[name][theirs] for one in rounds)
            for ours, theirs in (("ours", "direct"), ("ours", "in place"), ("seal", "encrypt"))
        ]
        print(
            f"{name:28}{figures['ours']:9.0f}{figures['direct']:10.0f}"
            f"{ratios[0]:7.2f}{ratios[1]:10.2f}{ratios[2]:11.2f}"
        )


if __name__ == "__main__":
    main()
