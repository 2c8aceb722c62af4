"""`Proxy-Authorization` is a secret between the client and us: it leaves in no form of request, over no way, with or without a handler."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from soth_mitm import InterceptHandler
from support.recording import Recording
from support.running import ProxyFactory, Running
from support.tap import Tap
from support.wire_client import WireClient

pytestmark = pytest.mark.skipif(os.name != "posix", reason="one of the ways is a Unix socket")

SECRET = "Proxy-Authorization: Basic c2VjcmV0\r\nPROXY-AUTHORIZATION:\tBearer secret\r\n"


def connect(running: Running, tap: Tap) -> WireClient:
    client, target = running.client(), f"localhost:{tap.port}"
    client.send(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{SECRET}\r\n".encode())
    assert client.read_answer("CONNECT").status == 200
    return client


def inside_tls(running: Running, tap: Tap) -> WireClient:
    client = connect(running, tap)
    client.start_tls(running.client_context())
    return client


WAYS: dict[str, tuple[Callable[[Running, Tap], WireClient], str, bool]] = {
    "absolute-form": (lambda running, tap: running.client(), "http://{at}", False),
    "https": (lambda running, tap: running.client(), "https://{at}", True),
    "unix": (lambda running, tap: WireClient.to_unix(Path(running.handle.current_config().unix_socket_path or "")), "", False),
    "inside-connect": (connect, "", False),
    "inside-tls": (inside_tls, "", True),
}
REQUESTS = {
    "get": ("GET {to}/ HTTP/1.1", "", ""),
    "1.0": ("GET {to}/ HTTP/1.0", "", ""),
    "head": ("HEAD {to}/ HTTP/1.1", "", ""),
    "length": ("POST {to}/ HTTP/1.1", "Content-Length: 2\r\n", "hi"),
    "chunked": ("POST {to}/ HTTP/1.1", "Transfer-Encoding: chunked\r\n", "2\r\nhi\r\n0\r\n\r\n"),
    "expect": ("PUT {to}/ HTTP/1.1", "Content-Length: 2\r\nExpect: 100-continue\r\n", "hi"),
    "named": ("GET {to}/ HTTP/1.1", "Connection: X, Proxy-Authorization, keep-alive\r\nX: y\r\n", ""),
    "upgrade": ("GET {to}/ HTTP/1.1", "Connection: Upgrade, Proxy-Authorization\r\nUpgrade: tcp\r\n", ""),
    "grpc": ("POST {to}/ HTTP/1.1", "Content-Type: application/grpc\r\nContent-Length: 5\r\n", "\0\0\0\0\0"),
}
SETTINGS = {
    "enforce": (Recording, {}),
    "unbuffered": (Recording, {"body.buffer_request_bodies": False}),
    "monitor": (Recording, {"intercept_mode": "monitor"}),
    "no-handler": (InterceptHandler, {}),
    "unlisted": (Recording, {"destinations": ("example.test:1",)}),
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("way", WAYS)
def test_it_stays_here(proxy: ProxyFactory, tap: Tap, plain_tap: Tap, tmp_path: Path, way: str, setting: str) -> None:
    reach, to, secure = WAYS[way]
    handler, keys = SETTINGS[setting]
    if setting == "unlisted" and "inside" in way:
        pytest.skip("a tunnel is nobody's to look into")
    running = proxy(handler(), unix_socket_path=str(tmp_path / "proxy.sock"), **keys)
    at = tap if secure else plain_tap
    authority = f"localhost:{at.port}"
    for line, fields, content in REQUESTS.values():
        with reach(running, at) as client:
            head = f"{line.format(to=to.format(at=authority))}\r\nHost: {authority}\r\n{SECRET}{fields}Z: last\r\n\r\n"
            # the second one in the connection, as a client that has been answered sends it
            for _ in range(1 if "1.0" in line else 2):
                client.send((head + content).encode())
                while (answer := client.read_answer(line.partition(" ")[0])).status == 100:
                    pass
                assert answer.status == 200
    at.settle()
    seen = at.journal.plain_since(0)
    assert seen.count(b"\r\nZ: last\r\n") == 2 * len(REQUESTS) - 1
    for trace in (b"proxy-authorization:", b"secret", b"c2vjcmv0"):
        assert trace not in seen.lower()
