"""What a client of HTTP/2 makes the proxy hold resident, in a process of its own, by requests that stay open."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import BinaryIO

import pytest

from soth_mitm import MitmConfig
from soth_mitm._dataplane.http2.frame import make_frame
from soth_mitm._dataplane.http2.hpack_encoder import HpackEncoder
from support.proxy_process import ProxyProcess
from support.sessions import ACK, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

MIB = 1 << 20
STREAMS = 100


class SilentOrigin:
    """An origin of HTTP/2 in clear text that reads and never answers, and counts the heads of requests."""

    def __init__(self) -> None:
        self.heads = 0
        self._changed = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._accepting = threading.Thread(target=self._serve)
        self._accepting.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()

    def wait_heads(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.heads >= count, 60), f"{self.heads} of {count} heads came"

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as reader:
            connection.sendall(make_frame(SETTINGS, 0, 0) + make_frame(SETTINGS, ACK, 0))
            reader.read(len(PREFACE))
            for kind, _, _ in frames(reader):
                if kind == HEADERS:
                    with self._changed:
                        self.heads += 1
                        self._changed.notify_all()


@pytest.fixture
def silent_origin() -> Iterator[SilentOrigin]:
    origin = SilentOrigin()
    yield origin
    origin.close()


def frames(reader: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """Yield type, flags and stream of each frame, until the connection ends or is cut."""
    try:
        while len(head := reader.read(9)) == 9:
            yield head[3], head[4], int.from_bytes(head[5:], "big")
            reader.read(int.from_bytes(head[:3], "big"))
    except OSError:
        # the proxy cut it
        return


def test_heads_that_are_made_of_references(make_config: Callable[..., MitmConfig], silent_origin: SilentOrigin) -> None:
    """Six kilobytes make a hundred heads of 60 kB each. A connection holds 2 MiB of them."""
    encoder = HpackEncoder()
    authority = b"localhost:%d" % silent_origin.port
    fields = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", authority), (b":path", b"/")]
    large = [(name, value, False) for name, value in [*fields, *([(b"x-large", b"~" * 3000)] * 20)]]
    config = make_config()
    config.process_attribution.enabled = False
    with ExitStack() as stack:
        proxy = stack.enter_context(ProxyProcess(config))
        client = stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port), timeout=60))
        client.sendall(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (authority, authority))
        assert b" 200 " in client.recv(1000)
        client.sendall(PREFACE + make_frame(SETTINGS, 0, 0) + make_frame(SETTINGS, ACK, 0))
        reader = stack.enter_context(client.makefile("rb"))
        # what the first stream costs is not counted: a connection to the origin, and tables
        client.sendall(make_frame(HEADERS, END_HEADERS | END_STREAM, 1, encoder.encode_block(large)))
        silent_origin.wait_heads(1)
        before = proxy.resident()
        flags = END_HEADERS | END_STREAM
        sent = b"".join(make_frame(HEADERS, flags, number, encoder.encode_block(large)) for number in range(3, 2 * STREAMS, 2))
        assert len(sent) < 5000
        client.sendall(sent + make_frame(PING, 0, 0, b"all read"))
        refused = 0
        for kind, flag, _ in frames(reader):
            refused += kind == RST_STREAM
            if kind == PING and flag & ACK:
                break
        silent_origin.wait_heads(STREAMS - refused)
        assert proxy.metrics()["http2_refused_streams"] == refused > STREAMS // 2
        assert proxy.resident() - before < 3 * MIB
