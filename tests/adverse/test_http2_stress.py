"""Two hundred streams at once, with everything that happens to streams: each flow ends once, no octet is lost, and nothing is left.

A round takes a second or two. SOTH_MITM_STRESS=SECONDS goes on with other seeds for that long; a failure names its seed, and
SOTH_MITM_STRESS_SEED begins with it.
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest

from soth_mitm import HandlerDecision
from support import http2_chaos
from support.certs import TestCA
from support.http2_chaos import Client, connect, events, make_plans, outcomes
from support.origin_answers import pattern
from support.running import HOST, ProxyFactory, Running

CLIENTS = 4
STREAMS = 50
SECONDS = float(os.environ.get("SOTH_MITM_STRESS", "0"))
REFUSED = "reset <ErrorCodes.REFUSED_STREAM: 7>"
SEED = int(os.environ.get("SOTH_MITM_STRESS_SEED", "1"))


class Counting:
    """Counts what it is told of each flow and connection. Some decisions take a turn of the loop."""

    def __init__(self) -> None:
        self.opened: Counter[UUID] = Counter()
        self.closed: Counter[UUID] = Counter()
        self.asked: Counter[int] = Counter()
        self.responses: Counter[int] = Counter()
        self.streaming: set[int] = set()
        self.ended: Counter[int] = Counter()
        self.chunks: Counter[int] = Counter()

    def on_connection_open(self, meta: Any) -> None:
        self.opened[meta.connection_id] += 1

    async def on_request(self, request: Any) -> HandlerDecision:
        self.asked[request.flow_id] += 1
        if request.flow_id % 3 == 0:
            await asyncio.sleep(0)
        return HandlerDecision.ALLOW

    async def on_response(self, response: Any) -> None:
        assert not self.ended[response.flow_id], "a response behind the end of its flow"
        self.responses[response.flow_id] += 1
        if response.streaming:
            self.streaming.add(response.flow_id)

    async def on_stream_chunk(self, chunk: Any) -> None:
        assert not self.ended[chunk.flow_id], "a frame behind the end of its stream"
        self.chunks[chunk.flow_id] += 1

    async def on_stream_end(self, connection_id: UUID, flow_id: int) -> None:
        self.ended[flow_id] += 1

    def on_connection_close(self, connection_id: UUID) -> None:
        self.closed[connection_id] += 1


@asynccontextmanager
async def serving(context: ssl.SSLContext, uploads: dict[str, int]) -> AsyncIterator[int]:
    """Serve an origin; what fails in it fails the test."""
    tasks: list[asyncio.Task[None]] = []

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.get_running_loop().create_task(http2_chaos.Origin(reader, writer, uploads).serve()))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        # the proxy keeps idle connections
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
    failures = [one for one in ended if isinstance(one, Exception)]
    if failures:
        raise failures[0]


async def play(running: Running, origin: ssl.SSLContext, seed: int) -> Counter[str]:
    """Play one round and check what came of it."""
    chance = random.Random(seed)
    uploads: dict[str, int] = {}
    trusted = running.client_context("h2")
    async with serving(origin, uploads) as port:
        clients = await asyncio.gather(*(connect(running.port, f"{HOST}:{port}", trusted) for _ in range(CLIENTS)))
        plans = [make_plans(chance, str(number), STREAMS) for number in range(CLIENTS)]
        try:
            async with asyncio.timeout(http2_chaos.PATIENCE):
                await asyncio.gather(*(client.run(own) for client, own in zip(clients, plans, strict=True)))
        except TimeoutError:
            left = [plan for client in clients for plan in client.left()]
            raise AssertionError(f"seed {seed}: streams do not end: {left}") from None
        finally:
            for client in clients:
                await client.close()
    return check(clients, uploads, seed)


def check(clients: list[Client], uploads: dict[str, int], seed: int) -> Counter[str]:
    """What came whole is what was sent, and what nothing happens to comes whole; count what came of all streams."""
    for client in clients:
        for stream in client.streams.values():
            plan = stream.plan
            told = f"seed {seed}: {plan} {stream.outcome} {stream.status} {len(stream.content)}"
            if stream.status == 200:
                whole = events(plan.size) if plan.mishap == "events" else pattern(plan.size)
                assert whole.startswith(stream.content), told
                if stream.outcome == "complete":
                    assert len(stream.content) == len(whole), told
                    assert plan.mishap != "reset" or plan.at >= plan.size, told
                    # a response may come before its request has been read
                    assert plan.mishap == "early" or stream.received == plan.upload == uploads[plan.identity], told
            elif stream.outcome == "complete":
                assert stream.status == 502, told
            assert uploads.get(plan.identity, 0) <= 2 * plan.upload, told
            if plan.mishap in ("-", "events") and plan.cancels == -1:
                # a request is sent again once, and the next connection may go away as well
                assert (stream.outcome, stream.status) == ("complete", 200) or stream.outcome == REFUSED, told
    return outcomes(clients)


@pytest.mark.timeout(120 + 2 * SECONDS)
def test_many_streams_with_mishaps(proxy: ProxyFactory, origin_ca: TestCA) -> None:
    handler = Counting()
    running = proxy(handler, **{"upstream.verify_upstream_tls": True})
    origin = origin_ca.server_context(HOST)
    origin.set_alpn_protocols(["h2"])
    began, seed, found = time.monotonic(), SEED, Counter[str]()
    while seed == SEED or time.monotonic() - began < SECONDS:
        found += asyncio.run(play(running, origin, seed))
        running.wait_idle("active_connections", "active_flows", "buffered_bytes", "http2_streams", "http2_client_connections")
        seed += 1
    rounds = seed - SEED
    assert found["complete 200"] > rounds * CLIENTS * STREAMS // 2 and found["cancelled"] and found["reset"], found
    metrics = running.metrics()
    # its client may cancel a request before it was there, or before the handler has decided
    assert metrics.total_flows == rounds * CLIENTS * STREAMS >= len(handler.asked) >= metrics.allowed_request_count
    assert set(handler.asked.values()) == {1}
    assert metrics.total_connections == len(handler.opened) == rounds * CLIENTS
    assert handler.closed == handler.opened and set(handler.closed.values()) == {1}
    assert set(handler.responses.values()) == {1} and set(handler.responses) <= set(handler.asked)
    assert handler.streaming and handler.ended == Counter(dict.fromkeys(handler.streaming, 1))
    assert handler.chunks and set(handler.chunks) <= handler.streaming
    assert metrics.handler_panic_count == metrics.handler_timeout_count == 0
