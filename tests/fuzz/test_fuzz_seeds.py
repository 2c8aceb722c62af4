"""Replay the seeds of every target, so that what the fuzzer runs keeps running; the fuzzer itself is scripts/fuzz."""

from __future__ import annotations

import pytest

from fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name: str) -> None:
    target = TARGETS[name]
    seeds = list(target.seeds)
    assert seeds and all(len(seed) <= target.longest for seed in seeds)
    for seed in seeds:
        target.run(seed)
