"""The exchange as a whole: clients, upstreams, handler and deadlines do whatever the input says, and the rules of the house hold.

Input: see `operations`. The settings are four bytes, see `settings_of`.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

from fuzz.agreement import (
    FAR_BEYOND,
    check_answers,
    check_frames,
    check_order,
    check_owners,
    check_requests,
    check_shown,
    exchanged,
    name_of,
)
from fuzz.conversations import finals, request_stream, response_stream
from fuzz.fake_loop import FakeLoop
from fuzz.mutations import mutate_operations
from fuzz.operations import SEPARATOR, VERBS, from_text, parse
from fuzz.scene import MOST_OPERATIONS, NO_TIME, Client, Peer, Scene, Upstream, make_config, settings_of
from fuzz.scripted_handler import ScriptedHandler
from soth_mitm._dataplane.exchange.route import Route
from soth_mitm._dataplane.http.counters import Counters
from soth_mitm._dataplane.http.hooks import HookCounters
from soth_mitm._dataplane.http1.server import Http1ServerConnection
from soth_mitm._dataplane.memory import ledger
from soth_mitm._dataplane.memory.buffer import Arena
from soth_mitm._dataplane.memory.deadline import DeadlineQueue
from soth_mitm._dataplane.transport.awaitable_endpoint import AwaitableEndpoint
from soth_mitm._dataplane.upstream.pool import OriginPool
from soth_mitm.connection import ConnectionMeta, TcpV4
from soth_mitm.errors import WireError
from soth_mitm.proxy.calls import HandlerCalls, HandlerReports
from soth_mitm.proxy.deadlines import Deadlines
from soth_mitm.proxy.dialler import Dialler
from soth_mitm.proxy.outbound.origin import Origin
from soth_mitm.proxy.protocols import ClientEndpoint, UpstreamEndpoint
from soth_mitm.proxy.settings import make_settings
from soth_mitm.proxy.upstream_pools import UpstreamPools
from support.samples import read_samples

WORDS = tuple(
    from_text(line)
    for line in (
        "client 0 GET / HTTP/1.1\\r\\nHost: a.example\\r\\n\\r\\n",
        "client 1 HEAD / HTTP/1.1\\r\\nHost: a.example\\r\\n\\r\\n",
        "client 0 POST / HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: 5\\r\\n\\r\\nhello",
        "client 0 GET / HTTP/1.0\\r\\nConnection: keep-alive\\r\\n\\r\\n",
        "upstream 0 HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok",
        "upstream 0 HTTP/1.1 204 No Content\\r\\n\\r\\n",
        "upstream 0 HTTP/1.1 100 Continue\\r\\n\\r\\n",
        "upstream 0 HTTP/1.1 200 OK\\r\\n\\r\\nuntil close",
        *(f"{mark}{verb} {number}" for verb in VERBS for number in (0, 1) for mark in ("", "+")),
    )
) + (
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Type: text/event-stream\r\n",
    b"Content-Type: application/x-ndjson\r\n",
    b"Content-Type: application/grpc\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Authorization: NTLM x\r\n",
    b"WWW-Authenticate: Negotiate\r\n",
    b"Expect: 100-continue\r\n",
    b"Max-Forwards: 0\r\n",
    b"OPTIONS ",
    b"Connection: close\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\n",
    b"HTTP/1.1 101 S\r\n",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"data: x\n\n",
)
mutate = functools.partial(mutate_operations, WORDS)
# What each input needs, and is the same for all; both take long
cached_config = functools.cache(make_config)
FAMILY = TcpV4(("127.0.0.1", 8080), ("127.0.0.1", 50000))


class ExchangeClient(Client):
    """A client connection with the exchange that serves it."""

    def __init__(self, scene: ExchangeScene) -> None:
        intake = AwaitableEndpoint(scene.loop)
        super().__init__(scene.loop, ClientEndpoint(scene.arena, intake))
        limit = scene.settings.head_limit
        self.requests = request_stream(limit)
        self.responses = response_stream(self.requests)
        self.endpoint.connection_made(self.transport)
        intake.attach(self.endpoint)
        self._handler = scene.handler
        self._id = UUID(int=len(scene.clients) + 1)
        meta = ConnectionMeta(self._id, FAMILY)
        self._exchange = Http1ServerConnection(scene.settings, self.endpoint, self._ended, **scene.routing(meta))
        self._exchange.start()

    def hear(self, data: bytes) -> None:
        self.responses.feed(data)

    def say(self, data: bytes) -> None:
        self.requests.feed(data)

    def drain(self) -> None:
        self._exchange.drain()

    def abort(self) -> None:
        self._exchange.abort()
        self.endpoint.abort()

    def _ended(self) -> None:
        self.ends += 1
        assert self._handler.all_returned(self._id), "the end is told before every hook has returned"


class SeparateDeadlines(Deadlines):
    """Gives each stage a queue of its own, so that each can be late alone."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._all: list[DeadlineQueue] = []

    def after(self, milliseconds: float) -> DeadlineQueue:
        queue = DeadlineQueue(self._loop.call_later, min(milliseconds / 1000, NO_TIME))
        self._all.append(queue)
        return queue

    def close(self) -> None:
        for queue in self._all:
            queue.close()


class ExchangeScene(Scene):
    """Exchanges on one plane with its pools. Nothing is between a client's connection and its exchange, or a pool and its dials."""

    def __init__(self, settings: bytes) -> None:
        keys, hooks, pool, more = settings_of(settings)
        loop = FakeLoop()
        super().__init__(ScriptedHandler(loop, hooks), loop, dials_at_once=not pool & 16)
        config = cached_config(**keys)
        self.observed = not more & 16
        self._routed = bool(more & 32)
        self.checked = 0
        self.arena = Arena(config.max_http_head_bytes)
        self.counters = Counters()
        self.all_pools: list[OriginPool] = []
        reports = HandlerReports(lambda error: None)
        self.deadlines = SeparateDeadlines(loop)
        self.calls = HandlerCalls(self.handler, config, loop, self.deadlines, HookCounters(), reports)
        self.settings: Any = make_settings(config, self.arena, self.counters, self.calls.hooks, self.deadlines, reports)
        dialler = cast(Dialler, SimpleNamespace(dial=self._dial, keep_session=lambda *_: None))
        self.pools = UpstreamPools(config.connection_pool, self.settings, self.deadlines, dialler, self.calls)

    def routing(self, meta: ConnectionMeta) -> dict[str, Any]:
        """Return the routing of one client's exchange."""
        if not self._routed:
            return {"router": lambda scheme, authority: self._route_to("a.example", meta)}
        return {"router": lambda scheme, authority: self._route_to(authority.decode("latin-1"), meta)}

    def _route_to(self, authority: str, meta: ConnectionMeta) -> Route:
        if authority.startswith("no"):
            return Route(None, meta, "http", authority, observed=authority.startswith("now"), status=403, reason=b"not there")
        pool = self.pools.pool(Origin("b.example" if authority.startswith("b") else "a.example", 80))
        if pool not in self.all_pools:
            self.all_pools.append(pool)
        return Route(pool, meta, "http", authority or "a.example", observed=self.observed)

    async def _dial(self, origin: Origin) -> UpstreamEndpoint:
        peer = await self.dial(self._connect)
        endpoint: UpstreamEndpoint = peer.endpoint
        return endpoint

    def _connect(self) -> Peer:
        return self.attach(Upstream)

    def attach(self, kind: type[Peer]) -> Peer:
        """Connect an upstream."""
        intake = AwaitableEndpoint(self.loop)
        peer = kind(self.loop, UpstreamEndpoint(self.arena, intake))
        peer.endpoint.connection_made(peer.transport)
        intake.attach(peer.endpoint)
        return peer

    def refusal(self, number: int) -> Exception:
        return WireError("cannot connect", side="upstream", status=(502, 504)[number % 2], retryable=True)

    def new_client(self) -> Client:
        return ExchangeClient(self)

    def drain(self) -> None:
        self.settings.draining = True
        self.retire()
        for client in self.clients:
            client.drain()

    def retire(self) -> None:
        self.pools.retire()

    def close(self) -> None:
        closing = [self.loop.create_task(ending) for ending in (self.pools.close(), self.calls.close())]
        self.settle()
        assert all(task.done() for task in closing), "something does not end"
        for task in closing:
            task.result()
        self.deadlines.close()


def run(data: bytes) -> None:
    """Test one input."""
    settings, operations = parse(data)
    scene = ExchangeScene(settings)
    with scene.loop:
        for operation in operations[:MOST_OPERATIONS]:
            scene.act(operation)
            for client in scene.clients:
                client.note_closing(operation.verb)
            if not operation.same_turn:
                # else a hook that is cancelled does not know it yet
                check_permits(scene)
                check_clients(scene)
                check_memory(scene)
        scene.wind_down()
    check_permits(scene)
    check_end(scene)


def check_clients(scene: ExchangeScene) -> None:
    """Who has left is not waited with, and who has nothing more to come is not kept."""
    present = sum(not client.transport.lost for client in scene.clients)
    assert sum(pool.waiting_count for pool in scene.all_pools) <= present, "a connection is waited for by nobody"
    for client in scene.clients:
        answered = len(finals(client.responses)) >= len(client.requests.messages) and client.responses.at_boundary
        if client.transport.ended and answered:
            assert client.transport.closing, "a client that said its last word and was answered is kept"


def check_memory(scene: ExchangeScene) -> None:
    """Where everybody has read everything nothing is held but what is kept for the handler, for a retry, or until a decision."""
    if scene.handler.waiting or any(pool.waiting_count for pool in scene.all_pools):
        # what follows a head that waits is not read
        return
    for peer in scene.peers:
        unread = peer.requests.rest or peer.responses.rest or peer.transport.get_write_buffer_size() or peer.transport.has_unread
        if not peer.transport.lost and (unread or has_said_more(peer) or peer.requests.fault or peer.responses.fault):
            return
    most = sum(most_kept(scene, client) for client in scene.clients) if scene.counters.active_flows else 0
    assert scene.arena.budget.held <= most, f"{scene.arena.budget.held} bytes are held, and {most} have to be"


def has_said_more(peer: Peer) -> bool:
    """Tell whether an upstream has said more than its answers, which nobody reads before the exchange is over."""
    answered = len(finals(peer.responses)) - len(peer.requests.messages)
    return isinstance(peer, Upstream) and (answered > 0 or (answered == 0 and peer.responses.messages[-1:] != finals(peer.responses)[-1:]))


def most_kept(scene: ExchangeScene, client: Client) -> int:
    """Return how much has to be kept of what is under way for a client."""
    requests, answers = client.requests.messages, finals(client.responses)
    if not requests or len(answers) > len(requests) or client.transport.lost:
        return 0
    begun = bool(answers) and not (answers[-1].complete and requests[len(answers) - 1].complete)
    current = len(answers) - begun
    if current >= len(requests):
        return 0
    if len(requests) > current + 1:
        # what was read of the requests behind it lies there
        return FAR_BEYOND
    request, hooks = requests[current], scene.handler.names
    if not begun:
        return len(request.raw) + len(request.content)
    answer = answers[-1]
    if b"content-encoding" in answer.head.raw.lower():
        return FAR_BEYOND
    # what the handler was shown is kept if it will be shown it again
    size = (
        len(request.raw) + len(request.content)
        if not request.complete
        else len(request.content)
        if {"on_response", "on_stream_chunk"} & set(hooks)
        else 0
    )
    return size + len(answer.content) if {"on_response", "on_stream_chunk"} & set(hooks) else size


def check_permits(scene: ExchangeScene) -> None:
    """Nothing of a request reaches an upstream before it was allowed to."""
    settings = scene.settings
    lent = 2 * len(scene.peers) * (2 * scene.arena.max_buffer + 65536)
    assert scene.arena.budget.held <= lent, f"{scene.arena.budget.held} bytes lent to {len(scene.peers)} connections"
    if not settings.enforce or settings.hooks.on_request is None or not scene.observed:
        return
    sent = sum(len(peer.requests.messages) for peer in scene.upstreams)
    if sent == scene.checked:
        # what was allowed stays so
        return
    scene.checked = sent
    allowed = scene.handler.permitted(settings.hooks.recover and not settings.hooks.block_on_failure)
    forwarded = Counter(name_of(message) for peer in scene.upstreams for message in peer.requests.messages)
    beyond = forwarded - allowed
    assert sum(beyond.values()) <= scene.counters.retries, f"forwarded without being allowed: {beyond}"


def check_end(scene: ExchangeScene) -> None:
    """Everything is closed, counted and told, and what was said on both sides fits together."""
    for client in scene.clients:
        assert client.ends == 1, f"the end of a connection was told {client.ends} times"
    for pool in scene.all_pools:
        assert (pool.open, pool.idle_count, pool.waiting_count, pool.dialling) == (0, 0, 0, 0), repr(pool)
    assert scene.counters.active_flows == 0
    assert scene.arena.budget.held == 0
    left = {name: count for name, count in ledger.counts().items() if count}
    assert not left, left
    stripped = b"alt-svc" if scene.settings.strip_alt_svc and scene.observed else b""
    check_requests(scene, scene.counters.retries)
    all_exchanged = exchanged(scene)
    for client in scene.clients:
        check_answers(client, all_exchanged, stripped)
    check_owners(scene)
    check_shown(scene, all_exchanged, scene.settings.body_limit)
    check_frames(scene, all_exchanged, scene.settings.body_limit)
    check_order(scene)


def seeds() -> Iterator[bytes]:
    """The scripts of the corpus, and every message of the HTTP/1 corpus as something that a client or an upstream says."""
    for sample in read_samples("exchange"):
        yield from_text(sample.blocks["script"].text)
    for sample in read_samples("http1"):
        for settings in (b"\0", b"\2"):
            if "request" in sample.blocks:
                block = sample.blocks["request"]
                yield SEPARATOR.join((settings, *split_evenly(b"c0", block.data), b"u0HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
            else:
                block = sample.blocks["response"]
                method = block.options.get("request_method", "GET").encode()
                ends = [b"E0"] if block.options.get("eof") == "yes" else []
                for minor in (0, 1):
                    request = b"c0%b / HTTP/1.%d\r\nHost: a.example\r\n\r\n" % (method, minor)
                    yield SEPARATOR.join((settings, request, *split_evenly(b"u0", block.data), *ends))


def split_evenly(who: bytes, data: bytes) -> list[bytes]:
    """Return operations in which somebody says this in two pieces; what separates operations is replaced by a like byte."""
    data = data.replace(SEPARATOR, b"\xfe")
    middle = len(data) // 2
    return [who + data[:middle], who + data[middle:]]
