"""How a WebSocket whose messages are read ends when no peer breaks the rules: silence, a drain, a hook that fails, peers that stay."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import pytest

from soth_mitm import StreamChunk
from support.origin import Origin, Request, ScriptedConnection
from support.recording import Recording
from support.running import ProxyFactory
from support.websocket import CLOSE, CONTINUATION, FIN, MASK, TEXT, accept, ask, closing, frame, unmasked

HELLO = frame(FIN | TEXT, b"hello")
GOOD = frame(FIN | TEXT, b"good", MASK)
SILENT, DRAINING, FAILED = b"no message for too long", b"the proxy is shutting down", b"a hook of the proxy failed"


def hearing(said: bytes, *, ends: bool = True) -> tuple[Callable[[ScriptedConnection, Request], None], list[bytes], threading.Event]:
    """Return a script that accepts, says this and listens; what it has heard; and whether its client has ended."""
    heard: list[bytes] = []
    ended = threading.Event()

    def script(connection: ScriptedConnection, request: Request) -> None:
        connection.send(accept(request) + said)
        with contextlib.suppress(OSError):
            while data := connection.receive():
                heard.append(data)
        ended.set()
        if ends:
            connection.close()

    return script, heard, ended


def told(data: bytes) -> tuple[int, bytes]:
    """Return code and reason of the Close that a client's side was sent."""
    bits, payload = unmasked(data)
    assert bits == FIN | CLOSE
    return int.from_bytes(payload[:2], "big"), payload[2:]


class TestSilence:
    @pytest.mark.parametrize("key", ["websocket.idle_timeout_ms", "timeouts.tunnel_idle_ms"])
    def test_both_sides_are_told(self, proxy: ProxyFactory, plain_origin: Origin, key: str) -> None:
        script, heard, ended = hearing(HELLO)
        plain_origin.script(script, "/chat")
        running = proxy(**{key: 100})
        with running.tunnel(plain_origin.port) as client:
            client.send(ask())
            assert client.read_head().status == 101
            assert client.read_to_end() == HELLO + closing(1001, SILENT)
        assert ended.wait(10)
        running.wait_idle()
        assert told(b"".join(heard)) == (1001, SILENT)
        metrics = running.metrics()
        assert metrics.websocket_close_count_by_side == {"client": 0, "upstream": 0, "proxy": 1, "nobody": 0}
        assert metrics.websocket_connections == 0

    def test_a_key_of_its_own_outlives_that_of_tunnels(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        script, _, _ = hearing(HELLO)
        plain_origin.script(script, "/chat")
        running = proxy(**{"timeouts.tunnel_idle_ms": 1, "websocket.idle_timeout_ms": 60_000})
        with running.tunnel(plain_origin.port) as client:
            client.send(ask())
            assert client.read_head().status == 101
            assert client.read_exactly(len(HELLO)) == HELLO
            assert running.metrics().websocket_connections == 1
            client.send(GOOD)
            running.handler.wait("on_stream_chunk", 2)
        running.wait_idle()

    def test_a_side_within_a_message_is_told_between_its_frames(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        part = frame(TEXT, b"part")
        script, _, _ = hearing(part)
        plain_origin.script(script, "/chat")
        running = proxy(**{"websocket.idle_timeout_ms": 100})
        with running.tunnel(plain_origin.port) as client:
            client.send(ask())
            assert client.read_head().status == 101
            # a Close may stand between fragments (RFC 6455 section 5.4)
            assert client.read_to_end() == part + closing(1001, SILENT)

    def test_a_side_within_a_frame_is_told_nothing(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        script, heard, ended = hearing(HELLO[:-2])
        plain_origin.script(script, "/chat")
        running = proxy(**{"websocket.idle_timeout_ms": 100})
        with running.tunnel(plain_origin.port) as client:
            client.send(ask())
            assert client.read_head().status == 101
            assert client.read_to_end() == HELLO[:-2]
        assert ended.wait(10)
        assert told(b"".join(heard)) == (1001, SILENT)


class TestDrain:
    def test_a_quiet_one_is_told(self, proxy: ProxyFactory, origin: Origin) -> None:
        script, heard, ended = hearing(HELLO)
        origin.script(script, "/chat")
        running = proxy()
        with running.secured(origin.port) as client:
            client.send(ask())
            assert client.read_head().status == 101
            assert client.read_exactly(len(HELLO)) == HELLO
            stopping = threading.Thread(target=lambda: running.handle.shutdown(30))
            stopping.start()
            assert client.read_to_end() == closing(1001, DRAINING)
        assert ended.wait(10)
        stopping.join(20)
        assert told(b"".join(heard)) == (1001, DRAINING)

    def test_a_busy_one_is_told_before_the_drain_ends(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        """It is never quiet, so that only the end of the drain ends it."""
        script, _, ended = hearing(b"")
        plain_origin.script(script, "/chat")
        running = proxy()
        over = threading.Event()
        with running.tunnel(plain_origin.port) as client:
            client.send(ask())
            assert client.read_head().status == 101

            def talk() -> None:
                with contextlib.suppress(OSError):
                    while not over.wait(0.05):
                        client.send(GOOD)

            talking, stopping = threading.Thread(target=talk), threading.Thread(target=lambda: running.handle.shutdown(3))
            talking.start()
            stopping.start()
            assert client.read_to_end() == closing(1001, DRAINING)
            over.set()
            talking.join(10)
        assert ended.wait(10)
        # nothing had to be cut
        stopping.join(20)
        assert not stopping.is_alive()


class TestCloses:
    def test_peers_that_stay_behind_their_closes(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        """Both have said that they end, and neither does."""
        said = frame(FIN | CLOSE, b"\x03\xe8")
        script, heard, ended = hearing(said, ends=False)
        plain_origin.script(script, "/chat")
        running = proxy(**{"websocket.close_timeout_ms": 100})
        last = frame(FIN | CLOSE, b"\x03\xe8", MASK)
        with running.tunnel(plain_origin.port) as client:
            client.send(ask() + last)
            assert client.read_head().status == 101
            assert client.read_to_end() == said
        assert ended.wait(10)
        running.wait_idle()
        assert b"".join(heard) == last
        assert sum(running.metrics().websocket_close_count_by_side.values()) == 1

    @pytest.mark.parametrize(("by", "place"), [("client", 0), ("upstream", 1)])
    def test_who_was_first_is_counted(self, proxy: ProxyFactory, plain_origin: Origin, by: str, place: int) -> None:
        shown = threading.Event()

        def script(connection: ScriptedConnection, request: Request) -> None:
            connection.send(accept(request))
            if by == "upstream":
                connection.send(frame(FIN | CLOSE, b"\x03\xe9"))
            connection.wait(shown)
            connection.close()

        plain_origin.script(script, "/chat")
        running = proxy()
        with running.tunnel(plain_origin.port) as client:
            client.send(ask())
            assert client.read_head().status == 101
            if by == "client":
                client.send(frame(FIN | CLOSE, b"", MASK))
            running.handler.wait("on_stream_chunk", 1)
            shown.set()
            client.end_writing()
            client.read_to_end()
        running.wait_idle()
        counts = list(running.metrics().websocket_close_count_by_side.values())
        assert counts == [int(at == place) for at in range(4)]


class TestCounts:
    def test_messages_by_direction_and_kind(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        script, _, _ = hearing(HELLO + frame(FIN | 2, b"\0") + frame(TEXT, b"a") + frame(FIN | CONTINUATION, b"b"))
        plain_origin.script(script, "/chat")
        running = proxy()
        with running.tunnel(plain_origin.port) as client:
            client.send(ask() + GOOD + frame(FIN | 9, b"", MASK))
            assert client.read_head().status == 101
            running.handler.wait("on_stream_chunk", 4)
        running.wait_idle()
        metrics = running.metrics()
        assert metrics.websocket_message_count_by_kind == {
            "to_upstream_text": 1,
            "to_upstream_binary": 0,
            "to_client_text": 2,
            "to_client_binary": 1,
        }
        assert metrics.websocket_close_count_by_side["nobody"] == 1


class TestFailures:
    def test_a_hook_whose_failure_ends_its_flow(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        class Failing(Recording):
            async def on_stream_chunk(self, chunk: StreamChunk) -> None:
                await super().on_stream_chunk(chunk)
                raise RuntimeError("a bug of the handler")

        script, heard, ended = hearing(b"")
        plain_origin.script(script, "/chat")
        running = proxy(Failing(), **{"handler.recover_from_panics": False})
        with running.tunnel(plain_origin.port) as client:
            client.send(ask() + GOOD * 3)
            assert client.read_head().status == 101
            assert client.read_to_end() == closing(1011, FAILED)
        assert ended.wait(10)
        running.wait_idle()
        assert len(running.handler.of("on_stream_chunk")) == 1
        assert len(running.handler.of("on_stream_end")) == 1
        data = b"".join(heard)
        assert told(data[data.index(GOOD) + 3 * len(GOOD) :]) == (1011, FAILED)
