"""The examples that the documents show, run for real: real sockets, real TLS, against an origin of this process."""

import asyncio
import importlib.util
import re
import signal
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
from soth_mitm import MitmConfig, MitmProxyBuilder
from support import model_answers
from support.certs import TestCA
from support.origin import Origin, ScriptedConnection
from support.origin_answers import head
from support.origin_messages import Request
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


RUN_QUICK_START = """
import sys
sys.path.insert(0, sys.argv[1])
import quick_start
from soth_mitm import MitmConfig
quick_start.main(MitmConfig.from_file(sys.argv[2], env=None))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a signal ends it")
def test_quick_start(tmp_path: Path) -> None:
    """It says where it listens, serves, shows and blocks requests, and ends in order on Ctrl-C."""
    ca = TestCA()
    (tmp_path / "roots.pem").write_bytes(ca.cert_pem)
    with Origin(ca.server_context("example.com")) as origin:
        (tmp_path / "config.toml").write_text(
            f"""
            bind = "127.0.0.1:0"
            tls.ca_cert_path = "{tmp_path}/ca.pem"
            tls.ca_key_path = "{tmp_path}/ca-key.pem"
            upstream.ca_bundle_path = "{tmp_path}/roots.pem"
            upstream.connect_to = ["example.com:443=127.0.0.1:{origin.port}"]
            """
        )
        command = [sys.executable, "-c", RUN_QUICK_START, ROOT / "docs/examples", tmp_path / "config.toml"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as serving:
            assert serving.stdout is not None
            said = serving.stdout.readline()
            where = re.fullmatch(r"try: curl -x http://127\.0\.0\.1:(\d+) --cacert (\S+) https://example\.com/\n", said)
            assert where is not None, said
            port, path = int(where[1]), Path(where[2])
            assert fetch("https://example.com/allowed", port, path)[0] == 200
            assert fetch("https://example.com/blocked", port, path) == (403, b"blocked by policy\n")
            serving.send_signal(signal.SIGINT)
            rest = serving.stdout.read()
        assert serving.returncode == 0
        assert rest == "GET https://example.com/allowed\nGET https://example.com/blocked\n"
        assert [request.target for request in origin.wait_requests(1)] == ["/allowed"]


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


def test_count_tokens_prints_what_a_call_used(origin: Origin, config: MitmConfig, capsys: pytest.CaptureFixture[str]) -> None:
    config.interception.destinations.append(f"localhost:{origin.port}")
    spoken = model_answers.ANTHROPIC

    def answer(connection: ScriptedConnection, request: Request) -> None:
        connection.read_body()
        connection.send(head(200, ("Content-Type", spoken.media), ("Content-Length", str(len(spoken.stream)))) + spoken.stream)

    origin.script(answer)
    with MitmProxyBuilder(config, example("count_tokens").CountTokens()).build().start_in_thread() as handle:
        url = f"https://localhost:{origin.port}{spoken.path}"
        assert fetch(url, handle.port, handle.ca_certificate_path, spoken.request().body) == (200, spoken.stream)
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == [
        "anthropic-compatible 'claude-sonnet-4-5-20250929': answered, 442 tokens in, 89 out",
        "  400 of them from the cache",
    ]
    assert re.fullmatch(r"  first token after \d+\.\d\d s", said[2])
    assert said[3:] == ["  wants 'weather' with '{\"city\": \"Berlin\"}'", "  wants 'now' with ''"]


def test_slow_flows_prints_what_took_long(origin: Origin, config: MitmConfig, capsys: pytest.CaptureFixture[str]) -> None:
    config.interception.destinations.append(f"localhost:{origin.port}")
    with MitmProxyBuilder(config).with_event_sink(example("slow_flows").SlowFlows(0.0)).build().start_in_thread() as handle:
        assert fetch(f"https://localhost:{origin.port}/bytes/5", handle.port, handle.ca_certificate_path)[0] == 200
    said = capsys.readouterr().out
    assert re.fullmatch(r" +\d\.\d s  GET localhost'/bytes/5' 200, first byte after \d\.\d s\n", said)


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
