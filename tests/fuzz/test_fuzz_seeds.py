"""Replay the seeds of every target, so that what the fuzzer runs keeps running; the fuzzer itself is scripts/fuzz."""

from __future__ import annotations

import logging

import pytest

from fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name: str, caplog: pytest.LogCaptureFixture) -> None:
    # the handlers of the seeds fail and are late on purpose
    caplog.set_level(logging.CRITICAL, logger="soth_mitm")
    target = TARGETS[name]
    seeds = list(target.seeds)
    assert seeds and all(len(seed) <= target.longest for seed in seeds)
    for seed in seeds:
        target.run(seed)
