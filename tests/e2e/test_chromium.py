"""A page in headless Chromium, whose user trusts our CA in an NSS database: no warning, no flag that ignores errors."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.certs import TestCA
from support.origin import Origin, ScriptedConnection
from support.origin_messages import Request
from support.running import HOST, ProxyFactory, Running

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PAGE = b"<!doctype html><title>start</title><script>fetch('/data').then(r => r.text()).then(t => { document.title = t })</script>"
# the page itself, and nothing that a browser asks its vendor on its own account
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --virtual-time-budget=5000"
).split()

pytestmark = pytest.mark.skipif(CHROMIUM is None or shutil.which("certutil") is None, reason="no chromium, or no certutil (libnss3-tools)")


def answer(body: bytes, kind: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def load(running: Running, url: str, home: Path, *, trusting: bool) -> str:
    """Return the page's DOM after its scripts ran, as a browser that is fresh sees it."""
    database = home / ".pki" / "nssdb"
    database.mkdir(parents=True)
    subprocess.run(["certutil", "-N", "--empty-password", "-d", f"sql:{database}"], check=True)
    if trusting:
        subprocess.run(["certutil", "-A", "-d", f"sql:{database}", "-t", "C,,", "-n", "ours", "-i", running.ca_path], check=True)
    assert CHROMIUM is not None
    command = [CHROMIUM, *QUIET, f"--user-data-dir={home / 'data'}", f"--proxy-server={running.url}", "--proxy-bypass-list=<-loopback>"]
    done = subprocess.run(
        [*command, "--dump-dom", url], env={**os.environ, "HOME": str(home)}, capture_output=True, timeout=60, check=False
    )
    return done.stdout.decode()


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
