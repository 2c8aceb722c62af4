"""The pool and a dial whose connection is not what it was when it was made."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

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
from support.doubles import load_double
from support.multiplex import MuxPeerStream, Scene, get, response

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="session")
def double() -> Any:
    return load_double("multiplex")


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


class Gate:
    """Answers requests of a scene one by one, as it is told to."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.held: dict[bytes, MuxPeerStream] = {}
        scene.answer = self.hold

    async def hold(self, peer: MuxPeerStream) -> None:
        request = await self.scene.request(peer)
        self.held[request.start.split(b" ")[1]] = peer

    async def has(self, *targets: bytes) -> None:
        """Wait until those requests are here."""
        await self.scene.until(lambda: set(targets) <= self.held.keys(), f"not all of {targets!r} come")

    async def answer(self, target: bytes) -> None:
        """Answer one of them."""
        peer = self.held.pop(target)
        await peer.say(response(target))

    def place(self, target: bytes) -> int:
        """The number of the connection that a request came over."""
        return self.scene.accepted.index(self.held[target].peer)


def ask(client: Any, target: bytes) -> asyncio.Task[Any]:
    return asyncio.create_task(client.ask(get(target)))


async def test_the_fullest_connection_is_filled_first(double: Any) -> None:
    async with Scene(double, "mux", "mux", streams=3) as scene:
        gate = Gate(scene)
        client = await scene.connect()
        tasks = [ask(client, b"/1")]
        await gate.has(b"/1")
        tasks += [ask(client, target) for target in (b"/2", b"/3", b"/4")]
        await gate.has(b"/2", b"/3", b"/4")
        assert [gate.place(target) for target in (b"/1", b"/2", b"/3", b"/4")] == [0, 0, 0, 1]
        await gate.answer(b"/2")
        await tasks[1]
        # two there, one here: the one that is used less is left to become idle
        tasks.append(ask(client, b"/5"))
        await gate.has(b"/5")
        assert gate.place(b"/5") == 0
        await gate.answer(b"/4")
        await tasks[3]
        await scene.until(lambda: scene.pool.idle_count == 1, "no connection became idle")
        # an idle one comes before a new one
        tasks.append(ask(client, b"/6"))
        await gate.has(b"/6")
        assert gate.place(b"/6") == 1 and len(scene.dialled) == 2
        for target in (b"/1", b"/3", b"/5", b"/6"):
            await gate.answer(target)
        assert [answer.status for answer in await asyncio.gather(*tasks)] == [200] * 6
        await scene.until(lambda: scene.pool.idle_count == 2, "a connection is still at work")


async def test_room_that_grows_is_given_to_those_that_wait(double: Any) -> None:
    async with Scene(double, "mux", "mux", streams=1, connection_pool__max_connections_per_host=1) as scene:
        gate = Gate(scene)
        client = await scene.connect()
        tasks = [ask(client, target) for target in (b"/1", b"/2", b"/3")]
        await gate.has(b"/1")
        await scene.until(lambda: scene.pool.waiting_count == 2, "nothing waits")
        scene.dialled[0].limit(2)
        await gate.has(b"/1", b"/2")
        assert scene.pool.waiting_count == 1
        scene.dialled[0].limit(0)
        await gate.answer(b"/1")
        await gate.answer(b"/2")
        await asyncio.gather(*tasks[:2])
        await scene.until(lambda: scene.pool.idle_count == 1, "the connection is not idle")
        assert scene.pool.waiting_count == 1, "an idle connection that may carry nothing was given a request"
        scene.dialled[0].limit(5)
        await gate.has(b"/3")
        await gate.answer(b"/3")
        assert (await tasks[2]).content == b"/3" and len(scene.dialled) == 1


async def known(scene: Scene, client: Any) -> None:
    """Have the pool learn how many streams a connection carries, and lose the connection."""
    await client.ask(get())
    scene.dialled[0].abort()
    await scene.until(lambda: scene.pool.open == 0, "the connection goes on")


async def test_more_is_dialled_when_a_connection_has_less_room_than_the_last(double: Any) -> None:
    async with Scene(double, "mux", "mux", streams=10, connection_pool__max_connections_per_host=4) as scene:
        client = await scene.connect()
        await known(scene, client)
        gate = Gate(scene)
        scene.streams = 2
        targets = [b"/%d" % number for number in range(1, 6)]
        tasks = [ask(client, target) for target in targets]
        await gate.has(*targets)
        assert len(scene.dialled) == 1 + 3
        for target in targets:
            await gate.answer(target)
        await asyncio.gather(*tasks)


async def test_a_connection_that_may_carry_nothing_is_not_dialled_again_and_again(double: Any) -> None:
    async with Scene(double, "mux", "mux", streams=0) as scene:
        client = await scene.connect()
        task = ask(client, b"/")
        await scene.until(lambda: scene.dialled, "nothing is dialled")
        await scene.until(lambda: not scene.pool.dialling, "the dial does not end")
        assert (scene.pool.open, scene.pool.waiting_count, len(scene.dialled)) == (1, 1, 1)
        scene.dialled[0].limit(1)
        assert (await task).status == 200 and len(scene.dialled) == 1


async def test_a_dial_that_fails_is_told_to_all_that_it_was_for(double: Any) -> None:
    async with Scene(double, "mux", "mux", streams=3) as scene:
        client = await scene.connect()
        await known(scene, client)
        scene.upstream_kind = "gone"
        answers = await asyncio.gather(*(client.ask(get()) for _ in range(8)))
        assert [answer.status for answer in answers] == [502] * 8
        assert scene.counters.pool_misses == 1 + 3, "the requests that wait have a connection dialled for each"


class Held(Scene):
    """A scene whose dials begin when the test lets them. Nothing is known of its origin, which may speak HTTP/2."""

    def __init__(self, double: Any, upstreams: str, *, answer_ms: int = 60_000, **keys: Any) -> None:
        super().__init__(double, "mux", upstreams, **keys)
        self.answer_ms = answer_ms
        self.held: list[OriginPool] = []
        self.dials = 0

    async def __aenter__(self) -> Scene:
        await super().__aenter__()
        self.pool.first_answer = self.deadlines.after(self.answer_ms)
        return self

    def _dial(self, pool: OriginPool) -> None:
        self.dials += 1
        self.held.append(pool)

    def let_go(self, count: int = 1) -> None:
        """Let the first dials begin."""
        for _ in range(count):
            super()._dial(self.held.pop(0))

    async def ask(self, client: Any, count: int) -> list[asyncio.Task[Any]]:
        """Let so many requests wait."""
        waiting = self.pool.waiting_count
        tasks = [ask(client, b"/%d" % number) for number in range(count)]
        await self.until(lambda: self.pool.waiting_count == waiting + count, "the requests do not wait")
        return tasks


async def test_the_first_answer_of_an_unknown_origin_is_for_all_that_wait(double: Any) -> None:
    async with Held(double, "mux") as scene:
        client = await scene.connect()
        tasks = await scene.ask(client, 30)
        assert scene.dials == 2, "a second one in case that the first one hangs, and no more"
        scene.let_go()
        assert [(await task).status for task in tasks] == [200] * 30
        assert (scene.dials, scene.pool.open) == (2, 2)
        # the second one is not needed, and the first one is
        scene.let_go()
        await scene.until(lambda: len(scene.dialled) == 2 and scene.pool.open == 1, "the surplus connection is kept")
        assert scene.dialled[0].served == 30
        assert (await client.ask(get())).status == 200 and scene.dials == 2


async def test_an_unknown_origin_that_speaks_http1_costs_one_handshake(double: Any) -> None:
    async with Held(double, "http1") as scene:
        client = await scene.connect()
        tasks = await scene.ask(client, 30)
        assert scene.dials == 2
        scene.let_go()
        await scene.until(lambda: scene.dials == 30, "those that waited are not dialled for at once")
        while scene.held:
            scene.let_go()
        assert [(await task).status for task in tasks] == [200] * 30
        # from now on it is known
        for connection in scene.dialled:
            connection.abort()
        await scene.until(lambda: scene.pool.open == 0, "a connection goes on")
        scene.dials = 0
        tasks = await scene.ask(client, 10)
        assert scene.dials == 10
        scene.let_go(10)
        await asyncio.gather(*tasks)


async def test_first_dials_that_hang_do_not_hold_the_others_for_long(double: Any) -> None:
    async with Held(double, "mux", answer_ms=20) as scene:
        client = await scene.connect()
        tasks = await scene.ask(client, 10)
        await scene.until(lambda: scene.dials == 10, "those that waited are not dialled for")
        # they hold back nothing else either
        tasks += await scene.ask(client, 5)
        assert scene.dials == 15
        scene.held.append(scene.held.pop(0))
        scene.let_go()
        assert [(await task).status for task in tasks] == [200] * 15
        scene.let_go(14)
        await scene.until(lambda: scene.pool.dialling == 0, "a dial does not end")


async def test_a_first_dial_that_fails_is_told_to_one_and_another_begins(double: Any) -> None:
    async with Held(double, "gone") as scene:
        client = await scene.connect()
        tasks = await scene.ask(client, 6)
        for dials in range(2, 7):
            assert scene.dials == dials
            scene.let_go()
            await scene.until(lambda dials=dials: scene.pool.waiting_count == 7 - dials, "the failure is not told")
        scene.let_go()
        assert [(await task).status for task in tasks] == [502] * 6 and scene.dials == 6
        # and it is as unknown as before
        scene.upstream_kind = "mux"
        tasks = await scene.ask(client, 6)
        assert scene.dials == 8
        scene.let_go(2)
        assert [(await task).status for task in tasks] == [200] * 6 and scene.dials == 8


async def test_what_is_known_of_an_origin_needs_no_answer(double: Any) -> None:
    async with Held(double, "mux") as scene:
        scene.pool.expect(100)
        client = await scene.connect()
        tasks = await scene.ask(client, 30)
        assert scene.dials == 1
        scene.let_go()
        assert [(await task).status for task in tasks] == [200] * 30


async def test_a_second_dial_that_fails_is_no_answer_for_those_that_wait_on_the_first(double: Any) -> None:
    """Its upstream allows no stream yet."""
    async with Held(double, "mux", streams=0) as scene:
        client = await scene.connect()
        tasks = await scene.ask(client, 6)
        scene.let_go()
        await scene.until(lambda: scene.dialled, "the dial does not end")
        scene.upstream_kind = "gone"
        scene.let_go()
        await scene.until(lambda: scene.pool.dialling == 0, "the dial does not end")
        assert (scene.pool.open, scene.pool.waiting_count) == (1, 6)
        scene.dialled[0].limit(100)
        assert [(await task).status for task in tasks] == [200] * 6 and scene.dials == 2
