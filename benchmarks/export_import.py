"""How fast keys leave and arrive with their state, where the time goes, and what memory a long stream of keys needs.

    python benchmarks/export_import.py [--json FILE] [--quick] [--keys N] [--stream N]

Runs on the token in the environment, as `run.py` does, which calls this. All blobs are sealed for an AES-256 KEK in the
token and signed with Ed25519; every key is in the middle of a block, and goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
from cProfile import Profile
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from hsmbridge_csp.cipher_key import StreamingKey
from hsmbridge_csp.disposition import Outcome
from hsmbridge_csp.identity import FileIdentity
from hsmbridge_csp.provider import Provider

from hsmbridge.codes import CKA
from hsmbridge.generation import generate_kek, generate_key
from hsmbridge.keyspec import parse_keyspec, usage_of
from hsmbridge.module import Module

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

AES = parse_keyspec("aes:256")
SESSION_KEY = {CKA.PRIVATE: True, CKA.SENSITIVE: True, CKA.EXTRACTABLE: True, **usage_of(AES)}
TEXT = bytes(37)  # ends inside a block
CHUNK = 100
"""So many keys exist at a time: the token must not fill up, and no figure depend on how full it is."""

WAYS = ("export", "import")
LAYERS = {
    "C_CreateObject": ("Calls.create_object",),
    "C_WrapKey": ("Calls.wrap_key",),
    "C_UnwrapKey": ("Calls.unwrap_key",),
    "C_DestroyObject": ("Calls.destroy_object",),
    "C_GetAttributeValue": ("Calls.get_attributes",),
    "Ed25519": ("FileIdentity.sign", "identity.verify"),
    "AES-GCM": ("SoftwareContentKey.__init__", "SoftwareContentKey.seal", "SoftwareContentKey.open"),
    "CBOR": ("cbor.encode", "cbor.decode"),
}
"""Functions that stand for a layer: METHOD, or MODULE.FUNCTION. None of them calls another one."""

REST = "the rest"


class Bench:
    """A provider and a KEK on the token in the environment."""

    def __init__(self) -> None:
        module = Module.open(os.environ["PKCS11_MODULE"], init_args=os.environ.get("PKCS11_MODULE_ARGS"))
        self.token = module.token(label=os.environ["PKCS11_TOKEN_LABEL"])
        self.token.login(os.environ["PKCS11_PIN"])
        self.provider = Provider(self.token, identity=FileIdentity.generate())
        kek = generate_kek(self.token, AES, label="benchmark", persist=False, unwrap_template=False)
        self.kek = self.provider.kek(kek)

    def software_key(self) -> StreamingKey:
        """Make a software key: AES-256-CBC in the middle of a block."""
        return self._begun(self.provider.generate_key("AES", 256))

    def session_key(self) -> StreamingKey:
        """Make an extractable session object, used in the same way."""
        return self._begun(self.provider.adopt(generate_key(self.token, AES, SESSION_KEY)))

    def carry(self, make: Callable[[], StreamingKey], count: int, watches: tuple[Stopwatch, Stopwatch]) -> None:
        """Export and import *count* keys; making, comparing and destroying them is not timed."""
        export_key, import_key, kek = self.provider.export_key, self.provider.import_key, self.kek
        for start in range(0, count, CHUNK):
            sources = [make() for _ in range(min(CHUNK, count - start))]
            with watches[0]:
                blobs = [export_key(key, kek) for key in sources]
            with watches[1]:
                copies = [import_key(blob, kek) for blob in blobs]
            for source, copy in zip(sources, copies, strict=True):
                assert isinstance(copy, StreamingKey)
                assert source.encrypt(TEXT, final=True) == copy.encrypt(TEXT, final=True), (
                    "another key or state arrived"
                )
                self._destroy(source, copy)

    def stream(self, count: int, marks: tuple[int, ...]) -> dict[int, int]:
        """Export, import and destroy *count* software keys, one after the other.

        Returns: the highest resident size of the process so far, in KiB, after each of *marks* keys.
        """
        highest = {}
        for number in range(1, count + 1):
            source = self.software_key()
            self._destroy(source, self.provider.import_key(self.provider.export_key(source, self.kek), self.kek))
            if number in marks:
                highest[number] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return highest

    def _begun(self, key: object) -> StreamingKey:
        assert isinstance(key, StreamingKey)
        key.encrypt(TEXT)
        return key

    def _destroy(self, *keys: object) -> None:
        for key in keys:
            assert isinstance(key, StreamingKey)
            assert self.provider.destroy_key(key).outcome is Outcome.DESTROYED


class Stopwatch:
    """Adds up the time of its blocks, and profiles them if asked to.

    Args:
        profile: what collects a profile.
    """

    def __init__(self, profile: Profile | None = None) -> None:
        self._inner: AbstractContextManager[object] | None = profile
        self.seconds = 0.0

    def __enter__(self) -> None:
        if self._inner is not None:
            self._inner.__enter__()
        self._start = perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += perf_counter() - self._start
        if self._inner is not None:
            self._inner.__exit__(None, None, None)


def shares(profile: Profile) -> dict[str, float]:
    """Return the percentage of each layer in the profiled time."""
    cumulative: dict[str, float] = {}
    total = 0.0
    for entry in profile.getstats():
        total += entry.inlinetime
        if not isinstance(entry.code, str):
            method = entry.code.co_qualname
            for name in (method, f"{Path(entry.code.co_filename).stem}.{method}"):
                cumulative[name] = cumulative.get(name, 0.0) + entry.totaltime
    layers = {layer: 100 * sum(cumulative.get(one, 0.0) for one in names) / total for layer, names in LAYERS.items()}
    return {**layers, REST: 100 - sum(layers.values())}


def measure(keys: int, streamed: int) -> dict[str, dict[str, float]]:
    """Take all figures.

    Returns: keys per second, KiB of memory by number of keys, and per way the layers' percentages.
    """
    bench = Bench()
    marks = (streamed // 10, streamed)
    start = perf_counter()
    memory = bench.stream(streamed, marks)  # first: nothing else has raised the highest size yet
    rates = {"stream of software keys": streamed / (perf_counter() - start)}
    figures: dict[str, dict[str, float]] = {}
    for kind, make in (("software keys", bench.software_key), ("session objects", bench.session_key)):
        watches = Stopwatch(), Stopwatch()
        bench.carry(make, keys, watches)
        profiles = Profile(builtins=False), Profile(builtins=False)
        bench.carry(make, max(1, keys // 10), (Stopwatch(profiles[0]), Stopwatch(profiles[1])))
        for way, watch, profile in zip(WAYS, watches, profiles, strict=True):
            rates[f"{way} {kind}"] = keys / watch.seconds
            figures[f"{way} {kind}"] = shares(profile)
    bench.token.close()
    return {"keys/s": rates, "KiB": {str(number): kib for number, kib in memory.items()}, **figures}


def show(figures: dict[str, dict[str, float]]) -> str:
    """Lay the figures out as two Markdown tables and a sentence."""
    rates, memory = figures["keys/s"], figures["KiB"]
    ways = [name for name in figures if name in rates]
    lines = ["| what | keys/s | µs a key |", "| ---- | -----: | -------: |"]
    lines += [f"| {name:<23} | {rate:>7,.0f} | {1e6 / rate:>7,.0f} |" for name, rate in rates.items()]
    lines += ["", f"| share of the time   | {' | '.join(ways)} |", f"| --- |{' ---: |' * len(ways)}"]
    for layer in (*LAYERS, REST):
        cells = (f"{figures[way][layer]:.0f} %".rjust(len(way)) for way in ways)
        lines.append(f"| {layer:<19} | {' | '.join(cells)} |")
    sizes = ", ".join(f"{kib / 1024:.1f} MiB after {int(number):,} keys" for number, kib in memory.items())
    return "\n".join([*lines, "", f"Highest resident size while software keys stream: {sizes}."])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure export and import of keys with their state.")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures here as well")
    parser.add_argument("--quick", action="store_true", help="1,000 keys, and a stream of 20,000")
    parser.add_argument("--keys", metavar="N", type=int, help="keys of each kind (default: 10000)")
    parser.add_argument("--stream", metavar="N", type=int, help="software keys in the stream (default: 100000)")
    options = parser.parse_args()
    keys = options.keys or (1000 if options.quick else 10_000)
    streamed = options.stream or (20_000 if options.quick else 100_000)
    figures = measure(keys, streamed)
    print(show(figures))
    print(
        f"{keys:,} keys of each kind; {keys // 10:,} under the profiler, which makes the rest look larger than it is."
    )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
