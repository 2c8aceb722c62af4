"""However a dial ends, its pool hears of it: nobody waits for what will not come, no slot and no connection is lost."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soth_mitm import MitmConfig
from soth_mitm._dataplane.memory.buffer import Arena
from soth_mitm._dataplane.memory.deadline import DeadlineQueue
from soth_mitm._dataplane.transport.awaitable_endpoint import AwaitableEndpoint
from soth_mitm._dataplane.upstream.pool import OriginPool
from soth_mitm.config import ConnectionPoolConfig
from soth_mitm.destinations import DestinationMap
from soth_mitm.errors import ConnectFailedError, TlsFailedError, WireError
from soth_mitm.proxy import dialler as dialler_module
from soth_mitm.proxy.calls import HandlerFailed
from soth_mitm.proxy.counters import ConnectionCounters
from soth_mitm.proxy.deadlines import Deadlines
from soth_mitm.proxy.dialler import Dialler
from soth_mitm.proxy.outbound.direct import Direct
from soth_mitm.proxy.outbound.origin import DIRECT, Origin
from soth_mitm.proxy.protocols import UpstreamEndpoint
from soth_mitm.proxy.resolver import Resolver
from soth_mitm.proxy.upstream_pools import UpstreamPools
from soth_mitm.tls.contexts import UpstreamContexts
from soth_mitm.tls.failures import FailureClass
from support.certs import TestCA
from support.data_plane import make_settings

ORIGIN = Origin("upstream.test", 443, "upstream.test")


class Ruin(BaseException):
    """No `Exception`, as a handler may raise it."""


class Wire:
    """A transport to nowhere."""

    def __init__(self, endpoint: UpstreamEndpoint) -> None:
        self._endpoint = endpoint
        self._is_closed = False
        endpoint.connection_made(cast(Any, self))

    def get_extra_info(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(fileno=lambda: -1, setsockopt=lambda *option: None)

    def set_write_buffer_limits(self, high: int) -> None:
        """It holds nothing."""

    def get_write_buffer_size(self) -> int:
        return 0

    def resume_reading(self) -> None:
        """It reads nothing."""

    pause_reading = resume_reading

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            asyncio.get_running_loop().call_soon(self._endpoint.connection_lost, None)

    abort = close


def pools_of(deadlines: Deadlines, dialler: object, *, max_open: int = 32, told: Callable[[], None] = lambda: None) -> UpstreamPools:
    async def tls_failed(host: str, error: TlsFailedError) -> None:
        told()

    settings = make_settings(asyncio.get_running_loop(), claim=deadlines.after(60_000))
    config = ConnectionPoolConfig(max_connections_per_host=max_open)
    return UpstreamPools(config, settings, deadlines, cast(Dialler, dialler), cast(Any, SimpleNamespace(tls_failed=tls_failed)))


def tls_failure() -> TlsFailedError:
    return TlsFailedError("no", side="upstream", reason=FailureClass.OTHER, detail="no")


ENDS: dict[str, Callable[[], BaseException] | None] = {
    "connected": None,
    "lost": None,
    "refused": lambda: ConnectFailedError("no", side="upstream"),
    "refused in TLS": tls_failure,
    "a fault of ours": lambda: ValueError("no"),
    "not UTF-8": lambda: UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "no"),
    "memory": MemoryError,
    "cancelled": asyncio.CancelledError,
    "ruin": Ruin,
}


class Dials:
    """Stands for a dialler: each dial ends as the next of `ends` says, after some turns of the loop."""

    def __init__(self, arena: Arena, ends: list[tuple[str, int]]) -> None:
        self._arena = arena
        self._ends = ends
        self.made: list[UpstreamEndpoint] = []

    async def dial(self, origin: Origin) -> UpstreamEndpoint:
        end, turns = self._ends.pop(0) if self._ends else ("connected", 0)
        for _ in range(turns):
            await asyncio.sleep(0)
        make = ENDS[end]
        if make is not None:
            raise make()
        endpoint = UpstreamEndpoint(self._arena, AwaitableEndpoint(asyncio.get_running_loop()))
        Wire(endpoint)
        if end == "lost":
            endpoint.connection_lost(None)
        else:
            self.made.append(endpoint)
        return endpoint

    def keep_session(self, *_: object) -> None:
        """It has none."""


async def a_round(ends: list[tuple[str, int]], waiters: list[int], closing_after: int | None, told: Callable[[], None]) -> None:
    """Let many wait for connections, some only for a few turns; then close all. Nothing may be left."""
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(loop)
    dials = Dials(Arena(4096), ends)
    upstreams = pools_of(deadlines, dials, max_open=2, told=told)

    async def wait(patience: int) -> None:
        reaching = loop.create_task(upstreams.reach(ORIGIN))
        for _ in range(patience):
            await asyncio.sleep(0)
        if patience:
            reaching.cancel()
        await asyncio.wait((reaching,))
        if not reaching.cancelled():
            reaching.exception()

    waiting = [loop.create_task(wait(patience)) for patience in waiters]
    if closing_after is not None:
        for _ in range(closing_after):
            await asyncio.sleep(0)
        await upstreams.close()
    done, pending = await asyncio.wait(waiting, timeout=10)
    assert not pending, "somebody waits for what will not come"
    for task in done:
        task.result()
    pool = upstreams.pool(ORIGIN)
    assert (pool.waiting_count, pool.dialling) == (0, 0)
    assert pool.open == pool.idle_count, pool
    await upstreams.close()
    await asyncio.sleep(0)
    assert all(endpoint.gone for endpoint in dials.made)
    assert (pool.open, upstreams.counts()) == (0, (0, 0))
    deadlines.close()


def fail_to_tell(how: str) -> Callable[[], None]:
    def tell() -> None:
        if how == "cut":
            raise HandlerFailed("on_tls_failure")
        if how == "ruin":
            raise Ruin

    return tell


@given(
    st.lists(st.tuples(st.sampled_from(sorted(ENDS)), st.integers(0, 3)), max_size=12),
    st.lists(st.integers(0, 6), min_size=1, max_size=8),
    st.none() | st.integers(0, 6),
    st.sampled_from(["", "cut", "ruin"]),
)
def test_nobody_waits_and_nothing_is_lost(ends: list[tuple[str, int]], waiters: list[int], closing: int | None, handler: str) -> None:
    asyncio.run(a_round(ends, waiters, closing, fail_to_tell(handler)))


def test_a_dial_that_cannot_begin_is_told_as_well() -> None:
    async def claim() -> None:
        loop = asyncio.get_running_loop()
        upstreams = pools_of(Deadlines(loop), None)

        def fail(pool: OriginPool) -> None:
            raise RuntimeError("the loop is closed")

        upstreams._begin_dial = fail  # type: ignore[method-assign]
        with pytest.raises(RuntimeError, match="the loop is closed"):
            await upstreams.reach(ORIGIN)
        assert upstreams.counts() == (0, 0)

    asyncio.run(claim())


# --- the dialler itself, with a real upstream

FAILURES = {
    "OSError": OSError("no"),
    "RuntimeError": RuntimeError("no"),
    "not UTF-8": UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "no"),
    "MemoryError": MemoryError(),
    "TLS": ssl.SSLError("no"),
    "cancelled": asyncio.CancelledError(),
    "ruin": Ruin(),
}


@pytest.fixture(scope="module")
def ca() -> TestCA:
    return TestCA()


class Steps:
    """A dialler of which one step fails."""

    def __init__(self, step: str, failure: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failing = True

        def fail(*_: object, **__: object) -> Any:
            if self.failing:
                raise failure
            return None

        config = MitmConfig()
        config.upstream.retry_delay_ms = 0
        contexts = UpstreamContexts(verify=False)

        async def look_up(host: str) -> tuple[str, ...]:
            if step == "look up":
                fail()
            return ("127.0.0.1",)

        self.resolver = Resolver(0, ConnectionCounters(), look_up)
        own_address = fail if step == "is it ours" else lambda address: None
        direct = Direct(config, DestinationMap(()), self.resolver, Arena(65536), own_address)
        handshake = DeadlineQueue(asyncio.get_running_loop().call_later, 10.0)
        self.dialler = Dialler(config, contexts, {DIRECT: direct}, handshake, ConnectionCounters())
        if step == "connect":
            monkeypatch.setattr(asyncio.get_running_loop().__class__, "create_connection", fail)
        elif step == "context":
            monkeypatch.setattr(contexts, "context", fail)
        elif step == "session":
            monkeypatch.setattr(contexts.sessions, "get", fail)
        elif step == "start TLS":
            monkeypatch.setattr(UpstreamEndpoint, "start_tls", fail)
        elif step == "facts":
            monkeypatch.setattr(dialler_module, "upstream_tls_info", fail)


@pytest.mark.parametrize("failure", FAILURES.values(), ids=list(FAILURES))
@pytest.mark.parametrize("step", ["is it ours", "look up", "connect", "context", "session", "start TLS", "facts"])
def test_each_step_may_fail_in_any_way(step: str, failure: BaseException, monkeypatch: pytest.MonkeyPatch, ca: TestCA) -> None:
    async def dial() -> None:
        loop = asyncio.get_running_loop()
        over: list[asyncio.Future[None]] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            ended = loop.create_future()
            over.append(ended)
            try:
                await reader.read()
            except OSError:
                pass
            writer.close()
            ended.set_result(None)

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=ca.server_context("upstream.test"))
        origin = ORIGIN._replace(port=server.sockets[0].getsockname()[1])
        steps = Steps(step, failure, monkeypatch)
        upstreams = pools_of(Deadlines(loop), steps.dialler)
        before = failure.__class__ is asyncio.CancelledError or isinstance(failure, Ruin)
        with pytest.raises((WireError, Ruin) if before else WireError):
            async with asyncio.timeout(10):
                await upstreams.reach(origin)
        pool = upstreams.pool(origin)
        assert (pool.open, pool.dialling, pool.waiting_count) == (0, 0, 0)
        # and the socket is closed: the server sees the end
        async with asyncio.timeout(10):
            for ended in over:
                await ended
        monkeypatch.undo()
        steps.failing = False
        # the origin is as good as before
        await upstreams.reach(origin)
        await upstreams.close()
        await steps.resolver.close()
        server.close()
        await server.wait_closed()

    asyncio.run(dial())


if sys.platform == "win32":
    pytest.skip("the transports of the proactor loop are others", allow_module_level=True)
