"""A page in headless Chromium, whose user trusts our CA in an NSS database: no warning, no flag that ignores errors."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from h2.settings import SettingCodes

from soth_mitm import ChunkDecision, FrameKind, StreamChunk
from support.certs import TestCA
from support.origin import Origin, ScriptedConnection
from support.origin_messages import Request
from support.recording import Recording
from support.running import HOST, ProxyFactory, Running

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PAGE = b"<!doctype html><title>start</title><script>fetch('/data').then(r => r.text()).then(t => { document.title = t })</script>"
# the page itself, and nothing that a browser asks its vendor on its own account
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync"
).split()

pytestmark = pytest.mark.skipif(CHROMIUM is None or shutil.which("certutil") is None, reason="no chromium, or no certutil (libnss3-tools)")


def answer(body: bytes, kind: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def command_of(running: Running, home: Path, *, trusting: bool) -> list[str]:
    """Return the start of the command line of a browser that is fresh and uses the proxy."""
    database = home / ".pki" / "nssdb"
    database.mkdir(parents=True)
    subprocess.run(["certutil", "-N", "--empty-password", "-d", f"sql:{database}"], check=True)
    if trusting:
        subprocess.run(["certutil", "-A", "-d", f"sql:{database}", "-t", "C,,", "-n", "ours", "-i", running.ca_path], check=True)
    assert CHROMIUM is not None
    return [CHROMIUM, *QUIET, f"--user-data-dir={home / 'data'}", f"--proxy-server={running.url}", "--proxy-bypass-list=<-loopback>"]


def load(running: Running, url: str, home: Path, *, trusting: bool) -> str:
    """Return the page's DOM after its scripts ran, as a browser that is fresh sees it."""
    command = [*command_of(running, home, trusting=trusting), "--virtual-time-budget=5000", "--dump-dom", url]
    done = subprocess.run(command, env={**os.environ, "HOME": str(home)}, capture_output=True, timeout=60, check=False)
    return done.stdout.decode()


@contextmanager
def opened(running: Running, url: str, home: Path) -> Iterator[None]:
    """Show a page, on the clock of the machine, until the block ends."""
    command = [*command_of(running, home, trusting=True), "--remote-debugging-port=0", url]
    environment = {**os.environ, "HOME": str(home)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
        try:
            yield
        finally:
            browser.terminate()


SOCKET_PAGE = b"""<!doctype html><title>start</title><script>
let got = ''
const socket = new WebSocket('wss://' + location.host + '/chat', 'chat')
socket.onopen = () => socket.send('over a stream')
socket.onmessage = message => { got = message.data; socket.close(1000) }
socket.onclose = closed => fetch('/done?' + encodeURIComponent(got) + ',' + closed.code + ',' + closed.wasClean)
</script>"""


def echo_frames(connection: ScriptedConnection, request: Request) -> None:
    """Accept, and send each short frame of the browser back without its mask, until one is a Close."""
    if request.version == "HTTP/2":
        connection.send(b"HTTP/1.1 200 OK\r\nSec-WebSocket-Protocol: chat\r\n\r\n")
    else:
        digest = hashlib.sha1((request.get("sec-websocket-key") or "").encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        connection.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: chat\r\n"
            b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
        )
    data = b""
    while more := connection.receive():
        data += more
        while len(data) >= 6 and len(data) >= 6 + (data[1] & 127):
            length, mask = data[1] & 127, data[2:6]
            content = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data[6 : 6 + length]))
            connection.send(bytes([data[0], length]) + content)
            if data[0] & 15 == 8:
                connection.close()
                return
            data = data[6 + length :]


class Edits(Recording):
    """Writes what the page says on a WebSocket anew, in both directions."""

    def filter_stream_chunk(self, chunk: StreamChunk) -> ChunkDecision:
        if chunk.frame_kind != FrameKind.WEBSOCKET_TEXT:
            return ChunkDecision.PASS
        return ChunkDecision.replace(f"{chunk.text}, edited")


@pytest.mark.parametrize("speaks", ["http/1.1", "h2"])
@pytest.mark.parametrize(("handler", "got"), [(Recording, "over a stream"), (Edits, "over a stream, edited, edited")])
def test_a_websocket_on_a_stream(
    proxy: ProxyFactory, origin_ca: TestCA, tmp_path: Path, speaks: str, handler: type[Recording], got: str
) -> None:
    """The page says by a request what became of it: the DOM is dumped before a WebSocket has spoken."""
    told = threading.Event()

    def serve(connection: ScriptedConnection, request: Request) -> None:
        connection.send(answer(SOCKET_PAGE, "text/html"))

    def done(connection: ScriptedConnection, request: Request) -> None:
        connection.send(answer(b"", "text/plain"))
        told.set()

    running = proxy(handler())
    with Origin(origin_ca.server_context(HOST, alpn=(speaks,)), host=HOST) as origin:
        origin.settings = {SettingCodes.ENABLE_CONNECT_PROTOCOL: 1}
        origin.script(serve, "/page")
        origin.script(done, "/done")
        origin.script(echo_frames, "/chat")
        with opened(running, origin.url("/page"), tmp_path):
            assert told.wait(60)
        requests = {request.path.partition("?")[0]: request for request in running.handler.requests}
        assert requests["/done"].path == f"/done?{quote(got, safe='')},1000,true"
        assert requests["/chat"].http_version == "HTTP/2"
        assert {request.version for request in origin.requests if request.path == "/chat"} == {"HTTP/2" if speaks == "h2" else "HTTP/1.1"}


def test_a_page_and_what_its_script_fetches(proxy: ProxyFactory, origin: Origin, tmp_path: Path) -> None:
    def serve(connection: ScriptedConnection, request: Request) -> None:
        connection.send(answer(PAGE, "text/html"))

    def serve_data(connection: ScriptedConnection, request: Request) -> None:
        connection.send(answer(b"fetched through the proxy", "text/plain"))

    origin.script(serve, "/page")
    origin.script(serve_data, "/data")
    running = proxy()
    assert "<title>fetched through the proxy</title>" in load(running, origin.url("/page"), tmp_path, trusting=True)
    seen = [request.path for request in running.handler.requests]
    assert "/page" in seen and "/data" in seen
    assert running.metrics().tls_client_failure_count == 0


def test_a_browser_that_does_not_trust_us_says_so(proxy: ProxyFactory, origin: Origin, tmp_path: Path) -> None:
    running = proxy()
    assert "fetched" not in load(running, origin.url("/bytes/10"), tmp_path, trusting=False)
    _, failure = running.handler.wait("on_tls_failure")[0]
    assert (failure.side, failure.reason) == ("client", "unknown_ca")
    assert origin.requests == []


def test_a_page_of_a_hundred_resources_over_http2(proxy: ProxyFactory, origin_ca: TestCA, tmp_path: Path) -> None:
    count = 100
    loads = "".join(f"load({number});" for number in range(count))
    page = (
        "<!doctype html><title>start</title><script>let done = 0; function load(n) { fetch('/bytes/' + n * 100)"
        ".then(r => r.arrayBuffer()).then(b => { if (b.byteLength === n * 100) document.title = 'loaded ' + ++done }) }"
        f"{loads}</script>"
    ).encode()
    with Origin(origin_ca.server_context(HOST, alpn=["h2", "http/1.1"]), host=HOST) as origin:
        origin.script(lambda connection, request: connection.send(answer(page, "text/html")), "/page")
        running = proxy()
        assert f"<title>loaded {count}</title>" in load(running, origin.url("/page"), tmp_path, trusting=True)
        fetched = [request for request in origin.requests if request.path.startswith("/bytes/")]
        assert len(fetched) == count and {request.version for request in fetched} == {"HTTP/2"}
    versions = {request.http_version for request in running.handler.requests if request.path.startswith("/bytes/")}
    assert versions == {"HTTP/2"} and running.metrics().tls_client_failure_count == 0
