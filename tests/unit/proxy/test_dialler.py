"""Reaching an upstream: which address is tried when, what is tried again, and what is forgotten. Names come from a table."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from collections.abc import Callable, Iterator

import pytest

from soth_mitm import MitmConfig
from soth_mitm._dataplane.memory.buffer import Arena
from soth_mitm._dataplane.memory.deadline import DeadlineQueue
from soth_mitm._dataplane.transport.awaitable_endpoint import AwaitableEndpoint
from soth_mitm.connection import SocketAddress
from soth_mitm.destinations import DestinationMap, parse_redirect
from soth_mitm.errors import AddressDeniedError, ConnectFailedError, StageTimeoutError
from soth_mitm.proxy import dialler as dialler_module
from soth_mitm.proxy.counters import ConnectionCounters
from soth_mitm.proxy.dialler import Dialler
from soth_mitm.proxy.outbound.direct import STAGGER_SECONDS, Direct
from soth_mitm.proxy.outbound.origin import DIRECT, Origin
from soth_mitm.proxy.protocols import UpstreamEndpoint
from soth_mitm.proxy.resolver import Addresses, Resolver
from soth_mitm.tls.contexts import UpstreamContexts
from support.certs import TestCA

pytestmark = pytest.mark.anyio

NAME = "upstream.test"


class Names:
    """Answers each look-up with the next addresses of the list, the last ones again and again; `then` is called at each."""

    def __init__(self, *answers: Addresses, then: Callable[[int], object] = lambda count: None) -> None:
        self.answers = list(answers)
        self.times: list[float] = []
        self._then = then

    async def __call__(self, host: str) -> Addresses:
        self.times.append(asyncio.get_running_loop().time())
        self._then(len(self.times))
        return self.answers[min(len(self.times), len(self.answers)) - 1]


def direct(names: Names, counters: ConnectionCounters | None = None, **keys: object) -> tuple[MitmConfig, Direct]:
    config = MitmConfig()
    for key, value in keys.items():
        setattr(config.upstream, key, value)
    resolver = Resolver(config.upstream.dns_cache_ms / 1000, counters or ConnectionCounters(), names)
    connect_to = DestinationMap(parse_redirect(text) for text in config.upstream.connect_to)
    return config, Direct(config, connect_to, resolver, Arena(config.max_http_head_bytes), lambda address: None)


def dialler_by(config: MitmConfig, way: Direct, counters: ConnectionCounters | None = None) -> Dialler:
    handshake = DeadlineQueue(asyncio.get_running_loop().call_later, 10.0)
    return Dialler(config, UpstreamContexts(verify=False), {DIRECT: way}, handshake, counters or ConnectionCounters())


def dialler(names: Names, counters: ConnectionCounters | None = None, **keys: object) -> Dialler:
    counters = counters or ConnectionCounters()
    config, way = direct(names, counters, **keys)
    return dialler_by(config, way, counters)


def peer_of(endpoint: UpstreamEndpoint) -> str:
    assert endpoint.transport is not None
    return str(endpoint.transport.get_extra_info("peername")[0])


async def gone(endpoint: UpstreamEndpoint) -> None:
    intake = AwaitableEndpoint(asyncio.get_running_loop())
    intake.attach(endpoint)
    while not endpoint.gone:
        await intake.changed()


async def close(endpoint: UpstreamEndpoint) -> None:
    endpoint.abort()
    await gone(endpoint)


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """Listens on 127.0.0.1."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as sock:
        yield sock


@pytest.fixture
def port(listening: socket.socket) -> int:
    return int(listening.getsockname()[1])


@pytest.fixture
def closed_port() -> Iterator[socket.socket]:
    """A bound socket of 127.0.0.1 that nobody listens on, yet."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


@pytest.fixture
def silent(port: int) -> Iterator[str]:
    """An address of this machine at which connections to the same port are neither answered nor refused."""
    if sys.platform != "linux":
        pytest.skip("other systems answer more connections than the backlog has room for")
    with (
        socket.create_server(("127.0.0.2", port), backlog=0) as full,
        socket.create_connection(full.getsockname()),
    ):
        yield "127.0.0.2"


class TestAddresses:
    async def test_the_first_that_answers(self, port: int) -> None:
        endpoint = await dialler(Names(("127.0.0.1",))).dial(Origin(NAME, port))
        assert peer_of(endpoint) == "127.0.0.1"
        await close(endpoint)

    async def test_one_that_refuses_is_passed_over_at_once(self, port: int) -> None:
        """IPv6 first, where nobody listens."""
        endpoint = await dialler(Names(("::1", "127.0.0.1")), retry_on_failure=False).dial(Origin(NAME, port))
        assert peer_of(endpoint) == "127.0.0.1"
        await close(endpoint)

    async def test_one_that_is_silent_is_not_waited_for(self, port: int, silent: str) -> None:
        before, started = asyncio.all_tasks(), asyncio.get_running_loop().time()
        endpoint = await dialler(Names((silent, "127.0.0.1")), connect_timeout_ms=60_000).dial(Origin(NAME, port))
        assert peer_of(endpoint) == "127.0.0.1"
        assert asyncio.get_running_loop().time() - started >= STAGGER_SECONDS * 0.9
        await close(endpoint)
        # the attempt that lost is not left behind
        assert asyncio.all_tasks() == before

    async def test_families_take_turns(self, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
        tried: list[str] = []

        async def refuse(address: tuple[str, int]) -> None:
            tried.append(address[0])
            raise ConnectionRefusedError(111, "Connection refused")

        names = Names(("2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1", "2001:db8::1", "192.0.2.2"))
        config, way = direct(names, retry_on_failure=False)
        monkeypatch.setattr(way, "_connect_to", refuse)
        with pytest.raises(ConnectFailedError, match="refused"):
            await dialler_by(config, way).dial(Origin(NAME, port))
        assert tried == ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "2001:db8::3"]

    async def test_of_two_that_answer_in_the_same_moment_one_is_closed(self, port: int, listening: socket.socket) -> None:
        """As after a pause of the whole process, in which both got through."""
        loop = asyncio.get_running_loop()
        made: list[UpstreamEndpoint] = []
        config, way = direct(Names(("127.0.0.1", "127.0.0.2")))
        go_on = loop.create_future()
        connect = way._connect_to

        async def together(address: tuple[str, int]) -> UpstreamEndpoint:
            endpoint = await connect(("127.0.0.1", port))
            made.append(endpoint)
            if len(made) == 2:
                go_on.set_result(None)
            await go_on
            return endpoint

        way._connect_to = together  # type: ignore[method-assign]
        winner = await dialler_by(config, way).dial(Origin(NAME, port))
        (loser,) = [endpoint for endpoint in made if endpoint is not winner]
        await gone(loser)
        assert not winner.gone
        await close(winner)

    async def test_none_that_answers_in_time(self, port: int, silent: str) -> None:
        names = Names((silent,))
        with pytest.raises(StageTimeoutError, match="upstream.connect_timeout_ms") as caught:
            await dialler(names, connect_timeout_ms=50, retry_on_failure=False).dial(Origin(NAME, port))
        assert caught.value.status == 504

    async def test_a_resolver_that_does_not_answer_in_time(self, port: int) -> None:
        never = asyncio.Event()

        class Silent(Names):
            async def __call__(self, host: str) -> Addresses:
                await never.wait()
                return ()

        config, way = direct(Silent(()), connect_timeout_ms=50, retry_on_failure=False)
        with pytest.raises(StageTimeoutError, match="upstream.connect_timeout_ms"):
            await dialler_by(config, way).dial(Origin(NAME, port))
        await way._resolver.close()


class TestSecondAttempt:
    async def test_a_port_that_opens_meanwhile(self, closed_port: socket.socket) -> None:
        """It opens at the second look-up: the first attempt was refused, and the second came after the delay."""
        names = Names(("127.0.0.1",), then=lambda count: closed_port.listen() if count == 2 else None)
        endpoint = await dialler(names, dns_cache_ms=0, retry_delay_ms=80).dial(Origin(NAME, closed_port.getsockname()[1]))
        assert peer_of(endpoint) == "127.0.0.1"
        first, second = names.times
        assert second - first >= 0.079
        await close(endpoint)

    async def test_there_is_no_third(self, closed_port: socket.socket) -> None:
        names, counters = Names(("127.0.0.1",)), ConnectionCounters()
        with pytest.raises(ConnectFailedError, match="refused"):
            await dialler(names, counters, dns_cache_ms=0, retry_delay_ms=0).dial(Origin(NAME, closed_port.getsockname()[1]))
        assert (len(names.times), counters.dial_errors) == (2, 1)

    async def test_there_is_none_when_told_so(self, closed_port: socket.socket) -> None:
        names = Names(("127.0.0.1",))
        with pytest.raises(ConnectFailedError, match="refused"):
            await dialler(names, dns_cache_ms=0, retry_on_failure=False).dial(Origin(NAME, closed_port.getsockname()[1]))
        assert len(names.times) == 1


class TestMemory:
    async def test_a_second_dial_asks_nobody(self, port: int) -> None:
        names, counters = Names(("127.0.0.1",)), ConnectionCounters()
        wanted = dialler(names, counters)
        for _ in range(3):
            await close(await wanted.dial(Origin(NAME, port)))
        assert (len(names.times), counters.dns_lookups, counters.dns_cache_hits) == (1, 1, 2)

    async def test_addresses_that_all_refuse_are_forgotten(self, port: int) -> None:
        """The name has moved; the second attempt finds it there."""
        names = Names(("::1",), ("127.0.0.1",))
        endpoint = await dialler(names, retry_delay_ms=0).dial(Origin(NAME, port))
        assert (peer_of(endpoint), len(names.times)) == ("127.0.0.1", 2)
        await close(endpoint)

    async def test_one_that_answers_is_enough_to_be_remembered(self, port: int) -> None:
        names = Names(("::1", "127.0.0.1"))
        wanted = dialler(names, retry_on_failure=False)
        for _ in range(2):
            await close(await wanted.dial(Origin(NAME, port)))
        assert len(names.times) == 1

    async def test_addresses_that_are_silent_are_forgotten(self, port: int, silent: str) -> None:
        names = Names((silent,), ("127.0.0.1",))
        endpoint = await dialler(names, connect_timeout_ms=200, retry_delay_ms=0).dial(Origin(NAME, port))
        assert (peer_of(endpoint), len(names.times)) == ("127.0.0.1", 2)
        await close(endpoint)


class TestDeniedAddresses:
    async def test_others_of_the_same_name_are_tried(self, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
        tried: list[str] = []
        connect_to = Direct._connect_to

        async def recorded(self: Direct, address: SocketAddress) -> UpstreamEndpoint:
            tried.append(address[0])
            return await connect_to(self, address)

        monkeypatch.setattr(Direct, "_connect_to", recorded)
        names, counters = Names(("169.254.169.254", "::ffff:169.254.169.254", "127.0.0.1", "64:ff9b::a9fe:a9fe")), ConnectionCounters()
        endpoint = await dialler(names, counters, denied_addresses=["metadata"]).dial(Origin(NAME, port))
        assert peer_of(endpoint) == "127.0.0.1"
        # no other is so much as tried
        assert tried == ["127.0.0.1"]
        assert (counters.denied_addresses, counters.dial_errors) == (0, 0)
        await close(endpoint)

    async def test_none_left(self, listening: socket.socket, port: int) -> None:
        """Nothing is connected to, nothing is tried again, and the answer names the address and the key."""
        names, counters = Names(("127.0.0.1",)), ConnectionCounters()
        with pytest.raises(AddressDeniedError) as caught:
            await dialler(names, counters, denied_addresses=["loopback"]).dial(Origin(NAME, port))
        assert (caught.value.status, caught.value.retryable) == (403, False)
        assert f"{NAME}:{port}" in str(caught.value) and "127.0.0.1 is denied by `loopback` in upstream.denied_addresses" in str(
            caught.value
        )
        assert (counters.denied_addresses, counters.dial_errors, len(names.times)) == (1, 0, 1)
        listening.settimeout(0)
        with pytest.raises(BlockingIOError):
            listening.accept()

    async def test_what_was_judged_is_what_is_connected_to(self, port: int) -> None:
        """A name server that answers otherwise the second time is not asked a second time."""
        names = Names(("127.0.0.1",), ("169.254.169.254",))
        endpoint = await dialler(names, dns_cache_ms=0, denied_addresses=["metadata"]).dial(Origin(NAME, port))
        assert peer_of(endpoint) == "127.0.0.1" and len(names.times) == 1
        await close(endpoint)

    async def test_an_address_as_the_target(self, port: int) -> None:
        with pytest.raises(AddressDeniedError, match=r"127\.0\.0\.1 is denied"):
            await dialler(Names(()), denied_addresses=["127.0.0.0/8"]).dial(Origin("127.0.0.1", port))

    async def test_an_address_that_the_owner_wrote_is_not_judged(self, port: int) -> None:
        keys: dict[str, object] = {"denied_addresses": ["loopback"], "connect_to": [f"{NAME}:1=127.0.0.1:{port}"]}
        endpoint = await dialler(Names(()), **keys).dial(Origin(NAME, 1))
        assert peer_of(endpoint) == "127.0.0.1"
        await close(endpoint)

    async def test_a_name_that_the_owner_wrote_is_judged(self, port: int) -> None:
        keys: dict[str, object] = {"denied_addresses": ["loopback"], "connect_to": [f"{NAME}:1=other.test:{port}"]}
        with pytest.raises(AddressDeniedError, match=r"other\.test:\d+ \(upstream\.connect_to\): the address 127\.0\.0\.1 is denied"):
            await dialler(Names(("127.0.0.1",)), **keys).dial(Origin(NAME, 1))


class TestHttp2AndItsSuites:
    """RFC 9113 section 9.2.2: HTTP/2 is not spoken over the weaker suites of TLS 1.2."""

    BOTH = ("h2", "http/1.1")

    @staticmethod
    def context(ciphers: str, maximum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2) -> ssl.SSLContext:
        context = TestCA().server_context(NAME, alpn=["h2", "http/1.1"])
        context.maximum_version = maximum
        context.set_ciphers(ciphers)
        return context

    async def dials(self, context: ssl.SSLContext, alpn: tuple[str, ...], times: int = 1) -> tuple[list[tuple[str, str]], int]:
        """Dial one after another; return what each connection agreed on, and how many were made."""
        made = 0

        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal made
            made += 1
            await reader.read()
            writer.close()

        server = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=context)
        wanted = dialler(Names(("127.0.0.1",)))
        agreed = []
        async with server:
            for _ in range(times):
                endpoint = await wanted.dial(Origin(NAME, server.sockets[0].getsockname()[1], NAME, alpn=alpn))
                agreed.append((endpoint.facts.alpn, endpoint.facts.cipher))
                await close(endpoint)
        return agreed, made

    async def test_it_is_dialled_again_without_http2_and_then_at_once(self) -> None:
        weak = "ECDHE-ECDSA-AES128-SHA256"
        agreed, made = await self.dials(self.context(weak), self.BOTH, times=3)
        assert agreed == [("http/1.1", weak)] * 3 and made == 4

    async def test_also_for_a_client_that_speaks_nothing_else(self) -> None:
        agreed, made = await self.dials(self.context("ECDHE-ECDSA-AES128-SHA256"), ("h2",))
        assert agreed == [("http/1.1", "ECDHE-ECDSA-AES128-SHA256")] and made == 2

    async def test_one_that_http2_permits_is_kept(self) -> None:
        good = "ECDHE-ECDSA-AES128-GCM-SHA256"
        assert await self.dials(self.context(good), self.BOTH, times=2) == ([("h2", good)] * 2, 2)

    async def test_a_weak_one_does_for_http1(self) -> None:
        weak = "ECDHE-ECDSA-AES128-SHA256"
        assert await self.dials(self.context(weak), ("http/1.1",)) == ([("http/1.1", weak)], 1)

    async def test_it_is_tried_again_after_a_while(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dialler_module, "WITHOUT_HTTP2_SECONDS", -1.0)
        agreed, made = await self.dials(self.context("ECDHE-ECDSA-AES128-SHA256"), self.BOTH, times=2)
        assert [alpn for alpn, _ in agreed] == ["http/1.1"] * 2 and made == 4
