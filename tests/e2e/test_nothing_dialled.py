"""For what is blocked nothing is resolved and nothing is dialled, and it waits for no upstream."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from soth_mitm import HandlerDecision, InterceptHandler, RawRequest
from support.origin import Origin
from support.origin_answers import pattern
from support.programs import needed, run
from support.recording import Recording
from support.running import HOST, ProxyFactory, Running
from support.wire_client import WireClient

BLOCK = HandlerDecision.block(418, "not this one\n")
BLOCKED = {"interception.blocked": ["*.blocked.test:*", "localhost:*"]}
EXPLAIN = {**BLOCKED, "interception.explain_blocks": True}


@pytest.fixture
def mute() -> Iterator[socket.socket]:
    """A listening socket that accepts nothing: whoever connects to it is never answered."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


def assert_untouched(running: Running, listening: socket.socket) -> None:
    """Check that nobody connected, now or before."""
    running.wait_idle()
    with pytest.raises(BlockingIOError):
        listening.accept()
    assert running.metrics().pool_miss_count == 0


class Blocks(InterceptHandler):
    def on_request(self, request: RawRequest) -> HandlerDecision:
        return BLOCK


class BlocksLater(InterceptHandler):
    async def on_request(self, request: RawRequest) -> HandlerDecision:
        await asyncio.sleep(0)
        return BLOCK


@pytest.mark.parametrize("handler", [Blocks, BlocksLater])
@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
def test_a_blocked_request_waits_for_no_upstream(
    proxy: ProxyFactory, mute: socket.socket, looked_up: list[str], handler: type[InterceptHandler], tls: bool
) -> None:
    running = proxy(handler())
    port = mute.getsockname()[1]
    with running.secured(port) if tls else running.tunnel(port) as client:
        for _ in range(2):
            answer = client.request("/x", HOST)
            assert (answer.status, answer.text) == (418, "not this one\n")
        assert client.request("/x", HOST, "POST", b"x" * 100_000).status == 418
    assert_untouched(running, mute)
    assert looked_up == []


def test_a_name_that_does_not_exist_can_be_answered_for(proxy: ProxyFactory, looked_up: list[str]) -> None:
    running = proxy(Blocks(), destinations=("*:*",))
    with running.secured(443, "no-such-host.invalid") as client:
        assert client.request("/", "no-such-host.invalid").status == 418
    with running.client() as client:
        assert client.request("http://no-such-host.invalid/", "no-such-host.invalid").status == 418
    assert looked_up == []


def test_an_allowed_request_hears_of_the_upstream_inside_its_tls(proxy: ProxyFactory, mute: socket.socket) -> None:
    running = proxy(**{"timeouts.upstream_tls_handshake_ms": 100})
    with running.secured(mute.getsockname()[1]) as client:
        for count in (1, 2):
            answer = client.request("/x", HOST)
            assert answer.status == 504 and "timeouts.upstream_tls_handshake_ms" in answer.text
            assert len(running.handler.wait("on_tls_failure", count)) == count
    assert len(running.handler.requests) == 2


@pytest.mark.parametrize(("mode", "dials"), [("enforce", 0), ("monitor", 1)])
def test_where_nothing_is_decided_the_upstream_comes_first(proxy: ProxyFactory, origin: Origin, mode: str, dials: int) -> None:
    running = proxy(**{"intercept_mode": mode})
    with running.secured(origin.port) as client:
        assert running.metrics().pool_miss_count == dials
        assert client.request("/bytes/3", HOST).body == pattern(3)
    assert running.metrics().pool_miss_count == 1


class TestBlockedNames:
    """No name of `interception.blocked` is resolved, however a client asks for it."""

    @pytest.mark.parametrize("target", ["a.blocked.test:443", "A.Blocked.TEST.:443", "a.blocked.test:80", "localhost:1"])
    @pytest.mark.parametrize("keys", [BLOCKED, EXPLAIN], ids=["", "explained"])
    def test_connect(self, proxy: ProxyFactory, looked_up: list[str], target: str, keys: dict[str, object]) -> None:
        running = proxy(destinations=("*:*",), **keys)
        with running.client() as client:
            answer = client.connect(target)
            if keys is EXPLAIN:
                assert answer.status == 200
                for _ in range(2):
                    answer = client.request("/x", target)
                    assert answer.status == 403 and "interception.blocked" in answer.text
            else:
                assert answer.status == 403 and "interception.blocked" in answer.text
        running.wait_idle()
        assert looked_up == [] and running.metrics().pool_miss_count == 0

    def test_forwarded(self, proxy: ProxyFactory, looked_up: list[str]) -> None:
        running = proxy(destinations=("*:*",), **BLOCKED)
        with running.client() as client:
            for url in ("http://a.blocked.test/", "https://a.blocked.test/", "http://A.BLOCKED.test.:8080/"):
                assert client.request(url, url.split("/")[2]).status == 403
        assert looked_up == [] and running.metrics().pool_miss_count == 0


class TestExplained:
    """`interception.explain_blocks`: the reason where a browser shows it."""

    def secured(self, running: Running, target: str, name: str) -> WireClient:
        client = running.client()
        assert client.connect(target).status == 200
        client.start_tls(running.client_context(), name)
        return client

    def test_inside_tls(self, proxy: ProxyFactory, mute: socket.socket, looked_up: list[str]) -> None:
        running = proxy(**EXPLAIN)
        port = mute.getsockname()[1]
        with self.secured(running, f"localhost:{port}", "localhost") as client:
            for method, body in (("GET", None), ("HEAD", None), ("POST", b"secret")):
                answer = client.request("/x", "elsewhere.test", method, body)
                assert answer.status == 403
                if method == "GET":
                    assert answer.text == f"destination_blocked: localhost:{port} matches a pattern of interception.blocked\n"
        assert_untouched(running, mute)
        assert looked_up == [] and running.handler.requests == []

    def test_what_is_unlisted(self, proxy: ProxyFactory, looked_up: list[str]) -> None:
        running = proxy(**{"interception.passthrough_unlisted": False, "interception.explain_blocks": True})
        with self.secured(running, "unlisted.test:443", "unlisted.test") as client:
            answer = client.request("/x", "unlisted.test")
            assert answer.status == 403 and answer.text.startswith("destination_not_allowed: unlisted.test:443 is not listed")
        assert looked_up == []

    def test_when_the_handler_fails(self, proxy: ProxyFactory, origin: Origin) -> None:
        def fails(host: str) -> bool:
            raise RuntimeError("on purpose")

        running = proxy(Recording(intercept=fails), **{"handler.failure_policy": "block", "interception.explain_blocks": True})
        with self.secured(running, f"localhost:{origin.port}", "localhost") as client:
            answer = client.request("/x", HOST)
            assert answer.status == 403 and "handler.failure_policy is block" in answer.text
        running.wait_idle()
        assert origin.connections == []

    def test_neither_tls_nor_http_is_closed(self, proxy: ProxyFactory, mute: socket.socket) -> None:
        running = proxy(**EXPLAIN)
        with running.tunnel(mute.getsockname()[1]) as client:
            client.send(b"\x00\x01\x02\x03" * 10)
            client.end_writing()
            assert client.read_to_end() == b""
        assert_untouched(running, mute)

    def test_curl_shows_it(self, proxy: ProxyFactory) -> None:
        needed("curl")
        running = proxy(destinations=("*:*",), **EXPLAIN)
        done = run("curl", "-q", "-sS", "--max-time", "25", "--proxy", running.url, "--cacert", running.ca_path, "https://a.blocked.test/")
        assert done.returncode == 0 and b"interception.blocked" in done.stdout, done.stderr
