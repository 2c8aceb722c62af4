"""Programs and libraries that speak HTTP/2, through the proxy: to an origin of HTTP/2, to one of HTTP/1, and to one that has both."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from soth_mitm import InterceptHandler
from support.certs import TestCA
from support.origin import Origin
from support.origin_answers import pattern
from support.programs import BODY, CLIENTS, DIGEST, PATIENCE, body_pieces, curl, needed, run
from support.recording import Observing, Recording
from support.running import HOST, ProxyFactory, Running

ORIGINS = {"http2": ("h2",), "http1": ("http/1.1",), "both": ("h2", "http/1.1")}


@pytest.fixture(params=ORIGINS)
def served(request: pytest.FixtureRequest, origin_ca: TestCA) -> Iterator[Origin]:
    """An HTTPS origin of each kind."""
    with Origin(origin_ca.server_context(HOST, alpn=ORIGINS[request.param]), host=HOST) as origin:
        yield origin


@pytest.fixture
def h2_origin(origin_ca: TestCA) -> Iterator[Origin]:
    """An HTTPS origin that speaks HTTP/2 where it is offered."""
    with Origin(origin_ca.server_context(HOST, alpn=("h2", "http/1.1")), host=HOST) as origin:
        yield origin


def sha256(count: int) -> str:
    return hashlib.sha256(pattern(count)).hexdigest()


def reported(done: subprocess.CompletedProcess[bytes]) -> Any:
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def all_seen(running: Running, origin: Origin) -> None:
    """The handler was asked about each request that the origin got."""
    assert sorted(request.path for request in running.handler.requests) == sorted(request.target for request in origin.requests)


class TestCurl:
    @pytest.mark.parametrize("handler", [Recording, Observing, InterceptHandler])
    def test_get(self, proxy: ProxyFactory, served: Origin, handler: Any) -> None:
        running = proxy(handler())
        assert curl(running, "--http2", served.url("/bytes/100000")) == pattern(100_000)

    def test_the_version(self, proxy: ProxyFactory, h2_origin: Origin) -> None:
        assert curl(proxy(), "--http2", "-o", os.devnull, "-w", "%{http_version}", h2_origin.url("/bytes/9")) == b"2"

    def test_uploads(self, proxy: ProxyFactory, served: Origin, tmp_path: Path) -> None:
        (tmp_path / "upload").write_bytes(BODY)
        running = proxy()
        assert json.loads(curl(running, "--http2", "-T", tmp_path / "upload", served.url("/x")))["body_sha256"] == DIGEST
        # of unknown length
        assert json.loads(curl(running, "--http2", "-T", "-", served.url("/x"), stdin=BODY))["body_sha256"] == DIGEST
        assert [request.body for request in running.handler.requests] == [BODY] * 2

    def test_many_at_once(self, proxy: ProxyFactory, served: Origin) -> None:
        urls = [served.url(f"/bytes/{count}") for count in range(50)]
        running = proxy()
        printed = curl(running, "--http2", "--parallel", "--parallel-max", "50", *urls)
        assert len(printed) == sum(range(50))
        all_seen(running, served)

    def test_a_stream_of_events(self, proxy: ProxyFactory, served: Origin) -> None:
        running = proxy()
        assert curl(running, "--http2", "-N", served.url("/sse/5/10")).count(b"event: tick") == 5
        assert len(running.handler.wait("on_stream_chunk", 5)) == 5
        assert len(running.handler.wait("on_stream_end")) == 1

    def test_trailers_and_interim_heads(self, proxy: ProxyFactory, served: Origin) -> None:
        running = proxy()
        heads = curl(running, "--http2", "-D", "-", "-o", os.devnull, served.url("/interim")).decode()
        assert "103" in heads and "link: </style.css>; rel=preload" in heads.lower()
        seen = curl(running, "--http2", "-D", "-", "-o", os.devnull, served.url("/chunked/70000/9?trailers")).decode()
        assert f"x-sha256: {sha256(70_000)}" in seen.lower()


@contextmanager
def relay(running: Running, port: int) -> Iterator[int]:
    """Listen for a program that knows no proxies: each connection goes through a CONNECT. Yields the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    connections: list[socket.socket] = []

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def accept() -> None:
        while True:
            try:
                inner, _ = listener.accept()
            except OSError:
                return
            outer = socket.create_connection(("127.0.0.1", running.port))
            outer.sendall(f"CONNECT {HOST}:{port} HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n".encode())
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += outer.recv(1)
            connections.extend((inner, outer))
            for pair in ((inner, outer), (outer, inner)):
                threads.append(threading.Thread(target=pump, args=pair))
                threads[-1].start()

    threads = [threading.Thread(target=accept)]
    threads[0].start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        threads[0].join()
        for connection in connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in threads[1:]:
            thread.join()
        for connection in connections:
            connection.close()


class TestNghttp:
    def test_an_upload(self, proxy: ProxyFactory, served: Origin, tmp_path: Path) -> None:
        (tmp_path / "upload").write_bytes(BODY)
        running = proxy()
        authority = f":authority: {HOST}:{served.port}"
        with relay(running, served.port) as port:
            done = run(needed("nghttp"), "-H", authority, "-d", tmp_path / "upload", f"https://{HOST}:{port}/x")
            assert reported(done)["body_sha256"] == DIGEST

    def test_many_at_once(self, proxy: ProxyFactory, served: Origin) -> None:
        running = proxy()
        authority = f":authority: {HOST}:{served.port}"
        with relay(running, served.port) as port:
            urls = [f"https://{HOST}:{port}/bytes/{count}" for count in range(20)]
            done = run(needed("nghttp"), "-H", authority, "-n", "-s", *urls)
            assert done.returncode == 0 and done.stdout.count(b" 200 ") == 20

    def test_h2load(self, proxy: ProxyFactory, h2_origin: Origin) -> None:
        running = proxy(Observing())
        with relay(running, h2_origin.port) as port:
            options = ("-n", "2000", "-c", "4", "-m", "50", "--connect-to", f"{HOST}:{port}")
            done = run(needed("h2load"), *options, h2_origin.url("/bytes/1000"), timeout=PATIENCE)
        assert done.returncode == 0, done.stderr.decode()
        assert re.search(rb"2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed", done.stdout), done.stdout.decode()


class TestHttpx:
    def test_it(self, proxy: ProxyFactory, served: Origin) -> None:
        running = proxy()
        with httpx.Client(http2=True, proxy=running.url, verify=running.client_context(), trust_env=False, timeout=20) as client:
            assert client.get(served.url("/bytes/70000")).content == pattern(70_000)
            assert client.post(served.url("/x"), content=body_pieces()).json()["body_sha256"] == DIGEST
            answer = client.get(served.url("/status/404"))
            assert (answer.status_code, answer.http_version) == (404, "HTTP/2")
        assert running.handler.requests[1].body == BODY
        all_seen(running, served)

    def test_many_at_once(self, proxy: ProxyFactory, served: Origin) -> None:
        running = proxy()

        async def talk() -> None:
            context = running.client_context()
            # over its limit of kept connections httpx may close one that it has given to a request
            kept = httpx.Limits(max_connections=100, max_keepalive_connections=100)
            async with httpx.AsyncClient(http2=True, proxy=running.url, verify=context, trust_env=False, timeout=20, limits=kept) as client:
                answers = await asyncio.gather(*(client.get(served.url(f"/bytes/{count * 500}")) for count in range(60)))
                assert [answer.content for answer in answers] == [pattern(count * 500) for count in range(60)]

        asyncio.run(talk())
        assert len(running.handler.requests) == 60


EXPECTED: dict[str, Any] = {
    "get": sha256(100_000),
    "chunked": sha256(70_000),
    "trailer": sha256(70_000),
    "posted": DIGEST,
    "early": "</style.css>; rel=preload",
    "parallel": 40,
}


class TestOtherLanguages:
    def test_node(self, proxy: ProxyFactory, served: Origin) -> None:
        """Its http2, inside a CONNECT of its http."""
        running = proxy()
        done = run(needed("node"), CLIENTS / "http2.js", running.url, running.ca_path, served.url(""), timeout=PATIENCE)
        more = {"alpn": "h2", "head": 5000, "statuses": [204, 304, 404, 500], "after": sha256(9)}
        assert reported(done) == {**EXPECTED, **more}

    def test_go(self, proxy: ProxyFactory, served: Origin, tmp_path: Path) -> None:
        go = needed("go", Path("/usr/local/go/bin/go"))
        environment = {**os.environ, "GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": "", "CGO_ENABLED": "0"}
        built = run(go, "build", "-o", tmp_path / "client", CLIENTS / "go2" / "main.go", environment=environment, timeout=PATIENCE)
        assert built.returncode == 0, built.stderr.decode()
        running = proxy()
        done = run(tmp_path / "client", running.url, running.ca_path, served.url(""), timeout=PATIENCE)
        assert reported(done) == {**EXPECTED, "version": "HTTP/2.0", "streamed": DIGEST, "trailed": True}
        all_seen(running, served)

    def test_java(self, proxy: ProxyFactory, served: Origin, tmp_path: Path) -> None:
        java, keytool = needed("java"), needed("keytool")
        running = proxy()
        store = tmp_path / "trusted"
        options = ("-importcert", "-noprompt", "-alias", "proxy", "-storetype", "PKCS12", "-storepass", "changeit")
        done = run(keytool, *options, "-keystore", store, "-file", running.ca_path)
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
        trust = (f"-Djavax.net.ssl.trustStore={store}", "-Djavax.net.ssl.trustStorePassword=changeit")
        done = run(java, *trust, CLIENTS / "Http2Client.java", str(running.port), served.url(""), timeout=PATIENCE)
        assert reported(done) == {"version": "HTTP_2", "get": 100_000, "posted": True, "parallel": 40}
        all_seen(running, served)


GRPC_EXPECTED: dict[str, Any] = {
    "health": 1,
    "unary": "hello",
    "initial": "one",
    "trailing": ["two", [0, 255]],
    "large": True,
    "compressed": True,
    "failed": ["FAILED_PRECONDITION", "as asked: ä"],
    "late": "DEADLINE_EXCEEDED",
    "unknown": "UNIMPLEMENTED",
    "served": ["0", "1", "2", "3", "4"],
    "sent": 3_012_000,
    "both": ["ba", "dc", "dc"],
    "after_cancel": "again",
    "services": ["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"],
}


class TestGrpc:
    """grpcio, which speaks HTTP/2 and nothing else: the first call of a channel works."""

    @contextmanager
    def server(self, *arguments: Path) -> Iterator[int]:
        for package in ("grpc", "grpc_health", "grpc_reflection"):
            pytest.importorskip(package)
        command = [sys.executable, CLIENTS / "grpc_server.py", *arguments]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as serving:
            assert serving.stdin is not None and serving.stdout is not None
            try:
                yield int(serving.stdout.readline())
            finally:
                serving.stdin.close()

    def talk(self, running: Running, port: int, *arguments: Path) -> Any:
        kept = {name: value for name, value in os.environ.items() if not re.fullmatch("(?i)(grpc|https?|no|all)_proxy", name)}
        environment = {**kept, "https_proxy": running.url, "http_proxy": running.url}
        command = (sys.executable, CLIENTS / "grpc_client.py", str(port), *arguments)
        return reported(run(*command, environment=environment, timeout=PATIENCE))

    @pytest.mark.parametrize("handler", [Recording, Observing, InterceptHandler])
    def test_over_tls(self, proxy: ProxyFactory, origin_ca: TestCA, tmp_path: Path, handler: Any) -> None:
        running = proxy(handler())
        files = origin_ca.write(tmp_path, HOST)
        with self.server(files.cert, files.key) as port:
            assert self.talk(running, port, running.ca_path) == GRPC_EXPECTED
        if handler is Recording:
            self.check(running)

    @pytest.mark.parametrize("handler", [Recording, Observing])
    def test_in_plain_text(self, proxy: ProxyFactory, handler: Any) -> None:
        running = proxy(handler())
        with self.server() as port:
            assert self.talk(running, port) == GRPC_EXPECTED
        if handler is Recording:
            self.check(running)

    @staticmethod
    def check(running: Running) -> None:
        """What the handler saw."""
        requests = running.handler.requests
        assert {request.http_version for request in requests} == {"HTTP/2"}
        assert requests[0].path == "/grpc.health.v1.Health/Check" and requests[1].headers.get("x-asked") == "yes"
        chunks = running.handler.of("on_stream_chunk")
        assert {str(chunk.frame_kind) for chunk in chunks} == {"grpc_message"}
        assert b"hello" in [chunk.payload for chunk in chunks]
        assert {str(chunk.direction) for chunk in chunks} == {"to_client", "to_upstream"}


class TestBrowsers:
    def test_curl_cffi_as_chrome(self, proxy: ProxyFactory, served: Origin) -> None:
        """Its SETTINGS, windows, and order of fields."""
        requests = pytest.importorskip("curl_cffi.requests")
        running = proxy()
        with requests.Session(impersonate="chrome", proxies={"https": running.url}, verify=str(running.ca_path), timeout=20) as session:
            assert session.get(served.url("/bytes/70000")).content == pattern(70_000)
            answer = session.post(served.url("/x"), data=BODY)
            assert answer.json()["body_sha256"] == DIGEST
            # HTTP/2, as libcurl numbers it
            assert int(answer.http_version) == 3
        all_seen(running, served)
