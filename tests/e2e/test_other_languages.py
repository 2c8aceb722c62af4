"""Clients written in Go, JavaScript, Java and Rust, with what their languages bring: each does the same and must get the same."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from soth_mitm import InterceptHandler
from support.origin import Origin, Request, ScriptedConnection
from support.origin_answers import pattern
from support.programs import CLIENTS, DIGEST, PATIENCE, build_rust, needed, run
from support.recording import Recording
from support.running import ProxyFactory, Running


def sha256(count: int) -> str:
    return hashlib.sha256(pattern(count)).hexdigest()


EXPECTED: dict[str, Any] = {
    "get": sha256(100_000),
    "chunked": sha256(70_000),
    "trailer": sha256(70_000),
    "posted": DIGEST,
    "streamed": DIGEST,
    "trailed": True,
    "head": 5000,
    "statuses": [204, 304, 404, 500],
    "early": "</style.css>; rel=preload",
    "expected": DIGEST,
    "continued": True,
    "switched": "ready\nping",
    "parallel": 40,
    "pipelined": 100,
    "fetched": sha256(77),
    "plain": sha256(9),
}
HANDLERS = {"seen": {}, "streamed": {"body.buffer_request_bodies": False}, "monitor": {"intercept_mode": "monitor"}}


def expected(*missing: str) -> dict[str, Any]:
    """Return what a client gets, but for what its language does not show."""
    return {name: value for name, value in EXPECTED.items() if name not in missing}


def reported(done: subprocess.CompletedProcess[bytes]) -> Any:
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def switch(connection: ScriptedConnection, request: Request) -> None:
    """Speak something else than HTTP: first, and then the same as the client."""
    connection.send(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nready\n")
    connection.send(connection.receive_exactly(4))
    connection.close()


def check_origin(running: Running, origin: Origin) -> None:
    """Check that the handler saw each request that the origin got."""
    served = running.handler.wait("on_request", len(origin.requests) + 1)
    over_tls = sorted(request.path for request in served if request.scheme == "https")
    assert over_tls == sorted(request.target for request in origin.requests)
    assert all(request.get("upgrade") is None for request in origin.requests if request.target != "/attach")


@pytest.fixture(params=[*HANDLERS, "unseen"])
def running(request: pytest.FixtureRequest, proxy: ProxyFactory) -> Running:
    """A proxy whose handler sees everything, in each way that bodies are treated, and one whose handler sees nothing."""
    return proxy(InterceptHandler()) if request.param == "unseen" else proxy(Recording(), **HANDLERS[request.param])


@pytest.fixture(scope="module")
def go_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go client, compiled once."""
    go = needed("go", Path("/usr/local/go/bin/go"))
    program = tmp_path_factory.mktemp("go") / "client"
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": "", "CGO_ENABLED": "0"}
    done = run(go, "build", "-o", program, CLIENTS / "go" / "main.go", environment=environment, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr.decode()
    return program


def test_go(go_client: Path, running: Running, origin: Origin, plain_origin: Origin) -> None:
    """net/http, and a client that pipelines."""
    origin.script(switch, "/attach")
    done = run(go_client, running.url, running.ca_path, origin.url(""), plain_origin.url(""), timeout=PATIENCE)
    assert reported(done) == expected("fetched")
    if isinstance(running.handler, Recording):
        check_origin(running, origin)


def test_node(running: Running, origin: Origin, plain_origin: Origin) -> None:
    """http, https and tls, as they come with Node."""
    origin.script(switch, "/attach")
    script = CLIENTS / "node.js"
    done = run(needed("node"), script, running.url, running.ca_path, origin.url(""), plain_origin.url(""), timeout=PATIENCE)
    assert reported(done) == expected("pipelined", "fetched")
    if isinstance(running.handler, Recording):
        check_origin(running, origin)


def test_undici(running: Running, origin: Origin, plain_origin: Origin) -> None:
    """Its ProxyAgent, where npm has installed it globally or NODE_PATH says where it is."""
    node = needed("node")
    paths = [os.environ.get("NODE_PATH", ""), run(needed("npm"), "root", "-g").stdout.decode().strip()]
    environment = {**os.environ, "NODE_PATH": os.pathsep.join(filter(None, paths))}
    if run(node, "-e", "require.resolve('undici')", environment=environment).returncode != 0:
        pytest.skip("undici is not installed (npm install -g undici)")
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    origin.script(lambda connection, request: connection.send(hints), "/hints")
    arguments = (CLIENTS / "node.js", running.url, running.ca_path, origin.url(""), plain_origin.url(""), "undici")
    done = run(node, *arguments, environment=environment, timeout=PATIENCE)
    assert reported(done) == expected("trailed", "expected", "continued", "switched", "pipelined")


def test_java(proxy: ProxyFactory, origin: Origin, plain_origin: Origin, tmp_path: Path) -> None:
    """java.net.http, which asks for HTTP/2 wherever it can."""
    java, keytool = needed("java"), needed("keytool")
    running = proxy()
    store = tmp_path / "trusted"
    options = ("-importcert", "-noprompt", "-alias", "proxy", "-storetype", "PKCS12", "-storepass", "changeit")
    done = run(keytool, *options, "-keystore", store, "-file", running.ca_path)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    trust = (f"-Djavax.net.ssl.trustStore={store}", "-Djavax.net.ssl.trustStorePassword=changeit")
    program = (CLIENTS / "JavaClient.java", str(running.port), origin.url(""), plain_origin.url(""))
    done = run(java, *trust, *program, timeout=PATIENCE)
    assert reported(done) == expected("trailer", "trailed", "early", "continued", "switched", "pipelined", "fetched")
    check_origin(running, origin)
    assert all(request.get("upgrade") is None and request.get("http2-settings") is None for request in plain_origin.requests)


@pytest.fixture(scope="module")
def rust_client() -> Path:
    """The Rust client, compiled once and kept."""
    return build_rust()


def test_rust(rust_client: Path, running: Running, origin: Origin, plain_origin: Origin) -> None:
    """ureq on rustls, which tunnels plain HTTP too."""
    done = run(rust_client, running.url, running.ca_path, origin.url(""), plain_origin.url(""), timeout=PATIENCE)
    assert reported(done) == expected("trailer", "trailed", "early", "expected", "continued", "switched", "pipelined", "fetched")
    if isinstance(running.handler, Recording):
        check_origin(running, origin)
