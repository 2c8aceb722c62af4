"""What can be fuzzed: each target is a module with ``run(data)``, which raises when something is wrong, and ``seeds()``."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

Mutate = Callable[[bytes, int], bytes]


class Target(NamedTuple):
    """One target. `instrumented` are its Python modules that count for coverage; compiled ones always do. `longest` is in bytes."""

    name: str
    longest: int
    instrumented: tuple[str, ...] = ()

    @property
    def run(self) -> Callable[[bytes], None]:
        run: Callable[[bytes], None] = importlib.import_module(f"fuzz.{self.name}").run
        return run

    @property
    def seeds(self) -> Iterator[bytes]:
        seeds: Iterator[bytes] = importlib.import_module(f"fuzz.{self.name}").seeds()
        return seeds

    @property
    def words(self) -> tuple[bytes, ...]:
        """What the fuzzer puts together besides what it finds out by itself, 64 bytes each at most."""
        words: tuple[bytes, ...] = getattr(importlib.import_module(f"fuzz.{self.name}"), "WORDS", ())
        return words

    @property
    def mutate(self) -> Callable[[bytes, int, int, Mutate], bytes] | None:
        """What changes inputs, if that is not left to libFuzzer: an input, the most bytes, a seed, and what changes bytes."""
        mutate: Callable[[bytes, int, int, Mutate], bytes] | None = getattr(importlib.import_module(f"fuzz.{self.name}"), "mutate", None)
        return mutate


TARGETS = {
    target.name: target
    for target in (
        Target("heads", 2048),
        Target("bodies", 2048),
        Target("framing", 1024),
        Target("chunk_filter", 1024),
        Target("exchanges", 2048),
        Target("relays", 2048),
        Target("pumps", 1024),
        Target("hpack", 1024),
        Target("h2_sessions", 1024),
        Target("websocket_streams", 1024),
        Target("websocket_relays", 1024),
        Target("proxies", 2048),
        Target("hellos", 4096, ("soth_mitm.tls.client_hello", "soth_mitm.tls.fingerprint", "soth_mitm.tls.names")),
        Target("destinations", 512, ("soth_mitm.addresses", "soth_mitm.destinations", "soth_mitm.tls.names")),
    )
}
