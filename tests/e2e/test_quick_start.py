"""The examples that the documents show, run for real: real sockets, real TLS, against an origin of this process."""

import asyncio
import importlib.util
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

import soth_mitm
from soth_mitm import MitmConfig, MitmProxy, MitmProxyBuilder, MitmProxyHandle, ProxyMetrics
from support.certs import TestCA
from support.origin import Origin
from support.source import ROOT


def example(name: str) -> ModuleType:
    """Import a file of docs/examples under its own name."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs/examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def config(tmp_path: Path) -> MitmConfig:
    """A configuration that touches nothing of this machine; the examples add to it."""
    config = MitmConfig(bind="127.0.0.1:0")
    config.tls.ca_cert_path, config.tls.ca_key_path = tmp_path / "state/ca.pem", tmp_path / "state/ca-key.pem"
    config.upstream.ca_bundle_path = tmp_path / "roots.pem"
    return config


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[Origin]:
    ca = TestCA()
    (tmp_path / "roots.pem").write_bytes(ca.cert_pem)
    with Origin(ca.server_context("localhost")) as origin:
        yield origin


def fetch(url: str, port: int, ca: Path, body: bytes | None = None) -> tuple[int, bytes]:
    """Send one request through the proxy, on a connection of its own."""
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({"https": f"http://127.0.0.1:{port}"}),
        urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca)),
    )
    try:
        with opener.open(urllib.request.Request(url, data=body), timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_quick_start(origin: Origin, config: MitmConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """`main` runs word for word; what it starts is used before it reads the metrics and shuts down."""
    answers: list[tuple[int, bytes]] = []
    seen: list[ProxyMetrics] = []

    class Used(MitmProxy):
        async def start(self) -> MitmProxyHandle:
            handle = await super().start()
            for path in ("allowed", "blocked"):
                url = f"https://localhost:{origin.port}/{path}"
                answers.append(await asyncio.to_thread(fetch, url, handle.port, handle.ca_certificate_path))
            seen.append(handle.metrics())
            return handle

    class Builder(MitmProxyBuilder):
        def build(self) -> MitmProxy:
            assert "api.example.com:443" in config.interception.destinations
            super().build()
            return Used(config, self._handler)

    module = example("quick_start")
    config.interception.destinations.append(f"localhost:{origin.port}")
    monkeypatch.setattr(module, "MitmConfig", lambda: config)
    monkeypatch.setattr(module, "MitmProxyBuilder", Builder)
    asyncio.run(module.main())

    assert [status for status, _ in answers] == [200, 403]
    assert answers[1][1] == b"blocked by policy"
    assert [request.target for request in origin.wait_requests(1)] == ["/allowed"]
    assert (seen[0].allowed_request_count, seen[0].blocked_request_count) == (1, 1)


def test_the_quick_start_leaves_a_trusted_agent_alone() -> None:
    gate = example("quick_start").Gate()
    trusted = "/opt/agent/bin/trusted-local-agent"
    assert not gate.should_intercept_tls("api.example.com", soth_mitm.ProcessInfo(pid=1, exe_path=trusted))
    # what merely calls itself so
    copy = soth_mitm.ProcessInfo(pid=1, exe_name="trusted-local-agent", exe_path="/tmp/trusted-local-agent")
    assert gate.should_intercept_tls("api.example.com", copy)
    assert gate.should_intercept_tls("api.example.com", soth_mitm.ProcessInfo(pid=1, exe_path=f"{trusted} (deleted)"))
    assert gate.should_intercept_tls("api.example.com", None)


def test_gate_keeps_private_keys_here(origin: Origin, config: MitmConfig) -> None:
    config.interception.destinations.append(f"localhost:{origin.port}")
    with MitmProxyBuilder(config, example("gate").Gate()).build().start_in_thread() as handle:
        send = partial(fetch, f"https://localhost:{origin.port}/upload", handle.port, handle.ca_certificate_path)
        assert send(b"a public thing")[0] == 200
        assert send(b"x\n-----BEGIN EC PRIVATE KEY-----\nMIG") == (403, b"a private key does not leave this machine\n")
    assert [request.body for request in origin.wait_requests(1)] == [b"a public thing"]


def test_watch_llm_prints_each_event(origin: Origin, config: MitmConfig, capsys: pytest.CaptureFixture[str]) -> None:
    config.interception.destinations.append(f"localhost:{origin.port}")
    with MitmProxyBuilder(config, example("watch_llm").WatchLlm()).build().start_in_thread() as handle:
        status, body = fetch(f"https://localhost:{origin.port}/sse/3/1", handle.port, handle.ca_certificate_path, b"why?")
    assert status == 200
    said = capsys.readouterr().out
    assert f"asked localhost:{origin.port}: why?" in said
    assert [line[:4].strip() for line in said.splitlines() if ": " in line[4:] and line[:4].strip().isdigit()] == ["0", "1", "2"]
    assert body.count(b"data:") == 3


def test_in_thread(origin: Origin, config: MitmConfig) -> None:
    url = f"https://localhost:{origin.port}/bytes/5"
    assert example("in_thread").fetch_through_proxy(url, config) == [(url, 200)]


def test_run_program(config: MitmConfig, tmp_path: Path) -> None:
    ca = TestCA()
    (tmp_path / "roots.pem").write_bytes(ca.cert_pem)
    fetch_it = "import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=20).read()"
    with Origin(ca.server_context("api.example.com")) as origin:
        config.interception.destinations.append("api.example.com:443")
        config.upstream.connect_to = [f"api.example.com:443=127.0.0.1:{origin.port}"]
        url = "https://api.example.com/bytes/5"
        assert asyncio.run(example("run_program").run_program(config, sys.executable, "-c", fetch_it, url)) == [url]


@pytest.mark.skipif(sys.platform == "win32", reason="the demo's scripts are for POSIX shells")
def test_demo_plays_to_its_end() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts/run_demo.py"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for part in ("decision: allow", "the upstream heard of it: no", "event 11: [DONE]", "stream_chunk_count"):
        assert part in done.stdout, done.stdout
