"""The pools of a proxy, one for each origin and TLS identity, and what was learnt of the origins."""

import asyncio
import time
from collections import OrderedDict
from typing import cast
from weakref import WeakValueDictionary

from soth_mitm._dataplane.intake import Lease
from soth_mitm._dataplane.pool import OriginPool, Upstream
from soth_mitm.config_sections import ConnectionPoolConfig
from soth_mitm.errors import WireError
from soth_mitm.proxy.dialler import Dialler, Origin, UpstreamFacts
from soth_mitm.proxy.protocols import UpstreamEndpoint
from soth_mitm.proxy.snapshot import Snapshot

MAX_ORIGINS = 4096
FACTS_SECONDS = 300.0


class Upstreams:
    """All upstream connections of one proxy under one configuration.

    Another configuration has other pools: verification, CAs and client certificates are rules of the connections in them, and no request
    goes over a connection that was made under others than its own.
    """

    def __init__(self, snapshot: Snapshot, dialler: Dialler) -> None:
        self._snapshot = snapshot
        self._dialler = dialler
        self._connection_pool = snapshot.config.connection_pool
        self._kept: OrderedDict[Origin, OriginPool] = OrderedDict()
        # those besides that a client connection or an upstream connection still holds
        self._alive: WeakValueDictionary[Origin, OriginPool] = WeakValueDictionary()
        self._facts: OrderedDict[Origin, tuple[float, UpstreamFacts | None]] = OrderedDict()
        self._dials: set[asyncio.Task[None]] = set()

    def pool(self, origin: Origin) -> OriginPool:
        """Return the pool of `origin`; made when it is first asked for, and dropped when unused and in the way of another."""
        pool = self._alive.get(origin)
        if pool is None:
            connection_pool = self._connection_pool
            pool = OriginPool(
                origin,
                self._begin_dial,
                self._snapshot.plane.counters,
                self._snapshot.pool_idle,
                self._snapshot.pool_surplus,
                max_open=connection_pool.max_connections_per_host,
                max_idle=connection_pool.max_idle_per_host,
            )
            pool.on_first_return = lambda upstream: self._dialler.keep_session(cast(UpstreamEndpoint, upstream), origin)
            self._alive[origin] = pool
        self._kept[origin] = pool
        self._kept.move_to_end(origin)
        self._forget_unused()
        return pool

    def _forget_unused(self) -> None:
        if len(self._kept) <= MAX_ORIGINS:
            return
        for origin, pool in list(self._kept.items()):
            if pool.open == 0 and pool.waiting_count == 0:
                del self._kept[origin]
                if len(self._kept) <= MAX_ORIGINS:
                    return

    def is_known(self, origin: Origin) -> bool:
        """Tell whether `origin` was reached lately, so that `reach` returns without waiting."""
        known = self._facts.get(origin)
        return known is not None and time.monotonic() - known[0] < FACTS_SECONDS

    async def reach(self, origin: Origin) -> UpstreamFacts | None:
        """Make sure that `origin` can be reached and return its TLS facts; they are remembered for some minutes.

        Raises what `Dialler.dial` raises.
        """
        if self.is_known(origin):
            return self._facts[origin][1]
        future: asyncio.Future[UpstreamFacts | None] = asyncio.get_running_loop().create_future()
        lease = Lease(self.pool(origin), future)
        try:
            facts = await future
        finally:
            lease.close()
        self._remember(origin, facts)
        return facts

    def _remember(self, origin: Origin, facts: UpstreamFacts | None) -> None:
        self._facts[origin] = (time.monotonic(), facts)
        self._facts.move_to_end(origin)
        if len(self._facts) > MAX_ORIGINS:
            self._facts.popitem(last=False)

    def _begin_dial(self, pool: OriginPool) -> None:
        task = asyncio.get_running_loop().create_task(self._dial(pool), name=f"soth-mitm dial {pool.origin}")
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)

    async def _dial(self, pool: OriginPool) -> None:
        try:
            upstream: Upstream = await self._dialler.dial(pool.origin)
        except WireError as error:
            self._facts.pop(pool.origin, None)
            pool.failed(error)
            return
        except asyncio.CancelledError:
            pool.failed(WireError("the proxy is shutting down", side="upstream", status=503))
            raise
        self._remember(pool.origin, upstream.facts)
        pool.connected(upstream)

    def limit(self, connection_pool: ConnectionPoolConfig) -> None:
        """Obey the numbers of another configuration, which has taken over, from now on."""
        self._connection_pool = connection_pool
        for pool in list(self._alive.values()):
            pool.limit(connection_pool.max_connections_per_host, connection_pool.max_idle_per_host)

    def retire(self) -> None:
        """Close what is idle now, and the rest as it comes back: the proxy ends, or nobody is left to use it."""
        for pool in list(self._alive.values()):
            pool.limit(pool.max_open, 0)

    async def close(self) -> None:
        """End the dials under way and close what is idle. When no client connection is left."""
        for task in self._dials:
            task.cancel()
        if self._dials:
            await asyncio.wait(self._dials)
        self.retire()

    def counts(self) -> tuple[int, int]:
        """Return how many upstream connections are open and how many of them are idle."""
        pools = list(self._alive.values())
        return sum(pool.open for pool in pools), sum(pool.idle_count for pool in pools)
