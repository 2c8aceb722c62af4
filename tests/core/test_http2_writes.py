"""How much a connection of HTTP/2 writes in one turn of the loop, and how much it holds for a client that does not read."""

from __future__ import annotations

import asyncio
from typing import Any

import hpack
import pytest

from soth_mitm import HandlerDecision
from soth_mitm._dataplane.http2.frame import make_frame
from soth_mitm._dataplane.http2.server import Http2ServerConnection
from soth_mitm._dataplane.http2.settings import make_settings
from soth_mitm._dataplane.transport.awaitable_endpoint import AwaitableEndpoint
from support.multiplex import Accepted, Scene
from support.sessions import ACK, DATA, HEADERS, PREFACE, SETTINGS, WINDOW_UPDATE

pytestmark = pytest.mark.anyio

WINDOW = 1 << 24
CONTENT = bytes(range(256)) * (3 << 12)  # 3 MiB
REQUEST = [(":method", "GET"), (":scheme", "http"), (":authority", "a.example"), (":path", "/")]


class Blocks:
    """Has an answer of its own for each request."""

    def on_request(self, request: Any) -> Any:
        return HandlerDecision.block(403, CONTENT)


class Transport:
    """Notes what is written in each turn of the loop; `takes` is how much of it the system takes before the peer reads."""

    def __init__(self, takes: int) -> None:
        self.takes = takes
        self.turns: list[bytes] = [b""]
        self.protocol: Any = None
        self.is_paused = False

    def write(self, data: bytes) -> None:
        self.turns[-1] += data
        self.takes -= len(data)
        if self.takes < 0 and not self.is_paused:
            self.is_paused = True
            self.protocol.pause_writing()

    def read(self) -> None:
        """Let the peer read all of it."""
        self.takes = 1 << 40
        self.is_paused = False
        self.protocol.resume_writing()

    def set_write_buffer_limits(self, high: int) -> None:
        assert high == 0

    def get_extra_info(self, name: str) -> None:
        return None

    def pause_reading(self) -> None:
        raise AssertionError("an HTTP/2 connection is never paused")

    def resume_reading(self) -> None:
        pass

    def close(self) -> None:
        pass

    abort = close


class DoubleOfServer:
    MuxServerConnection = Http2ServerConnection


def frames_of(octets: bytes) -> list[tuple[int, bytes]]:
    frames, at = [], 0
    while at < len(octets):
        length = int.from_bytes(octets[at : at + 3], "big")
        frames.append((octets[at + 3], octets[at + 9 : at + 9 + length]))
        at += 9 + length
    return frames


async def ask(scene: Scene, transport: Transport) -> Any:
    """Let a client ask for the content, and the loop take twenty turns."""
    endpoint = Accepted(scene.arena, AwaitableEndpoint(scene.loop))
    endpoint.begin = scene._begin
    transport.protocol = endpoint
    endpoint.connection_made(transport)  # type: ignore[arg-type]
    octets = PREFACE + make_frame(SETTINGS, 0, 0, make_settings({"window": WINDOW})) + make_frame(SETTINGS, ACK, 0)
    octets += make_frame(WINDOW_UPDATE, 0, 0, WINDOW.to_bytes(4, "big")) + make_frame(HEADERS, 5, 1, hpack.Encoder().encode(REQUEST))
    with memoryview(endpoint.get_buffer(-1)) as room:
        room[: len(octets)] = octets
    endpoint.buffer_updated(len(octets))
    await turns(transport)
    return endpoint


async def turns(transport: Transport) -> None:
    for _ in range(20):
        transport.turns.append(b"")
        await asyncio.sleep(0)


async def end(scene: Scene, endpoint: Any) -> None:
    endpoint.connection_lost(None)
    await scene.until(lambda: scene.ends == 1, "the connection does not end")


async def test_a_turn_writes_what_the_system_takes_up_to_a_bound() -> None:
    async with Scene(DoubleOfServer, "mux", "gone", Blocks()) as scene:
        transport = Transport(1 << 40)
        endpoint = await ask(scene, transport)
        assert b"".join(data for kind, data in frames_of(b"".join(transport.turns)) if kind == DATA) == CONTENT
        busy = [len(turn) for turn in transport.turns if len(turn) > 1000]
        # 64 KiB are gathered, then written at once; after 1 MiB other connections have their turn
        assert max(busy) > 1 << 20
        assert max(busy) <= (1 << 20) + 3 * 65536
        assert len(busy) >= 3
        await end(scene, endpoint)


@pytest.mark.parametrize("takes", [0, 1, 65536, 200_000])
async def test_what_the_system_does_not_take_waits_in_the_stream(takes: int) -> None:
    async with Scene(DoubleOfServer, "mux", "gone", Blocks()) as scene:
        transport = Transport(takes)
        endpoint = await ask(scene, transport)
        assert takes < len(b"".join(transport.turns)) <= takes + 3 * 65536
        transport.read()
        await turns(transport)
        assert b"".join(data for kind, data in frames_of(b"".join(transport.turns)) if kind == DATA) == CONTENT
        await end(scene, endpoint)
