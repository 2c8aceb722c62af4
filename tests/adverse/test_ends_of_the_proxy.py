"""What is still being said goodbye to when a proxy, or the configuration it began under, comes to its end."""

import asyncio
import socket
from collections.abc import Callable

import pytest

from soth_mitm import InterceptHandler, MitmConfig, MitmProxyBuilder
from soth_mitm.proxy.snapshot import LINGER_SECONDS

pytestmark = pytest.mark.anyio


def connect(port: int) -> socket.socket:
    """Return a client that waits for nothing longer than it must."""
    return socket.create_connection(("127.0.0.1", port), timeout=10)


async def read_to_end(client: socket.socket) -> bytes:
    """Read until the proxy has said everything."""
    answer = b""
    while data := await asyncio.to_thread(client.recv, 4096):
        answer += data
    return answer


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
