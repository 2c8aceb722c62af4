"""The native ends of the benchmark: they build, they agree with each other, and the client notices what is wrong."""

import asyncio
import contextlib
import importlib
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def why_not_here() -> str | None:
    """Say why the native ends cannot be built here, or None."""
    if sys.platform != "linux":
        return "the native ends need epoll"
    missing = [tool for tool in ("cc", "make") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} is not installed"
    probe = ["cc", "-E", "-include", "openssl/ssl.h", "-x", "c", "/dev/null"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        return "the OpenSSL headers are not installed (libssl-dev)"
    return None


def why_no_http2() -> str | None:
    """Say why the ends for HTTP/2 cannot be built here, or None."""
    probe = ["cc", "-E", "-include", "nghttp2/nghttp2.h", "-x", "c", "/dev/null"]
    if REASON is None and subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        return "libnghttp2 is not installed (libnghttp2-dev)"
    return REASON


REASON = why_not_here()
NO_HTTP2 = why_no_http2()
needs_http2 = pytest.mark.skipif(NO_HTTP2 is not None, reason=str(NO_HTTP2))
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Build both ends, start the origin, and return what a test needs to run loads against it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        native = importlib.import_module("bench.native_tools")
        certificates = importlib.import_module("bench.certificates").make_certificates(tmp_path_factory.mktemp("certificates"))
    tools = native.build(tmp_path_factory.mktemp("tools"))
    with native.Origin(tools, certificates.chain, certificates.key) as origin:

        def load(*arguments: str, port: int = origin.tls_port, **hooks: Any) -> Any:
            where = ["--connect", f"127.0.0.1:{port}", "--name", "localhost", "--ca", str(certificates.ca)]
            return native.run_load(tools, [*where, *arguments], watchdog=30, **hooks)

        yield SimpleNamespace(load=load, origin=origin, certificates=certificates, error=native.NativeToolError)


@pytest.fixture(scope="module")
def http2_bench(tmp_path_factory: pytest.TempPathFactory, bench: SimpleNamespace) -> Iterator[SimpleNamespace]:
    """The same with both ends for HTTP/2; ``http1_port`` is the origin that speaks HTTP/1 only."""
    native = sys.modules[bench.error.__module__]
    tools = native.build(tmp_path_factory.mktemp("http2-tools"), http2=True)
    with native.Origin(tools, bench.certificates.chain, bench.certificates.key, http2=True) as origin:

        def load(*arguments: str, port: int = origin.tls_port, **hooks: Any) -> Any:
            where = ["--connect", f"127.0.0.1:{port}", "--name", "localhost", "--ca", str(bench.certificates.ca)]
            return native.run_load(tools, [*where, *arguments], watchdog=30, http2=True, **hooks)

        yield SimpleNamespace(load=load, origin=origin, http1_port=bench.origin.tls_port, error=bench.error)


class ConnectProxy:
    """A CONNECT proxy in a thread of its own: accepts, dials 127.0.0.1, relays; ``targets`` is what was asked for."""

    def __init__(self) -> None:
        self.targets: list[str] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> "ConnectProxy":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *reason: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._relays: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        async with asyncio.timeout(10):  # the clients are gone by now, so every relay comes to its end
            await asyncio.gather(*self._relays)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._relays.add(current := asyncio.current_task())  # type: ignore[arg-type]
        current.add_done_callback(self._relays.discard)  # type: ignore[union-attr]
        head = await reader.readuntil(b"\r\n\r\n")
        target = head.split()[1].decode()
        self.targets.append(target)
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", int(target.rpartition(":")[2]))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(self._relay(reader, upstream_writer), self._relay(upstream_reader, writer))
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        with contextlib.suppress(ConnectionError):
            await upstream_writer.wait_closed()

    @staticmethod
    async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


def assert_clean(outcome: dict[str, Any], requests: int = 50) -> None:
    assert outcome["error_text"] == ""
    assert outcome["errors"]["total"] == 0
    assert outcome["requests"] == requests
    assert outcome["latency_us"]["p50"] > 0
    assert outcome["latency_us"]["p50"] <= outcome["latency_us"]["p99"] <= outcome["latency_us"]["max"]


def test_keep_alive_requests_over_tls(bench: SimpleNamespace) -> None:
    outcome = bench.load("--requests", "50", "--connections", "4", "--path", "/65536", "--expect", "65536")
    assert_clean(outcome)
    assert outcome["handshakes"] == {"full": 4, "resumed": 0}
    assert outcome["bytes"]["received"] > 50 * 65536


def test_a_body_larger_than_every_buffer_on_the_way(bench: SimpleNamespace) -> None:
    size = str(10 * 1024 * 1024)
    assert_clean(bench.load("--requests", "4", "--connections", "2", "--path", f"/{size}", "--expect", size), requests=4)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("resume", [False, True])
def test_a_connection_per_request(bench: SimpleNamespace, version: str, resume: bool) -> None:
    options = ["--requests", "50", "--warmup", "8", "--connections", "4", "--per-connection", "1", "--tls", version]
    outcome = bench.load(*options, *(["--resume"] if resume else []))
    assert_clean(outcome)
    assert outcome["handshakes"] == ({"full": 0, "resumed": 50} if resume else {"full": 50, "resumed": 0})


def test_posted_bodies_are_read_whole(bench: SimpleNamespace) -> None:
    outcome = bench.load("--requests", "50", "--post", "100000", "--path", "/7", "--expect", "7")
    assert_clean(outcome)
    assert outcome["bytes"]["sent"] > 50 * 100000


def test_chunked_answers(bench: SimpleNamespace) -> None:
    event = len('data: {"token":"benchmark"}\n\n')
    assert_clean(bench.load("--requests", "50", "--path", "/sse/1000", "--expect", str(1000 * event)))


@pytest.mark.parametrize("tls", [True, False])
def test_through_a_connect_proxy(bench: SimpleNamespace, tls: bool) -> None:
    port = bench.origin.tls_port if tls else bench.origin.plain_port
    target = f"localhost:{port}"
    with ConnectProxy() as proxy:
        options = ["--proxy", "--target", target, "--requests", "50", "--connections", "5", "--per-connection", "2"]
        outcome = bench.load(*options, *([] if tls else ["--plain"]), port=proxy.port)
        assert_clean(outcome)
        assert set(proxy.targets) == {target}
        assert 25 <= len(proxy.targets) <= 29, "two requests a connection; the last of each of the five may carry one"


def test_measuring_by_time_and_the_two_gates(bench: SimpleNamespace) -> None:
    calls: list[str] = []
    hooks = {"on_warm": lambda: calls.append("warm"), "on_measured": lambda: calls.append("measured")}
    outcome = bench.load("--seconds", "0.2", "--warmup", "10", **hooks)
    assert calls == ["warm", "measured"]
    assert outcome["requests"] > 0 and outcome["errors"]["total"] == 0
    assert outcome["seconds"] >= 0.2


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--expect", "1023"], "length"),
        (["--name", "elsewhere.invalid"], "tls"),
        (["--plain"], "closed"),
        (["--path", "/unknown"], "closed"),
        (["--proxy", "--target", "localhost:1"], "proxy"),
    ],
)
def test_what_is_wrong_is_counted_by_class_and_said(bench: SimpleNamespace, arguments: list[str], error: str) -> None:
    outcome = bench.load("--requests", "3", "--connections", "1", *arguments)
    assert outcome["requests"] == 0
    assert outcome["errors"]["total"] == outcome["errors"][error] == 3
    assert f"load: {error} error: " in outcome["error_text"]


def test_a_load_that_cannot_start_raises(bench: SimpleNamespace) -> None:
    with pytest.raises(bench.error, match="give one of --requests and --seconds"):
        bench.load()


@needs_http2
@pytest.mark.parametrize(("connections", "streams"), [(10, 10), (24, 1), (1, 100)])
def test_http2_keeps_many_streams_on_few_connections(http2_bench: SimpleNamespace, connections: int, streams: int) -> None:
    shape = ["--connections", str(connections), "--streams", str(streams)]
    outcome = http2_bench.load("--requests", "300", *shape, "--path", "/65536", "--expect", "65536")
    assert_clean(outcome, requests=300)
    assert outcome["handshakes"] == {"full": connections, "resumed": 0}
    assert outcome["bytes"]["received"] > 300 * 65536


@needs_http2
def test_http2_bodies_larger_than_every_buffer_both_ways(http2_bench: SimpleNamespace) -> None:
    size = str(10 * 1024 * 1024)
    outcome = http2_bench.load("--requests", "4", "--streams", "2", "--connections", "1", "--path", f"/{size}", "--expect", size)
    assert_clean(outcome, requests=4)
    outcome = http2_bench.load("--requests", "4", "--streams", "2", "--connections", "1", "--post", size, "--path", "/7", "--expect", "7")
    assert_clean(outcome, requests=4)
    assert outcome["bytes"]["sent"] > 4 * int(size)


@needs_http2
@pytest.mark.parametrize("tls", [True, False])
def test_http2_through_a_connect_proxy(http2_bench: SimpleNamespace, tls: bool) -> None:
    target = f"localhost:{http2_bench.origin.tls_port if tls else http2_bench.origin.plain_port}"
    with ConnectProxy() as proxy:
        options = ["--proxy", "--target", target, "--requests", "50", "--connections", "5", "--streams", "4"]
        assert_clean(http2_bench.load(*options, *([] if tls else ["--plain"]), port=proxy.port))
        assert proxy.targets == [target] * 5


@needs_http2
def test_http2_measures_by_time_between_the_two_gates(http2_bench: SimpleNamespace) -> None:
    calls: list[str] = []
    hooks = {"on_warm": lambda: calls.append("warm"), "on_measured": lambda: calls.append("measured")}
    outcome = http2_bench.load("--seconds", "0.2", "--warmup", "10", "--streams", "5", **hooks)
    assert calls == ["warm", "measured"]
    assert outcome["requests"] > 0 and outcome["errors"]["total"] == 0


@needs_http2
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--expect", "1023"], "length"),
        (["--name", "elsewhere.invalid"], "tls"),
        (["--plain"], "closed"),
        (["--path", "/unknown"], "closed"),
        (["--proxy", "--target", "localhost:1"], "proxy"),
    ],
)
def test_http2_counts_what_is_wrong_for_each_stream(http2_bench: SimpleNamespace, arguments: list[str], error: str) -> None:
    outcome = http2_bench.load("--requests", "6", "--connections", "1", "--streams", "2", *arguments)
    assert outcome["requests"] == 0
    assert outcome["errors"]["total"] == outcome["errors"][error] == 6
    assert f"load: {error} error: " in outcome["error_text"]


@needs_http2
def test_http2_refuses_a_peer_that_speaks_http1_only(http2_bench: SimpleNamespace) -> None:
    outcome = http2_bench.load("--requests", "2", "--connections", "1", "--streams", "2", port=http2_bench.http1_port)
    assert outcome["errors"]["tls"] == outcome["errors"]["total"] == 2
    assert "did not choose" in outcome["error_text"]


@needs_http2
def test_http2_refuses_options_of_http1(http2_bench: SimpleNamespace, bench: SimpleNamespace) -> None:
    with pytest.raises(bench.error, match="--per-connection is for HTTP/1"):
        http2_bench.load("--requests", "1", "--per-connection", "1")
    with pytest.raises(bench.error, match="--streams is for HTTP/2"):
        bench.load("--requests", "1", "--streams", "2")


def test_ends_for_http2_say_what_they_lack(bench: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    native = sys.modules[bench.error.__module__]
    compiler = tmp_path / "cc-without-nghttp2"
    compiler.write_text('#!/bin/sh\ncase "$*" in *nghttp2*) exit 1 ;; esac\nexec cc "$@"\n')
    compiler.chmod(0o700)
    monkeypatch.setenv("CC", str(compiler))
    native.build(tmp_path / "tools")
    with pytest.raises(bench.error, match="libnghttp2-dev"):
        native.build(tmp_path / "tools", http2=True)


def test_a_relay_that_delays_changes_no_byte(bench: SimpleNamespace) -> None:
    relays = importlib.import_module("bench.relay")
    size = str(3 * 1024 * 1024)
    arguments = ["--requests", "4", "--connections", "2", "--post", size, "--path", f"/{size}", "--expect", size]
    with relays.DelayingRelay(bench.origin.tls_port, round_trip=0.02, rate=1e9) as relay:
        assert_clean(bench.load(*arguments, port=relay.port), requests=4)


def test_a_relay_that_delays_takes_its_time(bench: SimpleNamespace) -> None:
    relays = importlib.import_module("bench.relay")
    with relays.DelayingRelay(bench.origin.plain_port, round_trip=0.1, rate=1e6) as relay:
        outcome = bench.load("--plain", "--requests", "1", "--connections", "1", "--path", "/100000", "--expect", "100000", port=relay.port)
    assert_clean(outcome, requests=1)
    assert outcome["seconds"] >= 0.1 + 100_000 / 1e6, "a round trip, and the time that the link takes for the body"
