"""What can be fuzzed: each target is a module with ``run(data)``, which raises when something is wrong, and ``seeds()``."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import NamedTuple


class Target(NamedTuple):
    """One target. `instrumented` are its Python modules that count for coverage; compiled ones always do. `longest` is in bytes.

    The inputs of those `of_operations` are lists as `operations` describes them.
    """

    name: str
    longest: int
    instrumented: tuple[str, ...] = ()
    of_operations: bool = False

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


TARGETS = {
    target.name: target
    for target in (
        Target("heads", 2048),
        Target("bodies", 2048),
        Target("framing", 1024),
        Target("exchanges", 2048, of_operations=True),
        Target("relays", 2048, of_operations=True),
        Target("pumps", 1024, of_operations=True),
        Target("proxies", 2048, of_operations=True),
        Target("hellos", 4096, ("soth_mitm.tls.client_hello", "soth_mitm.tls.fingerprint", "soth_mitm.tls.names")),
        Target("destinations", 512, ("soth_mitm.addresses", "soth_mitm.destinations", "soth_mitm.tls.names")),
    )
}
