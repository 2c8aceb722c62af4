"""The exchange as a whole: clients, upstreams, handler and deadlines do whatever the input says, and the rules of the house hold.

Input: see `operations`. The settings are four bytes, see `settings_of`; the seventh says who speaks HTTP/2, in `http2_wire`, the eighth
which hooks decide about responses, and whether there is a credential.
"""

from __future__ import annotations

import base64
import copy
import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

from fuzz import decided
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
from fuzz.conversations import Message, finals, request_stream, response_stream
from fuzz.fake_loop import FakeLoop
from fuzz.http2_agreement import check as check_http2
from fuzz.http2_peers import Http2Peer, Http2Upstream
from fuzz.mutations import mutate_operations
from fuzz.operations import SEPARATOR, VERBS, from_text, parse
from fuzz.scene import MOST_OPERATIONS, NO_TIME, Client, Peer, Scene, Upstream, make_config, settings_of
from fuzz.scripted_handler import ScriptedHandler
from soth_mitm._dataplane.exchange.route import Route
from soth_mitm._dataplane.http.counters import Counters
from soth_mitm._dataplane.http.hooks import HookCounters
from soth_mitm._dataplane.http1.server import Http1ServerConnection
from soth_mitm._dataplane.http2.server import Http2ServerConnection
from soth_mitm._dataplane.memory import ledger
from soth_mitm._dataplane.memory.buffer import Arena
from soth_mitm._dataplane.memory.deadline import DeadlineQueue
from soth_mitm._dataplane.transport.awaitable_endpoint import AwaitableEndpoint
from soth_mitm._dataplane.upstream.pool import OriginPool
from soth_mitm.connection import ConnectionMeta, TcpV4
from soth_mitm.errors import WireError
from soth_mitm.proxy.alpn import HTTP2
from soth_mitm.proxy.calls import HandlerCalls, HandlerReports
from soth_mitm.proxy.counters import ConnectionCounters
from soth_mitm.proxy.credential_values import CredentialValues
from soth_mitm.proxy.deadlines import Deadlines
from soth_mitm.proxy.dialler import Dialler
from soth_mitm.proxy.outbound.origin import Origin
from soth_mitm.proxy.protocols import ClientEndpoint, UpstreamEndpoint
from soth_mitm.proxy.settings import make_settings
from soth_mitm.proxy.upstream_pools import UpstreamPools
from support.samples import read_samples

# In what an upstream of HTTP/1 says this stands for the answer to the key of a WebSocket (RFC 6455), which no fuzzer finds
ACCEPTS = b"{accepts}"
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# Who speaks HTTP/2: the first client, the others, the upstreams; few and little of everything; peers that say everything themselves
HTTP2_CLIENT, HTTP2_CLIENTS, HTTP2_UPSTREAMS, HTTP2_SMALL, HTTP2_BARE = 1, 2, 4, 8, 16
# There is a credential: a bit of the byte that says which hooks decide about responses
CREDENTIALS = 8
SMALL = {
    "http2_max_concurrent_streams": 2,
    "http2_max_header_list_size": 400,
    "http2.max_streams_per_upstream": 2,
    "http2.initial_window_bytes": 16384,
    "http2.max_window_bytes": 16384,
    "http2.reset_burst": 3,
    "http2.resets_per_second": 1,
    "http2.glitch_burst": 8,
    "http2.glitches_per_second": 1,
    "http2.max_queued_replies": 4,
}
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
        "client 0 H1AGET /1",
        "client 0 H2AGET /2",
        "client 0 H1@POST /1\\ncontent-length:5",
        "client 0 D1Ahello",
        "client 0 T1Ax-t:1",
        "client 0 R1@8",
        "client 0 W1@1000",
        "client 0 H1@:method:CONNECT\\n:protocol:websocket\\n:scheme:http\\n:path:/\\n:authority:a.example\\nsec-websocket-version:13",
        "upstream 0 H1A204",
        "upstream 0 H1@200\\ncontent-length:2",
        "upstream 0 D1Aok",
        "upstream 0 H1@103",
        "upstream 0 T1Ax-t:1",
        "upstream 0 R1@7",
        "upstream 0 R1@13",
        "upstream 0 G0@1 0",
        "upstream 0 S0@3=1 4=10",
        "upstream 0 HTTP/1.1 101 S\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\nSec-WebSocket-Accept: {accepts}\\r\\n\\r\\n",
        "upstream 0 S0@8=1",
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
    decided.PLACEHOLDER,
    decided.VALUE,
    b"Authorization: Bearer " + decided.PLACEHOLDER + b"\r\n",
    *(from_text(f"hook {number} \\x{kind:02x}") for number in (0, 4, 5, 6) for kind in range(2, 20)),
    *(from_text(f"answer 0 \\x{kind:02x}") for kind in (0, 3, *range(11, 20))),
)
mutate = functools.partial(mutate_operations, WORDS)
# What each input needs, and is the same for all; both take long
cached_config = functools.cache(make_config)
FAMILY = TcpV4(("127.0.0.1", 8080), ("127.0.0.1", 50000))


class ServedClient(Client):
    """A client with the connection that serves it."""

    def serve(
        self, scene: ExchangeScene, intake: AwaitableEndpoint, kind: type[Http1ServerConnection] | type[Http2ServerConnection]
    ) -> None:
        """Begin."""
        self.endpoint.connection_made(self.transport)
        intake.attach(self.endpoint)
        self._handler = scene.handler
        self._id = UUID(int=len(scene.clients) + 1)
        meta = ConnectionMeta(self._id, FAMILY)
        self._connection = kind(scene.settings, self.endpoint, self._ended, **scene.routing(meta))
        self._connection.start()

    def drain(self) -> None:
        self._connection.drain()

    def abort(self) -> None:
        self._connection.abort()
        self.endpoint.abort()

    def _ended(self) -> None:
        self.ends += 1
        assert self._handler.all_returned(self._id), "the end is told before every hook has returned"


class ExchangeClient(ServedClient):
    """A client that speaks HTTP/1."""

    def __init__(self, scene: ExchangeScene) -> None:
        intake = AwaitableEndpoint(scene.loop)
        super().__init__(scene.loop, ClientEndpoint(scene.arena, intake))
        limit = scene.settings.head_limit
        self.requests = request_stream(limit)
        self.responses = response_stream(self.requests)
        self.serve(scene, intake, Http1ServerConnection)

    def hear(self, data: bytes) -> None:
        self.responses.feed(data)

    def say(self, data: bytes) -> None:
        self.requests.feed(data)


class Http2ExchangeClient(Http2Peer, ServedClient):
    """A client that speaks HTTP/2."""

    def __init__(self, scene: ExchangeScene, *, bare: bool) -> None:
        intake = AwaitableEndpoint(scene.loop)
        super().__init__(scene.loop, ClientEndpoint(scene.arena, intake), is_client=True, bare=bare)
        self.serve(scene, intake, Http2ServerConnection)
        self.begin()


class PlainCredentials(CredentialValues):
    """Credentials for which plain text is as good as TLS with the name of the origin."""

    def _permitted(self, origin: Origin, authority: str, is_redirected: bool) -> set[int]:
        return super()._permitted(origin._replace(server_name=origin.host), authority, is_redirected)


class AllPools(UpstreamPools):
    """Pools that are remembered; one has another for what HTTP/2 does not do."""

    def __init__(self, *how: Any) -> None:
        self.all: list[OriginPool] = []
        super().__init__(*how)

    def pool(self, origin: Origin) -> OriginPool:
        pool = super().pool(origin)
        if pool not in self.all:
            self.all.append(pool)
        return pool


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

    def __init__(self, settings: bytes, handler_kind: Callable[[FakeLoop, tuple[str, ...]], ScriptedHandler] = ScriptedHandler) -> None:
        keys, hooks, pool, more = settings_of(settings)
        loop = FakeLoop()
        super().__init__(handler_kind(loop, hooks), loop, dials_at_once=not pool & 16)
        http2 = settings[6] if len(settings) > 6 else 0
        self.http2 = http2
        self.bare = bool(http2 & HTTP2_BARE)
        if http2 & HTTP2_SMALL:
            keys |= SMALL
        self.has_credentials = len(settings) > 7 and bool(settings[7] & CREDENTIALS)
        config = cached_config(**keys)
        self.observed = not more & 16
        self.routed = bool(more & 32)
        self.checked = 0
        self.arena = Arena(config.max_http_head_bytes)
        self.counters = Counters()
        reports = HandlerReports(lambda error: None)
        self.deadlines = SeparateDeadlines(loop)
        self.calls = HandlerCalls(self.handler, config, loop, self.deadlines, HookCounters(), reports)
        self.settings: Any = make_settings(config, self.arena, self.counters, self.calls.hooks, self.deadlines, reports)
        if self.has_credentials:
            with_credential = copy.copy(config)
            with_credential.credentials = [decided.CREDENTIAL]
            self._credentials = PlainCredentials(with_credential, loop, ConnectionCounters())
            self.settings.credentials = self._credentials
        dialler = cast(Dialler, SimpleNamespace(dial=self._dial, keep_session=lambda *_: None, count=lambda error: None))
        self.pools = AllPools(config.connection_pool, self.settings, self.deadlines, dialler, self.calls)

    @property
    def all_pools(self) -> list[OriginPool]:
        """Those that were in use."""
        return self.pools.all

    @property
    def speaks_http2(self) -> bool:
        """Whether anybody does."""
        return bool(self.http2 & (HTTP2_CLIENT | HTTP2_CLIENTS | HTTP2_UPSTREAMS))

    def routing(self, meta: ConnectionMeta) -> dict[str, Any]:
        """Return the routing of one client's exchange."""
        if not self.routed:
            return {"router": lambda scheme, authority: self._route_to("a.example", meta)}
        return {"router": lambda scheme, authority: self._route_to(authority.decode("latin-1"), meta)}

    def _route_to(self, authority: str, meta: ConnectionMeta) -> Route:
        if authority.startswith("no"):
            return Route(None, meta, "http", authority, observed=authority.startswith("now"), status=403, reason=b"not there")
        alpn = (HTTP2,) if self.http2 & HTTP2_UPSTREAMS else ()
        pool = self.pools.pool(Origin("b.example" if authority.startswith("b") else "a.example", 80, alpn=alpn))
        return Route(pool, meta, "http", authority or "a.example", observed=self.observed)

    async def _dial(self, origin: Origin) -> UpstreamEndpoint:
        connect = self._connect_http2 if HTTP2 in origin.alpn else self._connect
        peer = await self.dial(lambda: self._named(connect(), origin.host))
        endpoint: UpstreamEndpoint = peer.endpoint
        return endpoint

    @staticmethod
    def _named(peer: Peer, host: str) -> Peer:
        peer.host = host
        return peer

    def _connect(self) -> Peer:
        return self.attach(Upstream)

    def _connect_http2(self) -> Peer:
        peer = self.attach(functools.partial(Http2Upstream, bare=self.bare))
        assert isinstance(peer, Http2Upstream)
        peer.begin()
        return peer

    def attach(self, kind: Callable[[FakeLoop, Any], Peer]) -> Peer:
        """Connect an upstream."""
        intake = AwaitableEndpoint(self.loop)
        peer = kind(self.loop, UpstreamEndpoint(self.arena, intake))
        peer.endpoint.connection_made(peer.transport)
        intake.attach(peer.endpoint)
        return peer

    def refusal(self, number: int) -> Exception:
        return WireError("cannot connect", side="upstream", status=(502, 504)[number % 2], retryable=True)

    def new_client(self) -> Client:
        if self.http2 & (HTTP2_CLIENTS if self.clients else HTTP2_CLIENT):
            return Http2ExchangeClient(self, bare=self.bare)
        return ExchangeClient(self)

    def _act_as(self, peer: Peer, action: str, data: bytes) -> None:
        if isinstance(peer, Http2Peer) and action in ("", "many"):
            peer.speak(data, action == "many")
        elif isinstance(peer, Upstream) and ACCEPTS in data:
            super()._act_as(peer, action, data.replace(ACCEPTS, acceptance(peer.requests.messages[-1:])))
        else:
            super()._act_as(peer, action, data)

    def drain(self) -> None:
        self.settings.draining = True
        self.retire()
        for client in self.clients:
            client.drain()

    def retire(self) -> None:
        self.pools.retire()

    def close(self) -> None:
        endings = [self.pools.close(), self.calls.close()]
        if self.has_credentials:
            endings.append(self._credentials.close())
        closing = [self.loop.create_task(ending) for ending in endings]
        self.settle()
        assert all(task.done() for task in closing), "something does not end"
        for task in closing:
            task.result()
        self.deadlines.close()


def acceptance(messages: list[Message]) -> bytes:
    """Return the value of Sec-WebSocket-Accept that answers the last of the requests."""
    keys = [value for message in messages for name, value in message.head.fields if name.lower() == b"sec-websocket-key"]
    return base64.b64encode(hashlib.sha1(b"".join(keys) + GUID, usedforsecurity=False).digest())


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
                if scene.handler.decides or scene.has_credentials:
                    decided.check_so_far(scene, scene.settings.body_limit)
                    check_nothing_kept(scene)
                elif scene.speaks_http2:
                    check_nothing_kept(scene)
                else:
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


def check_nothing_kept(scene: ExchangeScene) -> None:
    """Where no exchange goes on and nobody has begun to say something or has yet to take something, nothing is held."""
    if scene.counters.active_flows or scene.handler.waiting:
        return
    for peer in scene.peers:
        said_all = peer.requests.at_boundary and peer.responses.at_boundary and not peer.transport.has_unread
        # what does not fit into the window of a stream waits for it
        took_all = peer.transport.get_write_buffer_size() == 0 and (peer.http2 is None or peer.http2.heard.is_complete)
        if not (said_all and took_all):
            return
    assert scene.arena.budget.held == 0, f"{scene.arena.budget.held} bytes are held, and nothing goes on"


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
    heads = heads_kept(scene, request)
    if not begun:
        return heads + len(request.raw) + len(request.content)
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
    size += heads
    return size + len(answer.content) if {"on_response", "on_stream_chunk"} & set(hooks) else size


def heads_kept(scene: ExchangeScene, request: Message) -> int:
    """Return how long the heads of what is under way are: as the client said it, as an upstream was sent it, and of the response."""
    lengths = [len(message.head.raw) for peer in scene.upstreams for message in (*peer.requests.messages, *peer.responses.messages)]
    return len(request.head.raw) + 2 * max(lengths, default=0)


def check_permits(scene: ExchangeScene) -> None:
    """Nothing of a request reaches an upstream before it was allowed to."""
    settings = scene.settings
    lent = 2 * len(scene.peers) * (2 * scene.arena.max_buffer + 65536)
    if scene.speaks_http2:
        # each stream has a window
        lent += 2 * 65536 * sum(len(peer.requests.messages) for peer in scene.peers)
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
    if scene.has_credentials:
        # the value may stand in the path
        allowed, forwarded = (by_method(names) for names in (allowed, forwarded))
    beyond = forwarded - allowed
    assert sum(beyond.values()) <= scene.counters.retries, f"forwarded without being allowed: {beyond}"


def by_method(names: Counter[tuple[str, str]]) -> Counter[tuple[str, str]]:
    """Count requests by their method alone."""
    found: Counter[tuple[str, str]] = Counter()
    for (method, _), count in names.items():
        found[method, ""] += count
    return found


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
    if scene.handler.decides or scene.has_credentials:
        decided.check(scene, scene.settings.body_limit)
        return
    if scene.speaks_http2:
        check_http2(scene, scene.counters.retries, scene.settings.body_limit)
        counters = scene.counters
        assert (counters.http2_client_connections, counters.http2_upstream_connections, counters.http2_streams) == (0, 0, 0)
        return
    stripped = b"alt-svc" if scene.settings.strip_alt_svc and scene.observed else b""
    check_requests(scene, scene.counters.retries)
    all_exchanged = exchanged(scene)
    for client in scene.clients:
        check_answers(client, all_exchanged, stripped, may_be_cut=not scene.settings.hooks.recover)
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
