"""Keys that arrived and were signed for, but cannot all get their names: told with the keys, finished by `recover`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hsmbridge_csp.cipher_key import CipherKey
from hsmbridge_csp.errors import BadKeyError
from hsmbridge_csp.handoff.errors import UnpublishedError
from hsmbridge_csp.handoff.files import InFiles
from hsmbridge_csp.handoff.recovery import Recovery
from hsmbridge_csp.journal import Role
from hsmbridge_csp.keys import SoftwareKey
from hsmbridge_csp.modes import Cipher

from tests.support.handoffs import Sides

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hsmbridge_csp.handoff.receiver import Received

KEYS = (bytes(range(32)), bytes(range(32, 64)))
OTHER = b"somebody else's file"


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[Sides]:
    """Alice and Bob."""
    both = Sides(tmp_path)
    yield both
    both.close()


class Overtaken(InFiles):
    """Files of which the first gets another file in its place just before the keys get their names."""

    def publish(self) -> None:
        """Let the other file come."""
        next(iter(self._files.values())).write_bytes(OTHER)
        super().publish()


def destination(directory: Path) -> Overtaken:
    """Return files 0 and 1 below a directory."""
    return Overtaken(lambda position, _: directory / str(position), lambda key: bytes(key.value))


def moving() -> list[CipherKey]:
    """Return two keys."""
    return [CipherKey(Cipher.AES, bytearray(value)) for value in KEYS]


def check(sides: Sides, received: Received, directory: Path) -> None:
    """All keys can be used, the second has its name; `recover` says what is in the way, and goes on without it."""
    assert [bytes(key.value) for key in received.keys if isinstance(key, SoftwareKey)] == list(KEYS)
    assert (directory / "0").read_bytes() == OTHER
    assert (directory / "1").read_bytes() == KEYS[1]
    entry = sides.bob.journal.entry(Role.RECEIVER, received.handoff)
    assert entry is not None
    assert (str(entry.phase), entry.owner.alive, entry.statement) == ("imported", False, received.statement)
    (outcome,) = Recovery(sides.bob).run()
    assert "another file now" in outcome.text
    assert not outcome.settled
    assert (directory / "0").read_bytes() == OTHER, "nothing is replaced"
    (directory / "0").unlink()
    (outcome,) = Recovery(sides.bob).run()
    assert outcome.settled
    assert [(directory / str(number)).read_bytes() for number in range(2)] == list(KEYS)
    assert sorted(path.name for path in directory.iterdir()) == ["0", "1"]


def test_over_a_channel(sides: Sides, tmp_path: Path) -> None:
    """A name that is taken at the last moment: the sender has its receipt, the receiver an error with the keys."""
    directory = tmp_path / "arrived"
    directory.mkdir()
    keys = moving()
    ends = sides.hand_over(keys, destination(directory))
    assert not isinstance(ends.sent, BaseException)
    assert ends.sent.persisted
    for key in keys:
        with pytest.raises(BadKeyError, match="destroyed"):
            key.check_alive()
    assert isinstance(ends.received, UnpublishedError)
    check(sides, ends.received.received, directory)


def test_from_a_bundle(sides: Sides, tmp_path: Path) -> None:
    """The same with a bundle: the error carries the receipt, which the sender accepts."""
    directory = tmp_path / "arrived"
    directory.mkdir()
    path = sides.send_bundle(moving())
    with pytest.raises(UnpublishedError, match="here for good") as raised:
        sides.receive_bundle(path, destination(directory))
    assert raised.value.hint is not None
    assert "handoff recover" in raised.value.hint
    check(sides, raised.value.received, directory)
    (entry,) = sides.alice.journal.entries()
    assert sides.alice.read_answer(entry, raised.value.received.statement).persisted
