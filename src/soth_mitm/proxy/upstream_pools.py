"""The pools of a proxy, one for each origin and TLS identity, and what was learnt of the origins."""

import asyncio
import ssl
import time
from collections import OrderedDict
from collections.abc import Coroutine
from functools import partial
from typing import Any, TypeVar, cast
from weakref import WeakValueDictionary

import msgspec

from soth_mitm._dataplane.http.settings import Settings
from soth_mitm._dataplane.http1.client import Http1ClientConnection
from soth_mitm._dataplane.http2.client import Http2ClientConnection
from soth_mitm._dataplane.upstream.connect_probe import ConnectProbe
from soth_mitm._dataplane.upstream.pool import OriginPool, PooledConnection
from soth_mitm.config.sections import ConnectionPoolConfig
from soth_mitm.errors import ConnectFailedError, StageTimeoutError, TlsFailedError, WireError
from soth_mitm.escaping import get_logger
from soth_mitm.observe.observation import EventKind, Observation
from soth_mitm.proxy.alpn import HTTP1, HTTP2, speaks_http2
from soth_mitm.proxy.calls import HandlerCalls, HandlerFailed
from soth_mitm.proxy.deadlines import Deadlines
from soth_mitm.proxy.detached import detached
from soth_mitm.proxy.dialler import Dialler
from soth_mitm.proxy.outbound.origin import Origin
from soth_mitm.proxy.protocols import UpstreamEndpoint
from soth_mitm.proxy.tls_info import UpstreamTlsInfo

log = get_logger("soth_mitm.proxy")

T = TypeVar("T")

MAX_ORIGINS = 4096
INFO_SECONDS = 300.0
# How long idle upstream connections beyond connection_pool.max_idle_per_host are kept for the next wave of requests.
SURPLUS_MILLISECONDS = 1000
# How long requests wait for the first two connections to an origin to say whether it speaks HTTP/2: a handshake with the other side of the
# world fits in.
FIRST_ANSWER_MILLISECONDS = 1000
# How long a refusal of a connection that was idle is kept for the next request, which is answered with it.
REFUSAL_SECONDS = 5.0


class UpstreamPools:
    """All upstream connections of one proxy under one configuration.

    Another configuration has other pools: verification, CAs and client certificates are rules of the connections in them, and no request
    goes over a connection that was made under others than its own.
    """

    def __init__(
        self,
        connection_pool: ConnectionPoolConfig,
        settings: Settings,
        deadlines: Deadlines,
        dialler: Dialler,
        calls: HandlerCalls,
        observation: Observation | None = None,
    ) -> None:
        self._connection_pool = connection_pool
        self._idle = deadlines.after(connection_pool.idle_timeout_ms)
        self._surplus = deadlines.after(min(SURPLUS_MILLISECONDS, connection_pool.idle_timeout_ms))
        self._first_answer = deadlines.after(FIRST_ANSWER_MILLISECONDS)
        self._settings = settings
        self._dialler = dialler
        self._calls = calls
        self._observation = observation
        self._kept: OrderedDict[Origin, OriginPool] = OrderedDict()
        # those besides that a client connection or an upstream connection still holds
        self._alive: WeakValueDictionary[Origin, OriginPool] = WeakValueDictionary()
        self._tls_info: OrderedDict[Origin, tuple[float, UpstreamTlsInfo | None]] = OrderedDict()
        self._refusals: OrderedDict[Origin, tuple[float, TlsFailedError]] = OrderedDict()
        self._tasks: set[asyncio.Task[Any]] = set()
        # those of HTTP/2 whose SETTINGS have not come
        self._beginning: set[Http2ClientConnection] = set()

    def pool(self, origin: Origin) -> OriginPool:
        """Return the pool of `origin`; made when it is first asked for, and dropped when unused and in the way of another."""
        pool = self._kept.get(origin)
        if pool is not None:
            self._kept.move_to_end(origin)
            return pool
        pool = self._alive.get(origin)
        if pool is None:
            connection_pool = self._connection_pool
            pool = OriginPool(
                origin,
                self._begin_dial,
                self._settings.counters,
                self._idle,
                self._surplus,
                max_open=connection_pool.max_connections_per_host,
                max_idle=connection_pool.max_idle_per_host,
            )
            pool.on_first_return = lambda upstream: self._dialler.keep_session(cast(UpstreamEndpoint, upstream), origin)
            pool.on_refusal = partial(self._refused, origin)
            if HTTP2 in origin.alpn:
                pool.fallback = partial(self._without_http2, origin)
                if not self.is_known(origin):
                    pool.first_answer = self._first_answer
                elif speaks_http2(origin, self.known_info(origin)):
                    pool.expect(self._settings.upstream_http2.max_streams)
            self._alive[origin] = pool
        self._kept[origin] = pool
        self._make_room()
        return pool

    def _without_http2(self, origin: Origin) -> OriginPool:
        """Return the pool of the same origin for what HTTP/2 does not do."""
        return self.pool(origin._replace(alpn=() if origin.server_name is None else (HTTP1,)))

    def _make_room(self) -> None:
        connection_pool = self._connection_pool
        # a look at two, not a search: each new origin pays for it, also when thousands are in use; two, to come back to the bound
        for _ in range(min(2, len(self._kept) - connection_pool.max_hosts)):
            origin, pool = next(iter(self._kept.items()))
            max_idle = pool.max_idle
            pool.limit(pool.max_open, 0)
            pool.limit(pool.max_open, max_idle)
            if pool.open == 0 and pool.waiting_count == 0:
                del self._kept[origin]
            else:
                self._kept.move_to_end(origin)

    def is_known(self, origin: Origin) -> bool:
        """Tell whether `origin` was reached lately, so that `reach` returns without waiting."""
        known = self._tls_info.get(origin)
        return known is not None and time.monotonic() - known[0] < INFO_SECONDS

    def known_info(self, origin: Origin) -> UpstreamTlsInfo | None:
        """Return what TLS agreed on with an origin that `is_known`; None for plain text."""
        return self._tls_info[origin][1]

    async def reach(self, origin: Origin) -> UpstreamTlsInfo | None:
        """Make sure that `origin` can be reached and return what TLS agreed on with it; that is remembered for some minutes.

        Raises what `Dialler.dial` raises.
        """
        if self.is_known(origin):
            return self.known_info(origin)
        future: asyncio.Future[UpstreamTlsInfo | None] = asyncio.get_running_loop().create_future()
        probe = ConnectProbe(self._settings, self.pool(origin), future)
        try:
            info = await future
        finally:
            probe.close()
        if origin not in self._refusals:
            self._remember(origin, info)
        return info

    def _remember(self, origin: Origin, info: UpstreamTlsInfo | None) -> UpstreamTlsInfo | None:
        """Remember what TLS agreed on; return the object to use, which is the same one as long as nothing has changed."""
        known = self._tls_info.get(origin)
        if known is not None and known[1] == info:
            info = known[1]
        self._tls_info[origin] = (time.monotonic(), info)
        self._tls_info.move_to_end(origin)
        if len(self._tls_info) > MAX_ORIGINS:
            self._tls_info.popitem(last=False)
        return info

    def _begin_dial(self, pool: OriginPool) -> None:
        task = self._begin(self._dial(pool.origin), f"soth-mitm dial {pool.origin}")
        # not the coroutine's own last act: one that is cancelled before its first step never acts
        task.add_done_callback(partial(self._dial_ended, pool))

    def _begin(self, work: Coroutine[None, None, T], name: str) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _dial(self, origin: Origin) -> UpstreamEndpoint:
        """Return a new connection. Raises what its pool is to be told."""
        refusal = self._take_refusal(origin)
        if refusal is not None:
            raise refusal
        try:
            return await self._dialler.dial(origin)
        except WireError as error:
            self._tls_info.pop(origin, None)
            failure = await self._reported(origin, error)
        # outside of the clause: a handler's failure is not caused by the dial's
        raise failure

    def _dial_ended(self, pool: OriginPool, dial: asyncio.Task[UpstreamEndpoint]) -> None:
        """Tell the pool, once for each dial, however it ended."""
        if dial.cancelled():
            pool.failed(WireError("the proxy is shutting down", side="upstream", status=503))
            return
        failure = dial.exception()
        if failure is not None:
            pool.failed(detached(failure))
            return
        upstream = dial.result()
        if not speaks_http2(pool.origin, upstream.facts):
            self._connected(pool, Http1ClientConnection(upstream))
            return
        # how many streams it takes is known when its SETTINGS have come
        if pool.first_answer is not None:
            pool.expect(self._settings.upstream_http2.max_streams)
        connection = Http2ClientConnection(upstream, self._settings)
        self._beginning.add(connection)
        connection.start(partial(self._http2_begun, pool, connection))

    def _connected(self, pool: OriginPool, connection: PooledConnection) -> None:
        connection.facts = self._remember(pool.origin, connection.facts)
        pool.connected(connection)

    def _http2_begun(self, pool: OriginPool, connection: Http2ClientConnection, error: BaseException | None) -> None:
        """The SETTINGS of an upstream have come, or it has ended before."""
        self._beginning.discard(connection)
        if error is None:
            if isinstance(connection.facts, UpstreamTlsInfo) and connection.extended_connect:
                connection.facts = msgspec.structs.replace(connection.facts, extended_connect=True)
            self._connected(pool, connection)
            return
        connection.abort()
        self._tls_info.pop(pool.origin, None)
        reporting = self._begin(self._reported(pool.origin, self._not_begun(pool.origin, error)), f"soth-mitm report {pool.origin}")
        reporting.add_done_callback(lambda reported: pool.failed(_result_of(reported)))

    def _not_begun(self, origin: Origin, error: BaseException) -> WireError:
        """Count what a connection ended in before its SETTINGS came, and return what to tell of it."""
        if isinstance(error, ssl.SSLError):
            # with TLS 1.3 it sees our certificate, or that we have none, after the handshake
            return self._dialler.refused(origin, error)
        if isinstance(error, WireError) and error.status == 504:
            late = f"{origin} was reached, and did not send the SETTINGS of HTTP/2 in time (http2.settings_timeout_ms)"
            error = StageTimeoutError(late, side="upstream", status=504)
        elif not isinstance(error, WireError):
            error = ConnectFailedError(
                f"{origin} closed the connection before it had begun to speak HTTP/2", side="upstream", reason="other"
            )
        self._dialler.count(error)
        return detached(error)

    async def _reported(self, origin: Origin, error: WireError) -> WireError | HandlerFailed:
        """Tell the handler of a failed handshake; return the error for what waits for the connection."""
        if isinstance(error, TlsFailedError):
            log.info("%s", error)
            if self._observation is not None:
                self._observation.connection(EventKind.TLS_FAILED, None, origin.host, origin.port, cause=str(error))
            try:
                await self._calls.tls_failed(origin.host, error)
            except HandlerFailed as failure:
                return failure
        return error

    # --- upstreams that refuse us in TLS when our handshake is over already

    def _refused(self, origin: Origin, error: Exception, idle: bool) -> TlsFailedError:
        """A connection was refused before its first byte; if it was idle, the next request has yet to be told."""
        failure = self._dialler.refused(origin, error)
        self._tls_info.pop(origin, None)
        self._begin(self._report(origin, failure), f"soth-mitm report {origin}")
        if idle:
            self._refusals[origin] = (time.monotonic(), failure)
            if len(self._refusals) > MAX_ORIGINS:
                self._refusals.popitem(last=False)
        return failure

    async def _report(self, origin: Origin, failure: TlsFailedError) -> None:
        await self._reported(origin, failure)

    def _take_refusal(self, origin: Origin) -> TlsFailedError | None:
        when, failure = self._refusals.pop(origin, (0.0, None))
        return failure if time.monotonic() - when < REFUSAL_SECONDS else None

    def limit(self, connection_pool: ConnectionPoolConfig) -> None:
        """Obey the numbers of another configuration, which has taken over, from now on."""
        self._connection_pool = connection_pool
        for pool in list(self._alive.values()):
            pool.limit(connection_pool.max_connections_per_host, connection_pool.max_idle_per_host)

    def retire(self) -> None:
        """Close what is idle now, and the rest as it comes back: the proxy ends, or no connection uses it any more."""
        for pool in list(self._alive.values()):
            pool.limit(pool.max_open, 0)

    async def close(self) -> None:
        """End the dials under way and close what is idle. When no client connection is left."""
        for connection in list(self._beginning):
            connection.abort()
        while self._tasks:
            # what a task ends may be reported in another
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
        self.retire()

    def counts(self) -> tuple[int, int]:
        """Return how many upstream connections are open and how many of them are idle."""
        pools = list(self._alive.values())
        return sum(pool.open for pool in pools), sum(pool.idle_count for pool in pools)


def _result_of(reported: asyncio.Task[WireError | HandlerFailed]) -> BaseException:
    return WireError("the proxy is shutting down", side="upstream", status=503) if reported.cancelled() else reported.result()
