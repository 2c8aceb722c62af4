"""How many pools are kept, which go first, and what it costs to find them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from soth_mitm.config import ConnectionPoolConfig
from soth_mitm.proxy import upstream_pools
from soth_mitm.proxy.dialler import Dialler
from soth_mitm.proxy.outbound.origin import Origin
from soth_mitm.proxy.upstream_pools import UpstreamPools

BOUND = 200


class Pool:
    """Stands for a pool; counts how often it is asked whether it is in use."""

    asked = 0

    def __init__(self, origin: Origin, *_: object, **__: object) -> None:
        self.origin = origin
        self.used = False

    @property
    def open(self) -> int:
        Pool.asked += 1
        return int(self.used)

    waiting_count = 0
    max_open = max_idle = 1

    def limit(self, max_open: int, max_idle: int) -> None:
        pass


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> UpstreamPools:
    monkeypatch.setattr(upstream_pools, "OriginPool", Pool)
    monkeypatch.setattr(Pool, "asked", 0)
    config = ConnectionPoolConfig(max_connections_per_host=1, max_idle_per_host=1, max_hosts=BOUND)
    nothing = cast(Any, SimpleNamespace(counters=None, after=lambda milliseconds: None))
    return UpstreamPools(config, nothing, nothing, cast(Dialler, None), nothing)


def ask(kept: UpstreamPools, names: range) -> list[Pool]:
    return [cast(Pool, cast(object, kept.pool(Origin(f"{name}.example", 443, f"{name}.example")))) for name in names]


def test_the_pool_asked_for_longest_ago_goes_first(kept: UpstreamPools) -> None:
    ask(kept, range(BOUND))
    first, second = ask(kept, range(2))
    ask(kept, range(BOUND, 2 * BOUND - 2))
    assert ask(kept, range(2)) == [first, second]
    assert len(kept._kept) == BOUND


def test_one_that_is_in_use_stays(kept: UpstreamPools) -> None:
    used = ask(kept, range(10))
    for pool in used:
        pool.used = True
    ask(kept, range(10, 5 * BOUND))
    assert ask(kept, range(10)) == used
    assert len(kept._kept) <= BOUND + 10


@pytest.mark.parametrize("used", [False, True], ids=["unused", "in use"])
def test_a_new_origin_costs_the_same_however_many_there_are(kept: UpstreamPools, used: bool) -> None:
    for pool in ask(kept, range(BOUND)):
        pool.used = used
    Pool.asked = 0
    for pool in ask(kept, range(BOUND, 2 * BOUND)):
        pool.used = used
    assert Pool.asked <= 3 * BOUND


def test_when_a_crowd_has_gone_the_bound_holds_again(kept: UpstreamPools) -> None:
    crowd = ask(kept, range(0))
    for name in range(3 * BOUND):
        (pool,) = ask(kept, range(name, name + 1))
        pool.used = True
        crowd.append(pool)
    for pool in crowd:
        pool.used = False
    ask(kept, range(3 * BOUND, 7 * BOUND))
    assert len(kept._kept) == BOUND
