"""A whole proxy on a loop without sockets: clients from their first byte, CONNECT, TLS, tunnels, dials, reloads, the end.

Input: see `operations`. The settings are those of `scene.settings_of`, and one byte more. Names resolve to two addresses or to none.

Of three origins, a.example is intercepted, b.example too unless the handler is asked, which has it tunnelled, and everybody else is not
listed: tunnelled, forwarded unseen, or blocked.
"""

from __future__ import annotations

import functools
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

from fuzz.agreement import check_answers, exchanged, is_forwarded, name_of
from fuzz.conversations import SWITCHED, request_stream, response_stream
from fuzz.fake_loop import FakeLoop
from fuzz.operations import VERBS, from_text, parse
from fuzz.scene import MOST_OPERATIONS, Client, Peer, Scene, make_config, settings_of
from fuzz.scripted_handler import ConnectionHandler
from soth_mitm import MitmConfig
from soth_mitm._dataplane import ledger
from soth_mitm.errors import ShutdownTimeoutError
from soth_mitm.proxy import snapshot
from soth_mitm.proxy.listener import Listener
from soth_mitm.proxy.service import Service
from soth_mitm.tls.ca import CertificateAuthority, generate_ca
from soth_mitm.tls.client_hello import NEED_MORE, sniff
from support.samples import read_samples

UNIX, BLOCK_UNLISTED, BLOCK_UNKNOWN, FEW_CLIENTS = 1, 2, 4, 8
WORDS = (
    *(from_text(f"{verb} {number}") for verb in VERBS for number in (0, 1)),
    b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n",
    b"CONNECT z.example:443 HTTP/1.1\r\nHost: z.example\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
    b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"\x16\x03\x01",
    b"SSH-2.0-",
)
# The last digit of the addresses that a host has
HOSTS = {"a": 1, "b": 2}
UNLISTED = 3


@functools.cache
def authority() -> CertificateAuthority:
    """The CA of every proxy here."""
    return generate_ca()


class ProxyLoop(FakeLoop):
    """A loop that also resolves and connects."""

    connect: Callable[[Callable[[], Any], str], Any]

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:  # type: ignore[override]
        if host.startswith("nx"):
            raise socket.gaierror(-2, "no such name")
        last = HOSTS.get(host.removesuffix(".example"), UNLISTED)
        addresses = [(socket.AF_INET, f"192.0.2.{last}"), (socket.AF_INET6, f"2001:db8::{last}")]
        return [(family, socket.SOCK_STREAM, 6, "", (address, port)) for family, address in addresses]

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:  # type: ignore[override]
        peer = await self.connect(protocol_factory, host)
        return peer.transport, peer.endpoint

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        """There are no threads here: it is done at once, and heard of later."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            # whatever it is, it is for whoever asked
            future.set_exception(error)
        return future


class ProxyClient(Client):
    """A client of the proxy, known to it by its socket alone. `said` and `heard` are its bytes."""

    def __init__(self, loop: FakeLoop, endpoint: Any, limit: int) -> None:
        super().__init__(loop, endpoint)
        self.said = self.heard = b""
        self.requests = request_stream(limit)
        self.responses = response_stream(self.requests)

    def say(self, data: bytes) -> None:
        self.said += data
        self.requests.feed(data)

    def hear(self, data: bytes) -> None:
        self.heard += data
        self.responses.feed(data)

    def drain(self) -> None:
        """It is the proxy that drains."""

    def abort(self) -> None:
        self.transport.peer_resets()


class Origin(Peer):
    """An upstream: `number` says whose address was connected to. What it is sent need not be HTTP."""

    def __init__(self, loop: FakeLoop, endpoint: Any, number: int) -> None:
        super().__init__(loop, endpoint)
        self.number = number
        self.said = self.heard = b""

    def say(self, data: bytes) -> None:
        self.said += data
        self.responses.feed(data)

    def hear(self, data: bytes) -> None:
        self.heard += data
        self.requests.feed(data)


class ProxyScene(Scene):
    """One proxy."""

    loop: ProxyLoop

    def __init__(self, settings: bytes) -> None:
        self._keys, hooks, pool, _ = settings_of(settings)
        # what is sent on of a response is not to depend on whose it is
        self._keys["interception.strip_alt_svc"] = False
        self._more = settings[4] if len(settings) > 4 else 0
        loop = ProxyLoop()
        super().__init__(ConnectionHandler(loop, hooks), loop, dials_at_once=not pool & 16)
        loop.connect = lambda factory, address: self.dial(lambda: self._connected(factory, address))
        self._stopping: Any = None
        config = self._config()
        self._head_limit = config.max_http_head_bytes
        self.blocks_unknown = config.interception.unknown_protocol == "block"
        self.decides = "on_request" in hooks and config.intercept_mode == "enforce"
        self.lets_failures_pass = config.handler.recover_from_panics and config.handler.failure_policy == "allow"

    def start(self) -> None:
        """Build the proxy; on its loop."""
        listener = SimpleNamespace(
            is_ours=lambda address: address[0] == "ours.example", serve=self._listen, close=lambda: setattr(self, "_accepting", False)
        )
        self._accepting = True
        self.service = Service(self._config(), self.handler, authority(), cast(Listener, listener))
        self.loop.create_task(self.service.start())
        self.settle()

    def _config(self) -> MitmConfig:
        more = self._more
        return make_config(
            **self._keys,
            **{
                "interception.destinations": ["a.example:*", "b.example:*", "ours.example:443"],
                "interception.passthrough_unlisted": not more & BLOCK_UNLISTED,
                "interception.unknown_protocol": "block" if more & BLOCK_UNKNOWN else "tunnel",
                "tls.learn_bypass": not more & BLOCK_UNKNOWN,
                "max_concurrent_flows": 1 if more & FEW_CLIENTS else 2048,
                "process_attribution.enabled": False,
                "upstream.verify_upstream_tls": False,
            },
        )

    async def _listen(self, factory: Callable[[], Any]) -> None:
        self._factory = factory

    def _connected(self, factory: Callable[[], Any], address: str) -> Peer:
        peer = Origin(self.loop, factory(), int(address[-1]))
        assert peer.number != UNLISTED or not self._more & BLOCK_UNLISTED, "connected to whom the policy blocks"
        peer.endpoint.connection_made(peer.transport)
        return peer

    def new_client(self) -> Client:
        client = ProxyClient(self.loop, self._factory(), self._head_limit)
        local: Any = "/run/proxy.sock" if self._more & UNIX else ("127.0.0.1", 8080)
        client.transport.extra |= {"sockname": local, "peername": ("127.0.0.1", 50000 + len(self.clients))}
        client.endpoint.connection_made(client.transport)
        return client

    def drain(self) -> None:
        if self._stopping is None:
            self._stopping = self.loop.create_task(self.service.shutdown(1.0))

    def retire(self) -> None:
        if self._stopping is None:
            self.service.reload(self._config())

    def close(self) -> None:
        self.drain()
        self.settle()
        # what is cut at the end of the drain may be followed by what a handler or a dial takes
        for _ in range(8):
            self.loop.fire(0)
            self.settle()
        assert self._stopping.done(), "the proxy does not end"
        try:
            self._stopping.result()
        except ShutdownTimeoutError as error:
            assert error.aborted > 0


def run(data: bytes) -> None:
    """Test one input."""
    settings, operations = parse(data)
    scene = ProxyScene(settings)
    # not a key, and the only time that would not be over at once
    with mock.patch.object(snapshot, "LINGER_SECONDS", 0.0), scene.loop:
        scene.start()
        for operation in operations[:MOST_OPERATIONS]:
            if operation.verb.startswith("client") and not scene._accepting and operation.number >= len(scene.clients):
                # nobody listens any more
                continue
            scene.act(operation)
            for client in scene.clients:
                if client.transport.closing and not client.closed_in:
                    client.closed_in = operation.verb
            if not operation.same_turn:
                check_permits(scene)
        scene.wind_down()
    check_permits(scene)
    check_end(scene)


def check_permits(scene: ProxyScene) -> None:
    """What is to be intercepted and nothing else is sent requests, each of them asked for and allowed."""
    handler = cast(ConnectionHandler, scene.handler)
    if not scene.blocks_unknown or handler.leaves_alone("a.example"):
        # else everybody may be tunnelled to it
        return
    origins = [peer for peer in scene.upstreams if isinstance(peer, Origin) and peer.number == HOSTS["a"]]
    for peer in origins:
        spoken = sniff(peer.heard)
        assert not peer.heard or spoken in ("tls", "http", NEED_MORE), f"an intercepted upstream is sent {peer.heard!r}"
        assert spoken != "http" or not peer.requests.fault or peer.responses.fault == SWITCHED, f"{peer.requests.fault}: {peer.heard!r}"
    if scene.decides:
        forwarded = Counter(name_of(message) for peer in origins for message in peer.requests.messages)
        beyond = forwarded - handler.permitted(scene.lets_failures_pass)
        assert sum(beyond.values()) <= scene.service.metrics().retry_count, f"forwarded without being allowed: {beyond}"


def check_end(scene: ProxyScene) -> None:
    """Nothing is left, and every connection was told of once."""
    metrics = scene.service.metrics()
    assert metrics.active_connections == metrics.active_flows == 0, metrics
    assert metrics.buffered_bytes == metrics.upstream_connections == metrics.idle_upstream_connections == 0, metrics
    assert metrics.total_connections + metrics.rejected_connection_count == len(scene.clients)
    handler = cast(ConnectionHandler, scene.handler)
    assert len(set(handler.closed)) == len(handler.closed) == metrics.total_connections
    assert set(handler.opened) == set(handler.closed)
    left = {name: count for name, count in ledger.counts().items() if count}
    assert not left, left
    check_conversations(scene)


def check_conversations(scene: ProxyScene) -> None:
    """Tunnels carry what was said, everything else is requests of somebody and their answers."""
    clients = [client for client in scene.clients if isinstance(client, ProxyClient)]
    origins = [peer for peer in scene.upstreams if isinstance(peer, Origin)]
    asked = [message for client in clients for message in client.requests.messages]
    for peer in origins:
        if any(peer.heard in client.said for client in clients) or sniff(peer.heard) == "tls":
            continue
        assert not peer.requests.rest and peer.requests.messages, f"an upstream is sent {peer.heard!r}"
        for sent in peer.requests.messages:
            assert any(is_forwarded(sent, message) for message in asked), f"nobody asked for {sent.head!r} {bytes(sent.raw)!r}"
    for client in clients:
        if not any(message.head.method == "CONNECT" for message in client.requests.messages):
            check_answers(client, exchanged(scene), b"")


def seeds() -> Iterator[bytes]:
    """The scripts of the corpus."""
    for sample in read_samples("proxy"):
        yield from_text(sample.blocks["script"].text)
