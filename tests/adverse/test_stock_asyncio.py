"""asyncio's own event loop, whose transports tell of a peer that has gone where uvloop's say nothing."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from soth_mitm import HandlerDecision, InterceptHandler, MitmConfig, MitmProxyBuilder, ProcessInfo, RawRequest

BLOCKED = b"CONNECT blocked.example:443 HTTP/1.1\r\nHost: blocked.example:443\r\n\r\n"
LARGE = 8 * 1024 * 1024


def run_on_asyncio(main: Callable[[], Any]) -> list[dict[str, Any]]:
    """Run `main()` on asyncio's own loop; return what its exception handler was told."""
    unhandled: list[dict[str, Any]] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        await main()

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(watched())
    return unhandled


class TellsTheEnd(InterceptHandler):
    """Sets `closed` when a connection is over."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    def on_connection_close(self, connection_id: UUID) -> None:
        self.closed.set()


class GoesMeanwhile(TellsTheEnd):
    """Refuses every CONNECT, and has the client go before it is told."""

    client: socket.socket | None = None

    def should_intercept_tls(self, host: str, process_info: ProcessInfo | None) -> bool:
        assert self.client is not None
        self.client.close()
        raise ConnectionRefusedError("not to be had")


def test_a_client_that_has_gone_when_it_is_refused(make_config: Callable[..., MitmConfig]) -> None:
    """Its answer is reset at once, so that there is no connection any more whose direction could be ended."""
    handler = GoesMeanwhile()

    async def main() -> None:
        config = make_config(("blocked.example:443",), **{"handler.failure_policy": "block"})
        async with MitmProxyBuilder(config, handler).build() as handle:
            handler.client = socket.create_connection(("127.0.0.1", handle.port))
            handler.client.sendall(BLOCKED)
            async with asyncio.timeout(10):
                await handler.closed.wait()

    assert run_on_asyncio(main) == []


class Refusing(TellsTheEnd):
    def on_request(self, request: RawRequest) -> HandlerDecision:
        return HandlerDecision.block(403, b"x" * LARGE)


@pytest.mark.parametrize("goes", [False, True], ids=["reads-all", "goes-meanwhile"])
def test_a_long_last_answer(make_config: Callable[..., MitmConfig], goes: bool) -> None:
    """It waits in the transport for a slow client; the direction ends behind its last byte, if the client is there to see it."""
    received = bytearray()
    handler = Refusing()

    async def main() -> None:
        async with MitmProxyBuilder(make_config(), handler).build() as handle:
            with socket.create_connection(("127.0.0.1", handle.port), timeout=10) as client:
                client.sendall(
                    b"POST http://localhost:1/ HTTP/1.1\r\nHost: localhost:1\r\nContent-Length: 9\r\nConnection: close\r\n\r\nnine byte"
                )
                while data := await asyncio.to_thread(client.recv, 65536):
                    received.extend(data)
                    if goes:
                        break
            async with asyncio.timeout(10):
                await handler.closed.wait()

    assert run_on_asyncio(main) == []
    assert goes or received.endswith(b"\r\n\r\n" + b"x" * LARGE)
