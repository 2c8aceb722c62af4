"""What is still being said goodbye to when a proxy, or the configuration it began under, comes to its end."""

import asyncio
import gc
import socket
from collections.abc import Callable

import pytest

from soth_mitm import ConnectionMeta, InterceptHandler, MitmConfig, MitmProxyBuilder
from soth_mitm.proxy.loops import new_event_loop
from soth_mitm.proxy.settings import LINGER_SECONDS


def connect(port: int) -> socket.socket:
    """Return a client that waits for nothing longer than it must."""
    return socket.create_connection(("127.0.0.1", port), timeout=10)


async def read_to_end(client: socket.socket) -> bytes:
    """Read until the proxy has said everything."""
    answer = b""
    while data := await asyncio.to_thread(client.recv, 4096):
        answer += data
    return answer


@pytest.mark.anyio
@pytest.mark.parametrize("way", ["shutdown", "reload"])
async def test_rejected_client_that_stays_is_cut(make_config: Callable[..., MitmConfig], way: str) -> None:
    """It has its 503 and does not leave; nobody would ever close its connection."""
    async with MitmProxyBuilder(make_config(max_concurrent_flows=1), InterceptHandler()).build() as handle:
        with connect(handle.port) as first, connect(handle.port) as second:
            assert (await read_to_end(second)).startswith(b"HTTP/1.1 503 ")
            if way == "reload":
                await handle.reload(make_config(max_concurrent_flows=1))
            first.close()
            if way == "shutdown":
                await handle.shutdown(5)
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                # less than its goodbye would take if nothing ended
                async with asyncio.timeout(LINGER_SECONDS / 2):
                    while True:
                        second.send(b"still here")
                        await asyncio.sleep(0)


class Counting(InterceptHandler):
    def __init__(self) -> None:
        self.opened: list[object] = []
        self.closed: list[object] = []
        self.has_opened = asyncio.Event()

    def on_connection_open(self, meta: ConnectionMeta) -> None:
        self.opened.append(meta.connection_id)
        self.has_opened.set()

    async def on_connection_close(self, connection_id: object) -> None:
        await asyncio.sleep(0)
        self.closed.append(connection_id)


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, new_event_loop])
def test_a_loop_that_ends_without_a_shutdown_cuts_its_connections(
    make_config: Callable[..., MitmConfig], caplog: pytest.LogCaptureFixture, factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    handler = Counting()

    async def forgets_to_shut_down() -> socket.socket:
        handle = await MitmProxyBuilder(make_config(), handler).build().start()
        client = connect(handle.port)
        client.send(b"CONNECT a.example:443 HT")
        await handler.has_opened.wait()
        return client

    with asyncio.Runner(loop_factory=factory) as runner:
        client = runner.run(forgets_to_shut_down())
    with client:
        assert client.recv(100) == b""
    assert handler.closed == handler.opened
    gc.collect()
    assert caplog.records == []
