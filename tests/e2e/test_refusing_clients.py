"""Programs that people use, refusing our certificate in their own way: broken twice, then connected to the origin itself."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate

from support.certs import TestCA
from support.origin import Origin
from support.origin_answers import pattern
from support.running import ProxyFactory, Running
from support.source import ROOT

PROGRAMS = ROOT / "tests" / "support" / "refusing"

Command = list[str | Path]
Client = Callable[[Running, Origin, Path], Command]
"""Makes the command line of a program that trusts the roots in a file, and nobody else."""


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def curl(running: Running, origin: Origin, roots: Path, *options: str) -> Command:
    return [tool("curl"), "-q", "-sS", "--max-time", "25", "--proxy", running.url, "--cacert", roots, *options, origin.url("/close/5")]


def python(running: Running, origin: Origin, roots: Path) -> Command:
    script = (
        "import ssl, sys, urllib.request as u\n"
        "context = ssl.create_default_context(cafile=sys.argv[2])\n"
        "opener = u.build_opener(u.ProxyHandler({'https': sys.argv[1]}), u.HTTPSHandler(context=context))\n"
        "sys.stdout.buffer.write(opener.open(sys.argv[3], timeout=20).read())\n"
    )
    return [tool("python3"), "-I", "-c", script, running.url, roots, origin.url("/close/5")]


def openssl(running: Running, origin: Origin, roots: Path, version: str) -> Command:
    target = f"localhost:{origin.port}"
    proxy = ("-proxy", f"127.0.0.1:{running.port}", "-connect", target, "-servername", "localhost")
    return [tool("openssl"), "s_client", *proxy, "-CAfile", roots, "-verify_return_error", "-quiet", version]


def node(running: Running, origin: Origin, roots: Path) -> Command:
    return [tool("node"), PROGRAMS / "client.js", str(running.port), f"localhost:{origin.port}", roots]


def java(running: Running, origin: Origin, roots: Path) -> Command:
    return [tool("java"), PROGRAMS / "Client.java", str(running.port), f"localhost:{origin.port}", roots]


@pytest.fixture(scope="module")
def go_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("go") / "refusing-client"
    command = [tool("go"), "build", "-o", str(program), str(PROGRAMS / "client.go")]
    subprocess.run(command, check=True, env={**os.environ, "GO111MODULE": "off"}, timeout=110)
    return program


CLIENTS: dict[str, Client] = {
    "curl": curl,
    "curl, TLS 1.2": lambda running, origin, roots: curl(running, origin, roots, "--tls-max", "1.2"),
    "python": python,
    "openssl, TLS 1.2": lambda running, origin, roots: openssl(running, origin, roots, "-tls1_2"),
    "openssl, TLS 1.3": lambda running, origin, roots: openssl(running, origin, roots, "-tls1_3"),
    "node": node,
    "java": java,
}


def run(command: Command) -> tuple[bool, bytes]:
    """Run a program; tell whether it succeeded, and what it printed."""
    request = b"GET /close/5 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    done = subprocess.run([str(word) for word in command], input=request, capture_output=True, timeout=60, check=False)
    return done.returncode == 0, done.stdout


def refused_until_tunnelled(running: Running, origin: Origin, command: Command) -> None:
    for count in (1, 2):
        succeeded, output = run(command)
        assert not succeeded and pattern(5) not in output
        running.handler.wait("on_connection_close", count)
        assert running.metrics().tls_client_refusal_count == count
        assert origin.requests == []
    (bypass,) = running.handle.tls_bypasses()
    succeeded, output = run(command)
    assert succeeded and output.endswith(pattern(5))
    assert running.handler.requests == []
    metrics = running.metrics()
    assert (metrics.tls_client_refusal_count, metrics.tls_bypassed_connection_count) == (2, 1)
    assert (bypass.host, bypass.port, bypass.failures) == ("localhost", origin.port, 2)


@pytest.fixture
def running(proxy: ProxyFactory, monkeypatch: pytest.MonkeyPatch) -> Running:
    # a busy machine is not to decide whether a departure was prompt
    monkeypatch.setattr("soth_mitm.proxy.learning.PROMPT_SECONDS", 60.0)
    return proxy(**{"tls.bypass_after_failures": 2})


@pytest.fixture
def origin_roots(origin_ca: TestCA, tmp_path: Path) -> Path:
    path = tmp_path / "trusted.pem"
    path.write_bytes(origin_ca.cert_pem)
    return path


@pytest.mark.parametrize("name", CLIENTS)
def test_a_program_that_does_not_trust_us(running: Running, origin: Origin, origin_roots: Path, name: str) -> None:
    refused_until_tunnelled(running, origin, CLIENTS[name](running, origin, origin_roots))


def test_a_go_program_that_does_not_trust_us(running: Running, origin: Origin, origin_roots: Path, go_program: Path) -> None:
    refused_until_tunnelled(running, origin, [go_program, str(running.port), f"localhost:{origin.port}", origin_roots])


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_curl_with_the_pin_of_the_origin(running: Running, origin: Origin, version: str) -> None:
    certificate = load_pem_x509_certificate(ssl.get_server_certificate(("127.0.0.1", origin.port)).encode())
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pin = "sha256//" + base64.b64encode(hashlib.sha256(key).digest()).decode()
    refused_until_tunnelled(running, origin, curl(running, origin, running.ca_path, "-k", "--pinnedpubkey", pin, "--tls-max", version))


@pytest.mark.parametrize("name", ["node", "java", "go"])
def test_a_pin_that_nothing_fits(running: Running, origin: Origin, request: pytest.FixtureRequest, name: str) -> None:
    """These trust our CA and refuse all the same; the origin they would refuse too."""
    if name == "go":
        command: Command = [request.getfixturevalue("go_program"), str(running.port), f"localhost:{origin.port}", running.ca_path]
    else:
        command = {"node": node, "java": java}[name](running, origin, running.ca_path)
    for count in (1, 2):
        succeeded, _ = run([*command, "pin"])
        assert not succeeded
        running.handler.wait("on_connection_close", count)
    assert [bypass.failures for bypass in running.handle.tls_bypasses()] == [2]
    assert origin.requests == []
