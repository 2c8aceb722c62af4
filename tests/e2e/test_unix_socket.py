"""The Unix socket: requests and tunnels over it, and the rules of its file."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from soth_mitm import BindError, HandlerDecision, InvalidConfigError, RawRequest
from soth_mitm.connection import UnixDomain
from support.judge import Judge
from support.origin import Origin
from support.recording import Recording
from support.running import ProxyFactory, Running
from support.tap import Journal, Tap
from support.wire_client import WireClient

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Unix sockets")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "proxy.sock"


@pytest.fixture
def other_tap() -> Iterator[Tap]:
    with Tap(Journal()) as running:
        yield running


Start = Callable[..., Running]


@pytest.fixture
def start(proxy: ProxyFactory, path: Path) -> Start:
    """Start proxies that listen on `path` as well."""
    return lambda handler=None, **keys: proxy(handler, **{"unix_socket_path": str(path), **keys})


class TestRequests:
    def test_origin_form_goes_where_host_says(self, start: Start, path: Path, plain_tap: Tap, other_tap: Tap) -> None:
        """Each request of one connection, with a decision of its own."""

        def decide(request: RawRequest) -> HandlerDecision:
            return HandlerDecision.block(403) if request.path == "/blocked" else HandlerDecision.ALLOW

        running = start(Recording(decide), destinations=(f"localhost:{plain_tap.port}",))
        one, two = f"localhost:{plain_tap.port}", f"localhost:{other_tap.port}"
        with WireClient.to_unix(path) as client:
            for turn in range(2):
                assert client.request(f"/{turn}", one).status == 200
                assert client.request(f"/{turn}", two, "POST", b"hello").status == 200
                assert client.request("/blocked", one).status == 403
                assert client.request(f"http://{one}/absolute", one).status == 200
        plain_tap.settle()
        assert plain_tap.journal.plain_since(0) == b"".join(
            f"GET {at} HTTP/1.1\r\nHost: {one}\r\n\r\n".encode() for at in ("/0", "/absolute", "/1", "/absolute")
        )
        assert len(running.handler.requests) == 6
        meta = running.handler.requests[0].connection_meta
        assert (meta.socket_family, meta.target) == (UnixDomain(str(path)), ("localhost", plain_tap.port))

    def test_options_of_the_server(self, start: Start, path: Path, plain_tap: Tap) -> None:
        start()
        authority = f"localhost:{plain_tap.port}"
        with WireClient.to_unix(path) as client:
            assert client.request("*", authority, "OPTIONS").status == 200
        assert plain_tap.journal.plain_since(0) == f"OPTIONS * HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()

    def test_without_a_host_nobody_knows_where_to(self, start: Start, path: Path) -> None:
        start()
        for line in (b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n"):
            with WireClient.to_unix(path) as client:
                client.send(line)
                answer = client.read_answer()
                assert answer.status == 400 and "ost" in answer.text
                assert client.read_to_end() == b""

    def test_what_is_not_listed_is_blocked_when_asked(self, start: Start, path: Path, plain_tap: Tap) -> None:
        start(destinations=("example.test:1",), **{"interception.passthrough_unlisted": False})
        with WireClient.to_unix(path) as client:
            assert client.request("/", f"localhost:{plain_tap.port}").status == 403
        plain_tap.assert_silence(0)

    def test_a_decision_that_takes_its_time(self, start: Start, path: Path, plain_tap: Tap) -> None:
        running = start(Judge(plain_tap.journal))
        with WireClient.to_unix(path) as client:
            host = f"Host: localhost:{plain_tap.port}\r\nX-Decide: suspend\r\n"
            client.send(f"POST / HTTP/1.1\r\n{host}Content-Length: 5\r\n\r\nhello".encode())
            plain_tap.journal.wait(0, "asked")
            running.metrics()
            plain_tap.assert_silence(0)
            running.handler.release()
            assert client.read_answer().status == 200

    def test_the_client_is_known(self, start: Start, path: Path, plain_tap: Tap) -> None:
        running = start()
        with WireClient.to_unix(path) as client:
            assert client.request("/", f"localhost:{plain_tap.port}").status == 200
        info = running.handler.requests[0].connection_meta.process_info
        assert info is not None and info.pid == os.getpid()


class TestConnect:
    def test_an_intercepted_connection(self, start: Start, path: Path, origin: Origin) -> None:
        running = start()
        with WireClient.to_unix(path) as client:
            assert client.connect(f"localhost:{origin.port}").status == 200
            client.start_tls(running.client_context())
            for _ in range(2):
                assert client.request("/bytes/3", f"localhost:{origin.port}").status == 200
        request = running.handler.requests[0]
        assert request.scheme == "https"
        assert request.connection_meta.socket_family == UnixDomain(str(path))

    def test_a_tunnel(self, start: Start, path: Path, plain_tap: Tap) -> None:
        running = start(destinations=("example.test:1",))
        with WireClient.to_unix(path) as client:
            assert client.connect(f"localhost:{plain_tap.port}").status == 200
            assert client.request("/", "any.host").status == 200
        assert running.handler.requests == []

    def test_blocked(self, start: Start, path: Path, plain_tap: Tap) -> None:
        start(destinations=("example.test:1",), **{"interception.passthrough_unlisted": False})
        with WireClient.to_unix(path) as client:
            answer = client.connect(f"localhost:{plain_tap.port}")
            assert answer.status == 403 and f"localhost:{plain_tap.port}" in answer.text
        plain_tap.assert_silence(0)

    def test_ourselves(self, start: Start, path: Path) -> None:
        """Our own port, reached from the Unix socket, is a loop as well."""
        running = start()
        with WireClient.to_unix(path) as client:
            assert client.connect(f"localhost:{running.port}").status == 508
        with WireClient.to_unix(path) as client:
            assert client.request("/", f"localhost:{running.port}").status == 508


def stale(path: Path) -> None:
    """Leave the file of a socket that nobody listens on any more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as gone:
        gone.bind(str(path))


class TestFile:
    @pytest.mark.parametrize(("keys", "mode"), [({}, 0o600), ({"unix_socket_mode": "0660"}, 0o660)])
    def test_its_mode_and_its_end(self, start: Start, path: Path, keys: dict[str, object], mode: int) -> None:
        running = start(**keys)
        assert stat.S_IMODE(path.stat().st_mode) == mode
        running.handle.shutdown()
        assert not path.exists()

    def test_a_stale_one_is_replaced(self, start: Start, path: Path, plain_tap: Tap) -> None:
        stale(path)
        start()
        with WireClient.to_unix(path) as client:
            assert client.request("/", f"localhost:{plain_tap.port}").status == 200

    def test_a_live_one_is_not(self, start: Start, path: Path, plain_tap: Tap) -> None:
        """And the proxy that did not get it leaves nothing behind, nor takes anything away."""
        start()
        with pytest.raises(BindError, match="another program listens there") as caught:
            start()
        assert caught.value.errno == errno.EADDRINUSE
        with WireClient.to_unix(path) as client:
            assert client.request("/", f"localhost:{plain_tap.port}").status == 200

    @pytest.mark.parametrize("kind", ["file", "directory", "link", "fifo"])
    def test_nothing_else_is_ever_replaced(self, start: Start, path: Path, tmp_path: Path, kind: str) -> None:
        other = tmp_path / "other"
        stale(other)
        {"file": path.touch, "directory": path.mkdir, "link": lambda: path.symlink_to(other), "fifo": lambda: os.mkfifo(path)}[kind]()
        before = path.lstat()
        with pytest.raises(BindError, match=f"{path}.*no socket") as caught:
            start()
        assert caught.value.errno == errno.EEXIST
        assert path.lstat() == before

    def test_one_that_somebody_else_made_meanwhile_is_left(self, start: Start, path: Path) -> None:
        running = start()
        path.unlink()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
            other.bind(str(path))
            running.handle.shutdown()
            assert path.is_socket()

    def test_one_that_is_gone_already(self, start: Start, path: Path) -> None:
        running = start()
        path.unlink()
        running.handle.shutdown()

    @pytest.mark.parametrize(("name", "words"), [("missing/proxy.sock", "missing/proxy.sock"), ("n" * 120, "longer than")])
    def test_a_path_that_cannot_be(self, start: Start, tmp_path: Path, name: str, words: str) -> None:
        with pytest.raises((BindError, InvalidConfigError), match=words):
            start(unix_socket_path=str(tmp_path / name))

    def test_a_proxy_that_fails_to_start_removes_its_file(self, start: Start, path: Path) -> None:
        """The Unix socket is bound after the port; neither stays when the other cannot be had."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            with pytest.raises(BindError):
                start(bind=f"127.0.0.1:{taken.getsockname()[1]}")
        assert not path.exists()
