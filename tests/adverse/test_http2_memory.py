"""What a client of HTTP/2 makes the proxy hold resident, in a process of its own, by requests that stay open."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from soth_mitm import MitmConfig
from soth_mitm._dataplane.http2.frame import make_frame
from soth_mitm._dataplane.http2.hpack_encoder import HpackEncoder
from support.proxy_process import ProxyProcess
from support.sessions import ACK, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

MIB = 1 << 20
STREAMS = 100


@pytest.fixture
def silent_origin() -> Iterator[int]:
    """An origin of HTTP/2 in clear text that reads and never answers: its port."""
    connections: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connections.append(connection)
            threading.Thread(target=read, args=(connection,), daemon=True).start()

    def read(connection: socket.socket) -> None:
        connection.sendall(make_frame(SETTINGS, 0, 0) + make_frame(SETTINGS, ACK, 0))
        try:
            while connection.recv(65536):
                pass
        except OSError:
            # the proxy cut it
            pass
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=serve)
        accepting.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()


def test_heads_that_are_made_of_references(make_config: Callable[..., MitmConfig], silent_origin: int) -> None:
    """Six kilobytes make a hundred heads of 60 kB each. A connection holds 2 MiB of them."""
    encoder = HpackEncoder()
    authority = b"localhost:%d" % silent_origin
    fields = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", authority), (b":path", b"/")]
    large = [(name, value, False) for name, value in [*fields, *([(b"x-large", b"~" * 3000)] * 20)]]
    config = make_config()
    config.process_attribution.enabled = False
    with ProxyProcess(config) as proxy, socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as client:
        client.sendall(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (authority, authority))
        assert b" 200 " in client.recv(1000)
        client.sendall(PREFACE + make_frame(SETTINGS, 0, 0) + make_frame(SETTINGS, ACK, 0))
        # what the first stream costs is not counted: a connection to the origin, and tables
        client.sendall(make_frame(HEADERS, END_HEADERS | END_STREAM, 1, encoder.encode_block(large)))
        wait_for(proxy, 2)
        before = proxy.resident()
        flags = END_HEADERS | END_STREAM
        frames = b"".join(make_frame(HEADERS, flags, number, encoder.encode_block(large)) for number in range(3, 2 * STREAMS, 2))
        assert len(frames) < 5000
        client.sendall(frames)
        metrics = wait_for(proxy, 2 * STREAMS)
        assert metrics["http2_refused_streams"] > STREAMS // 2
        assert proxy.resident() - before < 3 * MIB


def wait_for(proxy: ProxyProcess, streams: int) -> dict[str, Any]:
    """Wait until the client has opened so many, those that were refused counted twice, as those are that went to the origin."""
    end = time.monotonic() + 60
    while True:
        metrics = proxy.metrics()
        if metrics["http2_streams_total"] + 2 * metrics["http2_refused_streams"] == streams:
            return metrics
        assert time.monotonic() < end, metrics
        time.sleep(0.01)
