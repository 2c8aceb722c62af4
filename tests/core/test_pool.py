"""The pool and a dial whose connection is not what it was when it was made."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest

from soth_mitm._dataplane.http.counters import Counters
from soth_mitm._dataplane.http1.client import Http1ClientConnection
from soth_mitm._dataplane.memory.buffer import Arena
from soth_mitm._dataplane.memory.deadline import DeadlineQueue
from soth_mitm._dataplane.transport.awaitable_endpoint import AwaitableEndpoint
from soth_mitm._dataplane.transport.outbound_endpoint import OutboundEndpoint
from soth_mitm._dataplane.upstream.connect_probe import ConnectProbe
from soth_mitm._dataplane.upstream.pool import OriginPool
from soth_mitm.errors import WireError
from support.data_plane import make_settings

pytestmark = pytest.mark.anyio


class Wire:
    """A transport that goes nowhere, on a socket that is not connected."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def get_extra_info(self, name: str) -> socket.socket:
        assert name == "socket"
        return self._socket

    def write(self, data: bytes) -> None:
        raise AssertionError("nothing is to be written")

    def set_write_buffer_limits(self, high: int) -> None:
        """It holds nothing."""


@pytest.mark.parametrize("error", [None, ConnectionResetError("reset"), ssl.SSLError("an alert")])
async def test_a_connection_that_was_lost_before_the_pool_had_it(error: Exception | None) -> None:
    loop = asyncio.get_running_loop()
    idle = DeadlineQueue(loop.call_later, 60.0)
    told: list[Exception] = []

    def refuse(reason: Exception, was_idle: bool) -> WireError:
        told.append(reason)
        return WireError("refused in TLS", side="upstream")

    dialled: list[OriginPool] = []
    pool = OriginPool("an origin", dialled.append, Counters(), idle, idle, max_open=1, max_idle=1)
    pool.on_refusal = refuse
    future: asyncio.Future[object] = loop.create_future()
    probe = ConnectProbe(make_settings(loop, claim=idle), pool, future)
    assert dialled == [pool] and (pool.open, pool.dialling) == (1, 1)
    intake = AwaitableEndpoint(loop)
    upstream = OutboundEndpoint(Arena(4096), intake)
    with socket.socket() as unconnected:
        upstream.connection_made(Wire(unconnected))
        intake.attach(upstream)
        upstream.connection_lost(error)
    pool.connected(Http1ClientConnection(upstream))
    with pytest.raises(WireError, match="refused in TLS" if isinstance(error, ssl.SSLError) else "closed the connection, or spoke"):
        await future
    assert told == ([error] if isinstance(error, ssl.SSLError) else [])
    assert (pool.open, pool.dialling, pool.idle_count) == (0, 0, 0)
    probe.close()
    idle.close()
