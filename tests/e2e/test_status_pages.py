"""`prometheus_bind`: what a running proxy tells of itself, to whom, and that no client of the proxy gets there."""

from __future__ import annotations

import asyncio
import builtins
import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_plain_text

from soth_mitm import BindError, HandlerDecision, InterceptHandler, InvalidConfigError, MitmConfig, MitmProxyBuilder, RawRequest
from soth_mitm.proxy import generation, status_pages, status_server
from soth_mitm.proxy.resolver import Resolver
from support.http2_inside import Http2Client
from support.leaks import what_remains
from support.origin import Origin
from support.programs import needed, run
from support.running import ProxyFactory, Running
from support.wire_client import Answer, WireClient

PAGES = ("/metrics", "/healthz", "/readyz", "/status")
LOOPBACK = "127.0.0.1:0"


def where(running: Running) -> tuple[str, int]:
    """Return the address of the status pages."""
    assert running.handle.status_url is not None
    host, _, port = running.handle.status_url.removeprefix("http://").rpartition(":")
    return host.strip("[]"), int(port)


def status_client(running: Running) -> WireClient:
    host, port = where(running)
    return WireClient(port, host)


def get(running: Running, path: str, extra: str = "", method: str = "GET", host: str = "localhost") -> Answer:
    """Ask for a page; the connection ends behind the answer."""
    with status_client(running) as client:
        answer = client.request(path, host, method, extra=extra)
        assert client.read_to_end() == b"" and answer.get("connection") == "close"
    return answer


def value(answer: Answer, name: str, **labels: str) -> float:
    """Return one sample of a page of plain text."""
    samples = [sample for family in read_plain_text(answer.text) for sample in family.samples]
    (found,) = [sample.value for sample in samples if sample.name == name and sample.labels == labels]
    return found


class TestPages:
    def test_metrics_are_those_of_the_handle(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy(prometheus_bind=LOOPBACK)
        with running.secured(origin.port) as client:
            assert client.request("/a", "localhost").status == 200
            answer = get(running, "/metrics")
            assert (answer.status, answer.get("content-type")) == (200, "text/plain; version=0.0.4; charset=utf-8")
            assert value(answer, "sothmitm_client_connections_active") == 1
        assert value(answer, "sothmitm_requests_received_total") == 1
        assert value(answer, "sothmitm_tls_handshakes_total", side="client", resumed="false") == 1
        running.wait_idle()
        answer = get(running, "/metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n")
        assert answer.get("content-type") == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        families = {family.name: family for family in read_openmetrics(answer.text)}
        assert families["sothmitm_client_connections_active"].samples[0].value == 0
        assert families["sothmitm_build"].samples[0].labels["python"] == sys.version.split()[0]

    def test_health_and_readiness(self, proxy: ProxyFactory) -> None:
        running = proxy(prometheus_bind=LOOPBACK)
        assert [(answer.status, answer.text) for answer in (get(running, "/healthz"), get(running, "/readyz"))] == [
            (200, "ok\n"),
            (200, "ready\n"),
        ]

    def test_status(self, proxy: ProxyFactory, make_config: Callable[..., MitmConfig]) -> None:
        running = proxy(prometheus_bind=LOOPBACK)
        with running.client():
            # the loop may not have accepted it yet
            assert not what_remains(lambda: {"accepted": 0} if running.metrics().total_connections == 0 else {})
            told = json.loads(get(running, "/status?verbose=1").text)
        assert (told["pid"], told["state"], told["bind"]) == (os.getpid(), "ready", [f"127.0.0.1:{running.port}"])
        assert told["ca"]["sha256"] == running.handle.ca.fingerprint and told["uptime_seconds"] > 0
        assert told["connections"]["accepted"] == 1
        same = json.loads(get(running, "/status").text)
        running.handle.reload(make_config(prometheus_bind=LOOPBACK, **{"handler.slow_ms": 7}))
        other = json.loads(get(running, "/status").text)
        assert told["config_sha256"] == same["config_sha256"] != other["config_sha256"]

    def test_head_is_answered_without_content(self, proxy: ProxyFactory) -> None:
        running = proxy(prometheus_bind=LOOPBACK)
        for path in PAGES:
            answer = get(running, path, method="HEAD")
            assert (answer.status, answer.body) == (200, b"") and int(answer.get("content-length") or 0) > 2

    def test_every_form_of_a_request_is_read(self, proxy: ProxyFactory) -> None:
        running = proxy(prometheus_bind=LOOPBACK)
        _, port = where(running)
        for request in (
            b"GET /healthz HTTP/1.0\r\n\r\n",
            b"GET http://127.0.0.1:%d/healthz?x HTTP/1.1\r\nHost: x\r\n\r\n" % port,
            b"\r\nGET /healthz HTTP/1.1\r\nHost: [::1]:%d\r\n\r\nGET /more HTTP/1.1\r\n\r\n" % port,
        ):
            with status_client(running) as client:
                for at in range(len(request)):
                    client.send(request[at : at + 1])
                assert client.read_answer().text == "ok\n"
                assert client.read_to_end() == b""

    def test_a_client_that_ends_its_direction_is_answered(self, proxy: ProxyFactory) -> None:
        running = proxy(prometheus_bind=LOOPBACK)
        with status_client(running) as client:
            client.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            client.socket.shutdown(socket.SHUT_WR)
            assert client.read_answer().status == 200

    @pytest.mark.parametrize("bind", ["[::1]:0", "localhost:0"])
    def test_other_loopback_addresses(self, proxy: ProxyFactory, bind: str) -> None:
        assert get(proxy(prometheus_bind=bind), "/readyz").status == 200

    def test_curl(self, proxy: ProxyFactory) -> None:
        running = proxy(prometheus_bind=LOOPBACK)
        done = run(needed("curl"), "-qsf", f"{running.handle.status_url}/metrics", f"{running.handle.status_url}/status")
        assert b"sothmitm_requests_received_total 0.0" in done.stdout and b'"state": "ready"' in done.stdout

    def test_without_the_key_there_is_nothing(self, proxy: ProxyFactory) -> None:
        running = proxy()
        assert running.handle.status_url is None
        assert not any(thread.name == "soth-mitm status" for thread in threading.enumerate())


class TestBadInput:
    @pytest.mark.parametrize(
        ("request_", "status"),
        [
            (b"GET /metrics\r\n\r\n", 400),
            (b"GET /metrics HTTP/1.1\r\n\r\n", 400),
            (b"GET /metrics HTTP/1.1\nHost: localhost\n\n", 400),
            (b"GET /metrics HTTP/2.0\r\nHost: localhost\r\n\r\n", 400),
            (b"GET /a b HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
            (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
            (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nA : b\r\n\r\n", 400),
            (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            (b"\x16\x03\x01\x02\x00", 400),
            (b"\x05\x01\x00\r\n", 400),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
            (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 9000 + b"\r\n\r\n", 431),
            (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n" + b"X: x\r\n" * 100 + b"\r\n", 431),
            (b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc", 405),
            (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
            (b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n", 405),
            (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc", 413),
            (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 413),
            (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
            (b"GET /metrics/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
            (b"GET /%6Detrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
            (b"GET /../metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
            (b"GET /metrics HTTP/1.1\r\nHost: rebound.test:9464\r\n\r\n", 421),
            (b"GET http://rebound.test/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 421),
            (b"GET /metrics HTTP/1.1\r\nHost: \r\n\r\n", 400),
        ],
        ids=lambda each: str(each)[:60],
    )
    def test_it_is_answered_and_the_connection_ends(self, proxy: ProxyFactory, request_: bytes, status: int) -> None:
        running = proxy(prometheus_bind=LOOPBACK)
        with status_client(running) as client:
            client.send(request_)
            answer = client.read_answer()
            assert (answer.status, answer.get("connection"), len(answer.body) > 0) == (status, "close", True)
            assert (answer.get("allow") is not None) == (status == 405)
            assert b"sothmitm_" not in answer.body
            assert client.read_to_end() == b""
        assert get(running, "/readyz").status == 200

    def test_a_head_that_ends_too_early(self, proxy: ProxyFactory) -> None:
        running = proxy(prometheus_bind=LOOPBACK)
        with status_client(running) as client:
            client.send(b"GET /metrics HTTP/1.1\r\n")
            client.socket.shutdown(socket.SHUT_WR)
            assert client.read_answer().status == 400

    def test_a_head_that_does_not_come(self, proxy: ProxyFactory, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(status_server, "CONNECTION_SECONDS", 0.2)
        running = proxy(prometheus_bind=LOOPBACK)
        with status_client(running) as client:
            client.send(b"GET /metrics HTTP/1.1\r\n")
            assert client.read_answer().status == 408
            assert client.read_to_end() == b""

    def test_a_client_that_does_not_take_its_answer_is_cut(self, proxy: ProxyFactory, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(status_server, "CONNECTION_SECONDS", 0.3)
        gone = watched(monkeypatch, "connection_lost")
        running = proxy(prometheus_bind=LOOPBACK)
        with status_client(running) as client:
            # the answer is here, and the client neither reads nor ends
            client.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert gone.wait(5)

    def test_those_who_ask_nothing_shut_nobody_out(self, proxy: ProxyFactory) -> None:
        running = proxy(prometheus_bind=LOOPBACK)
        with ExitStack() as stack:
            idle = [stack.enter_context(status_client(running)) for _ in range(2 * status_server.MAX_CONNECTIONS)]
            assert get(running, "/readyz").status == 200
            # the oldest made room
            assert idle[0].socket.recv(1) == b""

    def test_a_page_that_fails_is_answered_500_and_logged(
        self, proxy: ProxyFactory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(*args: object) -> None:
            raise ZeroDivisionError("of the test")

        running = proxy(prometheus_bind=LOOPBACK)
        monkeypatch.setattr("soth_mitm.observe.exposition.write_plain_text", fail)
        answer = get(running, "/metrics")
        assert (answer.status, answer.text) == (500, "the page could not be made: ZeroDivisionError\n")
        assert "a page of prometheus_bind could not be made" in caplog.text
        assert get(running, "/healthz").status == 200


def watched(monkeypatch: pytest.MonkeyPatch, name: str) -> threading.Event:
    """Return what is set when a method of a connection has been called."""
    called = threading.Event()
    method = getattr(status_server.StatusConnection, name)

    def tell(*args: Any) -> Any:
        try:
            return method(*args)
        finally:
            called.set()

    monkeypatch.setattr(status_server.StatusConnection, name, tell)
    return called


class TestItsLife:
    def test_a_drain_is_told_to_its_end(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy(prometheus_bind=LOOPBACK, **{"timeouts.half_closed_client_ms": 60000})
        with running.secured(origin.port) as client, ExitStack() as stack:
            client.send(b"GET /slow/1500 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            origin.wait_requests(1)
            stopping = threading.Thread(target=lambda: running.handle.shutdown(20))
            stopping.start()
            stack.callback(stopping.join)
            # a drain begins when the thread gets to it
            while get(running, "/readyz").status == 200:
                pass
            answer = get(running, "/readyz")
            assert (answer.status, answer.text) == (503, "draining: the proxy is shutting down\n")
            assert get(running, "/healthz").status == 200
            assert json.loads(get(running, "/status").text)["state"] == "draining"
            assert value(get(running, "/metrics"), "sothmitm_requests_active") == 1
            assert client.read_answer().status == 200
        with pytest.raises(ConnectionRefusedError):
            status_client(running)
        assert not any(thread.name == "soth-mitm status" for thread in threading.enumerate())

    def test_the_end_cuts_who_is_there(self, proxy: ProxyFactory) -> None:
        running = proxy(prometheus_bind=LOOPBACK)
        with status_client(running) as idle:
            get(running, "/readyz")
            running.handle.shutdown(0)
            assert idle.socket.recv(1) == b""

    def test_a_reload_keeps_it(self, proxy: ProxyFactory, make_config: Callable[..., MitmConfig]) -> None:
        running = proxy(prometheus_bind=LOOPBACK)
        before = where(running)
        running.handle.reload(make_config(prometheus_bind=LOOPBACK, http2_enabled=False))
        with pytest.raises(InvalidConfigError, match=r"^prometheus_bind: cannot be changed by a reload"):
            running.handle.reload(make_config())
        answer = get(running, "/metrics")
        assert value(answer, "sothmitm_config_reloads_total", result="applied") == 1
        assert value(answer, "sothmitm_config_reloads_total", result="refused") == 1
        assert where(running) == before

    def test_a_loop_that_is_held_up(self, proxy: ProxyFactory, plain_origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(status_pages, "ANSWER_SECONDS", 0.2)
        held, go_on = threading.Event(), threading.Event()

        class Holds(InterceptHandler):
            def on_request(self, request: RawRequest) -> HandlerDecision:
                held.set()
                assert go_on.wait(30)
                return HandlerDecision.ALLOW

        running = proxy(Holds(), prometheus_bind=LOOPBACK)
        with running.client() as client:
            client.send(b"GET http://localhost:%d/ HTTP/1.1\r\nHost: x\r\n\r\n" % plain_origin.port)
            assert held.wait(10)
            for path in ("/healthz", "/metrics", "/status"):
                answer = get(running, path)
                assert (answer.status, "event loop" in answer.text) == (503, True)
            assert get(running, "/readyz").status == 200
            go_on.set()
            assert client.read_answer().status == 200
        assert get(running, "/healthz").status == 200

    @pytest.mark.anyio
    async def test_in_a_loop_of_the_program(self, make_config: Callable[..., MitmConfig]) -> None:
        async with MitmProxyBuilder(make_config(prometheus_bind=LOOPBACK)).build() as handle:
            assert handle.status_url is not None
            host, port = handle.status_url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
            writer.close()
            await writer.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port))).close()

    @pytest.mark.anyio
    async def test_two_in_one_loop(self, make_config: Callable[..., MitmConfig]) -> None:
        config = make_config(prometheus_bind=LOOPBACK)
        async with MitmProxyBuilder(config).build() as one, MitmProxyBuilder(config).build() as other:
            assert one.status_url != other.status_url

    @pytest.mark.anyio
    async def test_an_address_that_is_taken(self, make_config: Callable[..., MitmConfig]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            config = make_config(prometheus_bind=f"127.0.0.1:{taken.getsockname()[1]}")
            with pytest.raises(BindError, match="choose another `prometheus_bind`"):
                await MitmProxyBuilder(config).build().start()

    def test_a_name_that_is_no_loopback_address(self, make_config: Callable[..., MitmConfig], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args: [(socket.AF_INET, 1, 6, "", ("0.0.0.0", 0))])
        config = make_config(prometheus_bind="localhost:0")
        with pytest.raises(BindError, match=r"0\.0\.0\.0, which other machines may reach; set `prometheus_open_to_network`"):
            asyncio.run(MitmProxyBuilder(config).build().start())

    def test_without_the_package(self, make_config: Callable[..., MitmConfig], monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "prometheus_client"] + ["soth_mitm.observe.exposition"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(builtins, "__import__", partial(without_prometheus, builtins.__import__))
        MitmProxyBuilder(make_config()).build()
        with pytest.raises(
            InvalidConfigError, match=r"^prometheus_bind: needs the package prometheus-client.*`pip install prometheus-client`"
        ):
            MitmProxyBuilder(make_config(prometheus_bind=LOOPBACK)).build()


def without_prometheus(real: Callable[..., Any], name: str, *args: Any, **kwargs: Any) -> Any:
    if name.partition(".")[0] == "prometheus_client":
        raise ModuleNotFoundError(f"No module named {name!r}", name="prometheus_client")
    return real(name, *args, **kwargs)


class TestOtherMachines:
    @pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0", "192.0.2.1:9464", "metrics.example:9464"])
    def test_they_need_a_key(self, make_config: Callable[..., MitmConfig], bind: str) -> None:
        with pytest.raises(InvalidConfigError, match=r"^prometheus_bind: .*or set `prometheus_open_to_network`$"):
            MitmProxyBuilder(make_config(prometheus_bind=bind)).build()

    @pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0"])
    def test_with_the_key_every_name_is_answered(self, proxy: ProxyFactory, bind: str) -> None:
        running = proxy(prometheus_bind=bind, prometheus_open_to_network=True)
        assert get(running, "/readyz", host="metrics.example:9464").status == 200


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when anybody has connected to status pages."""
    return watched(monkeypatch, "connection_made")


SPELLINGS = [
    *("127.0.0.1", "localhost", "LOCALHOST.", "LocalHost", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]"),
    *("0.0.0.0", "[::ffff:0.0.0.0]", "[::]", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1."),
    *("[::ffff:127.0.0.1%1]", "0.0.0.1", "１２７.0.0.1", "127%2e0.0.1"),
]


class TestNoWayThrough:
    """No client of the proxy is let through, however it writes the address; the pages hear nothing of it."""

    @pytest.mark.parametrize("spelling", SPELLINGS)
    @pytest.mark.parametrize("destinations", [("*:*",), ("example.test:1",)], ids=["listed", "unlisted"])
    def test_by_connect_and_by_absolute_form(
        self, proxy: ProxyFactory, reached: threading.Event, spelling: str, destinations: tuple[str, ...]
    ) -> None:
        running = proxy(destinations=destinations, prometheus_bind=LOOPBACK, **{"upstream.connect_timeout_ms": 500})
        target = f"{spelling}:{where(running)[1]}"
        for how in ("connect", "http", "https", "inside"):
            with running.client() as client:
                if how in ("connect", "inside"):
                    client.send(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
                    answer = client.read_answer("CONNECT")
                    if answer.status == 200:
                        # the target of an intercepted connection is dialled for its first request
                        answer = client.request("/metrics", target)
                else:
                    client.send(f"GET {how}://{target}/metrics HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
                    answer = client.read_answer()
                assert answer.status in (400, 403, 502, 504), (how, answer)
                assert "sothmitm_" not in answer.text
        assert not reached.is_set()
        # the test can fail: this one is let through
        assert get(running, "/readyz").status == 200 and reached.is_set()

    @pytest.mark.parametrize("spelling", ["[::1]", "[::1%1]", "[0:0:0:0:0:0:0:1]", "[::]", "[::%1]"])
    def test_over_ipv6(self, proxy: ProxyFactory, reached: threading.Event, spelling: str) -> None:
        running = proxy(destinations=("example.test:1",), prometheus_bind="[::1]:0")
        target = f"{spelling}:{where(running)[1]}"
        with running.client() as client:
            assert client.connect(target).status in (400, 403)
        with running.client() as client:
            client.send(f"GET http://{target}/metrics HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
            assert client.read_answer().status in (400, 403)
        assert not reached.is_set()

    @pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0"])
    def test_by_every_address_of_this_machine(self, proxy: ProxyFactory, reached: threading.Event, bind: str) -> None:
        running = proxy(destinations=("example.test:1",), prometheus_bind=bind, prometheus_open_to_network=True)
        _, port = where(running)
        own = {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None)}
        for host in (
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "[::ffff:127.0.0.2]",
            "[::1]",
            *(f"[{ip}]" if ":" in ip else ip for ip in own),
        ):
            with running.client() as client:
                answer = client.connect(f"{host}:{port}")
                assert (answer.status, "where this proxy tells of itself" in answer.text) == (403, True), host
        assert not reached.is_set()

    @pytest.mark.parametrize("addresses", [("127.0.0.1",), ("192.0.2.1", "127.0.0.1"), ("::ffff:127.0.0.1",), ("0.0.0.0",)])
    def test_by_a_name_that_a_name_server_leads_here(
        self, proxy: ProxyFactory, reached: threading.Event, monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, ...]
    ) -> None:
        async def look_up(host: str) -> tuple[str, ...]:
            return addresses

        monkeypatch.setattr(generation, "Resolver", partial(Resolver, look_up=look_up))
        running = proxy(destinations=("example.test:1",), prometheus_bind=LOOPBACK)
        with running.client() as client:
            answer = client.connect(f"innocent.test:{where(running)[1]}")
            assert (answer.status, "where this proxy tells of itself" in answer.text) == (403, True)
        assert not reached.is_set()

    def test_by_a_redirect_of_the_handler(self, proxy: ProxyFactory, plain_origin: Origin, reached: threading.Event) -> None:
        class Leads(InterceptHandler):
            to = ""

            def on_request(self, request: RawRequest) -> HandlerDecision:
                return HandlerDecision.forward(to=self.to)

        running = proxy(Leads(), destinations=("*:*",), prometheus_bind=LOOPBACK)
        _, port = where(running)
        for to in (f"127.0.0.1:{port}", f"http://localhost:{port}", f"http://[::ffff:127.0.0.1]:{port}", f"0.0.0.0:{port}"):
            running.handler.to = to
            with running.client() as client:
                client.send(b"GET http://localhost:%d/metrics HTTP/1.1\r\nHost: x\r\n\r\n" % plain_origin.port)
                answer = client.read_answer()
                assert (answer.status, "where this proxy tells of itself" in answer.text) == (403, True)
        assert not reached.is_set() and not plain_origin.requests

    def test_by_connect_to(self, proxy: ProxyFactory, reached: threading.Event) -> None:
        """Even where the owner's own word leads there."""
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            port = free.getsockname()[1]
        running = proxy(prometheus_bind=f"127.0.0.1:{port}", **{"upstream.connect_to": [f"localhost:80=http://127.0.0.1:{port}"]})
        with running.client() as client:
            client.send(b"GET http://localhost/metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.read_answer().status == 403
        assert not reached.is_set()

    def test_over_the_unix_socket(self, proxy: ProxyFactory, tmp_path: Path, reached: threading.Event) -> None:
        path = tmp_path / "proxy.sock"
        running = proxy(destinations=("*:*",), unix_socket_path=str(path), prometheus_bind=LOOPBACK)
        for host in ("127.0.0.1", "localhost", "0.0.0.0"):
            with WireClient.to_unix(path) as client:
                assert client.request("/metrics", f"{host}:{where(running)[1]}").status == 403
        assert not reached.is_set()

    def test_over_http2(self, proxy: ProxyFactory, reached: threading.Event) -> None:
        """In clear text inside a CONNECT, which is dialled for its first request where it is intercepted."""
        running = proxy(destinations=("*:*",), prometheus_bind=LOOPBACK)
        target = f"localhost:{where(running)[1]}"
        with running.client() as client:
            answer = client.connect(target)
            if answer.status == 200:
                assert Http2Client(client.socket, target, "http").request("/metrics").status == 403
            else:
                assert answer.status == 403
        assert not reached.is_set()
