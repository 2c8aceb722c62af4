"""`on_connect`: asked about each destination before anything is resolved or dialled, by CONNECT, absolute-form and over the Unix socket."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from soth_mitm import ConnectDecision, ConnectTarget, HandlerDecision, RawRequest
from soth_mitm.proxy import resolver
from support.certs import TestCA
from support.origin import Origin
from support.origin_answers import pattern
from support.recording import Recording
from support.running import HOST, ProxyFactory, Running
from support.wire_client import Answer, WireClient

INTERCEPT, TUNNEL = ConnectDecision.INTERCEPT, ConnectDecision.TUNNEL
BLOCK = ConnectDecision.block("not today", 451)
Say = Callable[[ConnectTarget], Any]
STRICT = {"interception.passthrough_unlisted": False}


class Gate(Recording):
    """Answers `on_connect` with what `say` returns, which may be a coroutine or raise."""

    def __init__(self, say: Say, **more: Any) -> None:
        super().__init__(**more)
        self.say = say
        self.targets: list[ConnectTarget] = []

    def on_connect(self, target: ConnectTarget) -> ConnectDecision | None | Awaitable[ConnectDecision | None]:
        self.targets.append(target)
        self._note("on_connect", target)
        return self.say(target)  # type: ignore[no-any-return]


class Waiting:
    """A `say` that suspends until the test lets it go on."""

    def __init__(self, decision: ConnectDecision | None = None) -> None:
        self.decision = decision
        self.begun, self.cancelled = threading.Event(), threading.Event()
        self.loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, target: ConnectTarget) -> ConnectDecision | None:
        self.loop, self.future = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        self.begun.set()
        try:
            await self.future
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return self.decision

    def go_on(self) -> None:
        assert self.begun.wait(10) and self.loop is not None
        self.loop.call_soon_threadsafe(self.future.set_result, None)


def plain(decision: ConnectDecision | None) -> Say:
    return lambda target: decision


def at_once(decision: ConnectDecision | None) -> Say:
    async def say(target: ConnectTarget) -> ConnectDecision | None:
        return decision

    return say


def later(decision: ConnectDecision | None) -> Say:
    async def say(target: ConnectTarget) -> ConnectDecision | None:
        await asyncio.sleep(0)
        return decision

    return say


FORMS = pytest.mark.parametrize("form", [plain, at_once, later])


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that the system was asked for."""
    names: list[str] = []
    system_addresses = resolver.system_addresses

    def record(host: str) -> resolver.Addresses:
        names.append(host)
        return system_addresses(host)

    monkeypatch.setattr(resolver, "system_addresses", record)
    return names


@pytest.fixture(params=["connect", "absolute", "unix"])
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Way]:
    if request.param == "unix" and os.name != "posix":
        pytest.skip("Unix sockets")
    yield Way(request.param, tmp_path / "proxy.sock")


class Way:
    """How a client asks for a plain origin."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path

    @property
    def keys(self) -> dict[str, object]:
        return {"unix_socket_path": str(self.path)} if self.name == "unix" else {}

    def open(self, running: Running) -> WireClient:
        return WireClient.to_unix(self.path) if self.name == "unix" else running.client()

    def say(self, client: WireClient, authority: str, path: str = "/bytes/3") -> None:
        """Ask for a destination, and wait for nothing."""
        if self.name == "connect":
            client.send(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        else:
            target = path if self.name == "unix" else f"http://{authority}{path}"
            client.send(f"GET {target} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())

    def hear(self, client: WireClient, authority: str, path: str = "/bytes/3") -> Answer:
        """Read the answer, of the request inside if a CONNECT was answered 200."""
        if self.name != "connect":
            return client.read_answer()
        answer = client.read_answer("CONNECT")
        return client.request(path, authority) if answer.status == 200 else answer

    def ask(self, running: Running, authority: str) -> Answer:
        with self.open(running) as client:
            self.say(client, authority)
            return self.hear(client, authority)


@FORMS
class TestAnswers:
    def test_block(self, proxy: ProxyFactory, looked_up: list[str], way: Way, form: Callable[[ConnectDecision | None], Say]) -> None:
        running = proxy(Gate(form(BLOCK)), destinations=("*:*",), **way.keys)
        answer = way.ask(running, "somewhere.test:8080")
        assert (answer.status, answer.text) == (451, "not today\n")
        running.wait_idle()
        assert looked_up == [] and running.metrics().pool_miss_count == 0
        assert running.handler.requests == [] and running.handler.of("should_intercept_tls") == []

    def test_intercept_what_is_not_listed(
        self, proxy: ProxyFactory, plain_origin: Origin, way: Way, form: Callable[[ConnectDecision | None], Say]
    ) -> None:
        for keys in ({}, STRICT):
            running = proxy(Gate(form(INTERCEPT)), destinations=("other.test:1",), **way.keys, **keys)
            assert way.ask(running, f"localhost:{plain_origin.port}").body == pattern(3)
            assert len(running.handler.requests) == 1
            # asked only where the policy decides
            assert running.handler.of("should_intercept_tls") == []
            running.handle.shutdown(10)

    def test_tunnel_what_is_listed(
        self, proxy: ProxyFactory, plain_origin: Origin, way: Way, form: Callable[[ConnectDecision | None], Say]
    ) -> None:
        running = proxy(Gate(form(TUNNEL)), **way.keys)
        assert way.ask(running, f"localhost:{plain_origin.port}").body == pattern(3)
        assert running.handler.requests == [] and len(plain_origin.requests) == 1

    def test_none_leaves_it_to_the_policy(
        self, proxy: ProxyFactory, plain_origin: Origin, way: Way, form: Callable[[ConnectDecision | None], Say]
    ) -> None:
        running = proxy(Gate(form(None)), **way.keys, **STRICT)
        assert way.ask(running, f"localhost:{plain_origin.port}").body == pattern(3)
        assert len(running.handler.requests) == 1
        assert running.handler.of("should_intercept_tls") == (["localhost"] if way.name == "connect" else [])
        answer = way.ask(running, "unlisted.test:80")
        assert answer.status == 403 and answer.text.startswith("destination_not_allowed: unlisted.test:80")


def test_a_listed_origin_behind_tls_is_tunnelled(proxy: ProxyFactory, origin: Origin, origin_ca: TestCA) -> None:
    running = proxy(Gate(plain(TUNNEL)))
    with running.tunnel(origin.port) as client:
        client.start_tls(origin_ca.client_context(), HOST)
        assert client.request("/bytes/3", HOST).body == pattern(3)
    assert running.handler.requests == []


@FORMS
def test_monitor_mode_does_not_lift_its_block(
    proxy: ProxyFactory, looked_up: list[str], way: Way, form: Callable[[ConnectDecision | None], Say]
) -> None:
    running = proxy(Gate(form(BLOCK)), destinations=("*:*",), **way.keys, intercept_mode="monitor")
    assert way.ask(running, "somewhere.test:8080").status == 451
    assert looked_up == []


def test_a_tunnel_that_a_key_forbids(proxy: ProxyFactory, plain_origin: Origin, way: Way) -> None:
    running = proxy(Gate(plain(TUNNEL)), **way.keys, **{"interception.must_intercept": ["localhost:*"]})
    answer = way.ask(running, f"localhost:{plain_origin.port}")
    assert answer.status == 403 and "interception.must_intercept forbids" in answer.text
    running.wait_idle()
    assert plain_origin.connections == []


class TestTargets:
    def test_what_it_is_shown(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy(Gate(plain(BLOCK)), **STRICT)
        for target in (f"LOCALHOST.:{plain_origin.port}", "Unlisted.test:443"):
            with running.client() as client:
                assert client.connect(target).status == 451
        with running.client() as client:
            assert client.request("https://unlisted.test/x", "unlisted.test").status == 451
            assert client.request("http://unlisted.test/x", "unlisted.test").status == 451
        listed, unlisted, https, http = running.handler.targets
        assert (listed.host, listed.port, listed.scheme) == ("localhost", plain_origin.port, None)
        assert (listed.policy, listed.policy_reason) == (INTERCEPT, "interception_scope_match")
        assert listed.meta.target == ("localhost", plain_origin.port)
        assert unlisted.policy.status == 403 and "interception.destinations" in unlisted.policy.reason
        assert unlisted.policy_reason == "destination_not_allowed"
        assert (https.scheme, https.port, http.scheme, http.port) == ("https", 443, "http", 80)
        assert str(http) == "unlisted.test:80"
        assert listed.meta.process_info is not None and listed.meta.process_info.pid == os.getpid()

    def test_once_for_each_destination_of_a_connection(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy(Gate(later(None)))
        one, two = f"localhost:{plain_origin.port}", f"127.0.0.1:{plain_origin.port}"
        for _ in range(2):
            with running.client() as client:
                for authority in (one, one, two, one, two, two, one.upper()):
                    if authority == two:
                        assert client.request(f"http://{authority}/x", authority).status in (200, 502)
                    else:
                        assert client.request(f"http://{authority}/bytes/3", authority).body == pattern(3)
        assert [target.host for target in running.handler.targets] == ["localhost", "127.0.0.1"] * 2

    def test_blocked_is_final(self, proxy: ProxyFactory, looked_up: list[str], way: Way) -> None:
        running = proxy(Gate(plain(INTERCEPT)), **way.keys, **{"interception.blocked": ["*.blocked.test:*"]})
        answer = way.ask(running, "a.blocked.test:80")
        assert answer.status == 403 and "interception.blocked" in answer.text
        assert running.handler.targets == [] and looked_up == []

    def test_inside_a_connection_nobody_is_asked_again(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy(Gate(plain(INTERCEPT)), destinations=("other.test:1",), **STRICT)
        with running.tunnel(plain_origin.port) as client:
            assert client.request("/bytes/3", HOST).body == pattern(3)
            assert client.request("/bytes/3", "elsewhere.test").status == 421
        assert len(running.handler.targets) == 1

    def test_explained_inside_tls(self, proxy: ProxyFactory, looked_up: list[str]) -> None:
        running = proxy(Gate(plain(BLOCK)), **{"interception.explain_blocks": True})
        with running.secured(443, "somewhere.test") as client:
            answer = client.request("/x", "somewhere.test")
            assert (answer.status, answer.text) == (451, "not today\n")
        assert looked_up == []


def fail(target: ConnectTarget) -> None:
    raise RuntimeError("on purpose")


async def fail_later(target: ConnectTarget) -> None:
    await asyncio.sleep(0)
    raise RuntimeError("on purpose")


async def hang(target: ConnectTarget) -> None:
    await asyncio.get_running_loop().create_future()


def refused_block(target: ConnectTarget) -> ConnectDecision:
    return ConnectDecision.block("no", 200)


class TestFailures:
    LATE = {"handler.connect_timeout_ms": 50}

    @pytest.mark.parametrize("say", [fail, fail_later, hang])
    @pytest.mark.parametrize("policy", ["allow", "block"])
    def test_failure_policy(self, proxy: ProxyFactory, plain_origin: Origin, way: Way, say: Say, policy: str) -> None:
        running = proxy(Gate(say), **way.keys, **self.LATE, **{"handler.failure_policy": policy})
        with way.open(running) as client:
            for _ in range(1 if way.name == "connect" else 2):
                way.say(client, f"localhost:{plain_origin.port}")
                answer = way.hear(client, f"localhost:{plain_origin.port}")
                if policy == "block":
                    assert answer.status == 403 and "handler.failure_policy" in answer.text
                else:
                    assert answer.body == pattern(3)
        running.wait_idle()
        metrics = running.metrics()
        # a failure is not remembered: the next request asks again
        times = 1 if way.name == "connect" else 2
        assert (metrics.handler_panic_count, metrics.handler_timeout_count) == ((0, times) if say is hang else (times, 0))
        assert len(plain_origin.requests) == (times if policy == "allow" else 0)

    @pytest.mark.parametrize("answer", [True, "INTERCEPT", HandlerDecision.ALLOW, ConnectDecision, object()])
    @pytest.mark.parametrize("policy", ["allow", "block"])
    def test_another_value_opens_nothing(self, proxy: ProxyFactory, plain_origin: Origin, way: Way, answer: object, policy: str) -> None:
        running = proxy(Gate(lambda target: answer), **way.keys, **{"handler.failure_policy": policy})
        assert way.ask(running, f"localhost:{plain_origin.port}").status == 403
        assert running.metrics().handler_panic_count == 1
        assert plain_origin.connections == []

    def test_a_block_that_could_not_be_made_blocks(self, proxy: ProxyFactory, plain_origin: Origin, way: Way) -> None:
        running = proxy(Gate(refused_block), **way.keys, **{"handler.failure_policy": "allow"})
        assert way.ask(running, f"localhost:{plain_origin.port}").status == 403
        assert plain_origin.connections == []

    @pytest.mark.parametrize("say", [fail, fail_later])
    def test_without_recovery_the_connection_is_cut(self, proxy: ProxyFactory, plain_origin: Origin, way: Way, say: Say) -> None:
        running = proxy(Gate(say), **way.keys, **{"handler.recover_from_panics": False})
        with pytest.raises((EOFError, OSError)):
            way.ask(running, f"localhost:{plain_origin.port}")
        running.wait_idle()
        assert plain_origin.connections == []


class TestWaiting:
    """A person may be asked."""

    def test_the_answer_comes_late(self, proxy: ProxyFactory, plain_origin: Origin, looked_up: list[str], way: Way) -> None:
        wait = Waiting(INTERCEPT)
        running = proxy(Gate(wait), **way.keys)
        with way.open(running) as client:
            way.say(client, f"localhost:{plain_origin.port}")
            assert wait.begun.wait(10)
            assert looked_up == [] and plain_origin.connections == []
            wait.go_on()
            assert way.hear(client, f"localhost:{plain_origin.port}").body == pattern(3)

    @pytest.mark.parametrize("end", ["close", "reset"])
    def test_a_client_that_leaves_ends_the_wait(self, proxy: ProxyFactory, plain_origin: Origin, way: Way, end: str) -> None:
        wait = Waiting(INTERCEPT)
        running = proxy(Gate(wait), **way.keys)
        with way.open(running) as client:
            way.say(client, f"localhost:{plain_origin.port}")
            assert wait.begun.wait(10)
            (client.close if end == "close" or way.name == "unix" else client.reset)()
        assert wait.cancelled.wait(10)
        running.wait_idle()
        running.handler.wait("on_connection_close")
        assert plain_origin.connections == []
        assert (running.metrics().handler_panic_count, running.metrics().handler_timeout_count) == (0, 0)

    def test_a_body_that_comes_meanwhile(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        for size in (10, 500_000):
            wait = Waiting(INTERCEPT)
            running = proxy(Gate(wait))
            authority = f"localhost:{plain_origin.port}"
            with running.client() as client:
                head = f"POST http://{authority}/form HTTP/1.1\r\nHost: {authority}\r\nContent-Length: {size}\r\n\r\n"
                client.send(head.encode())
                assert wait.begun.wait(10)
                sender = threading.Thread(target=client.send, args=(b"x" * size,))
                sender.start()
                wait.go_on()
                assert client.read_answer().status == 200
                sender.join()
            assert running.handler.requests[0].body == b"x" * size
            running.handle.shutdown(10)

    def test_pipelined_requests_wait_with_it(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        wait = Waiting(INTERCEPT)
        running = proxy(Gate(wait))
        authority = f"localhost:{plain_origin.port}"
        with running.client() as client:
            client.send(f"GET http://{authority}/bytes/3 HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode() * 3)
            wait.go_on()
            for _ in range(3):
                assert client.read_answer().body == pattern(3)
        assert len(running.handler.targets) == 1

    def test_the_proxy_ends_meanwhile(self, proxy: ProxyFactory, way: Way) -> None:
        wait = Waiting()
        running = proxy(Gate(wait), **way.keys)
        with way.open(running) as client:
            way.say(client, "localhost:1")
            assert wait.begun.wait(10)
            with pytest.raises(TimeoutError):
                running.handle.shutdown(0.1)
            assert wait.cancelled.wait(10)


def test_a_handler_without_it_is_not_asked(proxy: ProxyFactory, plain_origin: Origin, way: Way) -> None:
    running = proxy(Recording(), **way.keys)
    assert way.ask(running, f"localhost:{plain_origin.port}").body == pattern(3)
    assert "on_connect" not in running.handler.names


def test_a_request_is_decided_after_it(proxy: ProxyFactory, plain_origin: Origin, way: Way) -> None:
    def decide(request: RawRequest) -> HandlerDecision:
        return HandlerDecision.block(418, "no\n")

    with socket.create_server(("127.0.0.1", 0)) as mute:
        mute.setblocking(False)
        running = proxy(Gate(later(INTERCEPT), decide=decide), destinations=("other.test:1",), **way.keys)
        assert way.ask(running, f"127.0.0.1:{mute.getsockname()[1]}").status == 418
        running.wait_idle()
        with pytest.raises(BlockingIOError):
            mute.accept()
