"""A connection that is over gives back what it held then and there: no cycle keeps it for the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from soth_mitm import HandlerDecision, InterceptHandler, RawRequest
from support.bad_upstreams import CERTIFICATE_FAULTS, BadUpstream
from support.certs import TestCA
from support.origin import Origin
from support.running import HOST, ProxyFactory, Running
from support.sinks import Collector

CONNECTIONS = 4
SELF_SIGNED = next(fault for fault in CERTIFICATE_FAULTS if fault.title == "self-signed")


class Counting(InterceptHandler):
    """Looks at every request, and counts the connections that are over."""

    def __init__(self) -> None:
        self._ended = threading.Semaphore(0)

    async def on_request(self, request: RawRequest) -> HandlerDecision:
        return HandlerDecision.block(403, b"no\n") if request.path == "/blocked" else HandlerDecision.ALLOW

    def on_connection_close(self, connection_id: object) -> None:
        self._ended.release()

    def wait(self, count: int) -> None:
        for _ in range(count):
            assert self._ended.acquire(timeout=10)


def intercepted(running: Running, origin: Origin) -> None:
    with running.secured(origin.port) as client:
        assert client.request("/bytes/3", HOST).status == 200
        assert client.request("/echo", HOST, "POST", b"12345").status == 200


def blocked(running: Running, origin: Origin) -> None:
    with running.secured(origin.port) as client:
        assert client.request("/blocked", HOST).status == 403


def cut_in_a_request(running: Running, origin: Origin) -> None:
    with running.secured(origin.port) as client:
        client.send(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc")
        client.reset()


def cut_in_a_hello(running: Running, origin: Origin) -> None:
    with running.tunnel(origin.port) as client:
        client.send(b"\x16\x03\x01")
        client.reset()


def refused(running: Running, origin: Origin) -> None:
    with running.client() as client:
        assert client.connect("no-port").status == 400
        client.read_to_end()


def not_reached(running: Running, origin: Origin) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with running.secured(nobody.getsockname()[1]) as client:
            assert client.request("/bytes/3", HOST).status == 502


def not_trusted(running: Running, origin: Origin) -> None:
    with BadUpstream(SELF_SIGNED, TestCA("Nobody's")) as upstream, running.secured(upstream.port) as client:
        assert client.request("/bytes/3", HOST).status == 502


def refusing(running: Running, origin: Origin) -> None:
    with running.tunnel(origin.port) as client, pytest.raises(ssl.SSLError):
        client.start_tls(ssl.create_default_context(), HOST)


@pytest.fixture
def collected() -> Iterator[Callable[[], list[Any]]]:
    """Return what gives the objects of ours that only the collector could free since the test began."""

    def look() -> list[Any]:
        gc.collect()
        return [found for found in gc.garbage if type(found).__module__.startswith("soth_mitm")]

    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield look
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


@pytest.mark.parametrize("is_told", [False, True], ids=["alone", "with a sink"])
@pytest.mark.parametrize("use", [intercepted, blocked, cut_in_a_request, cut_in_a_hello, refused, not_reached, not_trusted, refusing])
def test_a_connection_leaves_no_cycle(
    proxy: ProxyFactory, origin: Origin, collected: Callable[[], list[Any]], use: Callable[[Running, Origin], None], is_told: bool
) -> None:
    running = proxy(Counting(), sinks=[Collector()] * is_told)
    use(running, origin)
    running.handler.wait(1)
    collected()
    gc.garbage.clear()
    for _ in range(CONNECTIONS):
        use(running, origin)
    running.handler.wait(CONNECTIONS)
    # the last one's task may be returning yet
    running.wait_idle()
    assert collected() == []


@pytest.mark.parametrize("is_told", [False, True], ids=["alone", "with a sink"])
def test_a_forwarded_request_and_a_tunnel_leave_no_cycle(
    proxy: ProxyFactory, plain_origin: Origin, collected: Callable[[], list[Any]], is_told: bool
) -> None:
    running = proxy(Counting(), sinks=[Collector()] * is_told, destinations=("listed.example:443",))
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        dead = nobody.getsockname()[1]
    for repetition in range(2):
        with running.client() as client:
            assert client.request(f"http://{HOST}:{plain_origin.port}/bytes/3", f"{HOST}:{plain_origin.port}").status == 200
        with running.tunnel(plain_origin.port) as client:
            assert client.request("/bytes/3", HOST).status == 200
        with running.client() as client:
            assert client.connect(f"{HOST}:{dead}").status == 502
            client.read_to_end()
        running.handler.wait(3)
        running.wait_idle()
        if repetition == 0:
            collected()
            gc.garbage.clear()
    assert collected() == []


@pytest.mark.parametrize(
    ("path", "pool"),
    [("/close/3", {}), ("/bytes/3", {"max_idle_per_host": 0}), ("/bytes/3", {"idle_timeout_ms": 1})],
    ids=["the upstream closes", "not kept", "idle for too long"],
)
def test_an_upstream_connection_leaves_no_cycle(
    proxy: ProxyFactory, origin: Origin, collected: Callable[[], list[Any]], path: str, pool: dict[str, object]
) -> None:
    running = proxy(Counting(), **{f"connection_pool.{name}": value for name, value in pool.items()})
    for repetition in range(2):
        for _ in range(CONNECTIONS):
            with running.secured(origin.port) as client:
                assert client.request(path, HOST).status == 200
        running.handler.wait(CONNECTIONS)
        running.wait_idle("upstream_connections")
        running.wait_idle()
        if repetition == 0:
            collected()
            gc.garbage.clear()
    assert collected() == []


class FailingIn(Counting):
    """Fails in one method, as it says."""

    def __init__(self, method: str, error: BaseException) -> None:
        super().__init__()
        self._method, self._error = method, error

    def _fail_in(self, method: str) -> None:
        if method == self._method:
            raise type(self._error)("on purpose")

    def on_connection_open(self, connection: object) -> None:
        self._fail_in("on_connection_open")

    def should_intercept_tls(self, host: str, process_info: object) -> bool:
        self._fail_in("should_intercept_tls")
        return True

    def on_tls_failure(self, host: str, error: object) -> None:
        self._fail_in("on_tls_failure")

    def on_connection_close(self, connection_id: object) -> None:
        super().on_connection_close(connection_id)
        self._fail_in("on_connection_close")


@pytest.mark.parametrize("error", [LookupError(), asyncio.CancelledError()], ids=["fails", "is cancelled"])
@pytest.mark.parametrize("method", ["on_connection_open", "should_intercept_tls", "on_tls_failure", "on_connection_close"])
def test_a_hook_that_cuts_its_connection_leaves_no_cycle(
    proxy: ProxyFactory, origin: Origin, collected: Callable[[], list[Any]], method: str, error: BaseException
) -> None:
    running = proxy(FailingIn(method, error), **{"handler.recover_from_panics": False})
    for repetition in range(2):
        for _ in range(CONNECTIONS):
            with running.client() as client:
                try:
                    client.connect(f"{HOST}:{origin.port}")
                    client.start_tls(ssl.create_default_context(), HOST)
                except (OSError, EOFError):
                    # cut, or not trusted
                    continue
        running.handler.wait(CONNECTIONS)
        running.wait_idle()
        if repetition == 0:
            collected()
            gc.garbage.clear()
    assert collected() == []
