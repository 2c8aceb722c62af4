"""What the proxy holds resident, in a process of its own: little however long the bodies, and bounded however many do not read."""

import contextlib
import resource
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from soth_mitm import MitmConfig
from support.bulk import BulkOrigin, bulk_pieces, expected, read_bulk, read_bulk_chunks
from support.certs import TestCA
from support.proxy_process import ProxyProcess
from support.wire_client import WireClient

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and fills the socket buffers as Linux has them")

MIB = 1 << 20
LONG = 256 * MIB
# The promise for a body of any length; scripts/bench memory holds it against 4 GiB
MOST_GROWTH = 40 * MIB
READERS = 1000
# more than twice what a Unix socket takes, and together eight times the budget
BODY = MIB // 2
BUDGET = 64 * MIB
# Of each slow reader, besides what the budget counts: two connections, their TLS engines, and what those grew to
PER_READER = {True: 128 * 1024, False: 24 * 1024}


@pytest.fixture
def bulk(origin_ca: TestCA) -> Iterator[BulkOrigin]:
    """An HTTPS origin of long bodies."""
    with BulkOrigin(origin_ca.server_context("localhost")) as running:
        yield running


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3 * READERS + 500
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"{wanted} descriptors are needed, and the system allows {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def secured(proxy: ProxyProcess, port: int) -> WireClient:
    client = WireClient(proxy.port)
    client.socket.settimeout(60)
    assert client.connect(f"localhost:{port}").status == 200
    client.start_tls(proxy.client_context())
    return client


def upload(client: WireClient, kind: str, size: int) -> None:
    """Send a body that the origin checks."""
    framing = b"Transfer-Encoding: chunked" if kind == "chunked" else b"Content-Length: %d" % size
    client.send(b"POST /%b/%d HTTP/1.1\r\nHost: localhost\r\n%b\r\n\r\n" % (kind.encode(), size, framing))
    for piece in bulk_pieces(size, kind == "chunked"):
        client.send(piece)
    assert client.read_answer().text == "ok"


@contextlib.contextmanager
def growth(proxy: ProxyProcess) -> Iterator[Callable[[], int]]:
    """Count from now on: by how much the resident memory has grown at its peak."""
    before = proxy.resident()
    proxy.forget_peak()
    yield lambda: proxy.resident_peak() - before


@pytest.mark.parametrize("handler", ["none", "looking"])
def test_long_bodies_do_not_grow_the_proxy(make_config: Callable[..., MitmConfig], bulk: BulkOrigin, handler: str) -> None:
    """Also where a handler wants copies: of each body it gets as much as `body.max_size_bytes`."""
    with ProxyProcess(make_config(), handler) as proxy, secured(proxy, bulk.port) as client, growth(proxy) as grown:
        client.send(b"GET /length/%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % LONG)
        assert client.read_head().status == 200
        buffered = client.buffered()
        assert buffered == expected(0, len(buffered))
        read_bulk(client.socket, LONG, len(buffered))
        assert grown() < MOST_GROWTH, "download with Content-Length"

        client.send(b"GET /chunked/%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % LONG)
        assert client.read_head().status == 200
        read_bulk_chunks(client.socket, LONG, client.buffered())
        assert grown() < MOST_GROWTH, "chunked download"

        for kind in ("length", "chunked"):
            upload(client, kind, LONG)
            assert grown() < MOST_GROWTH, f"upload, {kind}"
        assert proxy.metrics()["buffered_bytes"] == 0


@pytest.mark.parametrize("kind", ["length", "chunked"])
def test_bodies_grow_the_proxy_no_more_for_those_before_them(make_config: Callable[..., MitmConfig], bulk: BulkOrigin, kind: str) -> None:
    """An allocator that has seen large bodies come and go may keep the next ones elsewhere, and what they have left as well."""
    with ProxyProcess(make_config(), "looking") as proxy, secured(proxy, bulk.port) as client, growth(proxy) as grown:
        for size in (24 * MIB, 31 * MIB, 48 * MIB):
            upload(client, kind, size)
            assert grown() < MOST_GROWTH, f"upload of {size // MIB} MiB"
            client.send(b"GET /length/%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % size)
            assert client.read_head().status == 200
            read_bulk(client.socket, size, len(client.buffered()))
            assert grown() < MOST_GROWTH, f"download of {size // MIB} MiB"


def connected(path: Path, target: str) -> socket.socket:
    """Connect through the proxy's Unix socket, whose buffers do not grow as TCP's do: so the proxy has to hold what is not read."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(60)
    client.connect(str(path))
    client.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    assert b" 200 " in client.recv(1000)
    return client


@pytest.mark.usefixtures("many_descriptors")
@pytest.mark.parametrize("secure", [True, False], ids=["tls", "plain"])
def test_thousand_readers_that_do_not_read(make_config: Callable[..., MitmConfig], origin_ca: TestCA, tmp_path: Path, secure: bool) -> None:
    config = make_config()
    config.max_in_flight_bytes = BUDGET
    config.connection_pool.max_connections_per_host = READERS
    config.unix_socket_path = tmp_path / "proxy.sock"
    config.process_attribution.enabled = False
    with (
        BulkOrigin(origin_ca.server_context("localhost") if secure else None) as bulk,
        ProxyProcess(config) as proxy,
        contextlib.ExitStack() as stack,
        growth(proxy) as grown,
    ):
        readers = []
        context = proxy.client_context()
        for _ in range(READERS):
            reader = connected(tmp_path / "proxy.sock", f"localhost:{bulk.port}")
            if secure:
                reader = context.wrap_socket(reader, server_hostname="localhost")
            readers.append(stack.enter_context(reader))
        for reader in readers:
            reader.sendall(b"GET /length/%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % BODY)
        most = wait_until_stuck(proxy)
        assert READERS * 4096 < most <= BUDGET
        assert grown() <= BUDGET + READERS * PER_READER[secure]
        for reader in readers:
            head = b""
            while b"\r\n\r\n" not in head:
                head += reader.recv(4096)
            content = head.partition(b"\r\n\r\n")[2]
            assert content == expected(0, len(content))
            read_bulk(reader, BODY, len(content))
        metrics = proxy.metrics()
        assert metrics["buffered_bytes"] == 0
        assert metrics["relayed_response_count"] == READERS
        assert grown() <= BUDGET + READERS * PER_READER[secure]


def wait_until_stuck(proxy: ProxyProcess) -> int:
    """Wait until every response is under way and no more comes from the origin; return the most that was buffered meanwhile."""
    most, before, since = 0, -1, time.monotonic()
    while time.monotonic() - since < 1.0:
        metrics = proxy.metrics()
        most = max(most, metrics["buffered_bytes"])
        # each Unix socket takes more than this
        if metrics["bytes_from_upstreams"] != before or before < READERS * 100_000:
            before, since = metrics["bytes_from_upstreams"], time.monotonic()
    return most
