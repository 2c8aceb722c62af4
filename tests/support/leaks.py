"""What must be gone when a test or a module of tests ends: entries of the debug ledger, and open file descriptors."""

import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from soth_mitm._dataplane.memory import ledger

DESCRIPTORS = Path("/proc/self/fd")
# Long enough for another thread's loop to finish closing what it was told to close; shorter than the proxy bears with a peer that does not
PATIENCE = 4.0


def open_descriptors() -> dict[int, str]:
    """Return this process's descriptors and what each is open on; empty where the system does not tell (only Linux does)."""
    found = {}
    for entry in DESCRIPTORS.iterdir() if DESCRIPTORS.is_dir() else ():
        try:
            found[int(entry.name)] = os.readlink(entry)
        except FileNotFoundError:
            # the one that lists this directory
            continue
    return found


def outstanding() -> dict[str, int]:
    """Return what the debug ledger still counts as lent or open; always empty on a release build, which keeps no ledger."""
    return {name: count for name, count in ledger.counts().items() if count}


def what_remains(look: Callable[[], dict[Any, Any]], patience: float | None = None) -> dict[Any, Any]:
    """Look until nothing is left or patience ends; cycles are collected first, since an object in one still holds what it holds."""
    left = look()
    if left:
        gc.collect()
        left = look()
    deadline = time.monotonic() + (PATIENCE if patience is None else patience)
    while left and time.monotonic() < deadline:
        time.sleep(0.01)
        gc.collect()
        left = look()
    return left


class DescriptorWatch:
    """Descriptors opened since this was made, and by which test."""

    def __init__(self) -> None:
        gc.collect()
        self._before = open_descriptors()
        self._first_seen: dict[tuple[int, str], str] = {}

    def added(self) -> dict[int, str]:
        """Return descriptors that were not open at the start; a number reused for something else counts as new."""
        return {number: target for number, target in open_descriptors().items() if self._before.get(number) != target}

    def note(self, test: str) -> None:
        """Remember after which test a descriptor was first seen."""
        for item in self.added().items():
            self._first_seen.setdefault(item, test)

    def report(self, left: dict[int, str]) -> str:
        """Word what is left open."""
        return "\n".join(f"descriptor {item[0]} ({item[1]}) first seen after {self._first_seen.get(item, '?')}" for item in left.items())
