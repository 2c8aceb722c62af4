"""A whole proxy on a loop without sockets: clients from their first byte, CONNECT, TLS, tunnels, dials, reloads, the end.

Input: see `operations`. The settings are those of `scene.settings_of`, and one byte more; the seventh says who speaks HTTP/2, the eighth
which hooks decide about responses. Names resolve to two addresses or to none.

With `SPEAK_TLS` clients speak TLS inside of CONNECT, and origins when they are spoken to in it: what a script has them say is inside.
``client_notifies`` and ``upstream_notifies`` are their close_notify.

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

from fuzz import decided
from fuzz.agreement import ESTABLISHED, check_answers, exchanged, is_forwarded, is_own, name_of
from fuzz.conversations import SWITCHED, finals
from fuzz.exchanges import SMALL
from fuzz.fake_loop import FakeLoop
from fuzz.http2_agreement import check_response, pairs_of
from fuzz.http2_agreement import is_forwarded as is_passed_request
from fuzz.mutations import mutate_operations
from fuzz.operations import VERBS, from_text, parse
from fuzz.proxy_peers import Origin, ProxyClient, SecurablePeer, authority
from fuzz.scene import MOST_OPERATIONS, Client, Peer, Scene, make_config, settings_of
from fuzz.scripted_handler import ConnectionHandler
from soth_mitm import MitmConfig
from soth_mitm._dataplane.memory import ledger
from soth_mitm.connection import SocketAddress
from soth_mitm.errors import ShutdownTimeoutError
from soth_mitm.policy import Policy
from soth_mitm.proxy import settings as proxy_settings
from soth_mitm.proxy.listener import Listener
from soth_mitm.proxy.resolver import system_addresses
from soth_mitm.proxy.service import Service
from soth_mitm.tls.client_hello import NEED_MORE, sniff
from support.samples import read_samples

UNIX, BLOCK_UNLISTED, BLOCK_UNKNOWN, FEW_CLIENTS, SPEAK_TLS = 1, 2, 4, 8, 16
# HTTP/2: in TLS clients offer it, and origins choose it; clients speak it in plain text behind CONNECT; few and little of everything;
# clients of HTTP/1 share its connections
HTTP2_OFFERED, HTTP2_CHOSEN, HTTP2_PLAIN, HTTP2_SMALL, HTTP2_SHARED = 1, 2, 4, 8, 16
HTTP2_ALPN = ("h2", "http/1.1")
WORDS = (
    *(from_text(f"{verb} {number}") for verb in VERBS for number in (0, 1)),
    b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n",
    b"CONNECT z.example:443 HTTP/1.1\r\nHost: z.example\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
    b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"\x16\x03\x01",
    b"SSH-2.0-",
    *(
        from_text(line)
        for line in (
            "client 0 H1AGET /1",
            "client 0 H1@POST /1",
            "client 0 D1Ahello",
            "client 0 R1@8",
            "upstream 0 H1@200",
            "upstream 0 D1Aok",
            "upstream 0 H1A204",
            "upstream 0 R1@13",
            "upstream 0 G0@0 0",
        )
    ),
)
mutate = functools.partial(mutate_operations, WORDS)
# The last digit of the addresses that a host has
HOSTS = {"a": 1, "b": 2}
UNLISTED = 3


def addresses_of(host: str) -> tuple[str, ...]:
    """Answer in the place of the system's resolver."""
    if host.startswith("nx"):
        raise socket.gaierror(-2, "no such name")
    last = HOSTS.get(host.removesuffix(".example"), UNLISTED)
    return f"192.0.2.{last}", f"2001:db8::{last}"


class ProxyLoop(FakeLoop):
    """A loop that also connects, and asks no name server."""

    connect: Callable[[Callable[[], Any], str], Any]

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:  # type: ignore[override]
        peer = await self.connect(protocol_factory, host)
        return peer.transport, peer.endpoint

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        """There are no threads here: it is done at once, and heard of later."""
        future = self.create_future()
        if func is system_addresses:
            func = addresses_of
        try:
            future.set_result(func(*args))
        except Exception as error:
            # whatever it is, it is for whoever asked
            future.set_exception(error)
        return future


class ProxyScene(Scene):
    """One proxy."""

    loop: ProxyLoop
    handler: ConnectionHandler

    def __init__(self, settings: bytes) -> None:
        self._keys, hooks, pool, _ = settings_of(settings)
        # what is sent on of a response is not to depend on whose it is
        self._keys["interception.strip_alt_svc"] = False
        self._more = settings[4] if len(settings) > 4 else 0
        self.http2 = settings[6] if len(settings) > 6 else 0
        loop = ProxyLoop()
        super().__init__(ConnectionHandler(loop, hooks), loop, dials_at_once=not pool & 16)
        loop.connect = lambda factory, address: self.dial(lambda: self._connected(factory, address))
        self._stopping: Any = None
        config = self._config()
        self._head_limit = config.max_http_head_bytes
        self._speak_tls = bool(self._more & SPEAK_TLS)
        self.blocks_unlisted = bool(self._more & BLOCK_UNLISTED)
        self.blocks_unknown = config.interception.unknown_protocol == "block"
        self.decides = "on_request" in hooks and config.intercept_mode == "enforce"
        self.lets_failures_pass = config.handler.recover_from_panics and config.handler.failure_policy == "allow"
        # what the checks of decisions ask about
        hooks_of = SimpleNamespace(recover=config.handler.recover_from_panics, block_on_failure=not self.lets_failures_pass)
        enforce = config.intercept_mode == "enforce"
        self.settings = SimpleNamespace(hooks=hooks_of, enforce=enforce, body_limit=config.body.max_size_bytes)

    @property
    def intercepts(self) -> bool:
        """Whether everybody is kept from being tunnelled to a.example: because nobody is, or because they all speak HTTP."""
        clients = [client for client in self.clients if isinstance(client, ProxyClient) and client.inside is not None]
        tunnels_nobody = self.blocks_unknown or all(client.speaks_http for client in clients)
        return tunnels_nobody and not self.handler.leaves_alone("a.example")

    def origins_of(self, host: str) -> list[Origin]:
        """Return the connections to a host."""
        return [peer for peer in self.upstreams if isinstance(peer, Origin) and peer.number == HOSTS[host]]

    def settle(self) -> None:
        super().settle()
        while any([peer.pump_tls() for peer in self.peers if isinstance(peer, SecurablePeer)]):
            super().settle()

    def _act_as(self, peer: Peer, action: str, data: bytes) -> None:
        assert isinstance(peer, SecurablePeer)
        if self._speak_tls and isinstance(peer, ProxyClient) and not action and peer.tls is None and peer.is_connected:
            peer.begin_tls(data)
            peer.closed_in = "TLS: what was said last need not have been read"
        if self.http2 & HTTP2_PLAIN and not self._speak_tls and isinstance(peer, ProxyClient) and not action and peer.http2 is None:
            if peer.is_connected:
                super()._act_as(peer, "", peer.begin_http2(b"http"))
        if peer.tls is not None and action in ("", "many"):
            peer.pending.append((data, action == "many"))
            peer.pump_tls()
        elif peer.http2 is not None and action in ("", "many"):
            super()._act_as(peer, "", peer.words(data, action == "many"))
        elif peer.tls is not None and action == "notifies":
            peer.tls.notify()
            peer.pump_tls()
        else:
            super()._act_as(peer, action, data)

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
                "http2.for_http1_clients": bool(self.http2 & HTTP2_SHARED),
                **(SMALL if self.http2 & HTTP2_SMALL else {}),
            },
        )

    async def _listen(self, factory: Callable[[SocketAddress | None], Any]) -> None:
        self._factory = factory

    def _connected(self, factory: Callable[[], Any], address: str) -> Peer:
        peer = Origin(self.loop, factory(), int(address[-1]), self._speak_tls, HTTP2_ALPN if self.http2 & HTTP2_CHOSEN else ())
        assert peer.number != UNLISTED or not self.blocks_unlisted, "connected to whom the policy blocks"
        peer.endpoint.connection_made(peer.transport)
        return peer

    def new_client(self) -> Client:
        client = ProxyClient(self.loop, self._factory(None), self._head_limit, HTTP2_ALPN if self.http2 & HTTP2_OFFERED else ())
        local: Any = "/run/proxy.sock" if self._more & UNIX else ("127.0.0.1", 8080)
        client.transport.extra |= {"sockname": local, "peername": ("127.0.0.1", 50000 + len(self.clients))}
        client.endpoint.connection_made(client.transport)
        return client

    def drain(self) -> None:
        if self._stopping is None:
            self._stopping = self.loop.create_task(self.service.shutdown(1.0))

    def retire(self) -> None:
        if self._stopping is None:
            config = self._config()
            self.service.reload(config, Policy(config))

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
    with mock.patch.object(proxy_settings, "LINGER_SECONDS", 0.0), scene.loop:
        scene.start()
        for operation in operations[:MOST_OPERATIONS]:
            if operation.verb.startswith("client") and not scene._accepting and operation.number >= len(scene.clients):
                # nobody listens any more
                continue
            scene.act(operation)
            for client in scene.clients:
                client.note_closing(operation.verb)
            if not operation.same_turn:
                check_permits(scene)
        scene.wind_down()
    check_permits(scene)
    check_end(scene)


def check_permits(scene: ProxyScene) -> None:
    """What is to be intercepted is sent requests and nothing else, each of them asked for and allowed."""
    if not scene.intercepts:
        return
    for peer in scene.origins_of("a"):
        spoken = sniff(peer.heard)
        assert not peer.heard or spoken in ("tls", "http", "http2", NEED_MORE), f"an intercepted upstream is sent {peer.heard!r}"
        assert (
            peer.responses.fault == SWITCHED or (spoken == "tls" and peer.tls is None) or not (peer.requests.fault or peer.out_of_turn)
        ), f"an intercepted upstream is sent {peer.requests.fault or 'a request too early'}: {peer.heard!r}"
    if scene.decides:
        forwarded = Counter(name_of(message) for peer in scene.origins_of("a") for message in peer.requests.messages)
        beyond = forwarded - scene.handler.permitted(scene.lets_failures_pass)
        assert not beyond or sum(beyond.values()) <= scene.service.metrics().retry_count, f"forwarded without being allowed: {beyond}"


def check_end(scene: ProxyScene) -> None:
    """Nothing is left, and every connection was told of once."""
    metrics = scene.service.metrics()
    assert metrics.active_connections == metrics.active_flows == 0, metrics
    assert metrics.buffered_bytes == metrics.upstream_connections == metrics.idle_upstream_connections == 0, metrics
    assert metrics.total_connections + metrics.rejected_connection_count == len(scene.clients)
    handler = scene.handler
    assert len(set(handler.closed)) == len(handler.closed) == metrics.total_connections
    assert set(handler.opened) == set(handler.closed)
    left = {name: count for name, count in ledger.counts().items() if count}
    assert not left, left
    check_conversations(scene)


def check_conversations(scene: ProxyScene) -> None:
    """Tunnels carry what was said, everything else is requests of somebody and their answers."""
    clients = cast(list[ProxyClient], scene.clients)
    if scene.handler.decides:
        check_decided(scene, clients)
        return
    if any(peer.http2 is not None for peer in scene.peers):
        check_http2(scene, clients)
        return
    asked = [message for client in clients for message in client.requests.messages]
    for peer in cast(list[Origin], scene.upstreams):
        if any(peer.heard in client.said for client in clients) or (peer.tls is None and sniff(peer.heard) == "tls"):
            continue
        assert peer.tls is not None or (peer.requests.messages and not peer.requests.rest), f"an upstream is sent {peer.heard!r}"
        for sent in peer.requests.messages:
            assert any(is_forwarded(sent, message) for message in asked), f"nobody asked for {sent.head!r} {bytes(sent.raw)!r}"
    for client in clients:
        connects = any(message.head.method == "CONNECT" for message in client.requests.messages)
        is_http = client.tls is not None or client.speaks_http or (client.inside is not None and sniff(client.inside) == "http")
        if heard_first(client):
            # what it says then is refused, and its answer stands behind what it was told
            continue
        if not connects or (is_http and scene.intercepts and client.requests.messages[0].head.target.startswith("a.example:")):
            check_answers(client, exchanged(scene), b"")
        if scene.blocks_unlisted and client.asked_name == "z.example":
            inside = finals(client.responses)[1:]
            assert all(is_own(message) for message in inside), "answered under the name of whom is blocked"


def heard_first(client: ProxyClient) -> bool:
    """Tell whether an upstream that does not speak HTTP spoke to a client before that had said anything."""
    told = client.heard.removeprefix(ESTABLISHED)
    return client.heard.startswith(ESTABLISHED) and client.tls is None and client.http2 is None and not b"HTTP/".startswith(told[:5])


def check_decided(scene: ProxyScene, clients: list[ProxyClient]) -> None:
    """The same where the handler has decided: of what goes to an intercepted origin, since the rest is none of its business."""
    assert not scene.handler.wrong, scene.handler.wrong
    if not scene.intercepts:
        return
    asks = [client for client in clients if client.inside is not None and client.requests.messages[0].head.target.startswith("a.example:")]
    for client in asks:
        if client.http2 is not None:
            assert not client.http2.heard.fault, f"a client is sent {client.http2.heard.fault}"
    read = [client for client in asks if client.tls is None or client.is_intercepted]
    about = SimpleNamespace(
        **{"clients": read, "upstreams": scene.upstreams, "handler": scene.handler, "settings": scene.settings, "observed": True},
        **{"has_credentials": False, "routed": False},
    )
    decided.check_responses(decided.Record(about), scene.settings.body_limit)


def check_http2(scene: ProxyScene, clients: list[ProxyClient]) -> None:
    """The same where somebody speaks HTTP/2; what is said through a tunnel is nobody's business."""
    asked = [pair for client in clients for pair in pairs_of(client) if pair.request.method != "CONNECT" or client.http2 is not None]
    answered = []
    for peer in cast(list[Origin], scene.upstreams):
        if any(peer.heard in client.said for client in clients) or (peer.tls is None and sniff(peer.heard) == "tls"):
            continue
        pairs = list(pairs_of(peer))
        answered += pairs
        if peer.http2 is not None:
            assert not peer.http2.heard.fault, f"an upstream is sent {peer.http2.heard.fault}"
        for sent, _, _ in pairs:
            assert any(is_passed_request(sent, pair.request) for pair in asked), f"nobody asked for {sent}"
    for client in clients:
        asks_a = bool(client.requests.messages) and client.requests.messages[0].head.target.startswith("a.example:")
        if client.http2 is None or not (client.is_intercepted or (client.tls is None and asks_a and scene.intercepts)):
            continue
        assert not client.http2.heard.fault, f"a client is sent {client.http2.heard.fault}"
        for pair in pairs_of(client):
            check_response(pair, answered)


def seeds() -> Iterator[bytes]:
    """The scripts of the corpus."""
    for sample in read_samples("proxy"):
        yield from_text(sample.blocks["script"].text)
