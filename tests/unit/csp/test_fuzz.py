"""The fuzz target, for a short while; ``make fuzz`` runs it over a million blobs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from hsmbridge_csp.blob import Blob
from hsmbridge_csp.record import KeyRecord
from hsmbridge_csp.sealing import open_blob

from hsmbridge.errors import InputError
from tests.fuzz import targets
from tests.fuzz.mutation import head, parse_tree
from tests.fuzz.seeds import records, world
from tests.fuzz.targets import TARGETS, Finding

ROOT = Path(__file__).parents[3]
BLOBS = 20_000


def test_mutated_inputs_are_refused() -> None:
    """Of 20,000 mutated blobs none is taken that was changed; all parsers keep to their errors, memory is flat."""
    command = [sys.executable, "-m", "tests.fuzz", "--count", str(BLOBS), "--jobs", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("findings: 0\n")
    told = re.search(r"^changed blobs refused: (\d+); .* taken: (\d+)$", done.stdout, re.MULTILINE)
    assert told is not None
    assert int(told[1]) + int(told[2]) >= BLOBS
    assert int(told[2]) < BLOBS // 50
    for name in TARGETS:
        assert f"{name}: " in done.stdout


@pytest.mark.parametrize("number", range(len(world().unsigned)))
def test_true_is_not_one(number: int) -> None:
    """A blob in which true stands for a 1, or false for a 0, is refused, whatever Python makes of it."""
    data, opener = world().unsigned[number]
    open_blob(Blob.parse(data), opener, None)
    nodes = parse_tree(data[8:]).walk()
    stand_ins = {b"\x01": b"\xf5", b"\x00": b"\xf4", b"\xf4": b"\x00"}
    changed = [node.replaced(stand_ins[node.raw]) for node in nodes if node.raw in stand_ins]
    assert len(changed) > 2
    for other in changed:
        with pytest.raises(InputError):
            open_blob(Blob.parse(data[:8] + other), opener, None)


@pytest.mark.parametrize("data", records())
def test_true_is_not_one_in_a_record(data: bytes) -> None:
    """Nor is it in a key record: neither as a label nor as a number."""
    for node in parse_tree(data).walk():
        if node.raw == b"\x01":
            with pytest.raises(InputError):
                KeyRecord.decode(node.replaced(b"\xf5"))


def attack(name: str, times: int = 300) -> None:
    """Attack one target."""
    target, random = TARGETS[name](), Random(1)  # noqa: S311 - to be repeated, not to be unpredictable
    for _ in range(times):
        target.attack(random)


@pytest.mark.parametrize("name", ["signed blob", "unsigned blob", "blob signed again"])
def test_it_finds_what_is_taken_although_changed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Were neither signature nor seal checked, the fuzzer would say so."""

    def nothing(blob: Blob, *more: object) -> None:
        del blob, more

    monkeypatch.setattr(targets, "verify_blob", nothing)
    monkeypatch.setattr(targets, "open_blob", nothing)
    with pytest.raises(Finding, match="taken although changed"):
        attack(name)


@pytest.mark.parametrize("name", ["signed blob", "key record", "CryptoAPI blob", "URI", "trust file"])
def test_it_finds_other_errors(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Did a parser raise what it does not document, the fuzzer would say so."""

    class Other(Exception):  # noqa: N818 - stands for any error of another family
        pass

    for family in ("BlobError", "InputError", "PolicyError", "UriError"):
        monkeypatch.setattr(targets, family, Other)
    with pytest.raises(Finding, match="Error"):
        attack(name)


def test_a_tree_is_put_together_again() -> None:
    """An item replaced by itself gives the same bytes; by a longer one, all lengths around it follow."""
    data = bytes.fromhex("d28443a10127a10441014582a101028040")
    tree = parse_tree(data)
    for node in tree.walk():
        assert node.replaced(node.raw) == data
    (inner,) = [node for node in tree.walk() if node.raw == bytes.fromhex("80")]
    assert inner.replaced(b"\x43abc") == bytes.fromhex("d28443a10127a10441014882a1010243616263" + "40")
    assert head(2, 300) == b"\x59\x01\x2c"
